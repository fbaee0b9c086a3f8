"""The chat page: static files from `simulator/page`, and the headers that let nothing else in."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from simulator.control import guarded

FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# A bot on this machine may show pictures from this machine; nothing else is loaded from anywhere else.
_LOOPBACK = "http://127.0.0.1:* http://localhost:* https://127.0.0.1:* https://localhost:*"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self' {_LOOPBACK}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Files are asked for again each time: whoever edits one only has to reload.
    "Cache-Control": "no-cache",
}


class Chat:
    """Serves the page at `/` and its files below /simulator/page."""

    def routes(self) -> list[web.RouteDef]:
        """The page, its files, and the address that people guess."""
        return [
            web.get("/", guarded(self.show)),
            web.get("/simulator", guarded(self.lead)),
            web.get("/simulator/", guarded(self.lead)),
            web.get("/simulator/page/{name}", guarded(self.asset)),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The page itself."""
        return _file("index.html")

    async def lead(self, request: web.Request) -> web.Response:
        """To the page."""
        return web.Response(status=302, headers={"Location": "/"})

    async def asset(self, request: web.Request) -> web.Response:
        """One of its files, by the name it has in the folder."""
        return _file(request.match_info["name"])


def _file(name: str) -> web.Response:
    """A file of the folder; the name is looked up among those there, so that it leads nowhere else."""
    known = {path.name: path for path in FOLDER.iterdir() if path.suffix in _TYPES}
    if name not in known:
        return web.json_response({"error": f"the chat page has no file {name}"}, status=404)
    path = known[name]
    return web.Response(
        body=path.read_bytes(), content_type=_TYPES[path.suffix], charset="utf-8", headers=_HEADERS
    )
