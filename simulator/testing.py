"""The simulator inside a test: real sockets on free loopback ports, the world at hand, and time that stands still.

async with on_stage() as stage:
    psid = await stage.person()
    await stage.do(psid, "message", text="hello")
    answer = await stage.send({"id": psid}, {"text": "hello yourself"})
    assert answer.status == 200
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from simulator.config import DEFAULT_PAGE_ID, DEFAULT_PAGE_NAME, DEFAULT_WEBHOOK_URL, Config, Page
from simulator.people import Json
from simulator.server import HOST, WORLD, create_app, start
from simulator.world import World

PAGE_TOKEN = "page-access-token"  # noqa: S105 - made up, for tests
APP_SECRET = "app-secret"  # noqa: S105 - made up, for tests
VERIFY_TOKEN = "verify-token"  # noqa: S105 - made up, for tests

# How long a test waits for something that ought to happen at once.
PATIENCE_SECONDS = 5.0


class Running(NamedTuple):
    """A simulator that answers: its address without a trailing slash, and its state."""

    url: str
    world: World


def made_up_config(webhook_url: str = DEFAULT_WEBHOOK_URL, **more: Any) -> Config:
    """A configuration with made-up secrets and one Page; `more` overrides any field of Config."""
    page = Page(id=DEFAULT_PAGE_ID, name=DEFAULT_PAGE_NAME, token=PAGE_TOKEN)
    fields: dict[str, Any] = {
        "app_secret": APP_SECRET,
        "verify_token": VERIFY_TOKEN,
        "pages": (page,),
        "webhook_url": webhook_url,
    }
    return Config(**{**fields, **more})


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


class Received(NamedTuple):
    """A webhook as it reached the bot."""

    raw: bytes
    headers: Json
    query: Json
    body: Any


class Bot:
    """A bot that only listens. It says 200, or what `answers` holds next: a status, or None for a broken connection.

    While `silent` it says nothing at all; `release` breaks the connections that wait.
    """

    def __init__(self) -> None:
        self.silent = False
        self._released = asyncio.Event()
        self.received: list[Received] = []
        self.answers: deque[int | None] = deque()
        self.url = ""
        self._news = asyncio.Condition()

    def events(self, name: str | None = None) -> list[Json]:
        """All events so far, or those that have `name` (message, postback, optin, …); echoes are `echo`."""
        found: list[Json] = []
        for webhook in self.received:
            for entry in webhook.body["entry"]:
                found += entry.get("messaging", []) + entry.get("standby", [])
        return [event for event in found if name is None or _name(event) == name]

    async def wait_for(self, name: str, count: int = 1) -> list[Json]:
        """The events that have `name`, once there are `count`."""
        await self.until(lambda: len(self.events(name)) >= count)
        return self.events(name)

    async def until(self, true: Callable[[], bool]) -> None:
        """Return once `true()` after some webhook. Raises TimeoutError."""
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(true), PATIENCE_SECONDS)

    def release(self) -> None:
        """End the silence of webhooks that wait, without an answer."""
        self._released.set()

    async def handle(self, request: web.Request) -> web.Response:
        """Take a webhook."""
        raw = await request.read()
        body = None
        if request.method == "POST" and request.headers.get("Content-Type") == "application/json":
            body = await _json_or_none(request)
        async with self._news:
            self.received.append(Received(raw, dict(request.headers), dict(request.query), body))
            self._news.notify_all()
        if self.silent:
            await asyncio.wait_for(self._released.wait(), PATIENCE_SECONDS)
            self.answers.appendleft(None)
        status = self.answers.popleft() if self.answers else 200
        if status is None and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 200, text=request.query.get("hub.challenge", ""))


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    body: Any
    headers: Json

    @property
    def error(self) -> str:
        """A Graph error as `code/subcode`; empty when it is none."""
        error = self.body.get("error", {}) if isinstance(self.body, dict) else {}
        if not isinstance(error, dict) or not error:
            return ""
        return str(error["code"]) + (f"/{error['error_subcode']}" if "error_subcode" in error else "")


@dataclass(slots=True)
class Hands:
    """A clock that stands still until it is moved: call it to read it."""

    value: float

    def __call__(self) -> float:
        return self.value


@dataclass(kw_only=True)
class Stage:
    """A simulator, a bot that listens, and clocks that stand still."""

    url: str
    world: World
    bot: Bot
    wall: Hands
    monotonic: Hands
    session: aiohttp.ClientSession = field(repr=False)

    async def call(self, method: str, path: str, **more: Any) -> Reply:
        """Any HTTP call to the simulator."""
        async with self.session.request(method, self.url + path, **more) as answer:
            text = await answer.text()
            body = await answer.json() if answer.content_type == "application/json" else text
            return Reply(answer.status, body, dict(answer.headers))

    async def person(self, **wish: Any) -> str:
        """Make somebody; their psid."""
        answer = await self.call("POST", "/simulator/people", json=wish)
        return str(answer.body["psid"])

    async def do(self, psid: str, act: str, **wish: Any) -> Reply:
        """Let a person do something: message, tap, notify-me, reaction, referral, read, postback."""
        return await self.call("POST", f"/simulator/people/{psid}/{act}", json=wish)

    async def friend(self, **wish: Any) -> str:
        """Make somebody whose window has just opened."""
        psid = await self.person(**wish)
        await self.do(psid, "message", text="hello")
        return psid

    async def send(self, recipient: Json, message: Json, token: str = PAGE_TOKEN, **more: Any) -> Reply:
        """Send as the bot does."""
        body = {"recipient": recipient, "message": message, **more}
        headers = {"Authorization": f"Bearer {token}"}
        return await self.call("POST", "/v26.0/me/messages", json=body, headers=headers)

    async def ask(
        self, psid: str, title: str = "Tell you when it is back?", payload: str = "otn:restock"
    ) -> Reply:
        """Send a permission request."""
        return await self.send({"id": psid}, permission_request(title, payload))

    async def token(self, psid: str) -> str:
        """Ask for permission and let the person agree; the token's text, as the bot learns it."""
        asked = await self.ask(psid)
        agreed = len(self.bot.events("optin"))
        await self.do(psid, "notify-me", mid=asked.body["message_id"])
        event = (await self.bot.wait_for("optin", agreed + 1))[-1]
        return str(event["optin"]["one_time_notif_token"])

    async def settings(self, **changes: Any) -> Reply:
        """Change settings."""
        return await self.call("PATCH", "/simulator/settings", json=changes)

    async def fault(self, kind: str, **more: Any) -> Reply:
        """Ask for something to go wrong."""
        return await self.call("POST", "/simulator/faults", json={"kind": kind, **more})

    def pass_time(self, seconds: float) -> None:
        """Let simulated time pass."""
        self.wall.value += seconds


@asynccontextmanager
async def on_stage(**config: Any) -> AsyncIterator[Stage]:
    """A simulator with a listening bot. Simulated time begins at a full second and stands still."""
    wall, monotonic = Hands(1_800_000_000.0), Hands(0.0)
    async with _listening() as bot:
        settings = made_up_config(bot.url, **config)
        async with running(settings, wall, monotonic) as (url, world), aiohttp.ClientSession() as session:
            yield Stage(url=url, world=world, bot=bot, wall=wall, monotonic=monotonic, session=session)


def permission_request(title: str = "Tell you when it is back?", payload: str = "otn:restock") -> Json:
    """The message that asks for permission (OTN)."""
    template = {"template_type": "one_time_notif_req", "title": title, "payload": payload}
    return {"attachment": {"type": "template", "payload": template}}


@asynccontextmanager
async def _listening() -> AsyncIterator[Bot]:
    bot = Bot()
    app = web.Application()
    app.router.add_route("*", "/webhook", bot.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    bot.url = f"http://{HOST}:{runner.addresses[0][1]}/webhook"
    try:
        yield bot
    finally:
        await runner.cleanup()


def _name(event: Json) -> str:
    if event.get("message", {}).get("is_echo"):
        return "echo"
    known = ("message", "postback", "optin", "referral", "reaction", "read", "delivery")
    return next((name for name in known if name in event), "")


async def _json_or_none(request: web.Request) -> Any:
    try:
        return await request.json()
    except ValueError:
        return None
