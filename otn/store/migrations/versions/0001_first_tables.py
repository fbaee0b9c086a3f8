"""First tables"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "encryption_key",
        sa.Column("fingerprint", sa.String(length=16), nullable=False),
        sa.Column("first_used_at", Moment, nullable=False),
        sa.Column("retired_at", Moment, nullable=True),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_encryption_key")),
    )
    op.create_table(
        "page",
        sa.Column("page_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("paused_reason", sa.Text(), nullable=True),
        sa.Column("paused_until", Moment, nullable=True),
        sa.Column("otn_denied_reason", sa.Text(), nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("page_id", name=op.f("pk_page")),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_setting")),
    )
    op.create_table(
        "topic",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=65), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("is_family", sa.Boolean(), nullable=False),
        sa.Column("ask_while_available", sa.Boolean(), nullable=False),
        sa.Column("min_interval_seconds", sa.BigInteger(), nullable=False),
        sa.Column("weekly_cap", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("archived_at", Moment, nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_topic")),
        sa.UniqueConstraint("name", name=op.f("uq_topic_name")),
    )
    op.create_table(
        "contact",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("page_id", sa.String(length=255), nullable=False),
        sa.Column("psid", sa.String(length=255), nullable=False),
        sa.Column("window_opened_at", Moment, nullable=True),
        sa.Column("window_opened_by", sa.String(length=16), nullable=True),
        sa.Column("window_until", Moment, nullable=True),
        sa.Column("last_message_at", Moment, nullable=True),
        sa.Column("read_at", Moment, nullable=True),
        sa.Column("first_name", sa.Text(), nullable=True),
        sa.Column("last_name", sa.Text(), nullable=True),
        sa.Column("locale", sa.String(length=16), nullable=True),
        sa.Column("timezone", sa.String(length=64), nullable=True),
        sa.Column("undeliverable_reason", sa.Text(), nullable=True),
        sa.Column("do_not_ask_until", Moment, nullable=True),
        sa.Column("erase_requested_at", Moment, nullable=True),
        sa.Column("erased_at", Moment, nullable=True),
        sa.Column("turn_owner", sa.String(length=64), nullable=True),
        sa.Column("turn_lease_until", sa.Float(), nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["page_id"], ["page.page_id"], name=op.f("fk_contact_page_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contact")),
        sa.UniqueConstraint("page_id", "psid", name=op.f("uq_contact_page_id_psid")),
    )
    with op.batch_alter_table("contact", schema=None) as batch_op:
        batch_op.create_index(
            "ix_contact_erase",
            ["erase_requested_at"],
            unique=False,
            sqlite_where=sa.text("erase_requested_at IS NOT NULL"),
            postgresql_where=sa.text("erase_requested_at IS NOT NULL"),
        )
        batch_op.create_index("ix_contact_psid", ["psid"], unique=False)

    op.create_table(
        "inbound_event",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("page_id", sa.String(length=255), nullable=False),
        sa.Column("event_key", sa.String(length=320), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("contact_id", BigId, nullable=True),
        sa.Column("event_at", Moment, nullable=False),
        sa.Column("received_at", Moment, nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("standby", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("closed_at", Moment, nullable=True),
        sa.CheckConstraint(
            "state IN ('new', 'done', 'failed', 'broken', 'foreign', 'ignored')",
            name=op.f("ck_inbound_event_state"),
        ),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_inbound_event_contact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_event")),
        sa.UniqueConstraint("page_id", "event_key", name=op.f("uq_inbound_event_page_id_event_key")),
    )
    with op.batch_alter_table("inbound_event", schema=None) as batch_op:
        batch_op.create_index(
            "ix_inbound_event_new",
            ["contact_id", "event_at", "id"],
            unique=False,
            sqlite_where=sa.text("state = 'new'"),
            postgresql_where=sa.text("state = 'new'"),
        )
        batch_op.create_index("ix_inbound_event_received_at", ["received_at"], unique=False)

    op.create_table(
        "permission_request",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("dedupe_key", sa.String(length=255), nullable=False),
        sa.Column("contact_id", BigId, nullable=False),
        sa.Column("topic_id", BigId, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wire_id", sa.String(length=64), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("asked_at", Moment, nullable=False),
        sa.Column("settled_at", Moment, nullable=True),
        sa.CheckConstraint(
            "state IN ('sending', 'sent', 'refused', 'unknown')", name=op.f("ck_permission_request_state")
        ),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["contact.id"], name=op.f("fk_permission_request_contact_id")
        ),
        sa.ForeignKeyConstraint(["topic_id"], ["topic.id"], name=op.f("fk_permission_request_topic_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_permission_request")),
        sa.UniqueConstraint("dedupe_key", name=op.f("uq_permission_request_dedupe_key")),
        sa.UniqueConstraint("wire_id", name=op.f("uq_permission_request_wire_id")),
    )
    with op.batch_alter_table("permission_request", schema=None) as batch_op:
        batch_op.create_index(
            "ix_permission_request_contact_id_asked_at", ["contact_id", "asked_at"], unique=False
        )

    op.create_table(
        "otn_token",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("contact_id", BigId, nullable=False),
        sa.Column("topic_id", BigId, nullable=True),
        sa.Column("permission_request_id", BigId, nullable=True),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=True),
        sa.Column("opted_in_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("used_at", Moment, nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.CheckConstraint(
            "state IN ('available', 'reserved', 'used', 'suspect', 'invalid')",
            name=op.f("ck_otn_token_state"),
        ),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_otn_token_contact_id")),
        sa.ForeignKeyConstraint(
            ["permission_request_id"],
            ["permission_request.id"],
            name=op.f("fk_otn_token_permission_request_id"),
        ),
        sa.ForeignKeyConstraint(["topic_id"], ["topic.id"], name=op.f("fk_otn_token_topic_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_otn_token")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_otn_token_token_hash")),
    )
    with op.batch_alter_table("otn_token", schema=None) as batch_op:
        batch_op.create_index(
            "ix_otn_token_available",
            ["topic_id", "expires_at", "id"],
            unique=False,
            sqlite_where=sa.text("state = 'available'"),
            postgresql_where=sa.text("state = 'available'"),
        )
        batch_op.create_index(
            "ix_otn_token_of_contact", ["contact_id", "topic_id", "state", "expires_at", "id"], unique=False
        )
        batch_op.create_index(
            "ix_otn_token_secret",
            ["expires_at"],
            unique=False,
            sqlite_where=sa.text("ciphertext IS NOT NULL"),
            postgresql_where=sa.text("ciphertext IS NOT NULL"),
        )

    op.create_table(
        "delivery",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("dedupe_key", sa.String(length=255), nullable=False),
        sa.Column("contact_id", BigId, nullable=False),
        sa.Column("topic_id", BigId, nullable=True),
        sa.Column("token_id", BigId, nullable=True),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("route", sa.String(length=16), nullable=True),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Integer(), nullable=True),
        sa.Column("error_subcode", sa.Integer(), nullable=True),
        sa.Column("message", sa.JSON(), nullable=True),
        sa.Column("message_hash", sa.String(length=64), nullable=False),
        sa.Column("notification_type", sa.String(length=16), nullable=True),
        sa.Column("human_agent", sa.Boolean(), nullable=False),
        sa.Column("wire_id", sa.String(length=64), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("doubtful", sa.Boolean(), nullable=False),
        sa.Column("window_refused", sa.Boolean(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=True),
        sa.Column("next_attempt_at", Moment, nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("sending_at", Moment, nullable=True),
        sa.Column("settled_at", Moment, nullable=True),
        sa.Column("delivered_at", Moment, nullable=True),
        sa.Column("read_at", Moment, nullable=True),
        sa.Column("noted_at", Moment, nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'sending', 'sent', 'refused', 'skipped', 'unknown', 'unconfirmed')",
            name=op.f("ck_delivery_state"),
        ),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_delivery_contact_id")),
        sa.ForeignKeyConstraint(["token_id"], ["otn_token.id"], name=op.f("fk_delivery_token_id")),
        sa.ForeignKeyConstraint(["topic_id"], ["topic.id"], name=op.f("fk_delivery_topic_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("dedupe_key", name=op.f("uq_delivery_dedupe_key")),
        sa.UniqueConstraint("wire_id", name=op.f("uq_delivery_wire_id")),
    )
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.create_index("ix_delivery_contact_id_state", ["contact_id", "state"], unique=False)
        batch_op.create_index("ix_delivery_message_hash", ["message_hash"], unique=False)
        batch_op.create_index(
            "ix_delivery_unsettled",
            ["state", "next_attempt_at"],
            unique=False,
            sqlite_where=sa.text("state IN ('queued', 'sending', 'unknown')"),
            postgresql_where=sa.text("state IN ('queued', 'sending', 'unknown')"),
        )
        batch_op.create_index(
            "uq_delivery_live_token",
            ["token_id"],
            unique=True,
            sqlite_where=sa.text("token_id IS NOT NULL AND state IN ('sending', 'unknown')"),
            postgresql_where=sa.text("token_id IS NOT NULL AND state IN ('sending', 'unknown')"),
        )


def downgrade() -> None:
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_delivery_live_token",
            sqlite_where=sa.text("token_id IS NOT NULL AND state IN ('sending', 'unknown')"),
            postgresql_where=sa.text("token_id IS NOT NULL AND state IN ('sending', 'unknown')"),
        )
        batch_op.drop_index(
            "ix_delivery_unsettled",
            sqlite_where=sa.text("state IN ('queued', 'sending', 'unknown')"),
            postgresql_where=sa.text("state IN ('queued', 'sending', 'unknown')"),
        )
        batch_op.drop_index("ix_delivery_message_hash")
        batch_op.drop_index("ix_delivery_contact_id_state")

    op.drop_table("delivery")
    with op.batch_alter_table("otn_token", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_otn_token_secret",
            sqlite_where=sa.text("ciphertext IS NOT NULL"),
            postgresql_where=sa.text("ciphertext IS NOT NULL"),
        )
        batch_op.drop_index("ix_otn_token_of_contact")
        batch_op.drop_index(
            "ix_otn_token_available",
            sqlite_where=sa.text("state = 'available'"),
            postgresql_where=sa.text("state = 'available'"),
        )

    op.drop_table("otn_token")
    with op.batch_alter_table("permission_request", schema=None) as batch_op:
        batch_op.drop_index("ix_permission_request_contact_id_asked_at")

    op.drop_table("permission_request")
    with op.batch_alter_table("inbound_event", schema=None) as batch_op:
        batch_op.drop_index("ix_inbound_event_received_at")
        batch_op.drop_index(
            "ix_inbound_event_new",
            sqlite_where=sa.text("state = 'new'"),
            postgresql_where=sa.text("state = 'new'"),
        )

    op.drop_table("inbound_event")
    with op.batch_alter_table("contact", schema=None) as batch_op:
        batch_op.drop_index("ix_contact_psid")
        batch_op.drop_index(
            "ix_contact_erase",
            sqlite_where=sa.text("erase_requested_at IS NOT NULL"),
            postgresql_where=sa.text("erase_requested_at IS NOT NULL"),
        )

    op.drop_table("contact")
    op.drop_table("topic")
    op.drop_table("setting")
    op.drop_table("page")
    op.drop_table("encryption_key")
    op.drop_table("audit")
