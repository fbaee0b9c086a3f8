"""Who leads a person's conversation: a lease in the contact's row, and the oldest event that waits for a turn.

Every message needs all of this, so it is few statements: on a server each is a journey, and beside a busy event loop
each is a wait for Python's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from otn.models import Contact, InboxState, sender_id_on_page
from otn.store import contacts, deliveries, inbox
from otn.store.engine import Tx, db_epoch
from otn.store.inbox import InboxRow
from otn.store.schema import contact, delivery, inbound_event
from otn.store.statements import Lookup, made_of

# A turn may end with its process, which says little about the event: whatever else was under way died too.
MAX_ATTEMPTS = 10

# Built once, since every turn needs them: building takes longer than running.
_THIS = contact.c.id == sa.bindparam("contact")
_OWN = contact.c.turn_owner == sa.bindparam("owner")
_FREE = contact.c.turn_owner.is_(None) | (contact.c.turn_lease_until < db_epoch())
_TAKE = (
    contact.update()
    .where(_THIS, _FREE | _OWN)
    .values(
        turn_owner=sa.bindparam("owner"),
        turn_lease_until=db_epoch() + sa.bindparam("seconds", type_=sa.Float),
    )
)
_HOLDS = Lookup(sa.select(contact.c.id).where(_THIS, _OWN).with_for_update(key_share=True))
_GIVE_BACK = contact.update().where(_THIS, _OWN).values(turn_owner=None, turn_lease_until=None)
_GIVE_BACK_IF_IDLE = _GIVE_BACK.where(
    contact.c.erase_requested_at.is_(None),
    ~sa.exists().where(
        inbound_event.c.contact_id == sa.bindparam("contact"),
        inbound_event.c.state == InboxState.NEW.value,
    ),
)
_COUNT_ATTEMPT = (
    inbound_event.update()
    .where(inbound_event.c.id == sa.bindparam("event"))
    .values(attempts=inbound_event.c.attempts + 1)
)
_CLOSE = (
    inbound_event.update()
    .where(inbound_event.c.id == sa.bindparam("event"), inbound_event.c.state == InboxState.NEW.value)
    .values(state=sa.bindparam("became"), closed_at=sa.bindparam("at"), error=sa.bindparam("why"))
)
_same_psid, _waiting = contact.alias(), inbound_event.alias()
# A conversation is named by the psid, unless another Page knew that psid first: psids are page-scoped, so that this
# should not happen; if it does, these are two people.
_FIRST_WITH_PSID = (
    sa.select(sa.func.min(_same_psid.c.id)).where(_same_psid.c.psid == contact.c.psid).scalar_subquery()
)
_HAS_UNNOTED = sa.exists().where(delivery.c.contact_id == contact.c.id, deliveries.IS_UNNOTED)
_OLDEST = (
    sa.select(_waiting.c.id)
    .where(_waiting.c.contact_id == contact.c.id, _waiting.c.state == InboxState.NEW.value)
    .order_by(_waiting.c.event_at, _waiting.c.id)
    .limit(1)
    .scalar_subquery()
)
_NEXT = Lookup(
    sa.select(contact.c.id == _FIRST_WITH_PSID, _HAS_UNNOTED, *inbox.COLUMNS, *contacts.COLUMNS)
    .select_from(contact.outerjoin(inbound_event, inbound_event.c.id == _OLDEST))
    .where(_THIS)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A conversation that is ours to lead, and the event whose turn it is; none: the person is to be forgotten.

    `has_unnoted`: whether something was sent outside the conversation that is not in the tracker yet.
    """

    person: Contact
    sender_id: str
    has_unnoted: bool
    row: InboxRow | None


def claim(tx: Tx, contact_id: int, owner: str, lease_seconds: float, now: datetime) -> Claim | None:
    """Lease this person's conversation and take the oldest waiting event; None if there is nothing to do.

    Counts the attempt. An event that was tried MAX_ATTEMPTS times becomes `failed`, visible, and the
    next one is taken. Without an event the lease is given back.
    """
    if not take(tx, contact_id, owner, lease_seconds):
        return None
    while (found := _next(tx, contact_id)).row is not None:
        if found.row.attempts < MAX_ATTEMPTS:
            tx.execute(_COUNT_ATTEMPT, {"event": found.row.id})
            return found
        why = f"the process died in the turn, {MAX_ATTEMPTS} times"
        _close(tx, found.row, InboxState.FAILED, now, why)
    if found.person.erase_requested_at is not None:
        return found
    give_back(tx, contact_id, owner)
    return None


def end(
    tx: Tx,
    row: InboxRow,
    contact_id: int,
    owner: str,
    state: InboxState,
    now: datetime,
    error: str | None = None,
) -> bool:
    """Close a claimed event. True if there is more to do for this person; else the conversation is given back.

    Nothing happens if the lease went to somebody else meanwhile, who will do it again.
    """
    # First of all, because it locks the contact's row. On PostgreSQL a statement that waits for the row itself and then
    # gives the lease back does not see the event that came in meanwhile: it would wait for the sweep.
    if not holds(tx, contact_id, owner):
        return False
    _close(tx, row, state, now, error)
    return not tx.execute(_GIVE_BACK_IF_IDLE, {"contact": contact_id, "owner": owner}).rowcount


def put_back(tx: Tx, row: InboxRow, contact_id: int, owner: str) -> None:
    """Undo a claim of which nothing came, for no fault of the event's: it was no attempt."""
    if holds(tx, contact_id, owner):
        tx.execute(inbound_event.update().where(inbound_event.c.id == row.id).values(attempts=row.attempts))


def take(tx: Tx, contact_id: int, owner: str, seconds: float) -> bool:
    """Lease this person's conversation; True if it is now ours. Renewing is taking it again."""
    return bool(tx.execute(_TAKE, {"contact": contact_id, "owner": owner, "seconds": seconds}).rowcount)


def holds(tx: Tx, contact_id: int, owner: str) -> bool:
    """Whether the conversation is still leased to this owner, and stays so until the transaction ends."""
    return bool(_HOLDS.rows(tx, contact=contact_id, owner=owner))


def give_back(tx: Tx, contact_id: int, owner: str) -> None:
    """Let somebody else lead this conversation."""
    tx.execute(_GIVE_BACK, {"contact": contact_id, "owner": owner})


def waiting(tx: Tx, limit: int = 200) -> list[int]:
    """Contacts with events that wait for a turn that nobody leads: new ones, and those of the dead."""
    query = (
        sa.select(inbound_event.c.contact_id)
        .join(contact, contact.c.id == inbound_event.c.contact_id)
        .where(inbound_event.c.state == InboxState.NEW.value, _FREE)
        .distinct()
        .limit(limit)
    )
    return list(tx.execute(query).scalars())


def _next(tx: Tx, contact_id: int) -> Claim:
    """The person, and what waits for a turn first; of who is to be forgotten, nothing."""
    ((is_first, has_unnoted, *values),) = _NEXT.rows(tx, contact=contact_id)
    event, known = values[: len(inbox.COLUMNS)], values[len(inbox.COLUMNS) :]
    person = made_of(Contact, known)
    waits = event[0] is not None and person.erase_requested_at is None
    return Claim(
        person=person,
        sender_id=person.psid if is_first else sender_id_on_page(person.psid, person.page_id),
        has_unnoted=has_unnoted,
        row=made_of(InboxRow, event) if waits else None,
    )


def _close(tx: Tx, row: InboxRow, state: InboxState, now: datetime, error: str | None) -> None:
    tx.execute(_CLOSE, {"event": row.id, "became": state.value, "at": now, "why": error})
