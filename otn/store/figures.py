"""Sums over the tables, for people who look after a Page. Nothing is decided by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from otn.models import BroadcastState, DeliveryState, TokenState
from otn.store.engine import Tx
from otn.store.pages import paused
from otn.store.schema import broadcast, contact, delivery, inbound_event, otn_token, page

LATELY = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFigures:
    """One Page in numbers. `deliveries` has every state; the inbox remembers a week of webhooks."""

    contacts: int
    open_windows: int
    available_tokens: int
    deliveries: dict[str, int] = field(default_factory=dict)
    last_webhook_at: datetime | None = None


def of_page(tx: Tx, page_id: str, now: datetime) -> PageFigures:
    """The Page's sums at this moment; of deliveries, those that something happened to in the last 24 hours."""
    people = tx.execute(
        sa.select(
            sa.func.count().label("all"),
            sa.func.count(sa.case((contact.c.window_until > now, 1))).label("open"),
        ).where(contact.c.page_id == page_id)
    ).one()
    return PageFigures(
        contacts=people.all,
        open_windows=people.open,
        available_tokens=_available_tokens(tx, page_id, now),
        deliveries=_deliveries(tx, page_id, now - LATELY),
        last_webhook_at=_last_webhook_at(tx, page_id),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for something, over all Pages."""

    tokens_available: int
    tokens_suspect: int
    inbox_waiting: int
    inbox_oldest_seconds: float
    pages_paused: int
    broadcasts_running: int
    broadcasts_halted: int


def waiting(tx: Tx, now: datetime) -> Waiting:
    """What waits at this moment; each by an index or over a small table."""

    def number(table: sa.Table, *conditions: Any) -> int:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table).where(*conditions)).scalar_one())

    new = sa.text("state = 'new'")  # word for word as the partial index has it
    oldest = tx.execute(
        sa.select(inbound_event.c.received_at).where(new).order_by(inbound_event.c.id).limit(1)
    )
    since = oldest.scalar_one_or_none()
    return Waiting(
        tokens_available=number(
            otn_token, sa.text("otn_token.state = 'available'"), otn_token.c.expires_at > now
        ),
        tokens_suspect=number(otn_token, otn_token.c.state == TokenState.SUSPECT.value),
        inbox_waiting=number(inbound_event, new),
        inbox_oldest_seconds=max(0.0, (now - since).total_seconds()) if since else 0.0,
        pages_paused=number(page, paused(now)),
        broadcasts_running=number(broadcast, broadcast.c.state == BroadcastState.RUNNING.value),
        broadcasts_halted=number(broadcast, broadcast.c.state == BroadcastState.HALTED.value),
    )


def lapsing(
    tx: Tx, now: datetime, horizons: Sequence[timedelta], topic_ids: Sequence[int] | None = None
) -> dict[int | None, tuple[int, ...]]:
    """Available tokens by topic (None: without one): how many, and how many of them lapse within each horizon."""
    expiry = otn_token.c.expires_at
    counts = (sa.func.count().filter(expiry <= now + horizon) for horizon in horizons)
    query = (
        sa.select(otn_token.c.topic_id, sa.func.count(), *counts)
        .where(otn_token.c.state == TokenState.AVAILABLE.value, expiry > now)
        .group_by(otn_token.c.topic_id)
    )
    if topic_ids is not None:
        query = query.where(otn_token.c.topic_id.in_(topic_ids))
    return {row[0]: tuple(row[1:]) for row in tx.execute(query)}


def _available_tokens(tx: Tx, page_id: str, now: datetime) -> int:
    query = (
        sa.select(sa.func.count())
        .select_from(otn_token.join(contact))
        .where(otn_token.c.state == TokenState.AVAILABLE.value, otn_token.c.expires_at > now)
        .where(contact.c.page_id == page_id)
    )
    return int(tx.execute(query).scalar_one())


def _deliveries(tx: Tx, page_id: str, since: datetime) -> dict[str, int]:
    happened_at = sa.func.coalesce(delivery.c.settled_at, delivery.c.sending_at, delivery.c.created_at)
    query = (
        sa.select(delivery.c.state, sa.func.count())
        .select_from(delivery.join(contact))
        .where(contact.c.page_id == page_id, happened_at > since)
        .group_by(delivery.c.state)
    )
    return {**{state.value: 0 for state in DeliveryState}, **{row[0]: row[1] for row in tx.execute(query)}}


def _last_webhook_at(tx: Tx, page_id: str) -> datetime | None:
    query = (
        sa.select(inbound_event.c.received_at)
        .where(inbound_event.c.page_id == page_id)
        .order_by(inbound_event.c.received_at.desc())
        .limit(1)
    )
    found: datetime | None = tx.execute(query).scalar_one_or_none()
    return found
