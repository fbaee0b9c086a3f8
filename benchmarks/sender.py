"""Who sends when no limit holds them back (`python -m benchmarks.sender WHICH GRAPH NUMBER`, in a project).

`worker` is our sender with the Page's rate lifted; `bare` is an aiohttp loop that posts as many messages over as many
connections and does nothing else. Prints when it began and ended, the CPU seconds between,
and how long the machine had been idle then, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks.machine import idle_seconds
from otn import mailing
from otn.app import SENDING, open_app
from otn.mailing import Pace

AT_ONCE: Final = 240  # messages on their way
PACE: Final = Pace(per_second=None, batch=10, lanes=AT_ONCE // 10)


def main() -> None:
    """Send, and tell what it cost."""
    which, graph, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    jobs: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "worker": worker,
        "bare": lambda: bare(f"{graph}/v26.0/1001/messages", number),
    }
    job = jobs[which]()
    began, cpu, idle = time.monotonic(), time.process_time(), idle_seconds()
    asyncio.run(job)
    told = {"began": began, "ended": time.monotonic(), "cpu": time.process_time() - cpu}
    print(json.dumps({**told, "idle_at_begin": idle, "idle_at_end": idle_seconds()}))


async def worker() -> None:
    """Our sender, until nothing is due."""
    app = open_app(Path.cwd(), need=SENDING)
    await mailing.send_due(app, threading.Event(), None, PACE)


async def bare(url: str, number: int) -> None:
    """A loop that posts."""
    waiting = iter(range(number))

    async def post_all(session: aiohttp.ClientSession) -> None:
        for each in waiting:
            body = {"recipient": {"id": f"8{each}"}, "message": {"text": "Our spring collection is here."}}
            async with session.post(url, json=body) as answer:
                await answer.json()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:
        await asyncio.gather(*(post_all(session) for _ in range(AT_ONCE)))


if __name__ == "__main__":
    main()
