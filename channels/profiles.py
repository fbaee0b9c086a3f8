"""Asks Graph who people are, beside their conversations: a name to greet, a language, a time zone.

Any of it can be missing or refused (User Profile API), so nothing may depend on it, and no turn waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from functools import partial

from channels.doors import Doors
from channels.errands import Errands
from otn.errors import Refused
from otn.graph.protocol import build_profile, profile_of
from otn.models import Contact
from otn.policy import page_is_paused
from otn.store import contacts, pages

logger = logging.getLogger(__name__)

FIELDS = ("first_name", "last_name", "locale", "timezone")
ASK_AGAIN = timedelta(days=30)
AT_ONCE = 4  # calls under way: the others of the process are for messages


class Profiles:
    """What this process still wants to know of people; whom it learns nothing of is asked for at their next turn."""

    def __init__(self, doors: Doors, errands: Errands) -> None:
        self._doors = doors
        self._errands = errands
        self._room = asyncio.Semaphore(AT_ONCE)

    def ask_for(self, person: Contact) -> None:
        """Ask for a person's profile some time soon, if it is not known or old."""
        asked_at, now = person.profile_asked_at, self._doors.now()
        if asked_at is None or now >= asked_at + ASK_AGAIN:
            # From this turn on: who wants to be forgotten while it waits leaves no name.
            self._errands.run("the profile", person, partial(self._ask, now))

    async def _ask(self, asked_at: datetime, person: Contact) -> None:
        async with self._room:
            if not await self._must_be_quiet(person):
                profile = await self._answer(person)
                await self._doors.write(lambda tx: contacts.keep_profile(tx, person.id, profile, asked_at))

    async def _must_be_quiet(self, person: Contact) -> bool:
        """While Graph limits us; and a paused page makes no calls."""
        if self._errands.must_be_quiet:
            return True
        page = await self._doors.read(lambda tx: pages.find(tx, person.page_id))
        return page is None or page_is_paused(page, self._doors.now())

    async def _answer(self, person: Contact) -> dict[str, str]:
        """What Graph tells. A refusal is an answer too: nothing, and asked again only after a while."""
        config = self._doors.app.graph_config(person.page_id)
        try:
            return profile_of(await self._doors.graph.get_json(build_profile(config, person.psid, FIELDS)))
        except Refused as exc:
            logger.debug("messenger: the profile of contact %s is not ours to know: %s", person.id, exc)
            return {}
