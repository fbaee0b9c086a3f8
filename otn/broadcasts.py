"""Broadcasts: one message to everyone who agreed. What operators do: plan, schedule, pause, resume, cancel, retry.

    draft → scheduled → running ⇄ paused → finished | cancelled | halted

What time does, from the start to the end, is in `otn.scheduler`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from otn import audience as who_is_meant
from otn import placeholders, times
from otn.audience import Audience
from otn.errors import AlreadyTaken, InvalidInput, InvalidMove, Refusal
from otn.local_time import first_instant, last_instant
from otn.messages import fingerprint
from otn.messages import problems as message_problems
from otn.models import Broadcast, BroadcastState
from otn.policy import Reason
from otn.store import Store, Tx, audit, batches, broadcasts, chunks, topics

ROWS = 200  # a write transaction: more would make the webhook wait
SKIP_IF_LATE = timedelta(
    hours=24
)  # a start missed by more than this is not made up for, unless told otherwise
INCOMPLETE = "the list that came with it was not kept to the end"  # why a draft cannot be scheduled
NAME_MAX = 200  # characters
NOTIFICATION_TYPES = ("REGULAR", "SILENT_PUSH", "NO_PUSH")  # SEND

_S = BroadcastState
_OPEN = (_S.DRAFT, _S.SCHEDULED, _S.RUNNING, _S.PAUSED, _S.HALTED)
_UNBEGUN = (_S.DRAFT, _S.SCHEDULED, _S.HALTED)

# What may be over when the same person is tried again: true of the moment or the Page.
PASSING = (
    Refusal.CANNOT_RECEIVE_NOW.value,
    Refusal.THREAD_CONTROL.value,
    Refusal.PAGE_RESTRICTED.value,
    Refusal.PERMISSION_MISSING.value,
    Refusal.BAD_ACCESS_TOKEN.value,
    "unreachable",
    "kept",
    "throttled",
    Reason.PAGE_PAUSED.value,
    Reason.TOKEN_RESERVED.value,
)
# What somebody may have changed meanwhile: the message cannot, but the person or a permission can.
RETRIABLE = (
    *PASSING,
    *(refusal.value for refusal in Refusal if refusal.value not in PASSING),
    Reason.NO_TOKEN.value,
    Reason.TOKEN_USED.value,
    Reason.TOKEN_EXPIRED.value,
    Reason.TOKEN_SUSPECT.value,
    Reason.UNDELIVERABLE.value,
    Reason.MISSED_TIME.value,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an operator wants: a topic or family, one message, an audience. The same key is the same wish."""

    topic: str
    message: dict[str, Any]
    audience: Audience = field(default_factory=Audience)
    name: str = ""
    response: str | None = None
    notification_type: str | None = None
    included_psids: Sequence[str] = ()
    excluded_psids: Sequence[str] = ()
    created_by: str
    dedupe_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When: at once, at a moment (UTC), or at a local time of each person; quiet hours in minutes after midnight."""

    start_at: datetime | None = None
    at_local: str | None = None
    quiet_from: int | None = None
    quiet_until: int | None = None
    skip_if_late: timedelta | None = None


def create(tx: Tx, plan: Plan, now: datetime) -> Broadcast:
    """Make a draft; the same key again gives the broadcast of then.

    Raises InvalidInput with every problem of the plan, AlreadyTaken if the key stands for another wish: other words,
    or other people.
    A list of more than ROWS psids is not kept here: the draft is INCOMPLETE until `keep_lists` has done so.
    """
    if found := problems(tx, plan):
        raise InvalidInput(found)
    key = plan.dedupe_key or f"draft:{uuid4()}"
    is_short = len(plan.included_psids) + len(plan.excluded_psids) <= ROWS
    values = {
        "dedupe_key": key,
        "name": plan.name or f"{plan.topic}, {now:%Y-%m-%d %H:%M}",
        "topic": plan.topic,
        "message": plan.message,
        "message_hash": fingerprint(plan.message),
        "response": plan.response,
        "notification_type": plan.notification_type,
        "audience": {**who_is_meant.to_json(plan.audience), "lists": _fingerprint_of_lists(plan)},
        "state": _S.DRAFT.value,
        "state_reason": None if is_short else INCOMPLETE,
        "created_by": plan.created_by,
        "created_at": now,
    }
    new_id = broadcasts.add(tx, values)
    if new_id is None:
        return _made_before(tx, key, plan)
    if is_short:
        broadcasts.add_psids(tx, new_id, plan.included_psids, excluded=False)
        broadcasts.add_psids(tx, new_id, plan.excluded_psids, excluded=True)
    _record(tx, plan.created_by, "create", new_id, now, topic=plan.topic)
    return broadcasts.get(tx, new_id)


def keep_lists(store: Store, broadcast_id: int, plan: Plan, pause: Callable[[], object]) -> None:
    """Keep a draft's long lists, ROWS a transaction and a pause after each; may be done again after a crash."""
    for psids, excluded in ((plan.included_psids, False), (plan.excluded_psids, True)):
        for first in range(0, len(psids), ROWS):
            with store.begin() as tx:
                broadcasts.add_psids(tx, broadcast_id, psids[first : first + ROWS], excluded=excluded)
            pause()
    with store.begin() as tx:
        broadcasts.move(tx, broadcast_id, (_S.DRAFT,), _S.DRAFT, state_reason=None)


def problems(tx: Tx, plan: Plan) -> list[str]:
    """Everything that is wrong with a plan, in words."""
    found = list(message_problems(plan.message)) + placeholders.problems(plan.message)
    if not plan.topic:
        found.append("Name the topic that the people agreed to; see `otn topics list`.")
    elif not plan.topic.endswith("*") and topics.resolve(tx, plan.topic) is None:
        found.append(f"There is no topic '{plan.topic}'; see `otn topics list`.")
    elif plan.topic.endswith("*") and topics.find(tx, plan.topic) is None:
        found.append(f"There is no family '{plan.topic}'; see `otn topics list`.")
    if len(plan.name) > NAME_MAX:
        found.append(f"The name has {len(plan.name)} characters; {NAME_MAX} are allowed.")
    if plan.notification_type not in (None, *NOTIFICATION_TYPES):
        found.append(f"A notification type is one of {', '.join(NOTIFICATION_TYPES)}.")
    return found


def schedule(
    tx: Tx, broadcast_id: int, timetable: Timetable, *, who: str, now: datetime, estimate: Any = None
) -> Broadcast:
    """Say when a draft (or one that was scheduled, or that halted before it began) is to start. Raises InvalidMove."""
    require_schedulable(broadcasts.get(tx, broadcast_id), timetable, now)
    start_at = start_of(timetable, now)
    _move(
        tx,
        broadcast_id,
        _UNBEGUN,
        _S.SCHEDULED,
        state_reason=None,
        start_at=start_at,
        at_local=timetable.at_local,
        quiet_from=timetable.quiet_from,
        quiet_until=timetable.quiet_until,
        skip_if_late=timetable.skip_if_late,
        estimate=estimate,
    )
    _record(
        tx, who, "schedule", broadcast_id, now, start_at=start_at.isoformat(), at_local=timetable.at_local
    )
    return broadcasts.get(tx, broadcast_id)


def require_schedulable(planned: Broadcast, timetable: Timetable, now: datetime) -> None:
    """Raises InvalidInput if the times make no sense, InvalidMove if it cannot be scheduled any more."""
    if found := _time_problems(timetable, now):
        raise InvalidInput(found)
    if planned.started_at is not None:
        raise InvalidMove(f"broadcast {planned.id} has begun: it cannot be scheduled again, only resumed")
    if planned.state not in _UNBEGUN:
        raise InvalidMove(f"broadcast {planned.id} is {planned.state.value}: plan a new one")
    if planned.state_reason == INCOMPLETE:
        raise InvalidMove(f"broadcast {planned.id} is of no use, {INCOMPLETE}: create it again")


def start_of(timetable: Timetable, now: datetime) -> datetime:
    """When the first message may leave; for a local time, when it is reached anywhere first."""
    if timetable.at_local:
        return max(first_instant(timetable.at_local), now)
    return timetable.start_at or now


def leaves_late(timetable: Timetable, now: datetime) -> timedelta | None:
    """How late it may be for people who have passed its local time already; None if nobody can have."""
    if timetable.at_local is None or first_instant(timetable.at_local) >= now:
        return None
    return lateness_allowed(timetable)


def lateness_allowed(planned: Broadcast | Timetable) -> timedelta:
    """How much later than planned a message may leave."""
    return SKIP_IF_LATE if planned.skip_if_late is None else planned.skip_if_late


def pause(tx: Tx, broadcast_id: int, *, who: str, now: datetime) -> Broadcast:
    """Let nothing more of it leave; what is on its way arrives. Raises InvalidMove, NotFound."""
    _move(tx, broadcast_id, (_S.RUNNING,), _S.PAUSED, state_reason=f"paused by {who}")
    _record(tx, who, "pause", broadcast_id, now)
    return broadcasts.get(tx, broadcast_id)


def resume(tx: Tx, broadcast_id: int, *, who: str, now: datetime) -> Broadcast:
    """Go on with one that was paused, or that halted after it began. Raises InvalidMove, NotFound."""
    planned = broadcasts.get(tx, broadcast_id)
    if planned.state is _S.HALTED and planned.started_at is None:
        raise InvalidMove(f"broadcast {broadcast_id} halted before it began: schedule it again")
    _move(
        tx,
        broadcast_id,
        (_S.PAUSED, _S.HALTED),
        _S.RUNNING,
        state_reason=None,
        equal_refusals=0,
        last_refusal=None,
        finished_at=None,
    )
    _record(tx, who, "resume", broadcast_id, now)
    return broadcasts.get(tx, broadcast_id)


def cancel(tx: Tx, broadcast_id: int, *, who: str, now: datetime) -> Broadcast:
    """End it for good; what is queued is skipped by `sweep_cancelled`. Raises InvalidMove, NotFound."""
    _move(tx, broadcast_id, _OPEN, _S.CANCELLED, state_reason=f"cancelled by {who}", finished_at=now)
    _record(tx, who, "cancel", broadcast_id, now)
    return broadcasts.get(tx, broadcast_id)


def halt(tx: Tx, broadcast_id: int, reason: str, now: datetime, *, who: str = "otn") -> bool:
    """Stop it because of what Meta or a rule says, until somebody resumes it; False if it did not run."""
    halted = broadcasts.halt(tx, broadcast_id, reason)
    if halted:
        _record(tx, who, "halt", broadcast_id, now, reason=reason)
    return halted


def parts_to_retry(tx: Tx, broadcast_id: int) -> list[list[int]]:
    """The chunks that `retry` is for, so many as it looks through at once. Raises InvalidMove, NotFound."""
    _retriable(tx, broadcast_id)
    ended = chunks.to_retry(tx, broadcast_id)
    return [
        ended[first : first + chunks.CHUNKS_A_LOOK] for first in range(0, len(ended), chunks.CHUNKS_A_LOOK)
    ]


def retry(
    tx: Tx, broadcast_id: int, parts: Collection[int], reasons: Collection[str], *, who: str, now: datetime
) -> int:
    """Queue those again, of these chunks, who were refused or skipped for one of these reasons; how many were.

    At most ROWS: call it again, in a transaction of its own and with the same `now`, until it returns 0. Whoever is
    refused again meanwhile is not queued again. Raises InvalidMove, NotFound.
    """
    broadcasts.lock(tx, broadcast_id)
    planned = _retriable(tx, broadcast_id)
    total = 0
    for page_id, delivery_ids in batches.to_retry(tx, broadcast_id, parts, reasons, now, ROWS).items():
        chunk_id = chunks.with_room(tx, planned, page_id, now, len(delivery_ids))
        batches.requeue(tx, delivery_ids, chunk_id)
        chunks.set_size(tx, chunk_id)
        total += len(delivery_ids)
    if total:
        if planned.state is _S.FINISHED:
            _move(tx, broadcast_id, (_S.FINISHED,), _S.RUNNING, state_reason=None, finished_at=None)
        _record(tx, who, "retry", broadcast_id, now, number=total)
    return total


def _retriable(tx: Tx, broadcast_id: int) -> Broadcast:
    planned = broadcasts.get(tx, broadcast_id)
    if planned.state not in (_S.FINISHED, _S.RUNNING, _S.PAUSED, _S.HALTED) or planned.frozen_at is None:
        raise InvalidMove(f"broadcast {broadcast_id} is {planned.state.value}: there is nothing to try again")
    return planned


def _made_before(tx: Tx, key: str, plan: Plan) -> Broadcast:
    earlier = broadcasts.by_key(tx, key)
    assert earlier is not None  # noqa: S101 - the insert found this very key
    if others := _differences(earlier, plan):
        are = "is another" if len(others) == 1 else "are others"
        raise AlreadyTaken(
            [f"This id was given to broadcast {earlier.id}, whose {' and '.join(others)} {are}."]
        )
    return earlier


def _differences(earlier: Broadcast, plan: Plan) -> list[str]:
    """What of a plan is not as it was. Moments may differ: an age like 30d moves them with every try."""
    meant_then = who_is_meant.from_json(earlier.audience)
    comparisons = {
        "topic or message": (earlier.topic, earlier.message_hash) == (plan.topic, fingerprint(plan.message)),
        "notification type": earlier.notification_type == plan.notification_type,
        "audience": who_is_meant.is_same_but_for_moments(meant_then, plan.audience),
        "list of psids": earlier.audience.get("lists") == _fingerprint_of_lists(plan),
    }
    return [what for what, is_same in comparisons.items() if not is_same]


def _fingerprint_of_lists(plan: Plan) -> str | None:
    """The lists of psids in a word, since a draft may hold only a part of them; None without any."""
    lists = [sorted(set(psids)) for psids in (plan.included_psids, plan.excluded_psids)]
    return fingerprint({"psids": lists}) if any(lists) else None


def _time_problems(timetable: Timetable, now: datetime) -> list[str]:
    found = []
    if timetable.start_at is not None and timetable.at_local is not None:
        found.append("Say a moment or a local time, not both.")
    if timetable.start_at is not None and timetable.start_at < now - timedelta(minutes=1):
        found.append(f"{timetable.start_at:%Y-%m-%d %H:%M} UTC is over.")
    if timetable.at_local is not None:
        found += _local_time_problems(timetable.at_local, now)
    if (timetable.quiet_from is None) != (timetable.quiet_until is None):
        found.append("Quiet hours have a beginning and an end.")
    return found


def _local_time_problems(at_local: str, now: datetime) -> list[str]:
    try:
        if times.local(at_local) != at_local:
            raise ValueError
        return [f"{at_local} is over everywhere."] if last_instant(at_local) < now else []
    except (ValueError, OverflowError):  # the calendar ends before it is over everywhere
        return ["A local time looks like 2026-12-01T09:00."]


def _move(
    tx: Tx, broadcast_id: int, old: Collection[BroadcastState], new: BroadcastState, **values: Any
) -> None:
    if not broadcasts.move(tx, broadcast_id, old, new, **values):
        found = broadcasts.get(tx, broadcast_id)
        raise InvalidMove(
            f"broadcast {broadcast_id} is {found.state.value}; only one that is "
            f"{' or '.join(state.value for state in old)} can become {new.value}"
        )


def _record(tx: Tx, who: str, action: str, broadcast_id: int, now: datetime, **details: Any) -> None:
    audit.record(
        tx,
        who=who,
        action=f"broadcast.{action}",
        subject=f"broadcast {broadcast_id}",
        now=now,
        details=details,
    )
