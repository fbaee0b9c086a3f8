"""The words of this project as values. Enum values are the words in the database."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

TOPIC_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FAMILY_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,61}-\*")

# What a placeholder can name: the profile's, which Meta tells, or an attribute.
PROFILE_NAMES = frozenset({"first_name", "last_name", "locale"})
_PLACEHOLDER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def is_attribute_name(name: object) -> bool:
    """Whether a contact's attribute may be called this: letters, digits and _, and none of the profile's names."""
    return isinstance(name, str) and bool(_PLACEHOLDER_NAME.fullmatch(name)) and name not in PROFILE_NAMES


def sender_id_on_page(psid: str, page_id: str) -> str:
    """Rasa's name for the conversation of somebody whose psid another page knows too."""
    return f"{psid}@{page_id}"


def split_sender_id(sender_id: str) -> tuple[str, str | None]:
    """Psid and page of Rasa's name for a conversation; no page where the name is the psid alone."""
    psid, _, page_id = sender_id.partition("@")
    return psid, page_id or None


class TokenState(str, Enum):
    """Where an OTN token stands. *Expired* is computed from `expires_at`, never stored."""

    AVAILABLE = "available"
    RESERVED = "reserved"
    USED = "used"
    SUSPECT = "suspect"
    INVALID = "invalid"


class DeliveryState(str, Enum):
    """`skipped`: our law said no, nothing left us. `refused`: Meta said no."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"
    UNCONFIRMED = "unconfirmed"


class BroadcastState(str, Enum):
    """Where a broadcast stands. `halted`: a rule or Meta stopped it, with a stored reason."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    HALTED = "halted"


class RequestState(str, Enum):
    """What became of a permission request (the asking, not the answer)."""

    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class InboxState(str, Enum):
    """What became of an inbound event."""

    NEW = "new"
    DONE = "done"
    FAILED = "failed"
    BROKEN = "broken"
    FOREIGN = "foreign"
    IGNORED = "ignored"


class Route(str, Enum):
    """How a message may leave us: as a standard message, paid by a token, or written by a person."""

    WINDOW = "window"
    TOKEN = "token"  # noqa: S105 - a word, not a password
    HUMAN_AGENT = "human_agent"


class Origin(str, Enum):
    """Who caused a delivery."""

    CLI = "cli"
    CONSOLE = "console"
    STORY = "story"
    REPLY = "reply"
    BROADCAST = "broadcast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A Facebook Page. A reason means paused; without `paused_until`, until somebody resumes it.

    `blocked_reason`: Meta has blocked it, until Meta unblocks it (HOOKS); whatever pauses there are beside it stay.
    `time_zone` (IANA name) is the local time of people who told us none; without it that is UTC.
    `otn_denied_reason`: Meta refused a permission request for want of the OTN permission (per Page, OTN).
    """

    page_id: str
    name: str | None = None
    paused_reason: str | None = None
    paused_until: datetime | None = None
    blocked_reason: str | None = None
    otn_denied_reason: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A person on one Page; psid is Rasa's `sender_id`."""

    id: int
    page_id: str
    psid: str
    window_opened_at: datetime | None = None
    window_opened_by: str | None = None
    window_until: datetime | None = None
    last_message_at: datetime | None = None
    first_name: str | None = None
    last_name: str | None = None
    locale: str | None = None
    timezone: str | None = None
    profile_asked_at: datetime | None = None
    undeliverable_reason: str | None = None
    do_not_ask_until: datetime | None = None
    erase_requested_at: datetime | None = None
    erased_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What a person can agree to hear about, once per token.

    `min_interval` is the least time between two requests to one person for this topic;
    `weekly_cap` the most requests, for any topic, that one person may have had within seven days
    when this topic is asked for.
    """

    id: int
    name: str
    title: str
    kind: str
    is_family: bool = False
    ask_while_available: bool = False
    min_interval: timedelta = timedelta(hours=24)
    weekly_cap: int = 5
    note: str | None = None
    archived_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """The tokens of one person for one topic, by state, at one moment."""

    available: int = 0
    reserved: int = 0
    used: int = 0
    suspect: int = 0
    invalid: int = 0
    expired: int = 0
    soonest_expiry: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingHistory:
    """What this person was asked so far: this topic's last request, and any topic's in seven days."""

    last_asked_at: datetime | None = None
    asked_this_week: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OtnToken:
    """A kept permission. The secret itself is not here: only `otn.delivery` takes it out of the vault."""

    id: int
    contact_id: int
    page_id: str
    psid: str
    topic: str | None
    state: TokenState
    opted_in_at: datetime
    expires_at: datetime
    permission_request_id: int | None = None
    payload: str | None = None
    used_at: datetime | None = None
    state_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one contact: what was decided, and what became of it."""

    id: int
    dedupe_key: str
    contact_id: int
    page_id: str
    psid: str
    topic: str | None
    origin: Origin
    state: DeliveryState
    route: Route | None
    rule: str | None
    reason: str | None
    message: dict[str, Any] | None = field(repr=False)
    message_hash: str
    wire_id: str
    token_id: int | None
    fence: int
    attempts: int
    doubtful: bool
    window_refused: bool
    human_agent: bool
    notification_type: str | None
    created_at: datetime
    next_attempt_at: datetime | None
    sending_at: datetime | None
    settled_at: datetime | None
    message_id: str | None
    error: str | None  # why not, in a sentence: the rules' or Meta's
    error_code: int | None
    error_subcode: int | None
    noted_at: datetime | None
    broadcast_id: int | None = None
    chunk_id: int | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    replied_at: datetime | None = None
    tapped_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """One message to everyone who agreed to a topic, as it was planned and as far as it has come.

    `topic` is a topic's or a family's name. `message` may hold placeholders (`otn.placeholders`).
    `audience` is the JSON of an `otn.audience.Audience`. `start_at` is when it is due; with `at_local` (a local
    time without zone, `2026-12-01T09:00`) each person's own clock decides, from `start_at` on. `quiet_from` and
    `quiet_until` are minutes after midnight of the person's clock between which nothing is sent.
    `watermark` is the newest token that counts: who agrees later is not meant.
    """

    id: int
    dedupe_key: str
    name: str
    topic: str
    message: dict[str, Any] = field(repr=False)
    message_hash: str
    response: str | None
    notification_type: str | None
    audience: dict[str, Any] = field(repr=False)
    state: BroadcastState
    state_reason: str | None
    start_at: datetime | None
    at_local: str | None
    quiet_from: int | None
    quiet_until: int | None
    skip_if_late: timedelta | None
    watermark: int | None
    frozen_at: datetime | None
    estimate: dict[str, Any] | None
    equal_refusals: int
    last_refusal: str | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a broadcast that one worker sends at a time: one Page, one moment from which it is due.

    `fence` counts the leases it was given; 0 means that nobody has begun. `counts` (deliveries by state) is
    written when it is done.
    """

    id: int
    broadcast_id: int
    page_id: str
    due_at: datetime
    size: int
    fence: int
    done_at: datetime | None
    counts: dict[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The right to make one POST now, already recorded as `sending`. The recipient may hold a token."""

    delivery_id: int
    fence: int
    page_id: str
    route: Route
    wire_id: str
    recipient: dict[str, str] = field(repr=False)
    message: dict[str, Any] = field(repr=False)
    messaging_type: str | None
    tag: str | None = None
    notification_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAttempt:
    """The right to send one permission request now, already recorded as `sending`."""

    request_id: int
    page_id: str
    psid: str
    wire_id: str
    topic: str
    title: str
    payload: str
    asked_at: datetime | None = None
