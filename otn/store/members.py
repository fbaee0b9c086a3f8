"""Who belongs to a broadcast, a few hundred at a time, along an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.models import Broadcast, TokenState
from otn.store.audience import conditions
from otn.store.broadcasts import Cursor, topic_ids
from otn.store.engine import Tx
from otn.store.schema import contact, otn_token

CONTACTS_A_LOOK = 5_000  # rows of `contact` that one look for open windows walks over


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person to whom a broadcast is to be sent."""

    contact_id: int
    page_id: str
    time_zone: str | None
    topic_id: int | None


def newest_token(tx: Tx) -> int:
    """The id of the newest token there is."""
    return int(tx.execute(sa.select(sa.func.coalesce(sa.func.max(otn_token.c.id), 0))).scalar_one())


def next_by_token(
    tx: Tx, planned: Broadcast, before: Cursor, now: datetime, limit: int
) -> tuple[list[Member], Cursor | None]:
    """The next people with an available token, soonest to expire first; the cursor after them, None at the end.

    Somebody with several tokens comes up several times.
    """
    if before.contact is not None:
        return [], None
    ids = topic_ids(tx, planned.topic)
    found: dict[int, Member] = {}
    after, left = None, limit
    for topic_id in (each for each in ids if before.topic is None or each >= before.topic):
        here = before if topic_id == before.topic else Cursor(topic=topic_id)
        for stretch in _stretches(here, now):
            for row in tx.execute(_by_token(planned, ids, topic_id, stretch, left)):
                member = Member(
                    contact_id=row.contact_id,
                    page_id=row.page_id,
                    time_zone=row.timezone,
                    topic_id=topic_id,
                )
                found.setdefault(row.contact_id, member)
                after, left = Cursor(topic=topic_id, expires_at=row.expires_at, token=row.id), left - 1
            if not left:
                return list(found.values()), after
    return list(found.values()), after


def next_by_window(
    tx: Tx, planned: Broadcast, before: Cursor, now: datetime, limit: int
) -> tuple[list[Member], Cursor | None]:
    """The next people whose messaging window is open, by id; the cursor after them, None at the end.

    Walks a stretch of the table, so that one look stays short; it may find nobody and still not be the end.
    """
    after = before.contact or 0
    end = end_of_look(tx, after)
    if end is None:
        return [], None
    ids = topic_ids(tx, planned.topic)
    query = (
        sa.select(contact.c.id, contact.c.page_id, contact.c.timezone)
        .where(contact.c.id > after, contact.c.id <= end, contact.c.window_until > now)
        .where(contact.c.erase_requested_at.is_(None), *conditions(planned, ids))
        .order_by(contact.c.id)
        .limit(limit)
    )
    rows = tx.execute(query).all()
    topic_id = ids[0] if len(ids) == 1 else None
    members = [
        Member(contact_id=row.id, page_id=row.page_id, time_zone=row.timezone, topic_id=topic_id)
        for row in rows
    ]
    reached = rows[-1].id if len(rows) == limit else end
    return members, Cursor(
        topic=before.topic, expires_at=before.expires_at, token=before.token, contact=reached
    )


def end_of_look(tx: Tx, after: int) -> int | None:
    """The last contact of the stretch that one look for open windows walks over; None: there is nobody left."""
    stretch = (
        sa.select(contact.c.id).where(contact.c.id > after).order_by(contact.c.id).limit(CONTACTS_A_LOOK)
    )
    end = sa.select(sa.func.max(sa.column("id"))).select_from(stretch.subquery())
    found: int | None = tx.execute(end).scalar_one()
    return found


def _stretches(here: Cursor, now: datetime) -> list[Any]:
    """What is behind the cursor and not expired, as ranges of the index `ix_otn_token_available`, one after the other.

    Many tokens may expire at the same moment. Asked for both at once, SQLite walks over all of these each time.
    """
    token = otn_token.c
    if here.expires_at is None or here.expires_at <= now:
        return [token.expires_at > now]
    at_the_same_moment = (token.expires_at == here.expires_at) & (token.id > here.token)
    return [at_the_same_moment, token.expires_at > here.expires_at]


def _by_token(planned: Broadcast, ids: Sequence[int], topic_id: int, stretch: Any, limit: int) -> Any:
    token = otn_token.c
    return (
        sa.select(token.id, token.expires_at, token.contact_id, contact.c.page_id, contact.c.timezone)
        .select_from(otn_token.join(contact, contact.c.id == token.contact_id))
        .where(token.state == TokenState.AVAILABLE.value, token.topic_id == topic_id)
        .where(stretch, token.id <= (planned.watermark or 0))
        .where(contact.c.erase_requested_at.is_(None), *conditions(planned, ids))
        .order_by(token.expires_at, token.id)
        .limit(limit)
    )
