"""Shows people that the bot has read what they wrote (`mark-seen` in credentials.yml), beside their conversations.

A mark is one more call of Graph for each message, so there are none unless the operator wants them.
"""

from __future__ import annotations

from channels.doors import Doors
from channels.errands import Errands
from otn.graph.protocol import build_sender_action
from otn.models import Contact
from otn.policy import Allow


class ReadMarks:
    """Sets the marks, where they are wanted."""

    def __init__(self, doors: Doors, errands: Errands) -> None:
        self._doors = doors
        self._errands = errands

    def set_for(self, person: Contact) -> None:
        """Mark what a person has written as read, some time soon."""
        if self._doors.app.settings.mark_seen:
            self._errands.run("a read mark", person, self._set)

    async def _set(self, person: Contact) -> None:
        """As with typing: only where a reply could go out as well."""
        if not self._errands.must_be_quiet and isinstance(await self._doors.may_say(person), Allow):
            config = self._doors.app.graph_config(person.page_id)
            await self._doors.graph.send(build_sender_action(config, person.psid, "mark_seen"))
