"""Table `delivery`: one message to one contact. Every transition names the state it leaves."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from otn.models import Contact, Delivery, DeliveryState, Origin, Route
from otn.policy import UNCONFIRMED_AFTER
from otn.store import chunks
from otn.store.engine import Tx, chosen, db_epoch, insert_if_new, insert_new
from otn.store.schema import UNSETTLED, chunk, contact, delivery, topic

_OWN = [
    name for name in Delivery.__dataclass_fields__ if name not in ("page_id", "psid", "topic")
]  # columns of the table itself
ANSWERED_WITHIN = timedelta(days=7)  # what a person does later than this is no answer to a follow-up
_SENDING = DeliveryState.SENDING.value
_UNKNOWN = DeliveryState.UNKNOWN.value
_QUEUED = DeliveryState.QUEUED.value
_NO_ERROR = {"reason": None, "error": None, "error_code": None, "error_subcode": None}


def add(tx: Tx, values: Mapping[str, Any]) -> int | None:
    """Add a delivery; its id, or None if its dedupe key exists."""
    defaults = {
        "fence": 0,
        "attempts": 0,
        "doubtful": False,
        "window_refused": False,
        "human_agent": False,
    }
    return insert_if_new(tx, delivery, {**defaults, **values}, ["dedupe_key"])


def add_members(tx: Tx, rows: list[dict[str, Any]]) -> None:
    """Add the deliveries of a broadcast; who has one already keeps it."""
    for row in rows:
        row |= {"fence": 0, "attempts": 0, "doubtful": False, "window_refused": False, "human_agent": False}
    if rows:
        insert_new(tx, delivery, tuple(rows[0]), [tuple(row.values()) for row in rows], ["dedupe_key"])


_OF_CONTACT = "contact__"
_CLAIM_COLUMNS = (
    *(delivery.c[name] for name in _OWN),
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
        found.append((_made({**values, "page_id": person.page_id, "psid": person.psid}), person))
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
        **_NO_ERROR,
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
        **_NO_ERROR,
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
    tx: Tx, broadcast_id: int, reasons: Collection[str], until: datetime, limit: int
) -> dict[str, list[int]]:
    """Deliveries of a broadcast that ended until then without a message for one of these reasons, by Page."""
    ended = (DeliveryState.REFUSED.value, DeliveryState.SKIPPED.value)
    query = (
        sa.select(contact.c.page_id, delivery.c.id)
        .select_from(chunk.join(delivery, delivery.c.chunk_id == chunk.c.id).join(contact))
        .where(chunk.c.broadcast_id == broadcast_id, chunk.c.done_at.isnot(None))
        .where(delivery.c.state.in_(ended), delivery.c.reason.in_(list(reasons)))
        .where(delivery.c.settled_at <= until)
        .limit(limit)
    )
    found: dict[str, list[int]] = {}
    for row in tx.execute(query):
        found.setdefault(row.page_id, []).append(row.id)
    return found


def requeue(tx: Tx, delivery_ids: Sequence[int], chunk_id: int) -> None:
    """Try these once more, in another chunk."""
    ended = (DeliveryState.REFUSED.value, DeliveryState.SKIPPED.value)
    old = sa.select(delivery.c.chunk_id).where(delivery.c.id.in_(delivery_ids)).distinct()
    left = list(tx.execute(old).scalars())
    tx.execute(
        delivery.update()
        .where(delivery.c.id.in_(delivery_ids), delivery.c.state.in_(ended))
        .values(
            state=_QUEUED,
            chunk_id=chunk_id,
            attempts=0,
            window_refused=False,
            settled_at=None,
            next_attempt_at=None,
            token_id=None,
            **_NO_ERROR,
        )
    )
    for chunk_left in left:
        chunks.recount(tx, chunk_left)


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
            **_NO_ERROR,
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
        **_NO_ERROR,
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
    return [_delivery(row) for row in tx.execute(_unnoted(), {"contact": contact_id})]


@functools.cache
def _unnoted() -> Any:
    # Built once, since every turn asks.
    return (
        _select()
        .where(delivery.c.contact_id == sa.bindparam("contact"), delivery.c.state == DeliveryState.SENT.value)
        .where(delivery.c.noted_at.is_(None))
        .order_by(delivery.c.settled_at, delivery.c.id)
    )


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


def mark_reached(tx: Tx, contact_id: int, column: str, watermark: datetime, now: datetime) -> None:
    """Everything sent up to the watermark was delivered, or read (`delivered_at`, `read_at`).

    By the time at which it was sent: Meta's answer, or the echo that proved it, came later.
    """
    earliest = watermark - timedelta(days=30)  # bounds the scan; older receipts tell nobody anything
    tx.execute(
        delivery.update()
        .where(delivery.c.contact_id == contact_id, delivery.c.state == DeliveryState.SENT.value)
        .where(delivery.c.sending_at.between(earliest, watermark), delivery.c[column].is_(None))
        .values({column: now})
    )


_ANSWERS = ("replied_at", "tapped_at")


def _first_answer(column: sa.Column[datetime]) -> Any:
    at = sa.bindparam("at", type_=column.type)
    earliest = sa.bindparam("earliest", type_=column.type)
    newest = (
        sa.select(delivery.c.id)
        .where(delivery.c.contact_id == sa.bindparam("contact"), delivery.c.state == DeliveryState.SENT.value)
        .where(delivery.c.origin != Origin.REPLY.value, delivery.c.sending_at.between(earliest, at))
        .order_by(delivery.c.sending_at.desc(), delivery.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return (
        delivery.update()
        .where(delivery.c.id == newest, column.is_(None) | (column > at))
        .values({column: at})
    )


# Built once, since every message asks: building takes longer than running.
_FIRST_ANSWER = {name: _first_answer(delivery.c[name]) for name in _ANSWERS}


def mark_answered(tx: Tx, column: str, answers: Sequence[tuple[int, datetime]]) -> None:
    """These people (contact id, when) replied or tapped (`replied_at`, `tapped_at`).

    It counts for the newest follow-up of the seven days before, whatever it was about: Messenger does not say
    what a person answers to. The first answer stays, also if a later one arrives before it.
    """
    if answers:
        rows = [{"contact": who, "at": at, "earliest": at - ANSWERED_WITHIN} for who, at in answers]
        tx.execute(_FIRST_ANSWER[column], rows)


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


def _move(tx: Tx, condition: Any, old: Sequence[DeliveryState], new: DeliveryState, **values: Any) -> bool:
    moved = tx.execute(
        delivery.update()
        .where(condition, delivery.c.state.in_([state.value for state in old]))
        .values(state=new.value, **values)
    )
    return bool(moved.rowcount)


def _select() -> Any:
    return sa.select(
        *(delivery.c[name] for name in _OWN),
        contact.c.page_id,
        contact.c.psid,
        topic.c.name.label("topic"),
    ).select_from(delivery.join(contact).outerjoin(topic, topic.c.id == delivery.c.topic_id))


def _one(tx: Tx, condition: Any) -> Delivery | None:
    row = tx.execute(_select().where(condition)).one_or_none()
    return _delivery(row) if row else None


def _delivery(row: Row[Any]) -> Delivery:
    return _made(dict(row._mapping))


def _made(values: dict[str, Any]) -> Delivery:
    values["state"] = DeliveryState(values["state"])
    values["origin"] = Origin(values["origin"])
    values["route"] = Route(values["route"]) if values["route"] else None
    return Delivery(**values)
