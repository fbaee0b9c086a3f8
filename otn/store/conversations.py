"""Table `events` of Rasa's SQL tracker store, in a database of Rasa's.

Rasa's own statements are made by its ORM, anew each time; these are built once, since every turn needs them: building
takes longer than running. What a session is and how much of it is kept is counted as Rasa counts. An event's `data`
is its JSON.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from otn.store.engine import Source, Store, Tx, sqlite_module
from otn.store.migrate import set_journal_mode
from otn.store.statements import Append, Lookup

_event = sa.table(
    "events",
    sa.column("id", sa.Integer),
    sa.column("timestamp", sa.Float),
    *(
        sa.column(name, sa.String)
        for name in ("sender_id", "type_name", "intent_name", "action_name", "data")
    ),
)
_OF_SENDER = _event.c.sender_id == sa.bindparam("sender")
_DATA = sa.select(_event.c.data).where(_OF_SENDER)
_NEWEST_FIRST = _DATA.order_by(_event.c.id.desc())
_USER = _event.c.type_name == "user"
_SLOT = _event.c.type_name == "slot"
_SESSION_STARTED = (
    sa.select(sa.func.max(_event.c.timestamp).label("at"))
    .where(_OF_SENDER, _event.c.type_name == "session_started")
    .subquery()
)
_OF_SESSION = (_event.c.timestamp >= _SESSION_STARTED.c.at) | _SESSION_STARTED.c.at.is_(None)
_EVERY_EVENT = Lookup(_DATA.order_by(_event.c.id))
_EVENTS_OF_SESSION = Lookup(_DATA.order_by(_event.c.id).where(_OF_SESSION))
_COUNT_OF_SESSION = Lookup(sa.select(sa.func.count()).select_from(_event).where(_OF_SENDER, _OF_SESSION))
_APPEND = Append(_event, ("sender_id", "type_name", "timestamp", "intent_name", "action_name", "data"))


def engine_for(path: str) -> Engine:
    """An engine for the SQLite file of a tracker store, by the recipe of our own database."""
    store = Store(f"sqlite:///{path}")
    with suppress(
        sqlite_module().OperationalError
    ):  # another process is at work in it; the next start will do
        set_journal_mode(store)
    return store.engine


def events(where: Source, sender_id: str, *, every_session: bool) -> list[str]:
    """The events of the newest session, or of all, oldest first."""
    lookup = _EVERY_EVENT if every_session else _EVENTS_OF_SESSION
    return [data for (data,) in lookup.rows(where, sender=sender_id)]


def count(tx: Tx, sender_id: str) -> int:
    """How many events the newest session has."""
    ((number,),) = _COUNT_OF_SESSION.rows(tx, sender=sender_id)
    return int(number)


def append(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep events, in this order."""
    _APPEND.rows(tx, rows)


def newest(where: Source, sender_id: str, slots: tuple[str, ...], most: int) -> list[str]:
    """The newest user events, and those that set one of the slots, newest first."""
    return [data for (data,) in _newest(slots).rows(where, sender=sender_id, most=most)]


@functools.cache
def _newest(slots: tuple[str, ...]) -> Lookup:
    named = sa.or_(sa.false(), *(_event.c.action_name == name for name in slots))
    return Lookup(_NEWEST_FIRST.where(_USER | (_SLOT & named)).limit(sa.bindparam("most")))


def holding(tx: Tx, sender_id: str, type_name: str, hint: str) -> list[str]:
    """All events of a kind whose JSON holds the hint, newest first."""
    found = _NEWEST_FIRST.where(
        _event.c.type_name == type_name, _event.c.data.contains(hint, autoescape=True)
    )
    return list(tx.execute(found, {"sender": sender_id}).scalars())


def forget(tx: Tx, sender_id: str) -> None:
    """Delete a conversation."""
    tx.execute(_event.delete().where(_event.c.sender_id == sender_id))
