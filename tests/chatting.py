"""The chat page in a headless Chromium, before a simulator and a little shop bot (`shop`) in the same process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, Locator, Page, Playwright, Request, expect
from shop import Shop, open_shop

from otn.dev.browser import MISSING, find
from simulator.testing import made_up_config, running
from simulator.world import World

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 844}
# Without these, Chromium looks for its maker's hosts at every start.
QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-gpu")  # fmt: skip


async def launch(playwright: Playwright) -> Browser:
    """Start the Chromium of this machine. It only ever opens our own page, so it needs no sandbox as root."""
    path = find()
    if path is None:
        raise RuntimeError(MISSING)
    return await playwright.chromium.launch(executable_path=path, args=[*QUIET, "--no-sandbox"])


@dataclass(kw_only=True)
class Chat:
    """Somebody in front of the page."""

    page: Page
    url: str
    world: World
    shop: Shop
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    async def write(self, text: str) -> None:
        """Type a message, send it, and see it sent: from then on the window is open."""
        await self.type(text)
        await expect(self.page.locator(".message.mine", has_text=text).last).to_be_visible()

    async def type(self, text: str) -> None:
        """Type a message and press Enter."""
        field = self.page.get_by_label("Message", exact=True)
        await field.fill(text)
        await field.press("Enter")

    async def hear(self, text: str) -> Locator:
        """The latest message of the bot, once it has this text."""
        message = self.page.locator(".message.theirs", has_text=text).last
        await expect(message).to_be_visible()
        return message

    async def agree(self) -> None:
        """Ask for the backpack, and tap Notify Me."""
        await self.write("do you have the canvas backpack?")
        await self.page.get_by_role("button", name="Notify Me").click()
        await self.hear("Thank you!")

    async def view(self, name: str) -> None:
        """Change to another view."""
        await self.page.get_by_role("navigation", name="Views").get_by_role("button", name=name).click()

    def wire(self, text: str) -> Locator:
        """A line of what went over the wire."""
        return (
            self.page.get_by_role("region", name="Calls and webhooks")
            .get_by_role("listitem")
            .filter(has_text=text)
        )

    @property
    def psid(self) -> str:
        """Of the first person."""
        return next(iter(self.world.people.values())).psid


@asynccontextmanager
async def open_chat(
    browser: Browser,
    *,
    webhook_url: str | None = None,
    wall: Callable[[], float] = time.time,
    **context: Any,
) -> AsyncIterator[Chat]:
    """A fresh simulator and the page before it; `context` is Playwright's: viewport, color_scheme, …"""
    async with open_shop() as (shop, url), running(made_up_config(webhook_url or url), wall) as (base, world):
        shop.graph = base
        opened = await browser.new_context(**{"viewport": WIDE, **context})
        page = await opened.new_page()
        page.set_default_timeout(10_000)
        chat = Chat(page=page, url=base, world=world, shop=shop)
        _watch(chat)
        await page.goto(base)
        await expect(page.get_by_text("You are Ada", exact=True)).to_be_visible()
        try:
            yield chat
        finally:
            await opened.close()


def _watch(chat: Chat) -> None:
    """Note whatever the browser complains of, and whatever it wants from elsewhere."""

    def request(made: Request) -> None:
        if not made.url.startswith((chat.url, "data:")):
            chat.foreign.append(made.url)

    chat.page.on("console", lambda said: chat.complaints.append(f"{said.type}: {said.text}"))
    chat.page.on("pageerror", lambda error: chat.complaints.append(str(error)))
    chat.page.on("request", request)
