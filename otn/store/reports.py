"""What became of a broadcast's messages: sums by reason, what is in doubt, everybody. Read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.models import DeliveryState, Route, TokenState
from otn.store.engine import Tx
from otn.store.schema import chunk, contact, delivery, otn_token, topic

# Only these have a reason, and the many that were sent need not be looked at.
_WITH_REASON = [
    state.value
    for state in (
        DeliveryState.REFUSED,
        DeliveryState.SKIPPED,
        DeliveryState.UNKNOWN,
        DeliveryState.UNCONFIRMED,
    )
]
_OPEN = [DeliveryState.UNKNOWN.value, DeliveryState.UNCONFIRMED.value]
_MAY_BE_SUSPECT = [*_OPEN, DeliveryState.REFUSED.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What became of one person's message. `attempts` counts how often it was sent to Meta."""

    psid: str
    page_id: str
    topic: str | None
    state: DeliveryState
    reason: str | None
    error: str | None
    route: Route | None
    rule: str | None
    message_id: str | None
    attempts: int
    sending_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    replied_at: datetime | None
    tapped_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A message of which nobody knows whether it arrived, or a permission that it left suspect."""

    delivery_id: int
    psid: str
    page_id: str
    state: DeliveryState
    route: Route | None
    reason: str | None
    sending_at: datetime | None
    next_attempt_at: datetime | None
    token_id: int | None
    token_state: TokenState | None


def reasons(tx: Tx, broadcast_id: int) -> dict[str, dict[str, int]]:
    """By state, how many there are of each reason; the most frequent first."""
    number = sa.func.count().label("number")
    query = (
        sa.select(delivery.c.state, sa.func.coalesce(delivery.c.reason, "no_reason").label("reason"), number)
        .select_from(chunk.join(delivery, delivery.c.chunk_id == chunk.c.id))
        .where(chunk.c.broadcast_id == broadcast_id, delivery.c.state.in_(_WITH_REASON))
        .group_by(delivery.c.state, sa.text("2"))
        .order_by(number.desc(), sa.text("2"))
    )
    found: dict[str, dict[str, int]] = {}
    for row in tx.execute(query):
        found.setdefault(row.state, {})[row.reason] = row.number
    return found


def outcomes(tx: Tx, broadcast_id: int) -> list[tuple[DeliveryState, Route | None, str | None, int]]:
    """How many deliveries of a broadcast are in which state, by which route, for which reason."""
    columns = (delivery.c.state, delivery.c.route, delivery.c.reason)
    query = (
        sa.select(*columns, sa.func.count())
        .select_from(chunk.join(delivery, delivery.c.chunk_id == chunk.c.id))
        .where(chunk.c.broadcast_id == broadcast_id)
        .group_by(*columns)
    )
    return [
        (DeliveryState(state), Route(route) if route else None, reason, number)
        for state, route, reason, number in tx.execute(query)
    ]


def doubts(tx: Tx, broadcast_id: int, limit: int) -> list[Doubt]:
    """What is open or suspect, so many at most, in the order in which it was to be sent."""
    suspect = otn_token.c.state == TokenState.SUSPECT.value
    query = (
        sa.select(
            delivery.c.id.label("delivery_id"), otn_token.c.state.label("token_state"), *_columns(Doubt)
        )
        .select_from(
            chunk.join(delivery, delivery.c.chunk_id == chunk.c.id)
            .join(contact, contact.c.id == delivery.c.contact_id)
            .outerjoin(otn_token, otn_token.c.id == delivery.c.token_id)
        )
        .where(chunk.c.broadcast_id == broadcast_id, delivery.c.state.in_(_MAY_BE_SUSPECT))
        .where(delivery.c.state.in_(_OPEN) | suspect)
        .order_by(delivery.c.id)
        .limit(limit)
    )
    return [
        Doubt(**_typed(row, token_state=TokenState(row.token_state) if row.token_state is not None else None))
        for row in tx.execute(query)
    ]


def chunk_ids(tx: Tx, broadcast_id: int) -> list[int]:
    """The parts of a broadcast, for `people`."""
    query = sa.select(chunk.c.id).where(chunk.c.broadcast_id == broadcast_id).order_by(chunk.c.id)
    return list(tx.execute(query).scalars())


def people(tx: Tx, chunk_id: int) -> list[Person]:
    """Everybody in one part of a broadcast."""
    query = (
        sa.select(*_columns(Person))
        .select_from(delivery.join(contact).outerjoin(topic, topic.c.id == delivery.c.topic_id))
        .where(delivery.c.chunk_id == chunk_id)
        .order_by(delivery.c.id)
    )
    return [Person(**_typed(row)) for row in tx.execute(query)]


def _columns(wanted: type[Any]) -> Iterator[Any]:
    elsewhere = {"psid": contact.c.psid, "page_id": contact.c.page_id, "topic": topic.c.name.label("topic")}
    for name in wanted.__dataclass_fields__:
        if name in elsewhere:
            yield elsewhere[name]
        elif name in delivery.c:
            yield delivery.c[name]


def _typed(row: Any, **more: object) -> dict[str, Any]:
    route = Route(row.route) if row.route else None
    return {**row._mapping, "state": DeliveryState(row.state), "route": route, **more}
