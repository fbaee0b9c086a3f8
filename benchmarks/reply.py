"""A server that gives one reply to everything, after a time (`python -m benchmarks.reply PORT SECONDS JSON`).

It stands for what Rasa asks in a turn: an action server (endpoints.yml: `action_endpoint`), or a response server
(`nlg`) that takes as long as a language model.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


def main() -> None:
    """Serve until told to stop."""
    seconds, reply = float(sys.argv[2]), sys.argv[3]

    async def respond(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(seconds)
        return web.json_response(text=reply)

    async def health(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_post("/", respond)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
