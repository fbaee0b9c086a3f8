"""What the bot asked for: a POST to /messages as a value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from simulator.faults import Target
from simulator.people import Json, is_request
from simulator.refusal import Refusal

# Parameters that are JSON objects when they come in a form or a query.
_NESTED = ("recipient", "message")
_SEND_PARAMETERS = ("messaging_type", "notification_type", "tag")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the Send API, understood but not yet judged."""

    page_id: str
    psid: str | None
    token: str | None
    message: Json | None
    action: Any
    messaging_type: Any
    notification_type: Any
    tag: Any

    @cached_property
    def is_request(self) -> bool:
        """Whether it asks for permission (OTN)."""
        return self.message is not None and is_request(self.message)

    @property
    def is_media(self) -> bool:
        """Whether the lower limit for audio and video applies (RATE)."""
        attachment = self.message.get("attachment") if self.message else None
        return isinstance(attachment, dict) and attachment.get("type") in ("audio", "video")

    def facts(self) -> Json:
        """What the journal says about the call; never the token's text."""
        message = self.message or {}
        facts: Json = {
            "page_id": self.page_id,
            "by_token": self.token is not None,
            "permission_request": self.is_request,
            "metadata": message.get("metadata"),
            "message": self.message,
            "sender_action": self.action,
        }
        facts.update((name, getattr(self, name)) for name in _SEND_PARAMETERS)
        return facts

    def target(self, psid: str | None) -> Target:
        """The call as faults see it."""
        text = (self.message or {}).get("text")
        return Target(
            call="send" if self.message is not None else "action",
            page_id=self.page_id,
            psid=psid,
            by_token=self.token is not None,
            permission_request=self.is_request,
            text=text if isinstance(text, str) else "",
        )


def parameters(raw: bytes, content_type: str, query: Json) -> Json | None:
    """The parameters of a Graph call, from a JSON body or a form, and the query. None: not readable."""
    try:
        if not raw.strip():
            body: Any = {}
        elif "json" in content_type:
            body = json.loads(raw)
        else:
            body = dict(parse_qsl(raw.decode(), keep_blank_values=True))
        found = {**query, **body}
        for name in _NESTED:
            if isinstance(found.get(name), str):
                found[name] = json.loads(found[name])
    except (ValueError, TypeError, RecursionError):
        return None
    return found


def read_call(page_id: str, found: Json) -> Call | Refusal:
    """Understand the parameters of a send, or say which rule of the envelope they break (SEND)."""
    recipient, message, action = found.get("recipient"), found.get("message"), found.get("sender_action")
    if not isinstance(recipient, dict):
        return Refusal(
            rule="recipient must be an object (SEND)", message="(#100) The parameter recipient is required"
        )
    psid, token = _id(recipient.get("id")), _id(recipient.get("one_time_notif_token"))
    if len(recipient) != 1 or (psid is None) == (token is None):
        return Refusal(rule="recipient must hold either id or one_time_notif_token, as text (SEND, OTN)")
    if (message is None) == (action is None):
        return Refusal(rule="a call carries either a message or a sender_action (SEND)")
    if message is not None and not isinstance(message, dict):
        return Refusal(rule="message must be an object (SEND)")
    return Call(
        page_id=page_id,
        psid=psid,
        token=token,
        message=message,
        action=action,
        messaging_type=found.get("messaging_type"),
        notification_type=found.get("notification_type"),
        tag=found.get("tag"),
    )


def _id(value: object) -> str | None:
    """An id as text; numbers are accepted as Graph accepts them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None
