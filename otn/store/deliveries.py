"""Table `delivery`: one message to one contact. Every transition names the state it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from otn.models import Delivery, DeliveryState, Origin, Route
from otn.policy import UNCONFIRMED_AFTER
from otn.store import chunks
from otn.store.engine import Tx, chosen, db_epoch
from otn.store.schema import UNSETTLED, contact, delivery, topic
from otn.store.statements import insert_if_new

COLUMNS = [
    name for name in Delivery.__dataclass_fields__ if name not in ("page_id", "psid", "topic")
]  # columns of the table itself
NEW = {"fence": 0, "attempts": 0, "doubtful": False, "window_refused": False, "human_agent": False}
NO_ERROR = {"reason": None, "error": None, "error_code": None, "error_subcode": None}
_SENDING = DeliveryState.SENDING.value
_UNKNOWN = DeliveryState.UNKNOWN.value
_QUEUED = DeliveryState.QUEUED.value

IS_UNNOTED = (delivery.c.state == DeliveryState.SENT.value) & delivery.c.noted_at.is_(None)
"""Whether a delivery was sent outside a conversation and is not in the tracker yet."""


def add(tx: Tx, values: Mapping[str, Any]) -> int | None:
    """Add a delivery; its id, or None if its dedupe key exists."""
    return insert_if_new(tx, delivery, {**NEW, **values}, ["dedupe_key"])


def by_key(tx: Tx, dedupe_key: str) -> Delivery | None:
    """The delivery that was decided under this key."""
    return _one(tx, delivery.c.dedupe_key == dedupe_key)


def get(tx: Tx, delivery_id: int) -> Delivery:
    """The delivery with this id."""
    found = _one(tx, delivery.c.id == delivery_id)
    assert found is not None  # noqa: S101 - ids come from rows, and rows are never deleted
    return found


def start(
    tx: Tx,
    delivery_id: int,
    old: DeliveryState,
    *,
    fence: int,
    route: Route,
    rule: str,
    token_id: int | None,
    lease_seconds: float,
    now: datetime,
) -> bool:
    """Move to `sending` under the next fence; False if somebody else did."""
    started = tx.execute(
        delivery.update()
        .where(delivery.c.id == delivery_id, delivery.c.state == old.value, delivery.c.fence == fence)
        .values(
            state=_SENDING,
            fence=fence + 1,
            attempts=delivery.c.attempts + 1,
            doubtful=sa.true() if old is DeliveryState.UNKNOWN else delivery.c.doubtful,
            route=route.value,
            rule=rule,
            token_id=token_id,
            lease_until=db_epoch() + lease_seconds,
            sending_at=now,
            next_attempt_at=None,
            **NO_ERROR,
        )
    )
    return bool(started.rowcount)


def settle_sent(tx: Tx, delivery_id: int, message_id: str | None, now: datetime) -> bool:
    """Meta said yes, or an echo proves it. That is true whatever was believed before: the message is out."""
    return _move(
        tx,
        delivery.c.id == delivery_id,
        [state for state in DeliveryState if state is not DeliveryState.SENT],
        DeliveryState.SENT,
        message_id=message_id,
        settled_at=now,
        next_attempt_at=None,
        **NO_ERROR,
    )


_OPEN = (DeliveryState.SENDING, DeliveryState.UNKNOWN)


def settle(
    tx: Tx,
    delivery_id: int,
    fence: int,
    new: DeliveryState,
    values: Mapping[str, Any],
    old: Sequence[DeliveryState] = _OPEN,
) -> bool:
    """Write down an answer that was not a yes; only the attempt with the newest fence may."""
    condition = (delivery.c.id == delivery_id) & (delivery.c.fence == fence)
    return _move(tx, condition, old, new, **values)


def end(tx: Tx, delivery_id: int, old: DeliveryState, new: DeliveryState, values: Mapping[str, Any]) -> bool:
    """Move a delivery that nobody is sending to another state."""
    return _move(tx, delivery.c.id == delivery_id, [old], new, **values)


def sent_by_echo(tx: Tx, contact_id: int, wire_id: str) -> Delivery | None:
    """The delivery to this person that an echo with this wire id belongs to."""
    return _one(tx, (delivery.c.wire_id == wire_id) & (delivery.c.contact_id == contact_id))


def lapse_leases(tx: Tx, now: datetime, limit: int = 500) -> int:
    """What was `sending` when its sender died is `unknown`: it may have been sent."""
    ids = (
        sa.select(delivery.c.id)
        .where(UNSETTLED, delivery.c.state == _SENDING, delivery.c.lease_until < db_epoch())
        .limit(limit)
        # What is being settled at this moment needs nobody.
        .with_for_update(key_share=True, skip_locked=True)
    )
    lapsed = tx.execute(
        delivery.update()
        .where(delivery.c.id.in_(chosen(ids)), delivery.c.state == _SENDING)
        .values(
            state=_UNKNOWN,
            reason="sender_died",
            error="The process that sent this stopped before Meta's answer was recorded",
            settled_at=now,
            next_attempt_at=sa.case((delivery.c.route == Route.TOKEN.value, now), else_=None),
        )
    )
    return int(lapsed.rowcount)


def give_up_unconfirmed(tx: Tx, now: datetime, limit: int = 500) -> int:
    """Messages by psid without an echo for a day stay unconfirmed: they are never sent again on their own."""
    ids = (
        sa.select(delivery.c.id)
        .where(UNSETTLED, delivery.c.state == _UNKNOWN, delivery.c.route != Route.TOKEN.value)
        .where(delivery.c.sending_at <= now - UNCONFIRMED_AFTER)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    given_up = tx.execute(
        delivery.update()
        .where(delivery.c.id.in_(chosen(ids)), delivery.c.state == _UNKNOWN)
        .values(state=DeliveryState.UNCONFIRMED.value, settled_at=now)
    )
    return int(given_up.rowcount)


def due(tx: Tx, now: datetime, limit: int = 100) -> list[int]:
    """Single deliveries that want another try now: queued ones, and unknown ones that hold a token.

    A broadcast's are taken up with their chunk.
    """
    query = (
        sa.select(delivery.c.id)
        .where(UNSETTLED, delivery.c.state.in_([_QUEUED, _UNKNOWN]), delivery.c.next_attempt_at <= now)
        .where(delivery.c.chunk_id.is_(None))
        .order_by(delivery.c.next_attempt_at, delivery.c.id)
        .limit(limit)
    )
    return list(tx.execute(query).scalars())


def postpone(tx: Tx, delivery_id: int, until: datetime) -> None:
    """Look at it again later."""
    tx.execute(delivery.update().where(delivery.c.id == delivery_id).values(next_attempt_at=until))


def accepted_elsewhere(tx: Tx, message_hash: str, contact_id: int) -> bool:
    """Whether Meta took the same message for somebody else: then the message is not at fault."""
    query = sa.select(delivery.c.id).where(
        delivery.c.message_hash == message_hash,
        delivery.c.state == DeliveryState.SENT.value,
        delivery.c.contact_id != contact_id,
    )
    return tx.execute(query.limit(1)).first() is not None


def unnoted(tx: Tx, contact_id: int) -> list[Delivery]:
    """What was sent to this person outside a conversation and is not in the tracker yet, oldest first."""
    query = _select().where(delivery.c.contact_id == contact_id, IS_UNNOTED)
    return [_delivery(row) for row in tx.execute(query.order_by(delivery.c.settled_at, delivery.c.id))]


def note(tx: Tx, delivery_ids: list[int], now: datetime) -> None:
    """These are in the tracker now."""
    tx.execute(delivery.update().where(delivery.c.id.in_(delivery_ids)).values(noted_at=now))


def being_sent(tx: Tx, contact_id: int) -> int:
    """How many messages to this person are on their way at this moment."""
    query = sa.select(sa.func.count()).where(
        delivery.c.contact_id == contact_id,
        delivery.c.state == _SENDING,
        delivery.c.lease_until >= db_epoch(),
    )
    return int(tx.execute(query).scalar_one())


def recent(tx: Tx, contact_id: int, limit: int = 20) -> list[Delivery]:
    """The newest deliveries to this person, newest first."""
    query = _select().where(delivery.c.contact_id == contact_id).order_by(delivery.c.id.desc()).limit(limit)
    return [_delivery(row) for row in tx.execute(query)]


def erase(tx: Tx, contact_id: int, now: datetime) -> None:
    """Forget what was said; states stay, so that sums and uniqueness hold. Nothing open goes out."""
    mine = delivery.c.contact_id == contact_id
    tx.execute(
        delivery.update()
        .where(mine, delivery.c.state == _QUEUED)
        .values(state=DeliveryState.SKIPPED.value, reason="erased", settled_at=now, next_attempt_at=None)
    )
    tx.execute(
        delivery.update()
        .where(mine, delivery.c.state.in_([_SENDING, _UNKNOWN]))
        .values(state=DeliveryState.UNCONFIRMED.value, settled_at=now, next_attempt_at=None)
    )
    tx.execute(delivery.update().where(mine).values(message=None, message_id=None, error=None, noted_at=now))
    chunks.note_change(tx, contact_id)


def made(values: dict[str, Any]) -> Delivery:
    values["state"] = DeliveryState(values["state"])
    values["origin"] = Origin(values["origin"])
    values["route"] = Route(values["route"]) if values["route"] else None
    return Delivery(**values)


def _move(tx: Tx, condition: Any, old: Sequence[DeliveryState], new: DeliveryState, **values: Any) -> bool:
    moved = tx.execute(
        delivery.update()
        .where(condition, delivery.c.state.in_([state.value for state in old]))
        .values(state=new.value, **values)
    )
    return bool(moved.rowcount)


def _select() -> Any:
    return sa.select(
        *(delivery.c[name] for name in COLUMNS),
        contact.c.page_id,
        contact.c.psid,
        topic.c.name.label("topic"),
    ).select_from(delivery.join(contact).outerjoin(topic, topic.c.id == delivery.c.topic_id))


def _one(tx: Tx, condition: Any) -> Delivery | None:
    row = tx.execute(_select().where(condition)).one_or_none()
    return _delivery(row) if row else None


def _delivery(row: Row[Any]) -> Delivery:
    return made(dict(row._mapping))
