"""Make the pictures in docs/images anew: `make pictures`. The bot is the scripted one of the tests."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from chatting import NARROW, WIDE, Chat, launch, open_chat
from PIL import Image
from playwright.async_api import Browser, async_playwright, expect

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
# Noon, wherever this runs: the same times in every picture.
BEGIN = datetime(2026, 10, 1, 12, 0).astimezone().timestamp()
LARGEST_BYTES = 150_000


async def main() -> None:
    """Play each scene and take its picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        await picture(browser, "chat-1280", viewport=WIDE, color_scheme="light")
        await picture(browser, "chat-390-dark", viewport=NARROW, color_scheme="dark", device_scale_factor=1.5)
        await picture(browser, "wire-390-light", "Wire", viewport=NARROW, device_scale_factor=1.5)
        await picture(browser, "faults-1280-dark", "Faults", viewport=WIDE, color_scheme="dark")
        await browser.close()


async def picture(browser: Browser, name: str, view: str = "", **context: Any) -> None:
    """The same story each time, seen in one view."""
    started = time.time()
    async with open_chat(browser, wall=lambda: BEGIN + time.time() - started, **context) as chat:
        await story(chat)
        if view:
            await chat.view(view)
        if view == "Faults":
            await chat.page.get_by_role("switch", name="Lost answer").click()
            await expect(chat.page.get_by_text("waits to strike once")).to_be_visible()
        path = FOLDER / f"{name}.png"
        shot = await chat.page.screenshot(animations="disabled", caret="hide")
    # 256 colours look the same here, in a third of the bytes.
    Image.open(BytesIO(shot)).convert("RGB").quantize(256, kmeans=2).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(FOLDER.parents[1])}: {size / 1000:.0f} kB")
    if size > LARGEST_BYTES:
        raise SystemExit(f"{path.name} is larger than {LARGEST_BYTES} bytes")


async def story(chat: Chat) -> None:
    """A question, a permission, 25 hours, the follow-up, and a second one that is refused."""
    page = chat.page
    for name in ("Ben", "Chen"):
        chat.world.add_person({"first_name": name})
    await page.reload()
    await expect(page.get_by_text("You are Ada", exact=True)).to_be_visible()
    await chat.agree()
    skip = page.locator("#skip-a-day, #guide button:has-text('Skip 25 hours')").locator("visible=true").first
    await skip.click()
    await expect(page.get_by_text("25 hours later", exact=True)).to_be_visible()
    await chat.shop.follow_up()
    message = await chat.hear("Good news")
    await chat.shop.follow_up("And now there is one in green.")
    await message.hover()
    await message.get_by_role("button", name="React").click()
    await page.get_by_role("menuitemradio", name="love").click()
    await expect(message.locator(".reactions")).to_be_visible()
    await expect(page.locator("#window")).to_contain_text("Window open")
    await page.mouse.move(0, 0)
    await page.get_by_label("Message", exact=True).blur()


if __name__ == "__main__":
    asyncio.run(main())
