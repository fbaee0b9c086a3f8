"""Table `rate_bucket`: how many messages a Page sends a second, over all workers and hosts.

GCRA in one row, on the database's clock: the row holds the moment at which everything that was permitted so far
will have gone out, and each permit moves it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from otn.messages import is_audio_or_video
from otn.policy import MEDIA_PER_SECOND, MOST_MEDIA_PER_SECOND, MOST_SENDS_PER_SECOND
from otn.store.engine import Tx, db_epoch
from otn.store.schema import rate_bucket
from otn.store.statements import insert_if_new

MESSAGES, MEDIA = "messages", "media"

_THIS = (rate_bucket.c.page_id == sa.bindparam("page")) & (rate_bucket.c.kind == sa.bindparam("what"))
_SECONDS = sa.bindparam("seconds", type_=sa.Float)
_NOW = db_epoch()
_SOONEST = _NOW + sa.bindparam("lead", type_=sa.Float)
_TAKE = (
    rate_bucket.update()
    .where(_THIS)
    .values(tat=sa.case((rate_bucket.c.tat < _SOONEST, _SOONEST), else_=rate_bucket.c.tat) + _SECONDS)
)
_GIVE_BACK = (
    rate_bucket.update()
    .where(_THIS, rate_bucket.c.tat == sa.bindparam("end", type_=sa.Float))
    .values(tat=rate_bucket.c.tat - _SECONDS)
)
_SLOT = sa.select(rate_bucket.c.tat, _NOW.label("now")).where(_THIS)


def kind_of(message: Mapping[str, Any]) -> str:
    """Which of a Page's limits a message counts for."""
    return MEDIA if is_audio_or_video(message) else MESSAGES


def aim(kind: str, per_second: float) -> float:
    """How many of a kind we send a second, where the Page's messages are `per_second`."""
    return min(MEDIA_PER_SECOND, per_second) if kind == MEDIA else per_second


def slack(kind: str, per_second: float) -> float:
    """How late some of `per_second` messages may be, in seconds, and still no second has more than Meta allows."""
    return (MOST_MEDIA_PER_SECOND if kind == MEDIA else MOST_SENDS_PER_SECOND) / per_second - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Permits, in seconds since 1970 on the database's clock: what it said, when the first message may go, the others
    follow evenly, and when the last has gone."""

    now: float
    first: float
    end: float


def take(tx: Tx, page_id: str, kind: str, number: int, per_second: float) -> float:
    """Permit so many messages; the seconds until the first of them may go, the others follow evenly."""
    slot = reserve(tx, page_id, kind, number, per_second)
    return max(0.0, slot.first - slot.now)


def reserve(tx: Tx, page_id: str, kind: str, number: int, per_second: float, lead: float = 0.0) -> Slot:
    """Permit so many messages, the first in `lead` seconds at the soonest; give back afterwards what is not used.

    Nothing is saved up: a Page that was silent starts at the rate, so that no second has more than it.
    In a transaction of its own: who holds this row makes every other sender wait.
    """
    values: dict[str, Any] = {"page": page_id, "what": kind, "seconds": number / per_second, "lead": lead}
    if not tx.execute(_TAKE, values).rowcount:
        insert_if_new(tx, rate_bucket, {"page_id": page_id, "kind": kind, "tat": 0.0}, ["page_id", "kind"])
        tx.execute(_TAKE, values)
    row = tx.execute(_SLOT, {"page": page_id, "what": kind}).one()
    return Slot(now=row.now, first=row.tat - number / per_second, end=row.tat)


def give_back(tx: Tx, page_id: str, kind: str, number: int, per_second: float, end: float) -> None:
    """Take back permits that nobody used, if nobody has taken any since: `end` is what the row said then.

    Permits are moments: who took some since would not move up, and the next in line would send beside them.
    """
    values: dict[str, Any] = {"page": page_id, "what": kind, "seconds": number / per_second}
    tx.execute(_GIVE_BACK, {**values, "end": end})
