"""The tables. The database keeps the promises: unique keys, one live delivery a token, states as words."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from otn.models import BroadcastState, DeliveryState, InboxState, RequestState, TokenState

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up INTEGER only


class UtcDateTime(TypeDecorator):  # type: ignore[misc] # SQLAlchemy 1.4 has no types
    """An aware datetime in UTC. SQLite hands back naive ones; a naive one going in is a mistake."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times must be aware, in UTC")
        return value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


def _states(enum: type[Any]) -> sa.CheckConstraint:
    words = ", ".join(f"'{member.value}'" for member in enum)
    return sa.CheckConstraint(f"state IN ({words})", name="state")


def _id() -> sa.Column[int]:
    return sa.Column("id", BigId, primary_key=True, autoincrement=True)


setting = sa.Table(
    "setting",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

encryption_key = sa.Table(
    "encryption_key",
    metadata,
    sa.Column("fingerprint", sa.String(16), primary_key=True),
    sa.Column("first_used_at", UtcDateTime, nullable=False),
    sa.Column("retired_at", UtcDateTime),
)

page = sa.Table(
    "page",
    metadata,
    sa.Column("page_id", sa.String(255), primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("paused_reason", sa.Text),
    sa.Column("paused_until", UtcDateTime),
    sa.Column("blocked_reason", sa.Text),
    sa.Column("otn_denied_reason", sa.Text),
    sa.Column("time_zone", sa.String(64)),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

contact = sa.Table(
    "contact",
    metadata,
    _id(),
    sa.Column("page_id", sa.ForeignKey("page.page_id"), nullable=False),
    sa.Column("psid", sa.String(255), nullable=False),
    sa.Column("window_opened_at", UtcDateTime),
    sa.Column("window_opened_by", sa.String(16)),
    sa.Column("window_until", UtcDateTime),
    sa.Column("last_message_at", UtcDateTime),
    sa.Column("read_at", UtcDateTime),
    sa.Column("first_name", sa.Text),
    sa.Column("last_name", sa.Text),
    sa.Column("locale", sa.String(16)),
    sa.Column("timezone", sa.String(64)),
    sa.Column("profile_asked_at", UtcDateTime),  # when Graph was asked for the four before it
    sa.Column("undeliverable_reason", sa.Text),
    sa.Column("do_not_ask_until", UtcDateTime),
    sa.Column("erase_requested_at", UtcDateTime),
    sa.Column("erased_at", UtcDateTime),
    # One turn at a time, whichever process runs it: the lease is on the database's clock.
    sa.Column("turn_owner", sa.String(64)),
    sa.Column("turn_lease_until", sa.Float),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("page_id", "psid"),
    sa.Index("ix_contact_psid", "psid"),
    sa.Index(
        "ix_contact_erase",
        "erase_requested_at",
        sqlite_where=sa.text("erase_requested_at IS NOT NULL"),
        postgresql_where=sa.text("erase_requested_at IS NOT NULL"),
    ),
)

contact_tag = sa.Table(
    "contact_tag",
    metadata,
    sa.Column("contact_id", sa.ForeignKey("contact.id"), primary_key=True),
    sa.Column("tag", sa.String(64), primary_key=True),
)

contact_attribute = sa.Table(
    "contact_attribute",
    metadata,
    sa.Column("contact_id", sa.ForeignKey("contact.id"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

topic = sa.Table(
    "topic",
    metadata,
    _id(),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("title", sa.String(65), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("is_family", sa.Boolean, nullable=False),
    sa.Column("ask_while_available", sa.Boolean, nullable=False),
    sa.Column("min_interval_seconds", sa.BigInteger, nullable=False),
    sa.Column("weekly_cap", sa.Integer, nullable=False),
    sa.Column("note", sa.Text),
    sa.Column("archived_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

permission_request = sa.Table(
    "permission_request",
    metadata,
    _id(),
    sa.Column("dedupe_key", sa.String(255), nullable=False, unique=True),
    sa.Column("contact_id", sa.ForeignKey("contact.id"), nullable=False),
    sa.Column("topic_id", sa.ForeignKey("topic.id"), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("wire_id", sa.String(64), nullable=False, unique=True),
    sa.Column("message_id", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("asked_at", UtcDateTime, nullable=False),
    sa.Column("settled_at", UtcDateTime),
    _states(RequestState),
    sa.Index("ix_permission_request_contact_id_asked_at", "contact_id", "asked_at"),
)

otn_token = sa.Table(
    "otn_token",
    metadata,
    _id(),
    sa.Column("contact_id", sa.ForeignKey("contact.id"), nullable=False),
    sa.Column("topic_id", sa.ForeignKey("topic.id")),
    sa.Column("permission_request_id", sa.ForeignKey("permission_request.id")),
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("ciphertext", sa.LargeBinary),  # destroyed once used, expired or erased
    sa.Column("payload", sa.Text),
    sa.Column("opted_in_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("state_reason", sa.Text),
    sa.Column("used_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    _states(TokenState),
    sa.Index(
        "ix_otn_token_available",
        "topic_id",
        "expires_at",
        "id",
        sqlite_where=sa.text("state = 'available'"),
        postgresql_where=sa.text("state = 'available'"),
    ),
    # One person's tokens in the order in which they are drawn. Without state and expiry in it SQLite takes
    # the index above and walks through everybody's.
    sa.Index("ix_otn_token_of_contact", "contact_id", "topic_id", "state", "expires_at", "id"),
    # Everybody's tokens of one topic, person by person: an estimate reads nothing else of them.
    sa.Index("ix_otn_token_of_topic", "topic_id", "contact_id", "state", "expires_at", "opted_in_at"),
    sa.Index(
        "ix_otn_token_secret",
        "expires_at",
        sqlite_where=sa.text("ciphertext IS NOT NULL"),
        postgresql_where=sa.text("ciphertext IS NOT NULL"),
    ),
)

broadcast = sa.Table(
    "broadcast",
    metadata,
    _id(),
    sa.Column("dedupe_key", sa.String(255), nullable=False, unique=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("topic", sa.String(64), nullable=False),
    sa.Column("message", sa.JSON, nullable=False),
    sa.Column("message_hash", sa.String(64), nullable=False),
    sa.Column("response", sa.String(255)),
    sa.Column("notification_type", sa.String(16)),
    sa.Column("audience", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("state_reason", sa.Text),
    sa.Column("start_at", UtcDateTime),
    sa.Column("at_local", sa.String(16)),
    sa.Column("quiet_from", sa.Integer),
    sa.Column("quiet_until", sa.Integer),
    sa.Column("skip_if_late_seconds", sa.BigInteger),
    sa.Column("watermark", sa.BigInteger),
    # How far its members are frozen: through tokens by (topic, expiry, id), then through contacts by id.
    sa.Column("cursor_topic", sa.BigInteger),
    sa.Column("cursor_expires_at", UtcDateTime),
    sa.Column("cursor_token", sa.BigInteger),
    sa.Column("cursor_contact", sa.BigInteger),
    sa.Column("frozen_at", UtcDateTime),
    sa.Column("estimate", sa.JSON),
    sa.Column("equal_refusals", sa.Integer, nullable=False),
    sa.Column("last_refusal", sa.String(64)),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    _states(BroadcastState),
    sa.Index("ix_broadcast_state", "state", "start_at"),
)

broadcast_psid = sa.Table(
    "broadcast_psid",
    metadata,
    sa.Column("broadcast_id", sa.ForeignKey("broadcast.id"), primary_key=True),
    sa.Column("is_excluded", sa.Boolean, primary_key=True),
    sa.Column("psid", sa.String(255), primary_key=True),
)

chunk = sa.Table(
    "chunk",
    metadata,
    _id(),
    sa.Column("broadcast_id", sa.ForeignKey("broadcast.id"), nullable=False),
    sa.Column("page_id", sa.ForeignKey("page.page_id"), nullable=False),
    sa.Column("due_at", UtcDateTime, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("owner", sa.String(64)),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("lease_until", sa.Float),  # database clock
    sa.Column("done_at", UtcDateTime),
    sa.Column("counts", sa.JSON),  # deliveries by state, once it is done
    sa.Index("ix_chunk_broadcast_id", "broadcast_id", "done_at"),
    sa.Index(
        "ix_chunk_open",
        "due_at",
        "id",
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    ),
)

rate_bucket = sa.Table(
    "rate_bucket",
    metadata,
    sa.Column("page_id", sa.String(255), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    # GCRA's theoretical arrival time, in seconds since 1970 on the database's clock.
    sa.Column("tat", sa.Float, nullable=False),
)

deletion_request = sa.Table(
    "deletion_request",
    metadata,
    sa.Column("confirmation_code", sa.String(64), primary_key=True),
    sa.Column("user_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("requested_at", UtcDateTime, nullable=False),
)

_LIVE = "token_id IS NOT NULL AND state IN ('sending', 'unknown')"

UNSETTLED = sa.text("state IN ('queued', 'sending', 'unknown')")
"""Put it into a query word for word: SQLite uses a partial index for nothing else."""

delivery = sa.Table(
    "delivery",
    metadata,
    _id(),
    sa.Column("dedupe_key", sa.String(255), nullable=False, unique=True),
    sa.Column("contact_id", sa.ForeignKey("contact.id"), nullable=False),
    sa.Column("topic_id", sa.ForeignKey("topic.id")),
    sa.Column("token_id", sa.ForeignKey("otn_token.id")),
    sa.Column("broadcast_id", sa.ForeignKey("broadcast.id")),
    sa.Column("chunk_id", sa.ForeignKey("chunk.id")),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("route", sa.String(16)),
    sa.Column("rule", sa.Text),  # the sentence that allowed it
    sa.Column("reason", sa.String(64)),  # the word that forbade it, ours or Meta's
    sa.Column("error", sa.Text),
    sa.Column("error_code", sa.Integer),
    sa.Column("error_subcode", sa.Integer),
    sa.Column("message", sa.JSON),  # none before a broadcast's turn comes, and none after an erasure
    sa.Column("message_hash", sa.String(64), nullable=False),
    sa.Column("notification_type", sa.String(16)),
    sa.Column("human_agent", sa.Boolean, nullable=False),
    sa.Column("wire_id", sa.String(64), nullable=False, unique=True),
    sa.Column("message_id", sa.Text),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("doubtful", sa.Boolean, nullable=False),  # an attempt before the last may have arrived
    sa.Column("window_refused", sa.Boolean, nullable=False),
    sa.Column("lease_until", sa.Float),  # database clock
    sa.Column("next_attempt_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("sending_at", UtcDateTime),
    sa.Column("settled_at", UtcDateTime),
    sa.Column("delivered_at", UtcDateTime),
    sa.Column("read_at", UtcDateTime),
    sa.Column("replied_at", UtcDateTime),
    sa.Column("tapped_at", UtcDateTime),
    sa.Column("noted_at", UtcDateTime),  # in the person's tracker since
    _states(DeliveryState),
    sa.Index("ix_delivery_contact_id_state", "contact_id", "state"),
    sa.Index("ix_delivery_message_hash", "message_hash", "state"),
    sa.Index("ix_delivery_chunk_id", "chunk_id", "state", "id"),
    sa.Index(
        "uq_delivery_live_token",
        "token_id",
        unique=True,
        sqlite_where=sa.text(_LIVE),
        postgresql_where=sa.text(_LIVE),
    ),
    sa.Index(
        "ix_delivery_unsettled",
        "state",
        "next_attempt_at",
        sqlite_where=UNSETTLED,
        postgresql_where=UNSETTLED,
    ),
)

inbound_event = sa.Table(
    "inbound_event",
    metadata,
    _id(),
    sa.Column("page_id", sa.String(255), nullable=False),
    sa.Column("event_key", sa.String(320), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("contact_id", sa.ForeignKey("contact.id")),
    sa.Column("event_at", UtcDateTime, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),  # sealed: it may hold a token
    sa.Column("standby", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("closed_at", UtcDateTime),
    _states(InboxState),
    sa.UniqueConstraint("page_id", "event_key"),
    sa.Index("ix_inbound_event_received_at", "received_at"),
    sa.Index(
        "ix_inbound_event_new",
        "contact_id",
        "event_at",
        "id",
        sqlite_where=sa.text("state = 'new'"),
        postgresql_where=sa.text("state = 'new'"),
    ),
)

audit = sa.Table(
    "audit",
    metadata,
    _id(),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("who", sa.String(128), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("details", sa.JSON),
)
