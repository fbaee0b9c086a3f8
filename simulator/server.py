"""The web application: Graph for the bot, control for everybody else on this machine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from simulator.chat import Chat
from simulator.config import Config
from simulator.control import Control
from simulator.graph import LONGEST_BODY, Graph
from simulator.stream import Stream
from simulator.world import World

WORLD = web.AppKey("world", World)

# Loopback only: the control API signs whatever it is given.
HOST = "127.0.0.1"


def create_app(
    config: Config,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> web.Application:
    """Build the simulator. `wall` and `monotonic` are the clocks of the machine, for tests to hold still."""
    world = World(config, wall, monotonic)
    app = web.Application(client_max_size=LONGEST_BODY)
    app[WORLD] = world
    # In this order: aiohttp tries one route after the other, and the bot's are the busy ones.
    app.add_routes(Graph(world).routes())
    app.add_routes(Control(world).routes())
    app.add_routes(Stream(world).routes())
    app.add_routes(Chat().routes())
    app.cleanup_ctx.append(_outbox)
    # aiohttp 3.9 was typed for an older aiosignal.
    app.on_shutdown.append(_let_waiting_go)  # type: ignore[arg-type]
    return app


async def start(app: web.Application, port: int) -> tuple[web.AppRunner, str]:
    """Listen on loopback; the runner to clean up later, and the address. Port 0 is any free one."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port, backlog=1024).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, f"http://{HOST}:{runner.addresses[0][1]}"


async def _outbox(app: web.Application) -> AsyncIterator[None]:
    await app[WORLD].outbox.start()
    if app[WORLD].monotonic is time.monotonic:  # a clock that somebody holds says nothing of the loop
        app[WORLD].pulse.start()
    yield
    app[WORLD].pulse.stop()
    await app[WORLD].outbox.stop()


async def _let_waiting_go(app: web.Application) -> None:
    """End long polls and silences, so that stopping takes no time."""
    app[WORLD].stopping.set()
    app[WORLD].journal.close()
    app[WORLD].outbox.clear()
