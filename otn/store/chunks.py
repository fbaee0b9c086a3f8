"""Table `chunk`: the parts of a broadcast, each sent by one worker at a time under a lease.

The sums of a broadcast come from here: what a finished chunk came to is written down, what nobody has begun is
queued, and only the few chunks in between are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from otn.models import Broadcast, BroadcastState, Chunk, DeliveryState, Route
from otn.store.engine import Tx, chosen, db_epoch
from otn.store.pages import paused
from otn.store.schema import broadcast, chunk, delivery, page

MEMBERS_A_CHUNK = (
    500  # at most; enough for all lanes of a sender, whose last messages leave most of them idle
)
CHUNKS_A_LOOK = 10  # of a cancelled broadcast, or of one that is tried again

_COLUMNS = tuple(chunk.c[name] for name in Chunk.__dataclass_fields__)
_QUEUED, _SENDING, _UNKNOWN = (
    DeliveryState.QUEUED.value,
    DeliveryState.SENDING.value,
    DeliveryState.UNKNOWN.value,
)
WITHOUT_MESSAGE = (DeliveryState.REFUSED.value, DeliveryState.SKIPPED.value)
# What may still change after the sender has done with it: an echo may come, or a day may pass.
_MAY_CHANGE = (_UNKNOWN, DeliveryState.UNCONFIRMED.value)
_FREE = chunk.c.lease_until.is_(None) | (chunk.c.lease_until < db_epoch())
_HELD = (
    chunk.update()
    .where(chunk.c.id == sa.bindparam("chunk"), chunk.c.fence == sa.bindparam("held"))
    .where(chunk.c.lease_until >= db_epoch(), chunk.c.done_at.is_(None))
)
_RENEW = _HELD.values(lease_until=db_epoch() + sa.bindparam("seconds", type_=sa.Float))


def add(tx: Tx, *, broadcast_id: int, page_id: str, due_at: datetime, size: int) -> int:
    """Add a chunk; its id."""
    values = {
        "broadcast_id": broadcast_id,
        "page_id": page_id,
        "due_at": due_at,
        "size": size,
        "fence": 0,
    }
    added = tx.execute(chunk.insert().values(**values))
    return int(added.inserted_primary_key[0])


def with_room(
    tx: Tx, planned: Broadcast, page_id: str, due_at: datetime, number: int, *, alone: bool = False
) -> int:
    """A chunk for so many who are due then: one that nobody has begun and that has room, else a new one.

    `alone`: a new one in any case.
    """
    due_with_it = None if planned.at_local is None else due_at
    most = MEMBERS_A_CHUNK - number
    found = None
    if not alone:
        found = _unbegun(tx, broadcast_id=planned.id, page_id=page_id, due_at=due_with_it, most=most)
    if found is not None:
        return found
    return add(tx, broadcast_id=planned.id, page_id=page_id, due_at=due_at, size=number)


def set_size(tx: Tx, chunk_id: int) -> int:
    """Count what is in a chunk that nobody has begun and write it down; an empty one goes. How many there are."""
    query = sa.select(sa.func.count()).select_from(delivery).where(delivery.c.chunk_id == chunk_id)
    size = int(tx.execute(query).scalar_one())
    this = chunk.c.id == chunk_id
    tx.execute(chunk.update().where(this).values(size=size) if size else chunk.delete().where(this))
    return size


def due(tx: Tx, now: datetime, limit: int, pages: Collection[str] | None = None) -> list[int]:
    """Chunks whose time has come, that nobody holds, of running broadcasts and Pages that are not paused.

    Broadcasts take turns, so that five people do not wait for a million: the next chunk of each comes before the one
    after it, and first that of the broadcast with the fewest senders, of which none ended for longest.
    `pages`: those that the caller can send for, None for all.
    """
    turn = _turns()
    place = sa.func.row_number().over(
        partition_by=chunk.c.broadcast_id, order_by=(chunk.c.due_at, chunk.c.id)
    )
    query = (
        sa.select(chunk.c.id)
        .select_from(
            chunk.join(turn, turn.c.id == chunk.c.broadcast_id).join(page, page.c.page_id == chunk.c.page_id)
        )
        .where(chunk.c.done_at.is_(None), chunk.c.due_at <= now, _FREE, ~paused(now))
        .order_by(place, turn.c.senders, turn.c.ended_at.nulls_first(), chunk.c.due_at, chunk.c.id)
        .limit(limit)
    )
    if pages is not None:
        query = query.where(chunk.c.page_id.in_(pages))
    return list(tx.execute(query).scalars())


def _turns() -> Any:
    """The running broadcasts: how many chunks of each are held, and when one was done last."""
    other = chunk.alias()
    its = other.c.broadcast_id == broadcast.c.id
    senders = sa.select(sa.func.count()).where(
        its, other.c.done_at.is_(None), other.c.lease_until >= db_epoch()
    )
    ended_at = sa.select(sa.func.max(other.c.done_at)).where(its)
    columns = senders.scalar_subquery().label("senders"), ended_at.scalar_subquery().label("ended_at")
    running = sa.select(broadcast.c.id, *columns).where(broadcast.c.state == BroadcastState.RUNNING.value)
    # OFFSET keeps the databases from working this out for each chunk.
    return running.offset(0).subquery()


def waiting_pages(tx: Tx, besides: Collection[str] | None) -> list[str]:
    """The Pages besides these (None: there are none) for whose people running broadcasts have something to send."""
    if besides is None:
        return []
    open_one = (chunk.c.page_id == page.c.page_id) & chunk.c.done_at.is_(None)
    running = broadcast.c.state == BroadcastState.RUNNING.value
    waits = sa.select(chunk.c.id).select_from(chunk.join(broadcast)).where(open_one, running).correlate(page)
    query = sa.select(page.c.page_id).where(page.c.page_id.not_in(besides), waits.exists())
    return list(tx.execute(query.order_by(page.c.page_id)).scalars())


def next_due(tx: Tx) -> datetime | None:
    """When the next chunk of a running broadcast is due."""
    query = (
        sa.select(sa.func.min(chunk.c.due_at))
        .select_from(chunk.join(broadcast))
        .where(chunk.c.done_at.is_(None), broadcast.c.state == BroadcastState.RUNNING.value)
    )
    found: datetime | None = tx.execute(query).scalar_one()
    return found


def lease(tx: Tx, chunk_id: int, owner: str, seconds: float) -> Chunk | None:
    """Hold a chunk that nobody holds, under the next fence; None if somebody does or it is done."""
    taken = tx.execute(
        chunk.update()
        .where(chunk.c.id == chunk_id, chunk.c.done_at.is_(None), _FREE)
        .values(owner=owner, fence=chunk.c.fence + 1, lease_until=db_epoch() + seconds)
    )
    if not taken.rowcount:
        return None
    return _chunk(tx.execute(sa.select(*_COLUMNS).where(chunk.c.id == chunk_id)).one())


def renew(tx: Tx, chunk_id: int, fence: int, seconds: float) -> bool:
    """Hold it for longer; False if the lease ran out and it is, or may be, somebody else's."""
    values = {"chunk": chunk_id, "held": fence, "seconds": seconds}
    return bool(tx.execute(_RENEW, values).rowcount)


def release(tx: Tx, chunk_id: int, fence: int, now: datetime, lapse: timedelta) -> bool:
    """Give a chunk back: done if nothing in it can be sent any more, else due when the next message is.

    `lapse`: when to look again where something is still being sent, so that its sender must have died.
    False if it is not ours.
    """
    counts = count(tx, chunk_id)
    moments = [_again_at(tx, chunk_id, now), now + lapse if counts.get(_SENDING) else None]
    again_at = min((each for each in moments if each is not None), default=None)
    values: dict[str, Any] = {"owner": None, "lease_until": None}
    values |= {"due_at": again_at} if again_at is not None else {"done_at": now, "counts": counts}
    given = tx.execute(chunk.update().where(chunk.c.id == chunk_id, chunk.c.fence == fence).values(**values))
    return bool(given.rowcount)


def unfinished(tx: Tx, broadcast_id: int) -> bool:
    """Whether anything of the broadcast is still to be sent."""
    query = sa.select(chunk.c.id).where(chunk.c.broadcast_id == broadcast_id, chunk.c.done_at.is_(None))
    return tx.execute(query.limit(1)).first() is not None


def count(tx: Tx, chunk_id: int) -> dict[str, int]:
    """Its deliveries by state, counted."""
    query = (
        sa.select(delivery.c.state, sa.func.count())
        .where(delivery.c.chunk_id == chunk_id)
        .group_by(delivery.c.state)
    )
    return {row[0]: int(row[1]) for row in tx.execute(query)}


def progress(tx: Tx, broadcast_id: int) -> dict[str, int]:
    """The broadcast's deliveries by state, every state named."""
    total: Counter[str] = Counter({state.value: 0 for state in DeliveryState})
    query = sa.select(*_COLUMNS).where(chunk.c.broadcast_id == broadcast_id)
    for row in tx.execute(query).all():
        part = _chunk(row)
        if part.done_at is not None and not _is_open(part.counts):
            total.update(part.counts or {})
        elif part.fence == 0:
            total[_QUEUED] += part.size
        else:
            total.update(count(tx, part.id))
    return dict(total)


def to_retry(tx: Tx, broadcast_id: int) -> list[int]:
    """The finished chunks of a broadcast in which somebody may have got no message."""
    query = sa.select(chunk.c.id, chunk.c.counts).order_by(chunk.c.id)
    query = query.where(chunk.c.broadcast_id == broadcast_id, chunk.c.done_at.isnot(None))
    return [
        row.id
        for row in tx.execute(query)
        if _is_open(row.counts) or any((row.counts or {}).get(state) for state in WITHOUT_MESSAGE)
    ]


def note_change(tx: Tx, contact_id: int) -> None:
    """Somebody's deliveries ended: count the chunks that they are in, also those that nobody has begun."""
    mine = sa.select(delivery.c.chunk_id).where(delivery.c.contact_id == contact_id)
    tx.execute(chunk.update().where(chunk.c.id.in_(mine), chunk.c.fence == 0).values(fence=1))


def close(tx: Tx, chunk_id: int, now: datetime) -> None:
    """Finish a chunk in which nobody is to be sent to."""
    tx.execute(chunk.update().where(chunk.c.id == chunk_id).values(done_at=now, counts=count(tx, chunk_id)))


def recount(tx: Tx, chunk_id: int) -> None:
    """Write down again what a finished chunk came to."""
    this = (chunk.c.id == chunk_id) & chunk.c.done_at.isnot(None)
    tx.execute(chunk.update().where(this).values(counts=count(tx, chunk_id)))


def cancel(tx: Tx, broadcast_id: int, now: datetime, reason: str, limit: int) -> int:
    """Skip what is still queued of a broadcast, so many at once; how many were.

    By the chunks in which something is queued: along the table, each look would pass by all that was skipped before.
    """
    waiting = (delivery.c.chunk_id == chunk.c.id) & (delivery.c.state == _QUEUED)
    some = (
        sa.select(chunk.c.id)
        .where(chunk.c.broadcast_id == broadcast_id, chunk.c.done_at.is_(None))
        .where(sa.select(delivery.c.id).where(waiting).exists())
        .limit(CHUNKS_A_LOOK)
    )
    ids = (
        sa.select(delivery.c.id)
        .where(delivery.c.chunk_id.in_(list(tx.execute(some).scalars())), delivery.c.state == _QUEUED)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    skipped = tx.execute(
        delivery.update()
        .where(delivery.c.id.in_(chosen(ids)), delivery.c.state == _QUEUED)
        .values(
            state=DeliveryState.SKIPPED.value,
            reason=reason,
            settled_at=now,
            next_attempt_at=None,
        )
    )
    return int(skipped.rowcount)


def in_doubt(tx: Tx, broadcast_id: int, limit: int) -> list[int]:
    """Deliveries of open chunks that a token pays for and whose outcome is unknown."""
    query = (
        sa.select(delivery.c.id)
        .join(chunk, chunk.c.id == delivery.c.chunk_id)
        .where(chunk.c.broadcast_id == broadcast_id, chunk.c.done_at.is_(None))
        .where(delivery.c.state == _UNKNOWN, delivery.c.route == Route.TOKEN.value)
        .limit(limit)
    )
    return list(tx.execute(query).scalars())


def of_cancelled(tx: Tx) -> list[int]:
    """The cancelled broadcasts of which some chunks are not done."""
    query = (
        sa.select(chunk.c.broadcast_id)
        .join(broadcast)
        .where(chunk.c.done_at.is_(None), broadcast.c.state == BroadcastState.CANCELLED.value)
        .distinct()
    )
    return list(tx.execute(query).scalars())


def close_settled(tx: Tx, broadcast_id: int, now: datetime, limit: int) -> int:
    """Finish some chunks of a cancelled broadcast in which nothing is on its way any more; how many were.

    What is on its way is looked for in the same statement, so that a chunk that has to wait takes nobody's place.
    """
    pays = delivery.c.route == Route.TOKEN.value
    on_its_way = delivery.c.state.in_([_QUEUED, _SENDING]) | ((delivery.c.state == _UNKNOWN) & pays)
    settled = (
        sa.select(chunk.c.id)
        .where(chunk.c.broadcast_id == broadcast_id, chunk.c.done_at.is_(None), _FREE)
        .where(~sa.select(delivery.c.id).where(delivery.c.chunk_id == chunk.c.id, on_its_way).exists())
        .limit(limit)
    )
    found = tx.execute(settled).scalars().all()
    for chunk_id in found:
        close(tx, chunk_id, now)
    return len(found)


def _unbegun(tx: Tx, *, broadcast_id: int, page_id: str, due_at: datetime | None, most: int) -> int | None:
    """The newest chunk that nobody has begun and that holds `most` at most; nobody begins it before this commits.

    `due_at`: only one that is due then; None: any.
    """
    query = (
        sa.select(chunk.c.id)
        .where(chunk.c.broadcast_id == broadcast_id, chunk.c.page_id == page_id)
        .where(chunk.c.done_at.is_(None), chunk.c.fence == 0, chunk.c.size <= most)
        .order_by(chunk.c.id.desc())
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if due_at is not None:
        query = query.where(chunk.c.due_at == due_at)
    found: int | None = tx.execute(query).scalar_one_or_none()
    return found


def _is_open(counts: dict[str, int] | None) -> bool:
    return any((counts or {}).get(state) for state in _MAY_CHANGE)


def _again_at(tx: Tx, chunk_id: int, now: datetime) -> datetime | None:
    """When something in it can be sent again; None if never.

    In one statement, so that what becomes queued instead of unknown at this moment is seen as one or the other.
    """
    at = sa.func.min(sa.func.coalesce(delivery.c.next_attempt_at, now))
    query = (
        sa.select(at)
        .where(delivery.c.chunk_id == chunk_id, delivery.c.state.in_([_QUEUED, _UNKNOWN]))
        .where((delivery.c.state == _QUEUED) | (delivery.c.route == Route.TOKEN.value))
    )
    found = tx.execute(query).scalar_one()
    return None if found is None else _as_utc(tx, found)


def _as_utc(tx: Tx, value: Any) -> datetime:
    """What an aggregate gives back has lost its column's type on SQLite."""
    kind = chunk.c.due_at.type
    found: datetime = kind.process_result_value(value, tx.dialect)
    return found


def _chunk(row: Row[Any]) -> Chunk:
    return Chunk(**row._mapping)
