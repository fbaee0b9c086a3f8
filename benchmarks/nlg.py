"""A response server that takes its time: it makes every turn of Rasa's last (`python -m benchmarks.nlg PORT SECONDS`).

Rasa asks it for each response (endpoints.yml: `nlg`), as it would ask a language model.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


def main() -> None:
    """Serve until told to stop."""
    seconds = float(sys.argv[2])

    async def respond(_request: web.Request) -> web.Response:
        await asyncio.sleep(seconds)
        return web.json_response({"text": "Hi!"})

    async def health(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_post("/", respond)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
