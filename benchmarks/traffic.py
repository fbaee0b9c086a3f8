"""Webhooks as Meta delivers them, and how they are delivered: as fast as they are taken, or at a steady rate."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp

from benchmarks.graph import PAGE_ID
from benchmarks.programs import APP_SECRET

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A request to send."""

    url: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def webhook(url: str, *events: Json) -> Post:
    """Events of the page in one signed body; the facebook channel looks at the older header."""
    entry = {"id": PAGE_ID, "time": _now_ms(), "messaging": list(events)}
    body = json.dumps({"object": "page", "entry": [entry]}).encode()
    headers = {
        "Content-Type": "application/json",
        "X-Hub-Signature-256": "sha256=" + hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest(),
        "X-Hub-Signature": "sha1=" + hmac.new(APP_SECRET.encode(), body, hashlib.sha1).hexdigest(),
    }
    return Post(url=url, body=body, headers=headers)


def message(psid: str, text: str = "hi") -> Json:
    """A message of a person's."""
    return {**_event(psid), "message": {"mid": f"m_{uuid4().hex}", "text": text}}


def opt_in(psid: str) -> Json:
    """A tap on Notify Me, with a token of its own."""
    optin = {
        "type": "one_time_notif_req",
        "payload": "otn:spring-collection",
        "one_time_notif_token": uuid4().hex * 3,
    }
    return {**_event(psid), "optin": optin}


def people(count: int) -> list[str]:
    """The ids of people who never wrote before."""
    start = uuid4().int % 10**12
    return [str(10**15 + start * 10**3 + number) for number in range(count)]


async def as_fast_as_taken(posts: Sequence[Post], connections: int) -> float:
    """Send all, so many at once; the seconds until the last answer. Raises if one is not 200."""
    waiting = iter(posts)
    async with _session(connections) as session:
        started = time.monotonic()
        await asyncio.gather(*(_work(session, waiting) for _ in range(connections)))
        return time.monotonic() - started


async def steadily(posts: Iterable[Post], per_second: float) -> list[float]:
    """Send each at its moment, whether those before are answered or not; the seconds that each answer took.

    Measured from the moment when it was due: a server that stands still is not spared what it missed.
    """
    answers: list[asyncio.Task[float]] = []
    async with _session(0) as session:
        started = time.monotonic()
        for number, post in enumerate(posts):
            due = started + number / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            answers.append(asyncio.create_task(_timed(session, post, due)))
        return list(await asyncio.gather(*answers))


async def _work(session: aiohttp.ClientSession, posts: Iterator[Post]) -> None:
    for post in posts:
        await _send(session, post)


async def _timed(session: aiohttp.ClientSession, post: Post, due: float) -> float:
    await _send(session, post)
    return time.monotonic() - due


async def _send(session: aiohttp.ClientSession, post: Post) -> None:
    async with session.post(post.url, data=post.body, headers=post.headers) as answer:
        said = await answer.read()
        answer.raise_for_status()
        assert said != b"[]", "rest says nothing where a turn failed"


@asynccontextmanager
async def _session(connections: int) -> Any:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections), timeout=aiohttp.ClientTimeout(total=120)
    ) as session:
        yield session


def _event(psid: str) -> Json:
    return {"sender": {"id": psid}, "recipient": {"id": PAGE_ID}, "timestamp": _now_ms()}


def _now_ms() -> int:
    return int(time.time() * 1000)
