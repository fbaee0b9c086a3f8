"""Broadcasts: plans, chunks, tags and attributes, the Page's rate"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True)

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "broadcast",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("dedupe_key", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("topic", sa.String(length=64), nullable=False),
        sa.Column("message", sa.JSON(), nullable=False),
        sa.Column("message_hash", sa.String(length=64), nullable=False),
        sa.Column("response", sa.String(length=255), nullable=True),
        sa.Column("notification_type", sa.String(length=16), nullable=True),
        sa.Column("audience", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("start_at", Moment, nullable=True),
        sa.Column("at_local", sa.String(length=16), nullable=True),
        sa.Column("quiet_from", sa.Integer(), nullable=True),
        sa.Column("quiet_until", sa.Integer(), nullable=True),
        sa.Column("skip_if_late_seconds", sa.BigInteger(), nullable=True),
        sa.Column("watermark", sa.BigInteger(), nullable=True),
        sa.Column("cursor_topic", sa.BigInteger(), nullable=True),
        sa.Column("cursor_expires_at", Moment, nullable=True),
        sa.Column("cursor_token", sa.BigInteger(), nullable=True),
        sa.Column("cursor_contact", sa.BigInteger(), nullable=True),
        sa.Column("frozen_at", Moment, nullable=True),
        sa.Column("estimate", sa.JSON(), nullable=True),
        sa.Column("equal_refusals", sa.Integer(), nullable=False),
        sa.Column("last_refusal", sa.String(length=64), nullable=True),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("started_at", Moment, nullable=True),
        sa.Column("finished_at", Moment, nullable=True),
        sa.CheckConstraint(
            "state IN ('draft', 'scheduled', 'running', 'paused', 'finished', 'cancelled', 'halted')",
            name=op.f("ck_broadcast_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_broadcast")),
        sa.UniqueConstraint("dedupe_key", name=op.f("uq_broadcast_dedupe_key")),
    )
    with op.batch_alter_table("broadcast", schema=None) as batch:
        batch.create_index("ix_broadcast_state", ["state", "start_at"], unique=False)

    op.create_table(
        "deletion_request",
        sa.Column("confirmation_code", sa.String(length=64), nullable=False),
        sa.Column("user_hash", sa.String(length=64), nullable=False),
        sa.Column("requested_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("confirmation_code", name=op.f("pk_deletion_request")),
        sa.UniqueConstraint("user_hash", name=op.f("uq_deletion_request_user_hash")),
    )
    op.create_table(
        "rate_bucket",
        sa.Column("page_id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("tat", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("page_id", "kind", name=op.f("pk_rate_bucket")),
    )
    op.create_table(
        "broadcast_psid",
        sa.Column("broadcast_id", BigId, nullable=False),
        sa.Column("is_excluded", sa.Boolean(), nullable=False),
        sa.Column("psid", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["broadcast_id"], ["broadcast.id"], name=op.f("fk_broadcast_psid_broadcast_id")
        ),
        sa.PrimaryKeyConstraint("broadcast_id", "is_excluded", "psid", name=op.f("pk_broadcast_psid")),
    )
    op.create_table(
        "chunk",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("broadcast_id", BigId, nullable=False),
        sa.Column("page_id", sa.String(length=255), nullable=False),
        sa.Column("due_at", Moment, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=True),
        sa.Column("done_at", Moment, nullable=True),
        sa.Column("counts", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["broadcast_id"], ["broadcast.id"], name=op.f("fk_chunk_broadcast_id")),
        sa.ForeignKeyConstraint(["page_id"], ["page.page_id"], name=op.f("fk_chunk_page_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunk")),
    )
    with op.batch_alter_table("chunk", schema=None) as batch:
        batch.create_index("ix_chunk_broadcast_id", ["broadcast_id", "done_at"], unique=False)
        batch.create_index(
            "ix_chunk_open",
            ["due_at", "id"],
            unique=False,
            sqlite_where=sa.text("done_at IS NULL"),
            postgresql_where=sa.text("done_at IS NULL"),
        )

    op.create_table(
        "contact_attribute",
        sa.Column("contact_id", BigId, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_contact_attribute_contact_id")),
        sa.PrimaryKeyConstraint("contact_id", "name", name=op.f("pk_contact_attribute")),
    )
    op.create_table(
        "contact_tag",
        sa.Column("contact_id", BigId, nullable=False),
        sa.Column("tag", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_contact_tag_contact_id")),
        sa.PrimaryKeyConstraint("contact_id", "tag", name=op.f("pk_contact_tag")),
    )
    with op.batch_alter_table("delivery", schema=None) as batch:
        batch.add_column(sa.Column("broadcast_id", BigId, nullable=True))
        batch.add_column(sa.Column("chunk_id", BigId, nullable=True))
        batch.add_column(sa.Column("replied_at", Moment, nullable=True))
        batch.add_column(sa.Column("tapped_at", Moment, nullable=True))
        batch.drop_index(op.f("ix_delivery_message_hash"))
        batch.create_index("ix_delivery_message_hash", ["message_hash", "state"], unique=False)
        batch.create_index("ix_delivery_chunk_id", ["chunk_id", "state", "id"], unique=False)
        batch.create_foreign_key(op.f("fk_delivery_broadcast_id"), "broadcast", ["broadcast_id"], ["id"])
        batch.create_foreign_key(op.f("fk_delivery_chunk_id"), "chunk", ["chunk_id"], ["id"])

    with op.batch_alter_table("otn_token", schema=None) as batch:
        batch.create_index(
            "ix_otn_token_of_topic",
            ["topic_id", "contact_id", "state", "expires_at", "opted_in_at"],
            unique=False,
        )

    with op.batch_alter_table("page", schema=None) as batch:
        batch.add_column(sa.Column("time_zone", sa.String(length=64), nullable=True))


def downgrade() -> None:
    # Not as a batch, which makes the table anew: on SQLite people refer to their Page.
    op.execute("ALTER TABLE page DROP COLUMN time_zone")

    with op.batch_alter_table("otn_token", schema=None) as batch:
        batch.drop_index("ix_otn_token_of_topic")

    with op.batch_alter_table("delivery", schema=None) as batch:
        batch.drop_constraint(op.f("fk_delivery_chunk_id"), type_="foreignkey")
        batch.drop_constraint(op.f("fk_delivery_broadcast_id"), type_="foreignkey")
        batch.drop_index("ix_delivery_chunk_id")
        batch.drop_index("ix_delivery_message_hash")
        batch.create_index(op.f("ix_delivery_message_hash"), ["message_hash"], unique=False)
        batch.drop_column("tapped_at")
        batch.drop_column("replied_at")
        batch.drop_column("chunk_id")
        batch.drop_column("broadcast_id")

    op.drop_table("contact_tag")
    op.drop_table("contact_attribute")
    with op.batch_alter_table("chunk", schema=None) as batch:
        batch.drop_index(
            "ix_chunk_open",
            sqlite_where=sa.text("done_at IS NULL"),
            postgresql_where=sa.text("done_at IS NULL"),
        )
        batch.drop_index("ix_chunk_broadcast_id")

    op.drop_table("chunk")
    op.drop_table("broadcast_psid")
    op.drop_table("rate_bucket")
    op.drop_table("deletion_request")
    with op.batch_alter_table("broadcast", schema=None) as batch:
        batch.drop_index("ix_broadcast_state")

    op.drop_table("broadcast")
