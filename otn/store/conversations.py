"""Table `events` of Rasa's SQL tracker store: what is asked of it beside what Rasa asks itself.

It lies in a database of Rasa's, so each function takes a connection of Rasa's engine. Rasa alone writes to it, by
counting; we only read and forget. An event's `data` is its JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from otn.store.engine import Tx

_event = sa.table(
    "events",
    sa.column("id", sa.Integer),
    *(sa.column(name, sa.String) for name in ("sender_id", "type_name", "action_name", "data")),
)
_DATA = (
    sa.select(_event.c.data).where(_event.c.sender_id == sa.bindparam("sender")).order_by(_event.c.id.desc())
)
_USER = _event.c.type_name == "user"
_NAMED_SLOT = (_event.c.type_name == "slot") & _event.c.action_name.in_(sa.bindparam("slots", expanding=True))
# Built once, since every turn asks: building takes longer than running.
_NEWEST = _DATA.where(_USER | _NAMED_SLOT).limit(sa.bindparam("most"))


def newest(tx: Tx, sender_id: str, slots: Sequence[str], most: int) -> list[str]:
    """The newest user events, and those that set one of the slots, newest first."""
    return list(tx.execute(_NEWEST, {"sender": sender_id, "slots": list(slots), "most": most}).scalars())


def holding(tx: Tx, sender_id: str, type_name: str, hint: str) -> list[str]:
    """All events of a kind whose JSON holds the hint, newest first."""
    found = _DATA.where(_event.c.type_name == type_name, _event.c.data.contains(hint, autoescape=True))
    return list(tx.execute(found, {"sender": sender_id}).scalars())


def forget(tx: Tx, sender_id: str) -> None:
    """Delete a conversation."""
    tx.execute(_event.delete().where(_event.c.sender_id == sender_id))
