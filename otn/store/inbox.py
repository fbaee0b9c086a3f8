"""Table `inbound_event`: everything Meta told us, until it is dealt with and a week longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from otn.events import EventKind
from otn.models import InboxState
from otn.store.engine import Tx
from otn.store.schema import inbound_event
from otn.store.statements import insert_new

COLUMNS = (
    inbound_event.c.id,
    inbound_event.c.page_id,
    inbound_event.c.event_key,
    inbound_event.c.attempts,
    inbound_event.c.event_at,
    inbound_event.c.received_at,
    inbound_event.c.standby,
    inbound_event.c.raw,
)
"""What an InboxRow is made of."""


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
