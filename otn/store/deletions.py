"""Table `deletion_request`: who asked Meta to have their data deleted, by a keyed hash."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from otn.store.engine import Tx
from otn.store.schema import deletion_request
from otn.store.statements import insert_if_new


def record(tx: Tx, code: str, user_hash: str, now: datetime) -> str:
    """Record a request under this confirmation code; the earlier code, if this person asked before."""
    values = {"confirmation_code": code, "user_hash": user_hash, "requested_at": now}
    insert_if_new(tx, deletion_request, values, ["user_hash"])
    query = sa.select(deletion_request.c.confirmation_code).where(deletion_request.c.user_hash == user_hash)
    return str(tx.execute(query).scalar_one())


def requested_at(tx: Tx, code: str) -> datetime | None:
    """When the request with this confirmation code was made; None if there is none."""
    query = sa.select(deletion_request.c.requested_at).where(deletion_request.c.confirmation_code == code)
    found: datetime | None = tx.execute(query).scalar_one_or_none()
    return found
