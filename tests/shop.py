"""A little shop bot for tests of the chat page: a webhook on loopback that answers by Graph calls, by script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from simulator.testing import PAGE_TOKEN, permission_request

Json = dict[str, Any]

FOLLOW_UP = "Good news: the canvas backpack is back in stock. Shall I send you the order link?"
HTML = '<img src=x onerror="document.title=1"><b>bold</b><script>document.title=2</script>'


def buttons(text: str, *pairs: tuple[str, str]) -> Json:
    """A button template; pairs are titles and payloads."""
    shown = [{"type": "postback", "title": title, "payload": payload} for title, payload in pairs]
    payload = {"template_type": "button", "text": text, "buttons": shown}
    return {"attachment": {"type": "template", "payload": payload}}


def cards(origin: str) -> Json:
    """A generic template: a picture of this machine, one from outside, and none."""
    link = {"type": "web_url", "title": "See it", "url": "https://shop.example/backpack"}
    more = {"type": "postback", "title": "More like it", "payload": "more"}
    elements = [
        {
            "title": "Canvas backpack",
            "subtitle": "22 litres, waxed",
            "image_url": f"{origin}/simulator/page/picture.svg",
            "buttons": [link, more],
        },
        {
            "title": "Trail shoe",
            "subtitle": "For wet ground",
            "image_url": "https://shop.example/shoe.jpg",
            "buttons": [more],
        },
        {"title": "Wool scarf", "subtitle": "No picture of it yet", "buttons": [more]},
    ]
    return {"attachment": {"type": "template", "payload": {"template_type": "generic", "elements": elements}}}


def picture(url: str) -> Json:
    """An image."""
    return {"attachment": {"type": "image", "payload": {"url": url}}}


def quick_replies(text: str, *titles: str) -> Json:
    """A text with quick replies whose payloads are their titles."""
    replies = [{"content_type": "text", "title": title, "payload": title} for title in titles]
    return {"text": text, "quick_replies": replies}


class Shop:
    """What it says to which words. It learns where Graph is (`graph`) after it has begun to listen."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.graph = ""
        self.status = 200
        self.seen: list[Json] = []
        self.token = ""
        self._session = session
        self._events: asyncio.Queue[Json] = asyncio.Queue()

    async def handle(self, request: web.Request) -> web.Response:
        """Take a webhook; the answers follow."""
        body = json.loads(await request.read())
        if self.status == 200:
            for entry in body["entry"]:
                for event in entry.get("messaging", []):
                    self.seen.append(event)
                    self._events.put_nowait(event)
        return web.Response(status=self.status)

    async def converse(self) -> None:
        """Answer one event after the other, for ever."""
        while True:
            await self._answer(await self._events.get())

    async def send(self, recipient: Json, message: Json, **more: Any) -> Json:
        """Call the Send API; the answer's JSON."""
        return await self._post({"recipient": recipient, "message": message, **more})

    async def show(self, psid: str, action: str) -> Json:
        """A sender action: typing_on, typing_off, mark_seen."""
        return await self._post({"recipient": {"id": psid}, "sender_action": action})

    async def subscribe(self) -> Json:
        """Bring the app back to the Page."""
        return await self._post({}, "subscribed_apps")

    async def follow_up(self, text: str = FOLLOW_UP) -> Json:
        """Spend the permission."""
        return await self.send({"one_time_notif_token": self.token}, {"text": text})

    async def _post(self, body: Json, path: str = "messages") -> Json:
        headers = {"Authorization": f"Bearer {PAGE_TOKEN}"}
        async with self._session.post(f"{self.graph}/v26.0/me/{path}", json=body, headers=headers) as answer:
            found: Json = await answer.json()
            return found

    async def _answer(self, event: Json) -> None:
        psid = event["sender"]["id"]
        if "optin" in event:
            self.token = event["optin"]["one_time_notif_token"]
            await self.send({"id": psid}, {"text": "Thank you! I will write once, when it is back."})
        message = event.get("message", {})
        if message.get("is_echo"):
            return
        words = message.get("quick_reply", {}).get("payload") or message.get("text", "")
        for said in self._lines(event.get("postback", {}).get("payload") or words):
            await self.send({"id": psid}, said)

    def _lines(self, words: str) -> list[Json]:
        script: dict[str, list[Json]] = {
            "do you have the canvas backpack?": [
                {"text": "The canvas backpack is sold out at the moment."},
                permission_request("When the canvas backpack is back", "otn:restock-canvas-backpack"),
            ],
            "colours": [quick_replies("Which colour do you like?", "Blue", "Green", "Sand")],
            "Blue": [{"text": "Blue it is: https://shop.example/blue"}],
            "help": [buttons("What is it about?", ("An order", "order"), ("A product", "product"))],
            "order": [{"text": "Tell me its number."}],
            "show": [cards(self.graph), picture("https://shop.example/spring.jpg")],
            "/greet": [{"text": "Hi! Ask me about a product."}],
            "html": [{"text": HTML}, buttons(HTML, ("<i>tap</i>", "tap"))],
        }
        return script.get(words, [])


@asynccontextmanager
async def open_shop() -> AsyncIterator[tuple[Shop, str]]:
    """The bot on a free loopback port, and the address of its webhook."""
    async with aiohttp.ClientSession() as session:
        shop = Shop(session)
        app = web.Application()
        app.router.add_post("/webhook", shop.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        conversing = asyncio.create_task(shop.converse())
        try:
            yield shop, f"http://127.0.0.1:{runner.addresses[0][1]}/webhook"
        finally:
            conversing.cancel()
            await runner.cleanup()
