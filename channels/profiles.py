"""Asks Graph who people are, beside their conversations: a name to greet, a language, a time zone.

Any of it can be missing or refused (User Profile API), so nothing may depend on it, and no turn waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from channels.doors import Doors
from otn.errors import OtnError, Refused, Throttled
from otn.graph.protocol import build_profile, profile_of
from otn.models import Contact
from otn.policy import page_is_paused
from otn.store import contacts, pages

logger = logging.getLogger(__name__)

FIELDS = ("first_name", "last_name", "locale", "timezone")
ASK_AGAIN = timedelta(days=30)
AT_ONCE = 4  # calls under way: the others of the process are for messages
MOST_WAITING = 1000  # people in memory; who did not fit is asked for at their next turn


class Profiles:
    """What this process still wants to know of people. Trouble costs a line in the log, and a later try."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._quiet_until: datetime | None = None

    def ask_for(self, person: Contact) -> None:
        """Ask for a person's profile some time soon, if it is not known or old."""
        asked_at, now = person.profile_asked_at, self._doors.now()
        if asked_at is not None and now < asked_at + ASK_AGAIN:
            return
        if person.id not in self._asking and len(self._asking) < MOST_WAITING:
            task = asyncio.create_task(self._ask(person, now))
            self._asking[person.id] = task
            task.add_done_callback(lambda _task: self._asking.pop(person.id))

    async def finish(self) -> None:
        """Wait until nobody is being asked for."""
        while self._asking:
            await asyncio.wait(self._asking.values())

    async def stop(self) -> None:
        """Ask no more."""
        waiting = list(self._asking.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _ask(self, person: Contact, asked_at: datetime) -> None:
        """`asked_at`: in the turn. Who has wanted to be forgotten since then, while this waited, leaves no name."""
        try:
            async with self._room:
                if not await self._must_be_quiet(person, self._doors.now()):
                    profile = await self._answer(person)
                    await self._doors.write(
                        lambda tx: contacts.keep_profile(tx, person.id, profile, asked_at)
                    )
        except OtnError as exc:
            if isinstance(exc, Throttled):
                self._quiet_until = self._doors.now() + timedelta(seconds=exc.retry_after)
            logger.debug("messenger: the profile of contact %s is not known: %s", person.id, exc)

    async def _must_be_quiet(self, person: Contact, now: datetime) -> bool:
        """RATE: when Graph limits us, calls lengthen the block; a paused page makes none."""
        if self._quiet_until is not None and now < self._quiet_until:
            return True
        page = await self._doors.read(lambda tx: pages.find(tx, person.page_id))
        return page is None or page_is_paused(page, now)

    async def _answer(self, person: Contact) -> dict[str, str]:
        """What Graph tells. A refusal is an answer too: nothing, and asked again only after a while."""
        config = self._doors.app.graph_config(person.page_id)
        try:
            return profile_of(await self._doors.graph.get_json(build_profile(config, person.psid, FIELDS)))
        except Refused as exc:
            logger.debug("messenger: the profile of contact %s is not ours to know: %s", person.id, exc)
            return {}
