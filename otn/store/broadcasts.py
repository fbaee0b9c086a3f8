"""Table `broadcast`: what was planned, where it stands, how far its members are frozen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from otn.errors import NotFound
from otn.models import Broadcast, BroadcastState
from otn.store.engine import Tx
from otn.store.schema import broadcast, broadcast_psid, topic
from otn.store.statements import insert_if_new, insert_new

_COLUMNS = tuple(
    broadcast.c["skip_if_late_seconds" if name == "skip_if_late" else name]
    for name in Broadcast.__dataclass_fields__
)
_STANDING = sa.select(broadcast.c.state, broadcast.c.equal_refusals).where(
    broadcast.c.id == sa.bindparam("broadcast")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far the members are frozen: through tokens by topic, expiry and id, then through contacts by id."""

    topic: int | None = None
    expires_at: datetime | None = None
    token: int | None = None
    contact: int | None = None


def add(tx: Tx, values: Mapping[str, Any]) -> int | None:
    """Add a broadcast; its id, or None if its dedupe key exists."""
    stored = _stored(values)
    return insert_if_new(tx, broadcast, {"equal_refusals": 0, **stored}, ["dedupe_key"])


def add_psids(tx: Tx, broadcast_id: int, psids: Iterable[str], *, excluded: bool) -> None:
    """Keep some of the list that came with a broadcast, a few hundred at most; one that is there stays."""
    names = ("broadcast_id", "is_excluded", "psid")
    insert_new(tx, broadcast_psid, names, [(broadcast_id, excluded, psid) for psid in psids], names)


def find(tx: Tx, broadcast_id: int) -> Broadcast | None:
    """The broadcast with this id, if there is one."""
    row = tx.execute(sa.select(*_COLUMNS).where(broadcast.c.id == broadcast_id)).one_or_none()
    return _broadcast(row) if row else None


def get(tx: Tx, broadcast_id: int) -> Broadcast:
    """The broadcast with this id. Raises NotFound with what to type."""
    found = find(tx, broadcast_id)
    if found is None:
        raise NotFound(f"there is no broadcast {broadcast_id}; see `otn broadcasts list`")
    return found


def by_key(tx: Tx, dedupe_key: str) -> Broadcast | None:
    """The broadcast that was made under this key."""
    row = tx.execute(sa.select(*_COLUMNS).where(broadcast.c.dedupe_key == dedupe_key)).one_or_none()
    return _broadcast(row) if row else None


def every(
    tx: Tx, *, states: Collection[BroadcastState] = (), before: int | None = None, limit: int = 100
) -> list[Broadcast]:
    """Broadcasts, newest first, a page of them at a time."""
    query = sa.select(*_COLUMNS).order_by(broadcast.c.id.desc()).limit(limit)
    if states:
        query = query.where(broadcast.c.state.in_([state.value for state in states]))
    if before is not None:
        query = query.where(broadcast.c.id < before)
    return [_broadcast(row) for row in tx.execute(query)]


def standing(tx: Tx, broadcast_id: int) -> tuple[BroadcastState, int]:
    """Where it stands now, and how many messages in a row were refused alike."""
    row = tx.execute(_STANDING, {"broadcast": broadcast_id}).one()
    return BroadcastState(row.state), row.equal_refusals


def move(
    tx: Tx, broadcast_id: int, old: Collection[BroadcastState], new: BroadcastState, **values: Any
) -> bool:
    """Change its state if it is in one of the old ones; False if it is not, or does not exist."""
    moved = tx.execute(
        broadcast.update()
        .where(broadcast.c.id == broadcast_id, broadcast.c.state.in_([state.value for state in old]))
        .values(state=new.value, **_stored(values))
    )
    return bool(moved.rowcount)


def change(tx: Tx, broadcast_id: int, **values: Any) -> None:
    """Write down something about it that is no state."""
    tx.execute(broadcast.update().where(broadcast.c.id == broadcast_id).values(**_stored(values)))


def due(tx: Tx, now: datetime, limit: int = 20) -> list[Broadcast]:
    """Scheduled ones whose time has come, the longest overdue first."""
    query = (
        sa.select(*_COLUMNS)
        .where(broadcast.c.state == BroadcastState.SCHEDULED.value, broadcast.c.start_at <= now)
        .order_by(broadcast.c.start_at, broadcast.c.id)
        .limit(limit)
    )
    return [_broadcast(row) for row in tx.execute(query)]


def running(tx: Tx, *, frozen: bool) -> list[Broadcast]:
    """Those that run and whose members are all frozen, or are not."""
    is_frozen = broadcast.c.frozen_at.isnot(None)
    query = sa.select(*_COLUMNS).where(
        broadcast.c.state == BroadcastState.RUNNING.value, is_frozen if frozen else ~is_frozen
    )
    return [_broadcast(row) for row in tx.execute(query.order_by(broadcast.c.id))]


def next_start(tx: Tx) -> datetime | None:
    """When the next scheduled one is due."""
    query = sa.select(sa.func.min(broadcast.c.start_at)).where(
        broadcast.c.state == BroadcastState.SCHEDULED.value
    )
    found: datetime | None = tx.execute(query).scalar_one()
    return found


def cursor(tx: Tx, broadcast_id: int) -> Cursor:
    """How far its members are frozen."""
    columns = broadcast.c
    row = tx.execute(
        sa.select(
            columns.cursor_topic, columns.cursor_expires_at, columns.cursor_token, columns.cursor_contact
        ).where(columns.id == broadcast_id)
    ).one()
    return Cursor(topic=row[0], expires_at=row[1], token=row[2], contact=row[3])


def advance(tx: Tx, broadcast_id: int, old: Cursor, new: Cursor, *, frozen_at: datetime | None) -> bool:
    """Move the cursor, if it runs and the cursor is where we found it: of two that freeze, one wins."""
    columns = broadcast.c
    moved = tx.execute(
        broadcast.update()
        .where(columns.id == broadcast_id, columns.state == BroadcastState.RUNNING.value)
        .where(columns.frozen_at.is_(None))
        .where(_is(columns.cursor_topic, old.topic), _is(columns.cursor_token, old.token))
        .where(_is(columns.cursor_contact, old.contact))
        .values(
            cursor_topic=new.topic,
            cursor_expires_at=new.expires_at,
            cursor_token=new.token,
            cursor_contact=new.contact,
            frozen_at=frozen_at,
        )
    )
    return bool(moved.rowcount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How many messages in a row were refused alike, and how."""

    length: int = 0
    kind: str | None = None

    def next(self, kind: str) -> Refusals:
        """With one more."""
        return Refusals(length=self.length + 1 if kind == self.kind else 1, kind=kind)


def refusals(tx: Tx, broadcast_id: int) -> Refusals:
    """The refusals in a row so far; the row is locked until the transaction ends."""
    columns = broadcast.c
    query = sa.select(columns.equal_refusals, columns.last_refusal).where(columns.id == broadcast_id)
    row = tx.execute(query.with_for_update()).one()
    return Refusals(length=row.equal_refusals, kind=row.last_refusal)


def lock(tx: Tx, broadcast_id: int) -> None:
    """Let nobody else change it until the transaction ends."""
    tx.execute(sa.select(broadcast.c.id).where(broadcast.c.id == broadcast_id).with_for_update())


def note_refusals(tx: Tx, broadcast_id: int, streak: Refusals) -> None:
    """Write down how many were refused in a row."""
    change(tx, broadcast_id, equal_refusals=streak.length, last_refusal=streak.kind)


def halt(tx: Tx, broadcast_id: int, reason: str) -> bool:
    """Stop one that runs, or waits to, with a reason; False if it does not."""
    old = (BroadcastState.RUNNING, BroadcastState.SCHEDULED)
    return move(tx, broadcast_id, old, BroadcastState.HALTED, state_reason=reason)


def topic_ids(tx: Tx, name: str) -> list[int]:
    """The topics that a broadcast's topic stands for: itself, or the members of the family by id."""
    return list(tx.execute(sa.select(topic.c.id).where(covered_by(name)).order_by(topic.c.id)).scalars())


def covered_by(name: str) -> Any:
    """Whether a broadcast's topic stands for a row of `topic`."""
    if not name.endswith("*"):
        return topic.c.name == name
    return topic.c.name.startswith(name[:-1], autoescape=True) & ~topic.c.is_family


def _is(column: Any, value: Any) -> Any:
    return column.is_(None) if value is None else column == value


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    if "skip_if_late" in found:
        length: timedelta | None = found.pop("skip_if_late")
        found["skip_if_late_seconds"] = int(length.total_seconds()) if length is not None else None
    return found


def _broadcast(row: Row[Any]) -> Broadcast:
    values = dict(row._mapping)
    seconds = values.pop("skip_if_late_seconds")
    values["skip_if_late"] = timedelta(seconds=seconds) if seconds is not None else None
    values["state"] = BroadcastState(row.state)
    return Broadcast(**values)
