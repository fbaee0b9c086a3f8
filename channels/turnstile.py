"""Many conversations in one event loop, and none of them may keep a webhook waiting.

A turn runs Rasa's code, which computes for several milliseconds between two moments in which it waits for something.
When many turns can go on at once, an event loop lets all of them, one after the other, before it looks at its sockets
again. Behind a turnstile one of them goes on in every few rounds of the loop: a webhook needs as many from its first
byte to the database and back, and so waits for one step or two.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

ROUNDS = 5  # of the loop from one step to the next; an empty one costs some microseconds


class Turnstile:
    """Lets one coroutine go on in every few rounds of the event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._free = True
        self._queue: deque[asyncio.Future[None]] = deque()

    async def lead(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine to its end, as `await begin()` would, but each of its steps through the turnstile."""
        coroutine = begin()
        try:
            return await self._step_by_step(coroutine)
        finally:
            coroutine.close()

    @types.coroutine
    def _step_by_step(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, None, T]:
        """What it waits for goes on to the task around it, and what comes of that back to it."""
        raised: BaseException | None = None
        while True:
            try:
                yield from self._pass()
            except asyncio.CancelledError as cancelled:
                raised = cancelled
            try:
                waits_for = coroutine.send(None) if raised is None else coroutine.throw(raised)
            except StopIteration as stop:
                result: T = stop.value
                return result
            raised = None
            try:
                yield waits_for
            except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - the coroutine's to handle
                raised = exc

    def _pass(self) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        if not self._free:
            place = loop.create_future()
            self._queue.append(place)
            try:
                yield from place
            except asyncio.CancelledError:
                if not place.cancelled():  # it was our turn already: somebody else's now
                    loop.call_soon(self._admit)
                raise
        self._free = False
        loop.call_soon(self._admit, ROUNDS)

    def _admit(self, rounds: int = 1) -> None:
        """After so many rounds: whoever waits longest."""
        if rounds > 1:
            asyncio.get_running_loop().call_soon(self._admit, rounds - 1)
            return
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free = True
