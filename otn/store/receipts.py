"""Table `delivery`: what came back from people: delivered, read, replied, tapped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from otn.models import DeliveryState, Origin
from otn.store.engine import Tx
from otn.store.schema import delivery

ANSWERED_WITHIN = timedelta(days=7)  # what a person does later than this is no answer to a follow-up


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
