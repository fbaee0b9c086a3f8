"""A person's conversation as Rasa's tracker store really holds it.

Rasa wraps the store so that a failed save or load is only logged and memory takes over. A webhook's event
is closed when its turn is durable, so this looks at the store behind the wrapping. In an SQL store, Rasa's
recommended one, it asks for single rows: loading a long conversation costs more than a turn in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

from rasa.core.tracker_store import FailSafeTrackerStore, SQLTrackerStore
from rasa.shared.core.events import BotUttered, SlotSet, UserUttered

from channels.doors import NotNow
from otn.store import Store, conversations

DELIVERY = "otn_delivery"  # in a bot event's metadata: which delivery said this

_A_TURN = json.dumps({"event": UserUttered.type_name})[:-1]  # how the JSON of a user event begins
_NEWEST = 10  # rows: those of the last turns, however much a turn held

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lately:
    """What the last turns of a conversation left: whether one was a message's, and the slots that they set."""

    had_turn: bool
    slots: dict[str, Any]


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

    async def lately(self, message_id: str, slots: tuple[str, ...] = ()) -> Lately:
        """What the last turns left. Of the slots, only those named, and only if one of these turns set them."""
        rows = await self._newest(message_id, slots)
        # Newest first: the older value must not win.
        values = {
            row["name"]: row.get("value") for row in reversed(rows) if row["event"] == SlotSet.type_name
        }
        return Lately(had_turn=any(row.get("message_id") == message_id for row in rows), slots=values)

    async def had_turn(self, message_id: str) -> bool:
        """Whether a turn with this message id is anywhere in it."""
        found = await self._holding(UserUttered.type_name, _hint(message_id))
        return any(each.get("message_id") == message_id for each in found)

    async def tells_of(self, wire_id: str) -> bool:
        """Whether a delivery is noted in it."""
        found = await self._holding(BotUttered.type_name, f'"{DELIVERY}": {json.dumps(wire_id)}')
        return any((each.get("metadata") or {}).get(DELIVERY) == wire_id for each in found)

    async def forget(self) -> bool:
        """Delete it; False if this kind of tracker store can't. Hold the conversation's lock."""
        if self._sql is None:
            return False
        with Store.over(self._sql.engine).begin() as tx:
            conversations.forget(tx, self._sender_id)
        return True

    async def _newest(self, message_id: str, slots: tuple[str, ...]) -> list[_Json]:
        """Of the newest events: the turn with this message id, and those that set one of the slots, newest first."""
        if self._sql is None:
            wanted = [each for each in await self._events() if _is_turn_or_slot(each, slots)]
            return wanted[-1 : -_NEWEST - 1 : -1]
        with _reading():
            rows = conversations.newest(self._sql.engine, self._sender_id, slots, _NEWEST)
        hint = _hint(message_id)  # most of these are other turns, long and not worth reading
        return [json.loads(each) for each in rows if hint in each or not each.startswith(_A_TURN)]

    async def _holding(self, type_name: str, hint: str) -> list[_Json]:
        """All events of a kind whose JSON holds the hint."""
        if self._sql is None:
            return [each for each in await self._events() if each["event"] == type_name]
        with _reading(), Store.over(self._sql.engine).read() as tx:
            rows = conversations.holding(tx, self._sender_id, type_name, hint)
        return [json.loads(each) for each in rows]

    async def _events(self) -> list[_Json]:
        with _reading():
            found = self._store.retrieve_full_tracker(self._sender_id)
            tracker = await found if isawaitable(found) else found
        return [each.as_dict() for each in tracker.events] if tracker is not None else []


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # each kind of store has errors of its own
        raise NotNow(f"the tracker store cannot be read: {type(exc).__name__}") from exc


def _hint(message_id: str) -> str:
    """How a turn with this message id is told in its event's JSON."""
    return f'"message_id": {json.dumps(message_id)}'


def _is_turn_or_slot(event: _Json, slots: Sequence[str]) -> bool:
    return event["event"] == UserUttered.type_name or (
        event["event"] == SlotSet.type_name and event["name"] in slots
    )
