"""A person's conversation as Rasa's tracker store really holds it.

Rasa wraps the store so that a failed save or load is only logged and memory takes over. A webhook's event
is closed when its turn is durable, so this looks at the store behind the wrapping.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from inspect import isawaitable
from typing import Any

from rasa.core.tracker_store import FailSafeTrackerStore, SQLTrackerStore
from rasa.shared.core.events import BotUttered, UserUttered

from channels.doors import NotNow

DELIVERY = "otn_delivery"  # in a bot event's metadata: which delivery said this

_NEWEST = 50  # user events that can have come after the one that was just saved


class Conversation:
    """One person's events in the tracker store behind an agent."""

    def __init__(self, tracker_store: Any, sender_id: str) -> None:
        self._store = tracker_store
        if isinstance(tracker_store, FailSafeTrackerStore):
            self._store = tracker_store._tracker_store
        self._sender_id = sender_id

    async def had_turn(self, message_id: str) -> bool:
        """Whether a turn with this message id is anywhere in it. Raises NotNow."""
        hint = f'"message_id": {json.dumps(message_id)}'
        return message_id in await self._values(UserUttered, "message_id", hint)

    async def has_just_saved(self, message_id: str) -> bool:
        """Whether a turn that just ended is in it. Raises NotNow."""
        return message_id in await self._values(UserUttered, "message_id", None)

    async def tells_of(self, wire_id: str) -> bool:
        """Whether a delivery is noted in it. Raises NotNow."""
        hint = f'"{DELIVERY}": {json.dumps(wire_id)}'
        metadata = await self._values(BotUttered, "metadata", hint)
        return any(each.get(DELIVERY) == wire_id for each in metadata if isinstance(each, dict))

    def forget(self) -> bool:
        """Delete it; False if this kind of tracker store can't. Hold the conversation's lock."""
        store = getattr(self._store, "_tracker_store", self._store)
        if not isinstance(store, SQLTrackerStore):
            return False
        with store.session_scope() as session:
            session.query(store.SQLEvent).filter(store.SQLEvent.sender_id == self._sender_id).delete()
            session.commit()
        return True

    async def _values(self, kind: Any, name: str, hint: str | None) -> list[Any]:
        """One attribute of the events of a kind that hold the hint; the newest events without a hint."""
        try:
            store = getattr(self._store, "_tracker_store", self._store)
            if isinstance(store, SQLTrackerStore):
                return [json.loads(data).get(name) for data in self._rows(store, kind.type_name, hint)]
            return [getattr(event, name) for event in await self._events() if isinstance(event, kind)]
        except Exception as exc:  # each kind of store has errors of its own
            raise NotNow(f"the tracker store cannot be read: {type(exc).__name__}") from exc

    def _rows(self, store: Any, type_name: str, hint: str | None) -> Iterator[str]:
        # Without loading a tracker: a long conversation costs a look at its rows, not their parsing.
        event = store.SQLEvent
        with store.session_scope() as session:
            query = session.query(event.data).filter(
                event.sender_id == self._sender_id, event.type_name == type_name
            )
            if hint is not None:
                query = query.filter(event.data.contains(hint, autoescape=True))
            else:
                query = query.order_by(event.id.desc()).limit(_NEWEST)
            yield from [row.data for row in query.all()]

    async def _events(self) -> list[Any]:
        found = self._store.retrieve_full_tracker(self._sender_id)
        tracker = await found if isawaitable(found) else found
        return list(tracker.events) if tracker is not None else []
