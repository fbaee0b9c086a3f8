"""Records webhooks as the channel does, without Rasa (`python tests/receiving.py FOLDER PORT`)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from otn import intake
from otn.app import SENDING, App, open_app
from otn.errors import StoreUnavailable
from otn.events import parse
from otn.store.writer import GroupWriter


async def serve(app: App, port: int) -> None:
    """Answer 200 for what is durable, 503 while the database does not answer."""
    writer = GroupWriter(app.store)

    async def webhook(request: web.Request) -> web.Response:
        now, vault = app.clock(), app.require_vault()
        events = parse(await request.read(), now)
        own, sealed = {event.page_id for event in events}, intake.seal(vault, events)
        try:
            await writer.run(lambda tx: intake.record(tx, vault, sealed, own_pages=own, now=now))
        except StoreUnavailable:
            return web.Response(status=503)
        return web.Response()

    server = web.Application()
    server.router.add_post("/", webhook)
    server.router.add_get("/", lambda _: asyncio.sleep(0, web.Response()))
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(open_app(Path(sys.argv[1]), {}, need=SENDING), int(sys.argv[2])))
