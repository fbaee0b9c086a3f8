"""A signed webhook body becomes a list of events. Pure: bytes and a clock in, frozen values out.

    verify_signature(body, request.headers.get("X-Hub-Signature-256"), app_secrets)
    for event in parse(body, received_at=now): ...

Nothing that Meta sends is dropped: what is not known becomes an UNKNOWN event, what contradicts itself a
BROKEN one, and neither costs its neighbours anything. Every string is safe for SQL and for Rasa.
Source: platform pages HOOKS, ECHO and OTN.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from otn.errors import InvalidSignature, MalformedPayload

# A timestamp further in the future than this is wrong, ours or Meta's clock being off.
CLOCK_TOLERANCE = timedelta(minutes=5)
# The Messenger Platform opened in April 2016: what claims to be older is in seconds, or not a time at all.
EARLIEST = datetime(2016, 1, 1, tzinfo=timezone.utc)
# Ids and mids are undocumented in length; today they have 16 to 130 characters.
LONGEST_ID = 255
LONGEST_MID = 512
LONGEST_TOKEN = 4096

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ONE_MILLISECOND = timedelta(milliseconds=1)
_EARLIEST_MS = (EARLIEST - _EPOCH) / _ONE_MILLISECOND
# Made once: json.dumps makes an encoder a call.
_COMPACT = json.JSONEncoder(separators=(",", ":"))
_SORTED = json.JSONEncoder(separators=(",", ":"), sort_keys=True)
_UNSAFE = re.compile(r"[\x00\ud800-\udfff]")
_LONGEST_NUMBER = 40
_TOKEN_KEYS = ("one_time_notif_token", "notification_messages_token")

JsonObject = Mapping[str, Any]
_Fields = dict[str, Any]


class EventKind(str, Enum):
    """What happened, in the words of the database."""

    MESSAGE = "message"
    POSTBACK = "postback"
    OPTIN_OTN = "optin_otn"
    OPTIN_OTHER = "optin_other"
    REFERRAL = "referral"
    REACTION = "reaction"
    UNREACT = "unreact"
    READ = "read"
    DELIVERY = "delivery"
    ECHO = "echo"
    POLICY_ENFORCEMENT = "policy_enforcement"
    HANDOVER = "handover"
    ACCOUNT_LINKING = "account_linking"
    MESSAGE_EDIT = "message_edit"
    CHANGES = "changes"
    UNKNOWN = "unknown"
    BROKEN = "broken"


class WindowOpening(str, Enum):
    """What opened the messaging window; `otn.policy` knows for how long (platform page POLICY)."""

    MESSAGE = "message"
    POSTBACK = "postback"
    REFERRAL = "referral"
    REACTION = "reaction"
    PLUGIN = "plugin"
    AD = "ad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Something a person sent beside, or instead of, text."""

    type: str
    url: str | None = field(default=None, repr=False)
    title: str | None = field(default=None, repr=False)
    sticker_id: str | None = None
    latitude: float | None = field(default=None, repr=False)
    longitude: float | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened between one Page and (mostly) one person.

    `psid` is the person, also in an echo; None where Messenger names nobody. `at` is UTC, from the event or
    its entry; `at_is_guessed` says that it is the time of arrival, for want of anything usable. `key` is
    unique per Page and the same at every re-delivery. `raw` is the event as ASCII JSON, an opt-in's token
    replaced by its hash. What a person wrote, and tokens, stay out of the repr, hence out of logs and
    tracebacks.
    """

    kind: EventKind
    page_id: str
    psid: str | None
    at: datetime
    at_is_guessed: bool = False
    key: str
    raw: bytes = field(repr=False)
    standby: bool = False
    name: str | None = None  # what Messenger calls it on the wire: "message", "pass_thread_control", "feed"
    broken: str | None = None  # why a BROKEN event is broken

    mid: str | None = None  # of a reaction or an edit: the message that it is about
    text: str | None = field(default=None, repr=False)
    quick_reply_payload: str | None = field(default=None, repr=False)
    attachments: tuple[Attachment, ...] = ()
    reply_to_mid: str | None = None

    title: str | None = field(default=None, repr=False)  # of a postback
    payload: str | None = field(default=None, repr=False)  # of a postback or an opt-in

    optin_type: str | None = None
    token: str | None = field(default=None, repr=False)

    ref: str | None = field(
        default=None, repr=False
    )  # of a referral, alone or within another event, or a plugin
    referral_source: str | None = None
    referral_type: str | None = None

    action: str | None = None  # react, unreact; or of a policy enforcement: warning, block, unblock
    reaction: str | None = None
    emoji: str | None = field(default=None, repr=False)
    reason: str | None = None  # of a policy enforcement

    app_id: str | None = None  # of an echo
    metadata: str | None = None  # of an echo: what the sender put into `message.metadata`

    watermark: datetime | None = None  # of a read or a delivery: everything up to here
    mids: tuple[str, ...] = ()  # of a delivery


def sign(body: bytes, secret: str) -> str:
    """Return the `X-Hub-Signature-256` header for a body (platform page HOOKS)."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def verify_signature(body: bytes, header: str | None, secrets: Sequence[str]) -> None:
    """Raise InvalidSignature unless one of the app secrets signed exactly these bytes.

    Several secrets, so that one can be rotated. The digest is ours to choose, never the header's.
    """
    if isinstance(secrets, str):
        raise TypeError("secrets is a list of app secrets, not one: each of its characters would sign")
    claimed = (header or "").encode("utf-8", "replace")
    genuine = [hmac.compare_digest(sign(body, secret).encode(), claimed) for secret in secrets if secret]
    if not any(genuine):
        raise InvalidSignature(
            "The webhook is not signed with any of the configured app secrets (X-Hub-Signature-256): "
            "compare MESSENGER_APP_SECRET with App settings > Basic."
        )


def clean(text: str) -> str:
    """Return the text without NUL and lone surrogates, which databases and UTF-8 refuse."""
    return _UNSAFE.sub("", text)


def parse(body: bytes, received_at: datetime) -> list[Event]:
    """Return every event of every entry, in order, whatever its neighbours look like.

    `received_at` (aware) is the last resort for an event without a time, or with one in the future.
    Raises MalformedPayload only if the body is not a Page's envelope at all. Call `verify_signature` first.
    """
    return [
        _event(item, source)
        for entry in _entries(body)
        for item, source in _items(entry, received_at.astimezone(timezone.utc))
    ]


def restore(
    raw: bytes, *, page_id: str, key: str, at: datetime, received_at: datetime, standby: bool = False
) -> Event:
    """Return a kept event of `messaging` or `standby` again, from its `raw` and what was kept beside it.

    Key and time are taken as given: both may have come from the entry around it. `token` is None, because `raw`
    holds only a hash. A BROKEN event stays broken.
    """
    source = _Source(page_id=page_id, received_at=received_at, where="standby" if standby else "messaging")
    return replace(_event(json.loads(raw), source), key=key, at=at, token=None)


def opens_window(event: Event) -> WindowOpening | None:
    """Return what of the person's doing opens the messaging window at `event.at`, or None (page POLICY).

    Events in `standby` count too: the window belongs to the person and the Page, whichever app owns the
    thread; a send while another one does is refused (2018300) and costs nothing. Notify Me, marketing
    opt-ins, reads, echoes, edits and handovers do not open it; a plugin's opt-in does if it names the
    person. An event whose time is guessed counts: Meta gives up re-delivering after an hour (page HOOKS),
    so the guess is hardly late.
    """
    if event.psid is None:
        return None
    if event.kind is EventKind.OPTIN_OTHER:
        return None if event.optin_type else WindowOpening.PLUGIN
    if event.kind is EventKind.MESSAGE and event.referral_source == "ADS":
        return WindowOpening.AD
    return _OPENINGS.get(event.kind)


_OPENINGS = {
    EventKind.MESSAGE: WindowOpening.MESSAGE,
    EventKind.POSTBACK: WindowOpening.POSTBACK,
    EventKind.REFERRAL: WindowOpening.REFERRAL,
    EventKind.REACTION: WindowOpening.REACTION,
}


# --- the envelope ---


class _BrokenError(Exception):
    """This one event cannot be used; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where an event was found: what it inherits from its entry."""

    page_id: object = None
    time: object = None
    received_at: datetime
    where: str = "messaging"


def _entries(body: bytes) -> list[Any]:
    try:
        envelope = json.loads(
            body.decode(), parse_int=_integer, parse_float=_fraction, parse_constant=lambda literal: literal
        )
    except (ValueError, RecursionError) as exc:
        raise MalformedPayload(f"The body is not JSON: {type(exc).__name__}") from exc
    if not isinstance(envelope, dict) or envelope.get("object") != "page":
        raise MalformedPayload('The body is not a Page\'s webhook: "object" is not "page".')
    if not isinstance(envelope.get("entry"), list):
        raise MalformedPayload('The webhook has no list "entry".')
    return list(envelope["entry"])


def _integer(literal: str) -> int | str:
    # int() raises above 4300 digits, which would cost the whole body; nothing here is longer than 40.
    return int(literal) if len(literal) <= _LONGEST_NUMBER else literal


def _fraction(literal: str) -> float | str:
    number = float(literal)
    return number if math.isfinite(number) else literal


def _items(entry: object, received_at: datetime) -> Iterator[tuple[object, _Source]]:
    if not isinstance(entry, dict):
        yield entry, _Source(received_at=received_at, where="entry")
        return
    known = [where for where in ("messaging", "standby", "changes") if entry.get(where) is not None]
    for where in known or ["entry"]:
        source = _Source(
            page_id=entry.get("id"), time=entry.get("time"), received_at=received_at, where=where
        )
        found = entry.get(where) if known else entry
        for item in found if isinstance(found, list) else [found]:
            yield item, source


def _event(item: object, source: _Source) -> Event:
    try:
        return _understood(item, source)
    except _BrokenError as exc:
        return _unusable(item, source, str(exc))


def _understood(item: object, source: _Source) -> Event:
    if not isinstance(item, dict):
        raise _BrokenError(f"{source.where}: not an object")
    name, reader = _reader(item, source)
    value = item.get(name)
    if name in _READERS and not isinstance(value, dict):
        raise _BrokenError(f"{name}: not an object")
    fields = reader(value if isinstance(value, dict) else {})
    fields.update(_parties(item, source, fields["kind"]))
    fields.update(_times(item, source, value))
    return Event(
        **fields,
        key=_key(fields, item, source),
        raw=_encoded(_without_tokens(item)),
        standby=source.where == "standby",
        name=name,
    )


def _reader(item: JsonObject, source: _Source) -> tuple[str, Callable[[JsonObject], _Fields]]:
    if source.where == "changes":
        return f"changes.{_text(item, 'field') or ''}"[:LONGEST_ID], _read_changes
    if source.where == "entry":
        return "entry", _read_nothing
    name = next((name for name in _READERS if item.get(name) is not None), None)
    if name is not None:
        return name, _READERS[name]
    strange = (clean(name) for name in item if name not in {"sender", "recipient", "timestamp"})
    return next(strange, "")[:LONGEST_ID], _read_nothing


def _unusable(item: object, source: _Source, why: str) -> Event:
    at, guessed = _at(item.get("timestamp") if isinstance(item, dict) else None, source)
    page_id = source.page_id if isinstance(source.page_id, str | int) else ""
    try:
        raw = _encoded(item)
    except _BrokenError:
        raw = b'"nested too deeply to be kept"'
    return Event(
        kind=EventKind.BROKEN,
        page_id=clean(str(page_id))[:LONGEST_ID],
        psid=None,
        at=at,
        at_is_guessed=guessed,
        key=f"broken:{_digest(raw)}",
        raw=raw,
        standby=source.where == "standby",
        broken=why,
    )


# --- who and when ---


def _parties(item: JsonObject, source: _Source, kind: EventKind) -> _Fields:
    """Whose Page and which person; what the Page did itself is never taken for the person's doing."""
    sender, recipient = _id_of(item, "sender"), _id_of(item, "recipient")
    page_id = _identifier(source.page_id, "entry id") or (sender if kind is EventKind.ECHO else recipient)
    if page_id is None:
        raise _BrokenError("no Page id")
    if sender == page_id:
        kind = _BY_THE_PAGE.get(kind, kind)
    psid = recipient if kind is EventKind.ECHO or sender == page_id else sender
    psid = None if psid == page_id else psid
    if psid is None and kind in _DONE_BY_A_PERSON:
        raise _BrokenError("no person's id")
    return {"kind": kind, "page_id": page_id, "psid": psid}


def _id_of(item: JsonObject, party: str) -> str | None:
    value = item.get(party)
    return _identifier(value.get("id"), f"{party} id") if isinstance(value, dict) else None


def _identifier(value: object, what: str, longest: int = LONGEST_ID) -> str | None:
    """An id that SQL can keep, or None; a cleaned id would be somebody else's: an unclean one is broken."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or clean(value) != value or len(value) > longest:
        raise _BrokenError(f"{what}: unusable")
    return value


def _times(item: JsonObject, source: _Source, value: object) -> _Fields:
    at, guessed = _at(item.get("timestamp"), source)
    watermark = value.get("watermark") if isinstance(value, dict) else None
    return {"at": at, "at_is_guessed": guessed, "watermark": _moment(watermark, source.received_at)}


def _at(timestamp: object, source: _Source) -> tuple[datetime, bool]:
    """The event's time, and whether it is a guess; never in the future: no clock may lengthen a window."""
    now = source.received_at
    moment = _moment(timestamp, now) or _moment(source.time, now) or now
    return moment, moment is now


def _moment(milliseconds: object, now: datetime) -> datetime | None:
    """None if this is no time at all, `now` itself if it lies in the future."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    # Compared as numbers first: as a datetime it might overflow.
    if milliseconds < _EARLIEST_MS:
        return None
    if milliseconds > (now + CLOCK_TOLERANCE - _EPOCH) / _ONE_MILLISECOND:
        return now
    return _EPOCH + int(milliseconds) * _ONE_MILLISECOND


# --- the key and the raw event ---


def _key(fields: _Fields, item: JsonObject, source: _Source) -> str:
    """One event, one key: the same at every re-delivery, different for everything that is not the same."""
    kind, mid = fields["kind"], fields.get("mid")
    if kind is EventKind.OPTIN_OTN:
        return f"{kind.value}:{_digest(fields['token'].encode())}"
    if kind in (EventKind.MESSAGE, EventKind.ECHO, EventKind.POSTBACK) and mid:
        return f"{kind.value}:{mid if len(mid) <= LONGEST_ID - 32 else _digest(mid.encode())}"
    if kind in (EventKind.REACTION, EventKind.UNREACT):
        identity: object = [fields["psid"], mid, item.get("timestamp", source.time)]
    else:
        identity = [item, None if "timestamp" in item else source.time]
    return f"{kind.value}:{_digest(_encoded(identity, sort_keys=True))}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _encoded(value: object, *, sort_keys: bool = False) -> bytes:
    """ASCII JSON: a lone surrogate stays an escape, so that the bytes are the event's own."""
    try:
        return (_SORTED if sort_keys else _COMPACT).encode(value).encode("ascii")
    except RecursionError as exc:
        raise _BrokenError("nested too deeply") from exc


def _without_tokens(item: JsonObject) -> JsonObject:
    """A token is a credential: it travels in `Event.token`, to be encrypted, and nowhere else."""
    optin = item.get("optin")
    if not isinstance(optin, dict):
        return item
    hashes = {
        key: f"sha256:{_digest(_encoded(optin[key]))}"
        for key in _TOKEN_KEYS
        if isinstance(optin.get(key), str)
    }
    return {**item, "optin": {**optin, **hashes}}


# --- one reader a kind: the event's own object in, fields of Event out ---


def _read_message(value: JsonObject) -> _Fields:
    quick_reply, reply_to = _object(value, "quick_reply"), _object(value, "reply_to")
    return {
        "kind": EventKind.ECHO if value.get("is_echo") else EventKind.MESSAGE,
        "mid": _identifier(value.get("mid"), "mid", LONGEST_MID),
        "text": _text(value, "text"),
        "quick_reply_payload": _text(quick_reply, "payload"),
        "attachments": tuple(_attachments(value.get("attachments"))),
        "reply_to_mid": _text(reply_to, "mid"),
        "app_id": _text(value, "app_id"),
        "metadata": _text(value, "metadata"),
        **_referral(_object(value, "referral")),
    }


def _attachments(value: object) -> Iterator[Attachment]:
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            payload = _object(item, "payload")
            coordinates = _object(payload, "coordinates")
            yield Attachment(
                type=_text(item, "type") or "unknown",
                url=_text(payload, "url") or _text(item, "url"),
                title=_text(payload, "title") or _text(item, "title"),
                sticker_id=_text(payload, "sticker_id"),
                latitude=_degrees(coordinates, "lat"),
                longitude=_degrees(coordinates, "long"),
            )


def _read_postback(value: JsonObject) -> _Fields:
    return {
        "kind": EventKind.POSTBACK,
        "mid": _identifier(value.get("mid"), "mid", LONGEST_MID),
        "title": _text(value, "title"),
        "payload": _text(value, "payload"),
        **_referral(_object(value, "referral")),
    }


def _read_optin(value: JsonObject) -> _Fields:
    fields = {
        "kind": EventKind.OPTIN_OTHER,
        "optin_type": _text(value, "type"),
        "payload": _text(value, "payload"),
        "ref": _text(value, "ref"),
        "token": None,
    }
    if fields["optin_type"] != "one_time_notif_req":
        return {**fields, "token": _text(value, "notification_messages_token")}
    token = value.get("one_time_notif_token")
    if not isinstance(token, str) or not token:
        raise _BrokenError("optin: no one_time_notif_token")
    _identifier(token, "one_time_notif_token", LONGEST_TOKEN)
    return {**fields, "kind": EventKind.OPTIN_OTN, "token": token}


def _read_referral(value: JsonObject) -> _Fields:
    return {"kind": EventKind.REFERRAL, **_referral(value)}


def _referral(value: JsonObject) -> _Fields:
    return {
        "ref": _text(value, "ref"),
        "referral_source": _text(value, "source"),
        "referral_type": _text(value, "type"),
    }


def _read_reaction(value: JsonObject) -> _Fields:
    kinds = {"react": EventKind.REACTION, "unreact": EventKind.UNREACT}
    action = _text(value, "action")
    if action not in kinds:
        raise _BrokenError("reaction: neither react nor unreact")
    return {
        "kind": kinds[action],
        "mid": _identifier(value.get("mid"), "mid", LONGEST_MID),
        "action": action,
        "reaction": _text(value, "reaction"),
        "emoji": _text(value, "emoji"),
    }


def _read_read(_: JsonObject) -> _Fields:
    return {"kind": EventKind.READ}


def _read_delivery(value: JsonObject) -> _Fields:
    mids = value.get("mids")
    found = mids if isinstance(mids, list) else []
    return {"kind": EventKind.DELIVERY, "mids": tuple(clean(mid) for mid in found if isinstance(mid, str))}


def _read_policy(value: JsonObject) -> _Fields:
    return {
        "kind": EventKind.POLICY_ENFORCEMENT,
        "action": _text(value, "action"),
        "reason": _text(value, "reason"),
    }


def _read_handover(_: JsonObject) -> _Fields:
    return {"kind": EventKind.HANDOVER}


def _read_account_linking(value: JsonObject) -> _Fields:
    return {"kind": EventKind.ACCOUNT_LINKING, "action": _text(value, "status")}


def _read_edit(value: JsonObject) -> _Fields:
    return {
        "kind": EventKind.MESSAGE_EDIT,
        "mid": _identifier(value.get("mid"), "mid", LONGEST_MID),
        "text": _text(value, "text"),
    }


def _read_nothing(_: JsonObject) -> _Fields:
    return {"kind": EventKind.UNKNOWN}


def _read_changes(_: JsonObject) -> _Fields:
    return {"kind": EventKind.CHANGES}


_READERS: dict[str, Callable[[JsonObject], _Fields]] = {
    "message": _read_message,
    "postback": _read_postback,
    "optin": _read_optin,
    "reaction": _read_reaction,
    "referral": _read_referral,
    "read": _read_read,
    "delivery": _read_delivery,
    "message_edit": _read_edit,
    "policy_enforcement": _read_policy,
    "policy-enforcement": _read_policy,
    "pass_thread_control": _read_handover,
    "take_thread_control": _read_handover,
    "request_thread_control": _read_handover,
    "app_roles": _read_handover,
    "account_linking": _read_account_linking,
}

# An echo settles a doubt by its metadata alone; a checkbox plugin's opt-in may name a `user_ref` instead.
_DONE_BY_A_PERSON = {
    EventKind.MESSAGE,
    EventKind.POSTBACK,
    EventKind.OPTIN_OTN,
    EventKind.REFERRAL,
    EventKind.REACTION,
    EventKind.UNREACT,
    EventKind.READ,
    EventKind.MESSAGE_EDIT,
}
# An echo that has lost its flag is still an echo. An opt-in stays one: its token must not be lost.
_BY_THE_PAGE = {
    **dict.fromkeys(_DONE_BY_A_PERSON - {EventKind.OPTIN_OTN}, EventKind.UNKNOWN),
    EventKind.MESSAGE: EventKind.ECHO,
}


def _object(value: JsonObject, key: str) -> JsonObject:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: JsonObject, key: str) -> str | None:
    """A clean string, or a number's digits; None for anything else."""
    found = value.get(key)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return clean(found) if isinstance(found, str) else None


def _degrees(value: JsonObject, key: str) -> float | None:
    found = value.get(key)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
