"""Shows people that the bot has read what they wrote (`mark-seen` in credentials.yml), beside their conversations.

A mark is one more call of Graph for each message, so there are none unless the operator wants them.
"""

from __future__ import annotations

from functools import partial

from channels.doors import Doors
from channels.errands import Errands, Quiet
from otn.events import Event, EventKind
from otn.models import Contact
from otn.store.inbox import InboxRow

# Calls under way: the other connections of the process are for messages.
AT_ONCE = 10
MOST = 200  # events; in such a rush the others are answered without a mark
# What people see in the conversation as theirs.
_WRITTEN = (EventKind.MESSAGE, EventKind.POSTBACK)


class ReadMarks:
    """Sets the marks, where they are wanted."""

    def __init__(self, doors: Doors, quiet: Quiet) -> None:
        self._doors = doors
        self.errands = Errands("the read mark for event", quiet, at_once=AT_ONCE, most=MOST)

    def set_for(self, person: Contact, row: InboxRow, event: Event) -> None:
        """Mark what a person wrote as read, some time soon; once, however often its turn has to be tried."""
        if self._doors.app.settings.mark_seen and event.kind in _WRITTEN and not row.attempts:
            self.errands.run(row.id, partial(self._doors.show, person, "mark_seen"))
