"""What time brings to broadcasts: those that are due start, members are frozen, those that are through end.

Freezing turns the audience of a broadcast that has started into deliveries, a few dozen a transaction and a pause
after each, while sending already begins. Tokens are not frozen: who has none left when the turn comes is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from otn import audience as who_is_meant
from otn import delivery
from otn.broadcasts import halt, lateness_allowed
from otn.local_time import instant, zone_of
from otn.models import Broadcast, BroadcastState, DeliveryState, Origin
from otn.policy import Reason
from otn.store import Tx, audit, batches, broadcasts, chunks, members, pages
from otn.store.broadcasts import Cursor
from otn.store.members import Member

FREEZE = 50  # members a transaction: each goes into six indexes
SWEEP = 200  # deliveries that are skipped in one: more would make the webhook wait
CHUNKS = 100  # that end in one: what is in each is counted


def start_due(tx: Tx, now: datetime) -> int:
    """Start what is due, or halt what is too late to start; how many. Of two that try, one does."""
    changed = 0
    for planned in broadcasts.due(tx, now):
        assert planned.start_at is not None  # noqa: S101 - what is due has a start
        late, limit = now - planned.start_at, lateness_allowed(planned)
        if late > limit and planned.at_local is None:
            reason = f"it should have started at {planned.start_at:%Y-%m-%d %H:%M} UTC, and nothing ran for too long"
            changed += halt(tx, planned.id, reason, now)
            continue
        watermark = members.newest_token(tx)
        started = broadcasts.move(
            tx,
            planned.id,
            (BroadcastState.SCHEDULED,),
            BroadcastState.RUNNING,
            started_at=now,
            watermark=watermark,
        )
        if started:
            audit.record(
                tx,
                who="otn",
                action="broadcast.start",
                subject=f"broadcast {planned.id}",
                now=now,
                details={"late_seconds": int(late.total_seconds())},
            )
        changed += started
    return changed


def next_members(tx: Tx, planned: Broadcast, now: datetime) -> tuple[Cursor, list[Member], Cursor | None]:
    """The next members that are not frozen: the cursor before them, and after them (None: nobody is left).

    Reads only, and may take its time.
    """
    before = broadcasts.cursor(tx, planned.id)
    found, after = members.next_by_token(tx, planned, before, now, FREEZE)
    if found or after is not None:
        return before, found, after
    if not who_is_meant.from_json(planned.audience).window_too:
        return before, [], None
    found, after = members.next_by_window(tx, planned, before, now, FREEZE)
    return before, found, after


def freeze(
    tx: Tx, planned: Broadcast, before: Cursor, found: Sequence[Member], after: Cursor | None, now: datetime
) -> bool:
    """Make deliveries of these members; False if somebody else did, or it does not run any more."""
    frozen_at = now if after is None else None
    if not broadcasts.advance(tx, planned.id, before, after or before, frozen_at=frozen_at):
        return False
    zones = {page.page_id: page.time_zone for page in pages.every(tx)}
    slots: dict[tuple[str, datetime], list[Member]] = {}
    for member in found:
        slots.setdefault((member.page_id, _due_at(planned, member, zones, now)), []).append(member)
    for (page_id, due_at), several in slots.items():
        _put_into_chunk(tx, planned, page_id, due_at, several, now)
    return True


def anything_to_end(tx: Tx) -> bool:
    """Whether a broadcast may be at its end, or a cancelled one still has something in the queue."""
    done = any(not chunks.unfinished(tx, each.id) for each in broadcasts.running(tx, frozen=True))
    return done or bool(chunks.of_cancelled(tx))


def finish(tx: Tx, now: datetime) -> int:
    """End the broadcasts of which nothing is left to send; how many."""
    ended = 0
    for planned in broadcasts.running(tx, frozen=True):
        broadcasts.lock(tx, planned.id)  # whoever queues some of it again holds this, and is waited for
        if not chunks.unfinished(tx, planned.id):
            ended += broadcasts.move(
                tx, planned.id, (BroadcastState.RUNNING,), BroadcastState.FINISHED, finished_at=now
            )
    return ended


def sweep_cancelled(tx: Tx, now: datetime) -> int:
    """Skip what cancelled broadcasts still have in the queue, up to SWEEP; how many.

    What may have gone out is not asked about again, since that might send it: only an echo can tell.
    """
    done = 0
    for broadcast_id in chunks.of_cancelled(tx):
        while done < SWEEP and (
            skipped := chunks.cancel(tx, broadcast_id, now, Reason.CANCELLED.value, SWEEP - done)
        ):
            done += skipped
        for delivery_id in batches.lock_free(tx, chunks.in_doubt(tx, broadcast_id, SWEEP - done)):
            done += delivery.leave_unconfirmed(tx, delivery_id, now)
    return done


def close_cancelled(tx: Tx, now: datetime) -> int:
    """End the chunks of cancelled broadcasts in which nothing is left, up to CHUNKS; how many were."""
    done = 0
    for broadcast_id in chunks.of_cancelled(tx):
        done += chunks.close_settled(tx, broadcast_id, now, CHUNKS - done)
    return done


def _due_at(planned: Broadcast, member: Member, zones: dict[str, str | None], now: datetime) -> datetime:
    if planned.at_local is None:
        return now
    return instant(planned.at_local, zone_of(member.time_zone, zones.get(member.page_id)))


def _put_into_chunk(
    tx: Tx, planned: Broadcast, page_id: str, due_at: datetime, several: Sequence[Member], now: datetime
) -> None:
    too_late = planned.at_local is not None and now - due_at > lateness_allowed(planned)
    chunk_id = chunks.with_room(tx, planned, page_id, due_at, len(several), alone=too_late)
    outcome: dict[str, Any] = {"state": DeliveryState.QUEUED.value, "reason": None, "settled_at": None}
    if too_late:
        outcome = {
            "state": DeliveryState.SKIPPED.value,
            "reason": Reason.MISSED_TIME.value,
            "settled_at": now,
        }
    batches.add_members(
        tx,
        [
            {
                "dedupe_key": f"broadcast:{planned.id}:{member.contact_id}",
                "contact_id": member.contact_id,
                "topic_id": member.topic_id,
                "broadcast_id": planned.id,
                "chunk_id": chunk_id,
                "origin": Origin.BROADCAST.value,
                "message_hash": planned.message_hash,
                "notification_type": planned.notification_type,
                "wire_id": f"otn:{uuid4()}",
                "created_at": now,
                **outcome,
            }
            for member in several
        ],
    )
    if chunks.set_size(tx, chunk_id) and too_late:
        chunks.close(tx, chunk_id, now)
