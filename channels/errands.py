"""Calls of Graph beside the conversations: nothing depends on them, and no turn waits for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from otn.errors import OtnError, Throttled

logger = logging.getLogger(__name__)


class Quiet:
    """RATE: when Graph limits us, calls lengthen the block. Errands of every kind keep it together."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._until: datetime | None = None

    @property
    def is_kept(self) -> bool:
        """Whether there are to be no calls now."""
        return self._until is not None and self._now() < self._until

    def keep(self, seconds: float) -> None:
        """Make no calls for so long, or for longer if that was said before."""
        until = self._now() + timedelta(seconds=seconds)
        self._until = max(until, self._until or until)


class Errands:
    """Errands of one kind, a few at once: Graph's connections are for messages. Trouble costs a line in the log.

    `most`: how many may be under way or wait; there are none beyond.
    """

    def __init__(self, name: str, quiet: Quiet, *, at_once: int, most: int) -> None:
        self._name = name
        self._quiet = quiet
        self._most = most
        self._room = asyncio.Semaphore(at_once)
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._stopped = False

    def run(self, key: int, errand: Callable[[], Awaitable[None]]) -> None:
        """Run it some time soon, unless one with this key is under way."""
        if key not in self._under_way and len(self._under_way) < self._most and not self._stopped:
            task = asyncio.create_task(self._run(key, errand))
            self._under_way[key] = task
            task.add_done_callback(lambda _task: self._under_way.pop(key))

    async def finish(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())

    async def stop(self) -> None:
        """Give up what is under way, and begin nothing more."""
        self._stopped = True
        waiting = list(self._under_way.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _run(self, key: int, errand: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._room:
                if not self._quiet.is_kept:
                    await errand()
        except OtnError as exc:
            if isinstance(exc, Throttled):
                self._quiet.keep(exc.retry_after)
            logger.debug("messenger: %s %s failed: %s", self._name, key, exc)
