"""Everything that happened, in order, numbered: the simulator's testimony about the bot.

Entries are kept as encoded JSON, about half a kilobyte each, and never hold a secret: access tokens and the app
secret are not written at all, a One-Time Notification token only as its SHA-256.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

# The oldest go first. Between the two figures the list is left alone, so that trimming is rare.
KEPT_ENTRIES = 200_000
TRIMMED_ABOVE = 220_000

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


class Kind(str, Enum):
    """What an entry tells about."""

    DELIVERED = "delivered"  # a message is on the person's phone
    REFUSED = "refused"  # a Graph call broke a rule
    LOST_ANSWER = "lost_answer"  # delivered, and the caller was not told so
    FAULT = "fault"  # a fault that was asked for struck
    GRAPH = "graph"  # another Graph call: profile, subscription, typing
    WEBHOOK = "webhook"  # one attempt to hand events to the bot, and its answer
    PERSON = "person"  # a person did something
    CLOCK = "clock"  # simulated time was moved
    CONTROL = "control"  # settings, faults or people were changed from outside


class Entry(NamedTuple):
    """One line of the journal: what filters look at, and the JSON."""

    seq: int
    kind: Kind
    psids: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries a reader wants. An empty `kinds` or `psid` means all."""

    after: int = 0
    kinds: frozenset[str] = frozenset()
    psid: str = ""

    def admits(self, entry: Entry) -> bool:
        """Whether the reader wants this entry."""
        if self.kinds and entry.kind.value not in self.kinds:
            return False
        return entry.seq > self.after and (not self.psid or self.psid in entry.psids)


class Journal:
    """Append-only, bounded, readable while it grows."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: list[Entry] = []
        self._waiters: dict[asyncio.Future[None], Filter] = {}
        self._closed = False
        self.last = 0
        self.cleared = 0  # how often everything was forgotten

    def add(self, kind: Kind, psid: str | Collection[str] = "", **facts: Any) -> int:
        """Write down what happened and return its number. `psid` may be several people's."""
        self.last += 1
        psids = (psid,) if isinstance(psid, str) else tuple(psid)
        head: dict[str, Any] = {"seq": self.last, "at": round(self._now(), 3), "kind": kind.value}
        head.update({"psid": psids[0]} if len(psids) == 1 and psids[0] else {})
        head.update({"psids": psids} if len(psids) > 1 else {})
        head.update((name, fact) for name, fact in facts.items() if fact is not None)
        entry = Entry(self.last, kind, psids, _encode(head))
        self._entries.append(entry)
        if len(self._entries) > TRIMMED_ABOVE:
            del self._entries[:-KEPT_ENTRIES]
        if self._waiters:
            self._wake(entry)
        return self.last

    def read(self, wanted: Filter, limit: int | None = None) -> tuple[list[str], int]:
        """The JSON of matching entries, oldest first, and the number to continue after."""
        found: list[str] = []
        for entry in self._since(wanted.after):
            if wanted.admits(entry):
                found.append(entry.text)
                if limit is not None and len(found) >= limit:
                    return found, entry.seq
        return found, max(self.last, wanted.after)

    def entries(self, kind: Kind | None = None, psid: str = "", after: int = 0) -> list[dict[str, Any]]:
        """Matching entries, decoded: for tests that share the process."""
        wanted = Filter(after=after, psid=psid, kinds=frozenset({kind.value} if kind else ()))
        return [json.loads(text) for text in self.read(wanted)[0]]

    async def wait(self, wanted: Filter, seconds: float) -> None:
        """Return as soon as an entry matches, the time is over, or the journal is cleared or closed."""
        if self._closed or any(wanted.admits(entry) for entry in self._since(wanted.after)):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = wanted
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            self._waiters.pop(waiter, None)

    def clear(self) -> None:
        """Forget every entry; the numbering goes on, so that readers who continue miss nothing."""
        self._entries.clear()
        self.cleared += 1
        self._release()

    def close(self) -> None:
        """Let every waiting reader go, now and from now on."""
        self._closed = True
        self._release()

    def _since(self, seq: int) -> Iterator[Entry]:
        """Entries after `seq`. Numbers have no gaps, so the first one is found without a search."""
        if not self._entries:
            return
        first = max(0, seq + 1 - self._entries[0].seq)
        for index in range(first, len(self._entries)):
            yield self._entries[index]

    def _release(self) -> None:
        for waiter in list(self._waiters):
            _settle(waiter)

    def _wake(self, entry: Entry) -> None:
        for waiter, wanted in list(self._waiters.items()):
            if wanted.admits(entry):
                _settle(waiter)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
