"""The simulator inside a test: real sockets on a free loopback port, and the world at hand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from simulator.config import DEFAULT_PAGE_ID, DEFAULT_PAGE_NAME, DEFAULT_WEBHOOK_URL, Config, Page
from simulator.server import WORLD, create_app, start
from simulator.world import World

PAGE_TOKEN = "page-access-token"  # noqa: S105 - made up, for tests
APP_SECRET = "app-secret"  # noqa: S105 - made up, for tests
VERIFY_TOKEN = "verify-token"  # noqa: S105 - made up, for tests


class Running(NamedTuple):
    """A simulator that answers: its address without a trailing slash, and its state."""

    url: str
    world: World


def made_up_config(webhook_url: str = DEFAULT_WEBHOOK_URL, **more: object) -> Config:
    """A configuration with made-up secrets and one Page; `more` overrides any field of Config."""
    page = Page(id=DEFAULT_PAGE_ID, name=DEFAULT_PAGE_NAME, token=PAGE_TOKEN)
    fields: dict[str, object] = {
        "app_secret": APP_SECRET,
        "verify_token": VERIFY_TOKEN,
        "pages": (page,),
        "webhook_url": webhook_url,
    }
    fields.update(more)
    return Config(**fields)  # type: ignore[arg-type]  # the caller names the fields


@asynccontextmanager
async def running(
    config: Config,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Running]:
    """Serve on a free loopback port until the block ends."""
    app = create_app(config, wall, monotonic)
    runner, url = await start(app, 0)
    try:
        yield Running(url, app[WORLD])
    finally:
        await runner.cleanup()
