"""Rasa's SQL tracker store, quicker: the same table and the same rules.

In endpoints.yml: `tracker_store: {type: channels.tracker_store.QuickSQLTrackerStore, dialect: …, db: …}`, with
everything that `type: SQL` takes. Rasa builds each statement anew through its ORM, and opens SQLite's file anew for
each of them, which is a third of what a turn costs; and the whole server stands still while it commits. Here
statements are built once (`otn.store.conversations`), and an SQLite file is opened once, by the recipe of our own
database, in which a commit takes a quarter of the time.
"""

from __future__ import annotations

import functools
import json
from contextvars import ContextVar
from typing import Any

from rasa.core.tracker_store import SQLTrackerStore
from rasa.shared.core.events import Event, UserUttered

from channels.quick_tracker import QuickTracker
from otn.store import Store, conversations

kept_turns: ContextVar[set[str | None] | None] = ContextVar("kept_turns", default=None)
"""Where a task puts a set, it gets to know the message ids of the turns that became durable in it."""


class QuickSQLTrackerStore(SQLTrackerStore):  # type: ignore[misc] # Rasa ships no types
    """Keeps conversations in the table `events`, as Rasa's own store does: either goes on where the other ended."""

    engine: Any

    def __init__(
        self,
        domain: Any = None,
        dialect: str = "sqlite",
        host: str | None = None,
        db: str = "rasa.db",
        **more: Any,
    ) -> None:
        in_file = dialect == "sqlite" and not host and db != ":memory:"
        # Rasa must not open the file itself: two SQLite libraries in one process break each other's locks.
        super().__init__(domain, dialect, host, db=":memory:" if in_file else db, **more)
        if in_file:
            self.engine = conversations.engine_for(db)
            self.Base.metadata.create_all(self.engine)
            self.sessionmaker.configure(bind=self.engine)
        self._store = Store.over(self.engine)

    async def save(self, tracker: Any) -> None:
        """Add the events that are not kept yet; returned, they are durable."""
        await self.stream_events(tracker)
        with self._store.begin() as tx:
            kept = conversations.count(tx, tracker.sender_id)
            new = list(tracker.events)[kept:]
            conversations.append(tx, [_row(tracker.sender_id, event) for event in new])
        if (turns := kept_turns.get()) is not None:
            turns.update(event.message_id for event in new if isinstance(event, UserUttered))

    async def _retrieve(self, sender_id: str, fetch_events_from_all_sessions: bool) -> Any | None:
        kept = self._store.look(
            lambda engine: conversations.events(
                engine, sender_id, every_session=fetch_events_from_all_sessions
            )
        )
        if not kept or not self.domain:
            return None
        events = [_restored(json.loads(each)) for each in kept]
        return QuickTracker.from_events(sender_id, [each for each in events if each], self.domain.slots)

    def init_tracker(self, sender_id: str) -> QuickTracker:
        """The tracker of a conversation that begins."""
        return QuickTracker(sender_id, self.domain.slots, max_event_history=self.max_event_history)


def _restored(data: dict[str, Any]) -> Any | None:
    """The event, as `Event.from_parameters` makes it, which looks through all of Rasa's classes for each."""
    kind = _kind(data["event"]) if "event" in data else None
    return kind._from_parameters(data) if kind else None


@functools.cache
def _kind(type_name: str) -> Any | None:
    return Event.resolve_by_type(type_name)


def _row(sender_id: str, event: Any) -> dict[str, Any]:
    """As Rasa's own store keeps an event."""
    data = event.as_dict()
    return {
        "sender_id": sender_id,
        "type_name": event.type_name,
        "timestamp": data.get("timestamp"),
        "intent_name": data.get("parse_data", {}).get("intent", {}).get("name"),
        "action_name": data.get("name"),
        "data": json.dumps(data),
    }
