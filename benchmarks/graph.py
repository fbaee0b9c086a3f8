"""A Graph API that waits, says yes and counts: the sink of every load (`python -m benchmarks.graph PORT`).

It checks nothing, which makes it quick: a tenth of a second of waiting is nearly all that a call costs.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final

from aiohttp import web

PAGE_ID: Final = "1001"
SECONDS: Final = 0.1  # what one call takes


class Graph:
    """Counts the messages of a round; sender actions and questions are answered and not counted."""

    def __init__(self) -> None:
        self._messages = 0
        self._calls = 0
        self._last_at = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        """Take a call."""
        body = await request.read()
        self._calls += 1
        if b'"message"' in body:
            self._messages += 1
            self._last_at = time.monotonic()  # of the machine, so that another process may compare
        await asyncio.sleep(SECONDS)
        return web.json_response(
            {"id": PAGE_ID, "name": "Benchmark", "recipient_id": "1", "message_id": f"m_{self._calls}"}
        )

    async def tell(self, _request: web.Request) -> web.Response:
        """How many messages and calls came since the last time this was reset, and when the last message did."""
        return web.json_response({"messages": self._messages, "calls": self._calls, "last_at": self._last_at})

    async def reset(self, _request: web.Request) -> web.Response:
        """Begin to count anew."""
        self._messages = self._calls = 0
        return web.Response()


def main() -> None:
    """Serve until told to stop."""
    graph, app = Graph(), web.Application()
    app.router.add_get("/health", graph.tell)
    app.router.add_get("/count", graph.tell)
    app.router.add_post("/reset", graph.reset)
    app.router.add_route("*", "/{path:.*}", graph.answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
