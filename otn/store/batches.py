"""Table `delivery`, many at a time: a broadcast's members come in, and its batches are claimed and settled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.models import Contact, Delivery, DeliveryState, Route
from otn.store import chunks
from otn.store.deliveries import COLUMNS, NEW, NO_ERROR, made
from otn.store.engine import Tx, db_epoch
from otn.store.schema import chunk, contact, delivery, topic
from otn.store.statements import insert_new

_QUEUED = DeliveryState.QUEUED.value
_SENDING = DeliveryState.SENDING.value
_UNKNOWN = DeliveryState.UNKNOWN.value


def add_members(tx: Tx, rows: list[dict[str, Any]]) -> None:
    """Add the deliveries of a broadcast; who has one already keeps it."""
    for row in rows:
        row |= NEW
    if rows:
        insert_new(tx, delivery, tuple(rows[0]), [tuple(row.values()) for row in rows], ["dedupe_key"])


_OF_CONTACT = "contact__"
_CLAIM_COLUMNS = (
    *(delivery.c[name] for name in COLUMNS),
    topic.c.name.label("topic"),
    *(contact.c[name].label(_OF_CONTACT + name) for name in Contact.__dataclass_fields__),
)
_AT = sa.bindparam("now", type_=delivery.c.next_attempt_at.type)
_CLAIM = (
    sa.select(*_CLAIM_COLUMNS)
    .select_from(delivery.join(contact).outerjoin(topic, topic.c.id == delivery.c.topic_id))
    .where(delivery.c.chunk_id == sa.bindparam("chunk"))
    .where(
        (
            (delivery.c.state == _QUEUED)
            & (delivery.c.next_attempt_at.is_(None) | (delivery.c.next_attempt_at <= _AT))
        )
        | (
            (delivery.c.state == _UNKNOWN)
            & (delivery.c.route == Route.TOKEN.value)
            & (delivery.c.next_attempt_at <= _AT)
        )
    )
    .where(delivery.c.state.in_([_QUEUED, _UNKNOWN]))
    .order_by(delivery.c.state, delivery.c.id)
    .limit(sa.bindparam("most"))
    .with_for_update(of=[delivery, contact], key_share=True, skip_locked=True)
)


def claim(tx: Tx, chunk_id: int, now: datetime, limit: int) -> list[tuple[Delivery, Contact]]:
    """The next deliveries of a chunk that may be sent now, with the people, locked until the transaction ends.

    Who is locked by somebody else is left for the next look: nobody waits here, so nobody waits in a circle.
    """
    found = []
    for row in tx.execute(_CLAIM, {"chunk": chunk_id, "now": now, "most": limit}):
        values = dict(row._mapping)
        person = Contact(**{name: values.pop(_OF_CONTACT + name) for name in Contact.__dataclass_fields__})
        found.append((made({**values, "page_id": person.page_id, "psid": person.psid}), person))
    return found


_START = (
    delivery.update()
    .where(delivery.c.id == sa.bindparam("delivery"), delivery.c.state == _QUEUED)
    .values(
        state=_SENDING,
        fence=delivery.c.fence + 1,
        attempts=delivery.c.attempts + 1,
        route=sa.bindparam("way"),
        rule=sa.bindparam("allowed_by"),
        token_id=sa.bindparam("token"),
        topic_id=sa.func.coalesce(sa.bindparam("about", type_=delivery.c.topic_id.type), delivery.c.topic_id),
        message=sa.bindparam("said", type_=delivery.c.message.type),
        lease_until=db_epoch() + sa.bindparam("seconds", type_=sa.Float),
        sending_at=sa.bindparam("now", type_=delivery.c.sending_at.type),
        next_attempt_at=None,
        **NO_ERROR,
    )
)
_SKIP = (
    delivery.update()
    .where(delivery.c.id == sa.bindparam("delivery"), delivery.c.state == _QUEUED)
    .values(
        state=DeliveryState.SKIPPED.value,
        reason=sa.bindparam("why"),
        error=sa.bindparam("sentence"),
        settled_at=sa.bindparam("now", type_=delivery.c.settled_at.type),
        next_attempt_at=None,
    )
)
_POSTPONE = (
    delivery.update()
    .where(delivery.c.id == sa.bindparam("delivery"), delivery.c.state == _QUEUED)
    .values(next_attempt_at=sa.bindparam("until", type_=delivery.c.next_attempt_at.type))
)
_SETTLE_SENT = (
    delivery.update()
    .where(delivery.c.id == sa.bindparam("delivery"), delivery.c.state != DeliveryState.SENT.value)
    .values(
        state=DeliveryState.SENT.value,
        message_id=sa.bindparam("mid"),
        settled_at=sa.bindparam("now", type_=delivery.c.settled_at.type),
        next_attempt_at=None,
        **NO_ERROR,
    )
)


def start_all(tx: Tx, starts: Sequence[Mapping[str, Any]], lease_seconds: float, now: datetime) -> None:
    """Move claimed deliveries to `sending`, each under its next fence.

    Each start: delivery, way (the route), allowed_by (the rule), token, about (the topic), said (the message).
    """
    if starts:
        tx.execute(_START, [{**each, "seconds": lease_seconds, "now": now} for each in starts])


def skip_all(tx: Tx, skips: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Say of claimed deliveries that the rules forbid them. Each skip: delivery, why, sentence."""
    if skips:
        tx.execute(_SKIP, [{**each, "now": now} for each in skips])


def postpone_all(tx: Tx, later: Sequence[Mapping[str, Any]]) -> None:
    """Look at claimed deliveries again later. Each: delivery, until."""
    if later:
        tx.execute(_POSTPONE, list(later))


_FREE_ONES = (
    sa.select(delivery.c.id)
    .where(delivery.c.id.in_(sa.bindparam("deliveries", expanding=True)))
    .with_for_update(key_share=True, skip_locked=True)
)


def lock_free(tx: Tx, delivery_ids: Sequence[int]) -> list[int]:
    """Lock those of these deliveries that nobody else has locked; which they are."""
    if not delivery_ids:
        return []
    return list(tx.execute(_FREE_ONES, {"deliveries": list(delivery_ids)}).scalars())


def settle_all_sent(tx: Tx, sent: Sequence[tuple[int, str | None]], now: datetime) -> None:
    """Meta said yes to these: delivery id and message id."""
    if sent:
        tx.execute(_SETTLE_SENT, [{"delivery": each, "mid": mid, "now": now} for each, mid in sent])


def to_retry(
    tx: Tx, broadcast_id: int, parts: Collection[int], reasons: Collection[str], until: datetime, limit: int
) -> dict[str, list[int]]:
    """Deliveries of a broadcast that ended until then without a message for one of these reasons, by Page.

    `parts`: in which of its chunks to look; who is in another, or in one that is not finished, is left alone.
    """
    query = (
        sa.select(contact.c.page_id, delivery.c.id)
        .select_from(delivery.join(contact).join(chunk, chunk.c.id == delivery.c.chunk_id))
        .where(delivery.c.chunk_id.in_(list(parts)))
        .where(chunk.c.broadcast_id == broadcast_id, chunk.c.done_at.isnot(None))
        .where(delivery.c.state.in_(chunks.WITHOUT_MESSAGE), delivery.c.reason.in_(list(reasons)))
        .where(delivery.c.settled_at <= until)
        .limit(limit)
    )
    found: dict[str, list[int]] = {}
    for row in tx.execute(query):
        found.setdefault(row.page_id, []).append(row.id)
    return found


def requeue(tx: Tx, delivery_ids: Sequence[int], chunk_id: int) -> None:
    """Try these once more, in another chunk."""
    old = sa.select(delivery.c.chunk_id).where(delivery.c.id.in_(delivery_ids)).distinct()
    left = list(tx.execute(old).scalars())
    tx.execute(
        delivery.update()
        .where(delivery.c.id.in_(delivery_ids), delivery.c.state.in_(chunks.WITHOUT_MESSAGE))
        .values(
            state=_QUEUED,
            chunk_id=chunk_id,
            attempts=0,
            window_refused=False,
            settled_at=None,
            next_attempt_at=None,
            token_id=None,
            **NO_ERROR,
        )
    )
    for chunk_left in left:
        chunks.recount(tx, chunk_left)
