"""Asks Graph who people are, beside their conversations: a name to greet, a language, a time zone.

Any of it can be missing or refused (User Profile API), so nothing may depend on it, and no turn waits for it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial

from channels.doors import Doors
from channels.errands import Errands, Quiet
from otn.errors import Refused
from otn.graph.protocol import build_profile, profile_of
from otn.models import Contact
from otn.policy import page_is_paused
from otn.store import contacts, pages

logger = logging.getLogger(__name__)

FIELDS = ("first_name", "last_name", "locale", "timezone")
ASK_AGAIN = timedelta(days=30)
AT_ONCE = 4  # calls under way: the others of the process are for messages
MOST = 1000  # people in memory; who did not fit is asked for at their next turn


class Profiles:
    """What this process still wants to know of people; whom it learns nothing of is asked for at their next turn."""

    def __init__(self, doors: Doors, quiet: Quiet) -> None:
        self._doors = doors
        self.errands = Errands("the profile of contact", quiet, at_once=AT_ONCE, most=MOST)

    def ask_for(self, person: Contact) -> None:
        """Ask for a person's profile some time soon, if it is not known or old."""
        asked_at, now = person.profile_asked_at, self._doors.now()
        if asked_at is None or now >= asked_at + ASK_AGAIN:
            self.errands.run(person.id, partial(self._ask, person, now))

    async def _ask(self, person: Contact, asked_at: datetime) -> None:
        """`asked_at`: in the turn. Who has wanted to be forgotten since then, while this waited, leaves no name."""
        page = await self._doors.read(lambda tx: pages.find(tx, person.page_id))
        if page is not None and not page_is_paused(page, self._doors.now()):
            profile = await self._answer(person)
            await self._doors.write(lambda tx: contacts.keep_profile(tx, person.id, profile, asked_at))

    async def _answer(self, person: Contact) -> dict[str, str]:
        """What Graph tells. A refusal is an answer too: nothing, and asked again only after a while."""
        config = self._doors.app.graph_config(person.page_id)
        try:
            return profile_of(await self._doors.graph.get_json(build_profile(config, person.psid, FIELDS)))
        except Refused as exc:
            logger.debug("messenger: the profile of contact %s is not ours to know: %s", person.id, exc)
            return {}
