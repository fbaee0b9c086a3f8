"""A person's conversation as Rasa's tracker store really holds it.

Rasa wraps the store so that a failed save or load is only logged and memory takes over. A webhook's event
is closed when its turn is durable, so this looks at the store behind the wrapping. In an SQL store, Rasa's
recommended one, it asks for single rows: loading a long conversation costs more than a turn in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from inspect import isawaitable
from typing import Any

from rasa.core.tracker_store import FailSafeTrackerStore, SQLTrackerStore
from rasa.shared.core.events import BotUttered, SlotSet, UserUttered

from channels.doors import NotNow

DELIVERY = "otn_delivery"  # in a bot event's metadata: which delivery said this

_NEWEST = 20  # events of a kind: a turn that was saved a moment ago is among them


_Json = dict[str, Any]


class Conversation:
    """One person's events in the tracker store behind an agent. Every method raises NotNow if it can't be read."""

    def __init__(self, tracker_store: Any, sender_id: str) -> None:
        self._store = tracker_store
        if isinstance(tracker_store, FailSafeTrackerStore):
            self._store = tracker_store._tracker_store
        # A store without coroutines is wrapped once more.
        innermost = getattr(self._store, "_tracker_store", self._store)
        self._sql = innermost if isinstance(innermost, SQLTrackerStore) else None
        self._sender_id = sender_id

    async def had_turn(self, message_id: str) -> bool:
        """Whether a turn with this message id is anywhere in it."""
        return _turn_in(await self._holding(UserUttered, _turn_hint(message_id)), message_id)

    async def had_turn_lately(self, message_id: str) -> bool:
        """Whether a turn with this message id is among the last ones in it."""
        return _turn_in(await self._newest(UserUttered, _turn_hint(message_id)), message_id)

    async def tells_of(self, wire_id: str) -> bool:
        """Whether a delivery is noted in it."""
        found = await self._holding(BotUttered, f'"{DELIVERY}": {json.dumps(wire_id)}')
        return any((each.get("metadata") or {}).get(DELIVERY) == wire_id for each in found)

    async def slots_set(self, names: Sequence[str]) -> list[str]:
        """Which of these slots have a value; a slot that was reset with all others may be among them."""
        found = []
        for name in names:
            newest = await self._holding(SlotSet, f'"name": {json.dumps(name)}', most=1)
            if any(each.get("value") is not None for each in newest):
                found.append(name)
        return found

    async def forget(self) -> bool:
        """Delete it; False if this kind of tracker store can't. Hold the conversation's lock."""
        if self._sql is None:
            return False
        with self._sql.session_scope() as session:
            event = self._sql.SQLEvent
            session.query(event).filter(event.sender_id == self._sender_id).delete()
            session.commit()
        return True

    async def _holding(self, kind: Any, hint: str, most: int | None = None) -> list[_Json]:
        """The newest events of a kind whose JSON holds the hint, found by the database."""
        return [json.loads(data) for data in await self._rows(kind.type_name, hint, most) if hint in data][
            :most
        ]

    async def _newest(self, kind: Any, hint: str) -> list[_Json]:
        """Those that hold the hint among the newest events of a kind."""
        return [json.loads(data) for data in await self._rows(kind.type_name, None, _NEWEST) if hint in data]

    async def _rows(self, type_name: str, hint: str | None, most: int | None) -> list[str]:
        try:
            if self._sql is None:
                events = [each for each in await self._events() if each.type_name == type_name]
                return [json.dumps(each.as_dict()) for each in reversed(events)]
            return self._select(self._sql, type_name, hint, most)
        except Exception as exc:  # each kind of store has errors of its own
            raise NotNow(f"the tracker store cannot be read: {type(exc).__name__}") from exc

    def _select(self, store: Any, type_name: str, hint: str | None, most: int | None) -> list[str]:
        event = store.SQLEvent
        with store.session_scope() as session:
            query = session.query(event.data).filter(
                event.sender_id == self._sender_id, event.type_name == type_name
            )
            if hint is not None:
                query = query.filter(event.data.contains(hint, autoescape=True))
            return [row.data for row in query.order_by(event.id.desc()).limit(most)]

    async def _events(self) -> list[Any]:
        found = self._store.retrieve_full_tracker(self._sender_id)
        tracker = await found if isawaitable(found) else found
        return list(tracker.events) if tracker is not None else []


def _turn_hint(message_id: str) -> str:
    return f'"message_id": {json.dumps(message_id)}'


def _turn_in(events: list[_Json], message_id: str) -> bool:
    return any(each.get("message_id") == message_id for each in events)
