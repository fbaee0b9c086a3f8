"""The people who use Messenger here, their threads with a Page, and the permissions they gave."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Json = dict[str, Any]

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS

# SEND, POLICY: the standard messaging window.
WINDOW_MS = 24 * HOUR_MS
# POLICY: HUMAN_AGENT, after the person's last message.
HUMAN_AGENT_MS = 7 * DAY_MS
# OTN: "expires within 1 year of creation"; taken as 365 days from the opt-in's timestamp.
TOKEN_LIFE_MS = 365 * DAY_MS

# Older messages of one thread are forgotten, so that a load test on one person stays in memory.
KEPT_MESSAGES = 2000

# What the User Profile API may be asked for, and what a person here can have.
PROFILE_FIELDS = ("first_name", "last_name", "profile_pic", "locale", "timezone", "gender")


class Direction(str, Enum):
    """Who a message goes to, seen from the Page."""

    IN = "in"
    OUT = "out"


class ThreadOwner(str, Enum):
    """Which app controls the thread: the bot's, or another one (handover protocol)."""

    APP = "app"
    OTHER = "other"


@dataclass(slots=True, kw_only=True)
class Message:
    """One bubble in a thread."""

    mid: str
    at_ms: int
    direction: Direction
    content: Json
    by_token: bool = False
    tapped: bool = False  # a permission request whose Notify Me was tapped
    reactions: list[str] = field(default_factory=list)

    @property
    def is_request(self) -> bool:
        """Whether this is a permission request with a Notify Me button (OTN)."""
        return is_request(self.content)

    def as_json(self) -> Json:
        """The bubble as the control API shows it."""
        shown: Json = {
            "mid": self.mid,
            "timestamp": self.at_ms,
            "direction": self.direction.value,
            "content": self.content,
            "by_token": self.by_token,
        }
        if self.is_request:
            shown["tapped"] = self.tapped
        if self.reactions:
            shown["reactions"] = list(self.reactions)
        return shown


@dataclass(slots=True, kw_only=True)
class Person:
    """Somebody who talks to a Page. Times are simulated milliseconds; a psid is unique per Page."""

    psid: str
    page_id: str
    profile: Json = field(default_factory=dict)
    blocked: bool = False
    unreachable: bool = False  # "can't receive messages right now" (ERR, 10/2018108)
    thread_owner: ThreadOwner = ThreadOwner.APP
    window_until_ms: int = 0
    last_message_ms: int | None = None
    thread: dict[str, Message] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list, repr=False)
    delivered: int = 0
    delivered_by_token: int = 0
    requests: int = 0

    def open_window(self, at_ms: int, length_ms: int = WINDOW_MS) -> None:
        """Note an action that opens the window: late and disordered events never shorten it (HOOKS)."""
        self.window_until_ms = max(self.window_until_ms, at_ms + length_ms)

    def window_is_open(self, now_ms: int) -> bool:
        """Whether a Page may write now; the last millisecond is the one before the 24 hours are full."""
        return now_ms < self.window_until_ms

    def human_agent_may_write(self, now_ms: int) -> bool:
        """POLICY: 7 days after the person's last message."""
        return self.last_message_ms is not None and now_ms < self.last_message_ms + HUMAN_AGENT_MS

    def keep(self, message: Message) -> None:
        """Put a bubble at the end of the thread."""
        self.thread[message.mid] = message
        if len(self.thread) > KEPT_MESSAGES:
            del self.thread[next(iter(self.thread))]

    def as_json(self, now_ms: int) -> Json:
        """The person as the control API shows them."""
        return {
            "psid": self.psid,
            "page_id": self.page_id,
            **self.profile,
            "blocked": self.blocked,
            "unreachable": self.unreachable,
            "thread_owner": self.thread_owner.value,
            "window_open": self.window_is_open(now_ms),
            "window_until": self.window_until_ms / 1000 if self.window_until_ms else None,
            "delivered": self.delivered,
            "delivered_by_token": self.delivered_by_token,
            "permissions": sum(token.is_usable(now_ms) for token in self.tokens),
            "last_permission": self.tokens[-1].state(now_ms) if self.tokens else None,
        }


@dataclass(slots=True, kw_only=True)
class Token:
    """One permission to send one message. The text is a credential: it leaves only in the opt-in's webhook."""

    text: str = field(repr=False)
    person: Person = field(repr=False)
    request_mid: str
    issued_ms: int
    used: bool = False

    @property
    def id(self) -> str:
        """The token's public name: the SHA-256 of its text."""
        return token_id(self.text)

    def has_expired(self, now_ms: int) -> bool:
        """OTN: a year after it was made."""
        return now_ms >= self.issued_ms + TOKEN_LIFE_MS

    def is_usable(self, now_ms: int) -> bool:
        """Whether it still pays for a message."""
        return not self.used and not self.has_expired(now_ms)

    def state(self, now_ms: int) -> str:
        """What became of it: used, lapsed, or usable still."""
        if self.used:
            return "used"
        return "lapsed" if self.has_expired(now_ms) else "usable"


def token_id(text: str) -> str:
    """The name by which a token may be written down."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_request(content: Json) -> bool:
    """Whether a message's content is a permission request (OTN)."""
    attachment = content.get("attachment")
    payload = attachment.get("payload") if isinstance(attachment, dict) else None
    return isinstance(payload, dict) and payload.get("template_type") == "one_time_notif_req"
