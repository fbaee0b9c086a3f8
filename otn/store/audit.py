"""Table `audit`: who changed what, when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.store.engine import Tx
from otn.store.schema import audit

_LATEST = 50  # entries about one page: a pause that still holds is among them


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change."""

    id: int
    at: datetime
    who: str
    action: str
    subject: str
    details: dict[str, Any] | None


def record(
    tx: Tx, *, who: str, action: str, subject: str, now: datetime, details: Mapping[str, Any] | None = None
) -> None:
    """Write down a change in the same transaction that makes it."""
    tx.execute(
        audit.insert().values(
            at=now, who=who, action=action, subject=subject, details=dict(details) if details else None
        )
    )


def record_all(
    tx: Tx, *, who: str, action: str, now: datetime, subjects: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write down the same kind of change of several things, each with its details."""
    rows = [
        {"at": now, "who": who, "action": action, "subject": subject, "details": dict(details)}
        for subject, details in subjects.items()
    ]
    if rows:
        tx.execute(audit.insert(), rows)


def recent(tx: Tx, *, subject: str | None = None, before: int | None = None, limit: int = 100) -> list[Entry]:
    """Changes, newest first, a page of them at a time."""
    query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    if subject is not None:
        query = query.where(audit.c.subject == subject)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [Entry(**row._mapping) for row in tx.execute(query)]


def who_paused(tx: Tx, page_id: str, reason: str) -> str | None:
    """Who gave a Page the pause with this reason, as far as it is on record."""
    query = (
        sa.select(audit.c.who, audit.c.details)
        .where(audit.c.subject == page_id, audit.c.action == "page.pause")
        .order_by(audit.c.id.desc())
        .limit(_LATEST)
    )
    return next((row.who for row in tx.execute(query) if (row.details or {}).get("reason") == reason), None)
