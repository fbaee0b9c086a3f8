"""When Graph was asked for a person's profile"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("contact", sa.Column("profile_asked_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    # Not as a batch, which makes the table anew: on SQLite permissions refer to people.
    op.execute("ALTER TABLE contact DROP COLUMN profile_asked_at")
