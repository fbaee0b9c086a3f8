"""An action server that has everything in stock, and says so at once (`python -m benchmarks.stock PORT`)."""

from __future__ import annotations

import sys

from aiohttp import web

_ANSWER = {
    "events": [{"event": "slot", "timestamp": None, "name": "stock", "value": "in_stock"}],
    "responses": [],
}


def main() -> None:
    """Serve until told to stop."""

    async def run_action(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(_ANSWER)

    async def health(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_post("/", run_action)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
