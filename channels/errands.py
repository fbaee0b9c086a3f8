"""Calls of Graph beside the conversations: nothing depends on them, and no turn waits for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from channels.doors import Doors
from otn.errors import OtnError, Throttled
from otn.models import Contact

logger = logging.getLogger(__name__)

MOST_UNDER_WAY = 1000  # in memory; who did not fit has another turn some day


class Errands:
    """What this process has under way beside its turns. Trouble costs a line in the log."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._under_way: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._quiet_until: datetime | None = None

    def run(self, what: str, person: Contact, errand: Callable[[Contact], Awaitable[None]]) -> None:
        """Run it some time soon, unless it is under way for this person."""
        key = what, person.id
        if key not in self._under_way and len(self._under_way) < MOST_UNDER_WAY:
            task = asyncio.create_task(self._run(what, person, errand))
            self._under_way[key] = task
            task.add_done_callback(lambda _task: self._under_way.pop(key))

    @property
    def must_be_quiet(self) -> bool:
        """RATE: when Graph limits us, calls lengthen the block."""
        return self._quiet_until is not None and self._doors.now() < self._quiet_until

    async def finish(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())

    async def stop(self) -> None:
        """Give up what is under way."""
        waiting = list(self._under_way.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _run(self, what: str, person: Contact, errand: Callable[[Contact], Awaitable[None]]) -> None:
        try:
            await errand(person)
        except OtnError as exc:
            if isinstance(exc, Throttled):
                self._quiet_until = self._doors.now() + timedelta(seconds=exc.retry_after)
            logger.debug("messenger: %s of contact %s failed: %s", what, person.id, exc)
