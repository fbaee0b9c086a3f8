"""What is said to the Graph API, and what its answers mean. Pure: no socket is opened here.

    request = build_send(config, recipient={"id": psid}, message=message, messaging_type="RESPONSE")
    sent = classify(status, headers, body)      # or raises the SendError that says how to react

Both clients (`aio`, `sync`) are a page each on this one. Source: platform pages SEND, ERR and RATE.
"""

from __future__ import annotations

import hashlib
import hmac
import json as _json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

from otn.errors import (
    ConfigError,
    OutcomeUnknown,
    Refusal,
    Refused,
    SendError,
    Throttled,
    Unreachable,
)
from otn.local_time import zone

# Seconds. The total must stay below the lease of whoever holds the delivery while it is `sending`.
CONNECT_TIMEOUT = 5.0
TOTAL_TIMEOUT = 20.0
# Bytes. Graph's answers have a few hundred; an answer beyond this is not one of Graph's.
LONGEST_ANSWER = 1_000_000

# Seconds to stay quiet when Graph limits us without saying for how long (RATE: calls made then lengthen the
# block), and the longest time that we take its word for.
DEFAULT_RETRY_AFTER = 60.0
LONGEST_RETRY_AFTER = 24 * 3600.0

# HOOKS: all that `otn.events` understands.
SUBSCRIBED_FIELDS = (
    "messages",
    "messaging_postbacks",
    "messaging_optins",
    "messaging_referrals",
    "message_reactions",
    "message_echoes",
    "message_reads",
    "message_deliveries",
    "messaging_policy_enforcement",
    "messaging_handovers",
    "standby",
)
PROFILE_FIELDS = ("first_name", "last_name", "profile_pic", "locale", "timezone")

_DETAIL_LENGTH = 300
_NAME_LENGTH = 64  # characters that we keep of a name
_LOCALE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,4}){0,2}")
_OPAQUE = re.compile(r"(?=[^\s\"']*\d)[\w\-|=+/.~%]{24,}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphConfig:
    """Which Graph API to call, and as which Page. Raises ConfigError for what could never work.

    `base_url` has no version. Without `page_id` the access token's own Page is meant ("me"). With `app_secret`
    every call carries an `appsecret_proof` (SEND).
    """

    base_url: str
    api_version: str
    page_id: str | None = None
    access_token: str = field(repr=False)
    app_secret: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        problems = []
        if urlsplit(self.base_url).scheme not in ("http", "https") or not urlsplit(self.base_url).hostname:
            problems.append("MESSENGER_GRAPH_URL: write an http or https address, without the version.")
        if not self.access_token or not self.access_token.isascii() or re.search(r"\s", self.access_token):
            problems.append(
                "MESSENGER_PAGE_ACCESS_TOKEN: no access token has blanks or letters beyond ASCII."
            )
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One call of the Graph API. Secrets and what is said to a person stay out of the repr."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def body(self) -> bytes | None:
        """The JSON as ASCII bytes, the same from both clients. Raises ValueError for NaN."""
        if self.json is None:
            return None
        return _json.dumps(self.json, allow_nan=False, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Meta's "yes". The answer to a follow-up may lack the recipient, that to a sender action has no message."""

    message_id: str | None
    recipient_id: str | None


# --- requests ---


def build_send(
    config: GraphConfig,
    *,
    recipient: Mapping[str, str],
    message: Mapping[str, Any],
    messaging_type: str | None = None,
    tag: str | None = None,
    notification_type: str | None = None,
) -> HttpRequest:
    """Return the call that sends one message.

    `recipient` is `{"id": psid}` or `{"one_time_notif_token": token}`; for a token leave `messaging_type` out,
    as Meta's sample does (OTN). Put the attempt's id into the message first: `with_metadata`.
    """
    extra = {"messaging_type": messaging_type, "tag": tag, "notification_type": notification_type}
    given = {key: value for key, value in extra.items() if value is not None}
    return _call(config, "POST", "messages", json={"recipient": dict(recipient), "message": message, **given})


def build_sender_action(config: GraphConfig, psid: str, action: str) -> HttpRequest:
    """Return the call that shows `typing_on`, `typing_off` or `mark_seen` (SEND)."""
    return _call(config, "POST", "messages", json={"recipient": {"id": psid}, "sender_action": action})


def build_profile(config: GraphConfig, psid: str, fields: Sequence[str] = PROFILE_FIELDS) -> HttpRequest:
    """Return the call that asks for a person's profile; any field can be missing from the answer."""
    return _request(config, "GET", quote(psid, safe=""), params={"fields": ",".join(fields)})


def build_me(config: GraphConfig) -> HttpRequest:
    """Return the call that asks whose access token this is: `{"id", "name"}` of the Page."""
    return _request(config, "GET", "me", params={"fields": "id,name"})


def build_subscribed_apps(config: GraphConfig) -> HttpRequest:
    """Return the call that asks which apps get the Page's events, to see whether ours still does (HOOKS)."""
    return _call(config, "GET", "subscribed_apps")


def build_subscribe(config: GraphConfig, fields: Sequence[str] = SUBSCRIBED_FIELDS) -> HttpRequest:
    """Return the call that subscribes our app to the Page's events."""
    return _call(config, "POST", "subscribed_apps", json={"subscribed_fields": ",".join(fields)})


def build_messenger_profile(config: GraphConfig, profile: Mapping[str, Any]) -> HttpRequest:
    """Return the call that sets the Page's Messenger profile: `get_started`, `persistent_menu`, `greeting`."""
    return _call(config, "POST", "messenger_profile", json=profile)


def build_show_messenger_profile(config: GraphConfig, fields: Sequence[str]) -> HttpRequest:
    """Return the call that asks for the Page's Messenger profile."""
    return _call(config, "GET", "messenger_profile", params={"fields": ",".join(fields)})


def with_metadata(message: Mapping[str, Any], wire_id: str) -> dict[str, Any]:
    """Return the message with the attempt's id, which its echo brings back (ECHO)."""
    return {**message, "metadata": wire_id}


def appsecret_proof(access_token: str, app_secret: str) -> str:
    """Return the proof that whoever calls knows the app secret too (SEND)."""
    return hmac.new(app_secret.encode(), access_token.encode(), hashlib.sha256).hexdigest()


def _call(
    config: GraphConfig,
    method: str,
    edge: str,
    params: Mapping[str, str] | None = None,
    json: Mapping[str, Any] | None = None,
) -> HttpRequest:
    return _request(config, method, f"{quote(config.page_id or 'me', safe='')}/{edge}", params, json)


def _request(
    config: GraphConfig,
    method: str,
    path: str,
    params: Mapping[str, str] | None = None,
    json: Mapping[str, Any] | None = None,
) -> HttpRequest:
    # The access token travels in a header: addresses end up in logs.
    headers = {
        "Authorization": f"Bearer {config.access_token}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "rasa-messenger-otn",
        **({"Content-Type": "application/json"} if json is not None else {}),
    }
    proof = appsecret_proof(config.access_token, config.app_secret) if config.app_secret else None
    token = (json or {}).get("recipient", {}).get("one_time_notif_token")
    return HttpRequest(
        method=method,
        url=f"{config.base_url.rstrip('/')}/{config.api_version}/{path}",
        headers=headers,
        params={**(params or {}), **({"appsecret_proof": proof} if proof else {})},
        json=json,
        secrets=tuple(secret for secret in (config.access_token, config.app_secret, proof, token) if secret),
    )


# --- answers ---


def classify(status: int, headers: Mapping[str, str], body: bytes, *, secrets: Iterable[str] = ()) -> Sent:
    """Return Meta's "yes", or raise the SendError that says how to react (ERR, on code and subcode).

    Refused and Throttled are raised only when Graph itself said so: whatever else came back, a broken page of a
    proxy, a server error, half an answer, the message may have gone out (OutcomeUnknown). `secrets` never show
    in an error's text.
    """
    answer = classify_json(status, headers, body, secrets=secrets)
    sent = Sent(message_id=_word(answer.get("message_id")), recipient_id=_word(answer.get("recipient_id")))
    if sent.message_id is None and sent.recipient_id is None:
        raise OutcomeUnknown(f"HTTP {status} without a message id")
    return sent


def classify_json(
    status: int, headers: Mapping[str, str], body: bytes, *, secrets: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the JSON object that Graph answered with, or raise as `classify` does."""
    answer = _object(body)
    error = answer.get("error") if answer is not None else None
    if 200 <= status < 300 and answer is not None and error is None:
        return answer
    if not isinstance(error, dict) or _number(error.get("code")) is None:
        raise OutcomeUnknown(f"HTTP {status} without an answer of Graph's")
    raise _error(status, headers, error, secrets)


def subscribed_fields(answer: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of the app that gets most; which of several apps is ours, Meta does not say (HOOKS)."""
    apps = answer.get("data")
    found = (
        [app.get("subscribed_fields") for app in apps if isinstance(app, dict)]
        if isinstance(apps, list)
        else []
    )
    sets = [frozenset(str(name) for name in fields) for fields in found if isinstance(fields, list)]
    return max(sets, key=len, default=frozenset())


def profile_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return what the answer to `build_profile` tells of a person, as SQL can keep it; any field can be missing.

    The time zone is hours from UTC, as digits, or the name of a zone.
    """
    found = {
        name: _short_word(answer.get(name)) for name in ("first_name", "last_name", "locale", "timezone")
    }
    if not _LOCALE.fullmatch(found["locale"]):
        found["locale"] = ""
    if zone(found["timezone"]) is None:
        found["timezone"] = ""
    return {name: value for name, value in found.items() if value}


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the time at which the other side says that it answered (HTTP's Date, in whole seconds)."""
    value = next((text for name, text in headers.items() if name.lower() == "date"), "")
    try:
        found = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else None


def lost(request: HttpRequest, *, written: bool, reason: str) -> SendError:
    """Return the error for a call without an answer; `written`: some of the body may have left us.

    Graph can't act on a body that it doesn't have, and asking (GET) delivers nothing.
    """
    detail = _scrubbed(reason, request.secrets)
    return OutcomeUnknown(detail) if written and request.json is not None else Unreachable(detail)


def reason(error: BaseException) -> str:
    """Return what went wrong at the bottom of an HTTP library's error, without the address and the headers."""
    chain = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) is not None and below not in chain:
        chain.append(below)
    for each in reversed(chain):
        if isinstance(each, OSError) and isinstance(each.strerror, str) and each.strerror:
            return f"{type(each).__name__}: {each.strerror}"
    return type(error).__name__


def _error(
    status: int, headers: Mapping[str, str], error: Mapping[str, Any], secrets: Iterable[str]
) -> SendError:
    code, subcode = _number(error.get("code")) or 0, _number(error.get("error_subcode"))
    detail = _scrubbed(error.get("message"), secrets) or "no explanation"
    known = _BY_SUBCODE.get((code, subcode)) or _BY_CODE.get(code)
    if subcode == _ANOTHER_APP_IN_CONTROL:
        known = Refusal.THREAD_CONTROL
    # A server error is temporary whatever its code, and a success status with an error contradicts itself.
    doubtful = not 400 <= status < 500 or code in _TEMPORARY
    if doubtful or (known is None and code not in _RATE_LIMITS and error.get("is_transient") is True):
        return OutcomeUnknown(f"HTTP {status}, error {code}: {detail}", code=code, subcode=subcode)
    if known is None and code in _RATE_LIMITS:
        return Throttled(_retry_after(headers), code=code, subcode=subcode, detail=detail)
    return Refused(known or Refusal.BAD_REQUEST, code=code, subcode=subcode, detail=detail)


# ERR. 1/1357046 is "sent, yet reported as an error".
_TEMPORARY = frozenset({1, 2, 341})
_RATE_LIMITS = frozenset({4, 17, 32, 613, 80001, 80006})
_ANOTHER_APP_IN_CONTROL = 2018300
_BY_SUBCODE: dict[tuple[int, int | None], Refusal] = {
    (613, 1893016): Refusal.TOO_MANY_REQUESTS,
    (9, 2018352): Refusal.TOO_MANY_REQUESTS,
    (10, 1404170): Refusal.TOO_MANY_REQUESTS,
    (4, 2018354): Refusal.TOO_MANY_REQUESTS,
    (10, 2018278): Refusal.OUTSIDE_WINDOW,
    (10, 2018065): Refusal.OUTSIDE_WINDOW,
    (10, 2018108): Refusal.CANNOT_RECEIVE_NOW,
    (10, 1893063): Refusal.PAGE_RESTRICTED,
    (100, 2018001): Refusal.NO_SUCH_PERSON,
    (100, 2018008): Refusal.BAD_MEDIA,
    (100, 2018047): Refusal.BAD_MEDIA,
    (100, 2018109): Refusal.BAD_MEDIA,
    (100, 2018294): Refusal.BAD_MEDIA,
    (200, 1545041): Refusal.PERSON_UNAVAILABLE,
}
_BY_CODE = {
    10: Refusal.PERMISSION_MISSING,
    100: Refusal.BAD_REQUEST,
    190: Refusal.BAD_ACCESS_TOKEN,
    200: Refusal.PERMISSION_MISSING,
    368: Refusal.PAGE_RESTRICTED,
    551: Refusal.PERSON_UNAVAILABLE,
}


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds until Graph lets us call again: `X-Business-Use-Case-Usage` says it in minutes (RATE)."""
    found = {key.lower(): value for key, value in headers.items()}
    usage = _object(found.get("x-business-use-case-usage", "").encode("utf-8", "replace")) or {}
    entries = [entry for value in usage.values() for entry in (value if isinstance(value, list) else [value])]
    seconds = 60 * max((_minutes(entry) for entry in entries), default=0.0)
    return min(seconds or DEFAULT_RETRY_AFTER, LONGEST_RETRY_AFTER)


def _minutes(entry: object) -> float:
    value = entry.get("estimated_time_to_regain_access") if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0.0
    return min(value, LONGEST_RETRY_AFTER)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = _json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _short_word(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    return _UNPRINTABLE.sub(" ", value).strip()[:_NAME_LENGTH].strip() if isinstance(value, str) else ""


def _word(value: object) -> str | None:
    """An id as SQL can keep it; a number becomes its digits, anything else is no id."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return _UNPRINTABLE.sub("", value)[:512] or None if isinstance(value, str) else None


def _scrubbed(text: object, secrets: Iterable[str]) -> str:
    """The text for people and logs: our secrets, and whatever looks like one, are taken out."""
    words = text if isinstance(text, str) else ""
    for secret in secrets:
        words = words.replace(secret, "***")
    # Cut before the search: it looks ahead, and an endless word would take it for ever.
    opaque = _OPAQUE.sub("***", words[: 5 * _DETAIL_LENGTH])
    return _UNPRINTABLE.sub(" ", opaque).strip()[:_DETAIL_LENGTH]
