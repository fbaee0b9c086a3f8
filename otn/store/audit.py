"""Table `audit`: who changed what, when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from otn.store.engine import Tx
from otn.store.schema import audit


def record(
    tx: Tx, *, who: str, action: str, subject: str, now: datetime, details: Mapping[str, Any] | None = None
) -> None:
    """Write down a change in the same transaction that makes it."""
    tx.execute(
        audit.insert().values(
            at=now, who=who, action=action, subject=subject, details=dict(details) if details else None
        )
    )
