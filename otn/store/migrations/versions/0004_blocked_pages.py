"""Meta's block of a Page, apart from our own pauses; PostgreSQL's room for updates"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Rows of these are updated again and again, by indexed columns and others: with room on its page a row stays there
# (a HOT update), and dead ones are cleared before an index has grown around them.
_HOT = ("contact", "otn_token", "delivery", "chunk", "rate_bucket", "inbound_event")
_ROOM = {
    "fillfactor": "80",
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_analyze_scale_factor": "0.02",
}
_BLOCKED = "Meta blocked the page"

_page = sa.table("page", *map(sa.column, ("paused_reason", "paused_until", "blocked_reason")))


def upgrade() -> None:
    op.add_column("page", sa.Column("blocked_reason", sa.Text(), nullable=True))
    by_meta = _page.c.paused_reason.startswith(_BLOCKED)
    moved = {"blocked_reason": _page.c.paused_reason, "paused_reason": None, "paused_until": None}
    op.execute(_page.update().where(by_meta).values(moved))
    _each_hot_table(f"SET ({', '.join(f'{name} = {value}' for name, value in _ROOM.items())})")


def downgrade() -> None:
    # One place for both again: the block is the longer one.
    back = {"paused_reason": _page.c.blocked_reason, "paused_until": None}
    op.execute(_page.update().where(_page.c.blocked_reason.isnot(None)).values(back))
    # Not as a batch, which makes the table anew: on SQLite people and parts of broadcasts refer to it.
    op.execute("ALTER TABLE page DROP COLUMN blocked_reason")
    _each_hot_table(f"RESET ({', '.join(_ROOM)})")


def _each_hot_table(change: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        for table in _HOT:
            op.execute(f"ALTER TABLE {table} {change}")
