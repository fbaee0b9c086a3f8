"""Table `permission_request`: whom we asked, for what, and what Meta said to the asking."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.models import AskingHistory, RequestState
from otn.policy import CAPPED_PERIOD
from otn.store.engine import Tx
from otn.store.schema import permission_request, topic
from otn.store.statements import insert_if_new

_WENT_TO = sa.select(permission_request.c.id, permission_request.c.contact_id).where(
    permission_request.c.id.in_(sa.bindparam("requests", expanding=True))
)
_REACHED_THEM = [RequestState.SENDING.value, RequestState.SENT.value, RequestState.UNKNOWN.value]


def record(
    tx: Tx, *, dedupe_key: str, contact_id: int, topic_id: int, wire_id: str, now: datetime
) -> int | None:
    """Record that we are about to ask; the request's id, or None if this key has asked already."""
    values = {
        "dedupe_key": dedupe_key,
        "contact_id": contact_id,
        "topic_id": topic_id,
        "state": RequestState.SENDING.value,
        "wire_id": wire_id,
        "asked_at": now,
    }
    return insert_if_new(tx, permission_request, values, ["dedupe_key"])


def exists(tx: Tx, dedupe_key: str) -> bool:
    """Whether this key has asked already."""
    query = sa.select(permission_request.c.id).where(permission_request.c.dedupe_key == dedupe_key)
    return tx.execute(query).first() is not None


def settle(
    tx: Tx,
    request_id: int,
    state: RequestState,
    *,
    now: datetime,
    message_id: str | None = None,
    error: str | None = None,
) -> bool:
    """Write down what became of a request; an echo may have said `sent` before, which stays."""
    settled = tx.execute(
        permission_request.update()
        .where(permission_request.c.id == request_id)
        .where(permission_request.c.state.in_([RequestState.SENDING.value, RequestState.UNKNOWN.value]))
        .values(state=state.value, settled_at=now, message_id=message_id, error=error)
    )
    return bool(settled.rowcount)


def settle_by_echo(tx: Tx, contact_id: int, wire_id: str, message_id: str | None, now: datetime) -> bool:
    """An echo proves that the request with this wire id was sent to this person, whatever Meta answered."""
    settled = tx.execute(
        permission_request.update()
        .where(permission_request.c.wire_id == wire_id, permission_request.c.contact_id == contact_id)
        .where(permission_request.c.state != RequestState.SENT.value)
        .values(state=RequestState.SENT.value, settled_at=now, message_id=message_id, error=None)
    )
    return bool(settled.rowcount)


def history(tx: Tx, contact_id: int, topic_id: int, now: datetime) -> AskingHistory:
    """What this person was asked: this topic's last request, and how many of any topic in seven days."""
    mine = (permission_request.c.contact_id == contact_id) & permission_request.c.state.in_(_REACHED_THEM)
    last = sa.select(sa.func.max(permission_request.c.asked_at)).where(
        mine, permission_request.c.topic_id == topic_id
    )
    week = sa.select(sa.func.count()).where(mine, permission_request.c.asked_at > now - CAPPED_PERIOD)
    return AskingHistory(
        last_asked_at=tx.execute(last).scalar_one_or_none(),
        asked_this_week=tx.execute(week).scalar_one(),
    )


def went_to(tx: Tx, request_ids: Collection[int]) -> dict[int, int]:
    """Whom these requests went to: contact ids by request id, of those that exist."""
    if not request_ids:
        return {}
    return dict(tx.execute(_WENT_TO, {"requests": list(request_ids)}).all())


def of_contact(tx: Tx, contact_id: int) -> list[dict[str, Any]]:
    """What this person was asked, oldest first."""
    names = ("state", "message_id", "error", "asked_at", "settled_at")
    query = (
        sa.select(topic.c.name.label("topic"), *(permission_request.c[name] for name in names))
        .join(topic, topic.c.id == permission_request.c.topic_id)
        .where(permission_request.c.contact_id == contact_id)
        .order_by(permission_request.c.asked_at, permission_request.c.id)
    )
    return [dict(row._mapping) for row in tx.execute(query)]


def erase(tx: Tx, contact_id: int) -> None:
    """Forget what Meta called the messages; that we asked stays, for sums and uniqueness."""
    tx.execute(
        permission_request.update()
        .where(permission_request.c.contact_id == contact_id)
        .values(message_id=None, error=None)
    )
