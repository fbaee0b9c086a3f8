"""A Graph API that waits, says yes and counts: the sink of every load (`python -m benchmarks.graph PORT [SECONDS]`).

It checks nothing, which makes it quick: waiting, a tenth of a second unless told otherwise, is nearly all that a
call costs.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Final

from aiohttp import web

PAGE_ID: Final = "1001"
SECONDS: Final = 0.1  # what one call takes


class Graph:
    """Counts the messages of a round; sender actions and questions are answered and not counted."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._messages = 0
        self._first_at = self._last_at = 0.0
        self._second: deque[float] = deque()  # when the messages of the last second arrived
        self._most = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Take a call."""
        body = await request.read()
        self._calls += 1
        if b'"message"' in body:
            self._count(time.monotonic())  # of the machine, so that another process may compare
        await asyncio.sleep(self._seconds)
        return web.json_response(
            {"id": PAGE_ID, "name": "Benchmark", "recipient_id": "1", "message_id": f"m_{self._calls}"}
        )

    def _count(self, now: float) -> None:
        self._messages += 1
        self._first_at, self._last_at = self._first_at or now, now
        self._second.append(now)
        while self._second[0] <= now - 1:
            self._second.popleft()
        self._most = max(self._most, len(self._second))

    async def tell(self, _request: web.Request) -> web.Response:
        """How many messages came since this was reset, when the first and the last, how many in any one second."""
        return web.json_response(
            {
                "messages": self._messages,
                "first_at": self._first_at,
                "last_at": self._last_at,
                "most_a_second": self._most,
            }
        )

    async def reset(self, _request: web.Request) -> web.Response:
        """Begin to count anew."""
        self._begin_anew()
        return web.Response()


def main() -> None:
    """Serve until told to stop."""
    graph, app = Graph(float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS), web.Application()
    app.router.add_get("/health", graph.tell)
    app.router.add_get("/count", graph.tell)
    app.router.add_post("/reset", graph.reset)
    app.router.add_route("*", "/{path:.*}", graph.answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
