"""The journal as server-sent events, for the chat page: `GET /simulator/stream`.

Each entry of the journal is an event whose id says where to go on; a browser that lost the connection sends the id
back and misses nothing. Before them comes `hello`, and `reset` whenever the simulator forgot everything.
"""

from __future__ import annotations

import json
import secrets
from urllib.parse import urlsplit

from aiohttp import web

from simulator.control import guarded
from simulator.journal import Filter
from simulator.people import Json
from simulator.world import World

# What a reader who asks for nothing else gets of the past.
PAST_ENTRIES = 500
# Entries in one write: a reader who is far behind does not hold up the others.
CHUNK = 500
# Between two signs of life; a reader who has left is noticed by them.
HEARTBEAT_SECONDS = 15.0

# How soon a browser that lost the connection tries again.
RETRY_MILLISECONDS = 1000


class Stream:
    """Serves any number of readers, each from a place of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        # Numbers begin anew when the simulator does: an id of an earlier run says nothing about this one.
        self._run = secrets.token_hex(4)

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.get("/simulator/stream", guarded(self.follow))]

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Entries as they come, after `Last-Event-ID`, else after `after`, else with the latest of the past."""
        after, resumed = self._start(request)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        try:
            await response.write(f"retry: {RETRY_MILLISECONDS}\n".encode())
            await response.write(_event("hello", {**self._hello(), "resumed": resumed}))
            await self._tell(response, after)
        except ConnectionResetError:
            pass  # the reader has left
        return response

    async def _tell(self, response: web.StreamResponse, after: int) -> None:
        journal = self._world.journal
        cleared = journal.cleared
        while not self._world.stopping.is_set():
            if journal.cleared != cleared:
                cleared = journal.cleared
                await response.write(_event("reset", self._hello()))
            entries, after = journal.read(Filter(after=after), CHUNK)
            if entries:
                await response.write(self._lines(entries, after).encode())
            else:
                await response.write(b": still here\n\n")
                await journal.wait(Filter(after=after), HEARTBEAT_SECONDS)

    def _lines(self, entries: list[str], last: int) -> str:
        """Entries have no gaps here, since nothing is filtered out: the first one's number follows."""
        first = last - len(entries) + 1
        return "".join(
            f"id: {self._run}-{first + index}\ndata: {text}\n\n" for index, text in enumerate(entries)
        )

    def _start(self, request: web.Request) -> tuple[int, bool]:
        """After which entry to begin, and whether that goes on from where the reader was."""
        run, _, seq = request.headers.get("Last-Event-ID", "").partition("-")
        last = self._world.journal.last
        if run == self._run and seq.isdecimal() and int(seq) <= last:
            return int(seq), True
        after = request.query.get("after", "")
        return (min(int(after), last) if after.isdecimal() else max(0, last - PAST_ENTRIES)), False

    def _hello(self) -> Json:
        """What a reader has to know once: the Pages, the bot's address without its secrets, and the time."""
        world, bot = self._world, urlsplit(self._world.config.webhook_url)
        return {
            "pages": [
                {"page_id": state.page.id, "name": state.page.name, "subscribed": bool(state.fields)}
                for state in world.pages.values()
            ],
            "bot": f"{bot.hostname}:{bot.port or (443 if bot.scheme == 'https' else 80)}{bot.path}",
            "now": world.clock.now(),
            "offset": world.clock.offset(),
            "clock_is_shared": world.config.clock_file is not None,
            "last": world.journal.last,
        }


def _event(name: str, data: Json) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
