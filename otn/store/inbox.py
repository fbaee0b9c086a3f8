"""Table `inbound_event`: everything Meta told us, until it is dealt with and a week longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from otn.events import EventKind
from otn.models import InboxState
from otn.store import contacts
from otn.store.engine import Tx, db_epoch
from otn.store.schema import contact, inbound_event
from otn.store.statements import Lookup, insert_new

# A turn may end with its process, which says little about the event: whatever else was under way died too.
MAX_ATTEMPTS = 10

# Built once, since every turn needs them: building takes longer than running.
_OLDEST = Lookup(
    sa.select(
        inbound_event.c.id,
        inbound_event.c.page_id,
        inbound_event.c.event_key,
        inbound_event.c.attempts,
        inbound_event.c.event_at,
        inbound_event.c.received_at,
        inbound_event.c.standby,
        inbound_event.c.raw.label("sealed"),
    )
    .where(
        inbound_event.c.contact_id == sa.bindparam("contact"), inbound_event.c.state == InboxState.NEW.value
    )
    .order_by(inbound_event.c.event_at, inbound_event.c.id)
    .limit(1)
)
_COUNT_ATTEMPT = (
    inbound_event.update()
    .where(inbound_event.c.id == sa.bindparam("event"))
    .values(attempts=inbound_event.c.attempts + 1)
)
_END_TURN = (
    contact.update()
    .where(contact.c.id == sa.bindparam("contact"), contact.c.turn_owner == sa.bindparam("owner"))
    .where(contact.c.erase_requested_at.is_(None))
    .where(
        ~sa.exists().where(
            inbound_event.c.contact_id == sa.bindparam("contact"),
            inbound_event.c.state == InboxState.NEW.value,
        )
    )
    .values(turn_owner=None, turn_lease_until=None)
)
_CLOSE = (
    inbound_event.update()
    .where(inbound_event.c.id == sa.bindparam("event"), inbound_event.c.state == InboxState.NEW.value)
    .values(state=sa.bindparam("became"), closed_at=sa.bindparam("at"), error=sa.bindparam("why"))
)


class NewEvent(NamedTuple):
    """An event that came in, as the row that is kept of it."""

    page_id: str
    event_key: str
    kind: str
    contact_id: int | None
    event_at: datetime
    received_at: datetime
    raw: bytes  # sealed
    standby: bool
    state: str
    error: str | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRow:
    """An event whose conversation turn is ours to run now."""

    id: int
    page_id: str
    event_key: str
    attempts: int
    event_at: datetime
    received_at: datetime
    standby: bool
    sealed: bytes = field(repr=False)


def record(tx: Tx, events: Sequence[NewEvent]) -> dict[tuple[str, str], int]:
    """Record events; ids by (page, key) of those that were not here yet (Meta delivers again).

    Of several with the same key the first is recorded.
    """
    return insert_new(tx, inbound_event, NewEvent._fields, events, ["page_id", "event_key"])


def claim(tx: Tx, contact_id: int, owner: str, lease_seconds: float, now: datetime) -> InboxRow | None:
    """Lease this person's conversation and take the oldest waiting event; None if there is nothing to do.

    Counts the attempt. An event that was tried MAX_ATTEMPTS times becomes `failed`, visible, and the
    next one is taken. Without an event the lease is given back.
    """
    if not contacts.take_turn(tx, contact_id, owner, lease_seconds):
        return None
    while (row := _oldest(tx, contact_id)) is not None:
        if row.attempts < MAX_ATTEMPTS:
            tx.execute(_COUNT_ATTEMPT, {"event": row.id})
            return row
        _close(tx, row.id, InboxState.FAILED, now, f"the process died in the turn, {MAX_ATTEMPTS} times")
    contacts.give_turn_back(tx, contact_id, owner)
    return None


def end_turn(tx: Tx, contact_id: int, owner: str) -> bool:
    """Give a conversation back in which nothing waits; False if there is more to do for this person."""
    return bool(tx.execute(_END_TURN, {"contact": contact_id, "owner": owner}).rowcount)


def put_back(tx: Tx, row: InboxRow, contact_id: int, owner: str) -> None:
    """Undo a claim of which nothing came, for no fault of the event's: it was no attempt."""
    if contacts.holds_turn(tx, contact_id, owner):
        tx.execute(inbound_event.update().where(inbound_event.c.id == row.id).values(attempts=row.attempts))


def close(
    tx: Tx,
    row: InboxRow,
    contact_id: int,
    owner: str,
    state: InboxState,
    now: datetime,
    error: str | None = None,
) -> bool:
    """Close a claimed event; False if the lease went to somebody else meanwhile, who will do it again."""
    if not contacts.holds_turn(tx, contact_id, owner):
        return False
    _close(tx, row.id, state, now, error)
    return True


def waiting(tx: Tx, limit: int = 200) -> list[int]:
    """Contacts with events that wait for a turn that nobody leads: new ones, and those of the dead."""
    free = contact.c.turn_owner.is_(None) | (contact.c.turn_lease_until < db_epoch())
    query = (
        sa.select(inbound_event.c.contact_id)
        .join(contact, contact.c.id == inbound_event.c.contact_id)
        .where(inbound_event.c.state == InboxState.NEW.value, free)
        .distinct()
        .limit(limit)
    )
    return list(tx.execute(query).scalars())


def prune(tx: Tx, before: datetime, limit: int = 500) -> int:
    """Delete events received before a time and dealt with, a batch of them; how many.

    A broken opt-in stays: its token is nowhere else.
    """
    dealt_with = inbound_event.c.state.not_in([InboxState.NEW.value, InboxState.BROKEN.value])
    not_an_optin = inbound_event.c.kind != EventKind.OPTIN_OTN.value
    broken = (inbound_event.c.state == InboxState.BROKEN.value) & not_an_optin
    ids = (
        sa.select(inbound_event.c.id)
        .where(inbound_event.c.received_at < before, dealt_with | broken)
        .order_by(inbound_event.c.received_at)
        .limit(limit)
    )
    return int(tx.execute(inbound_event.delete().where(inbound_event.c.id.in_(ids))).rowcount)


def has_newer(tx: Tx, page_id: str, kind: str, at: datetime) -> bool:
    """Whether something of this kind happened to the page after `at`: events arrive out of order."""
    query = sa.select(inbound_event.c.id).where(
        inbound_event.c.page_id == page_id, inbound_event.c.kind == kind, inbound_event.c.event_at > at
    )
    return tx.execute(query.limit(1)).first() is not None


def of_contact(tx: Tx, contact_id: int) -> list[tuple[dict[str, Any], bytes | None]]:
    """What is kept of what this person did, oldest first, and sealed what Meta told.

    An opt-in without that: one that could not be recorded holds its token.
    """
    names = ("kind", "event_at", "received_at", "state")
    sealed = sa.case((inbound_event.c.kind != EventKind.OPTIN_OTN.value, inbound_event.c.raw), else_=None)
    query = (
        sa.select(*(inbound_event.c[name] for name in names), sealed.label("sealed"))
        .where(inbound_event.c.contact_id == contact_id)
        .order_by(inbound_event.c.event_at, inbound_event.c.id)
    )
    return [({name: row._mapping[name] for name in names}, row.sealed) for row in tx.execute(query)]


def erase(tx: Tx, contact_id: int, until: datetime) -> None:
    """Delete what this person did up to a moment."""
    tx.execute(
        inbound_event.delete().where(
            inbound_event.c.contact_id == contact_id, inbound_event.c.event_at <= until
        )
    )


def to_reseal(tx: Tx, after: int, limit: int) -> list[tuple[int, bytes]]:
    """(id, sealed) by id: what a key rotation walks through."""
    query = (
        sa.select(inbound_event.c.id, inbound_event.c.raw)
        .where(inbound_event.c.id > after)
        .order_by(inbound_event.c.id)
        .limit(limit)
    )
    return [(row.id, row.raw) for row in tx.execute(query)]


def count(tx: Tx) -> int:
    """How many events are kept."""
    return int(tx.execute(sa.select(sa.func.count()).select_from(inbound_event)).scalar_one())


def reseal(tx: Tx, event_id: int, sealed: bytes) -> None:
    """Replace the sealed bytes."""
    tx.execute(inbound_event.update().where(inbound_event.c.id == event_id).values(raw=sealed))


def _oldest(tx: Tx, contact_id: int) -> InboxRow | None:
    for row in _OLDEST.rows(tx, contact=contact_id):
        return InboxRow(**dict(zip(InboxRow.__dataclass_fields__, row, strict=True)))
    return None


def _close(tx: Tx, event_id: int, state: InboxState, now: datetime, error: str | None) -> None:
    tx.execute(_CLOSE, {"event": event_id, "became": state.value, "at": now, "why": error})
