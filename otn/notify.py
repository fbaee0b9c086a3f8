"""Notify by event: something happened in the business, and everyone who agreed to hear about it is told once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from otn import broadcasts
from otn.broadcasts import Plan, Timetable
from otn.errors import InvalidInput
from otn.models import Broadcast, BroadcastState
from otn.store import Tx
from otn.store import broadcasts as kept

LONGEST_EVENT_ID = 180  # characters: with the longest topic it fits into a dedupe key


def notify(
    tx: Tx,
    *,
    topic: str,
    event_id: str,
    message: dict[str, Any],
    response: str | None = None,
    notification_type: str | None = None,
    who: str,
    now: datetime,
) -> Broadcast:
    """Make a broadcast about an event and schedule it at once; the same event again gives the one of then.

    `response`: the name of the bot's response that the message was made of, if it was; edited since, it is still
    the same event. Raises InvalidInput with every problem, and if the id stands for another message.
    """
    if not (0 < len(event_id) <= LONGEST_EVENT_ID and event_id.isprintable()):
        raise InvalidInput([f"An event id has 1 to {LONGEST_EVENT_ID} printable characters."])
    key = f"event:{topic}:{event_id}"
    earlier = kept.by_key(tx, key)
    if earlier is not None and response is not None and earlier.response == response:
        return earlier
    plan = Plan(
        topic=topic,
        message=message,
        name=f"{topic}: {event_id}"[: broadcasts.NAME_MAX],
        response=response,
        notification_type=notification_type,
        created_by=who,
        dedupe_key=key,
    )
    made = broadcasts.create(tx, plan, now)
    if made.state is not BroadcastState.DRAFT:
        return made
    return broadcasts.schedule(tx, made.id, Timetable(), who=who, now=now)
