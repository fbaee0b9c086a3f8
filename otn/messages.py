"""What can be said in Messenger: the shapes of a message, and every limit that the platform puts on them. Pure.

Source: platform page SEND, and OTN for the permission request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from otn.events import clean
from otn.wording import is_blank, length

# SEND, in characters. Meta doesn't say what it counts; `length` counts what is never fewer. The first two are
# "under" 2000 and 1000.
TEXT = 1999
METADATA = 999
QUICK_REPLIES = 13
QUICK_REPLY_TITLE = 20
PAYLOAD = 1000
BUTTON_TEMPLATE_TEXT = 640
BUTTONS = 3
BUTTON_TITLE = 20
ELEMENTS = 10
ELEMENT_TITLE = 80
ELEMENT_SUBTITLE = 80
# OTN. The payload's limit is not documented: stay under that of a postback.
REQUEST_TITLE = 65
REQUEST_PAYLOAD = 999

# What stands where Messenger wants a text and there is none.
NO_TEXT = "…"

Message = dict[str, Any]
_Json = Mapping[str, Any]

MEDIA = ("image", "audio", "video", "file")
# A quick reply of these types asks for what Messenger knows; it has neither title nor payload of ours.
_ASKING_REPLIES = ("user_phone_number", "user_email")

_REQUEST = "one_time_notif_req"


# --- shapes ---


def text(content: str, replies: Sequence[_Json] = ()) -> Message:
    """Return a text message, with quick replies if there are any."""
    return {"text": content, **({"quick_replies": list(replies)} if replies else {})}


def quick_reply(title: str, payload: str) -> Message:
    """Return one quick reply, for `text`; it comes back as a message with `quick_reply.payload`."""
    return {"content_type": "text", "title": title, "payload": payload}


def button(title: str, *, payload: str | None = None, url: str | None = None) -> Message:
    """Return one button, for a template: with a payload it comes back as a postback, with a url it opens a page."""
    if url is not None:
        return {"type": "web_url", "title": title, "url": url}
    return {"type": "postback", "title": title, "payload": title if payload is None else payload}


def button_template(content: str, buttons: Sequence[_Json]) -> Message:
    """Return a text with one to three buttons below it."""
    return _template({"template_type": "button", "text": content, "buttons": list(buttons)})


def generic_template(elements: Sequence[_Json]) -> Message:
    """Return a carousel of up to ten cards: `title`, and any of `subtitle`, `image_url`, `buttons`."""
    return _template({"template_type": "generic", "elements": list(elements)})


def attachment(kind: str, url: str) -> Message:
    """Return media that Messenger fetches from an address; `kind` is image, audio, video or file."""
    return {"attachment": {"type": kind, "payload": {"url": url}}}


def permission_request(title: str, payload: str) -> Message:
    """Return the message with Messenger's own "Notify Me" button (OTN); `title` is what the person agrees to."""
    return _template({"template_type": _REQUEST, "title": title, "payload": payload})


def is_audio_or_video(message: _Json) -> bool:
    """Return whether this counts against the lower limit of what a Page may send a second (RATE)."""
    return kind_of(message) in ("audio", "video")


def is_request(message: object) -> bool:
    """Return whether it asks for a permission."""
    # Whether Meta tells capital letters apart is not documented.
    return kind_of(message).lower() == f"{_REQUEST} template"


def kind_of(message: object) -> str:
    """Return what a message is: `text`, `image`, `button template`, …"""
    held = message.get("attachment") if isinstance(message, Mapping) else None
    if not isinstance(held, Mapping):
        return "text"
    payload = held.get("payload")
    template = payload.get("template_type") if isinstance(payload, Mapping) else None
    return f"{template} template" if isinstance(template, str) else str(held.get("type"))


def _template(payload: Message) -> Message:
    return {"attachment": {"type": "template", "payload": payload}}


def fingerprint(message: _Json) -> str:
    """Return the SHA-256 (hex) of what is said, whatever its metadata: the same message, the same fingerprint."""
    said = {key: value for key, value in message.items() if key != "metadata"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


# --- limits ---


def problems(message: object) -> list[str]:
    """Return in words, with the numbers, why Messenger would refuse this message; empty if it would not.

    What Messenger accepts beyond the shapes above (other templates, other buttons) is let through.
    """
    if not isinstance(message, Mapping):
        return ["A message is a JSON object."]
    try:
        json.dumps(message, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return ["The message holds something that JSON can't carry."]
    return list(_problems(message))


def _problems(message: _Json) -> Iterator[str]:
    strange = sorted(str(key) for key in message.keys() - {"text", "attachment", "quick_replies", "metadata"})
    if strange:
        yield f"A message has no {', '.join(strange)}."
    if ("text" in message) == ("attachment" in message):
        yield "A message has either a text or an attachment."
    if "text" in message:
        yield from _wording(message["text"], "The text", TEXT)
    if "attachment" in message:
        yield from _attachment_problems(message["attachment"])
    if "quick_replies" in message:
        yield from reply_problems(message["quick_replies"])
    if "metadata" in message:
        yield from _wording(message["metadata"], "The metadata", METADATA)


def _wording(value: object, name: str, most: int) -> Iterator[str]:
    if not isinstance(value, str) or is_blank(value):
        yield f"{name} is missing or blank."
    elif clean(value) != value:
        yield f"{name} holds NUL or half a character."
    elif length(value) > most:
        yield f"{name} has {length(value)} characters; Messenger allows {most}."


def _listed(value: object, name: str, most: int) -> Iterator[str]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        yield f"The {name} are not a list of objects."
    elif not 1 <= len(value) <= most:
        yield f"There are {len(value)} {name}; Messenger allows 1 to {most}."


def reply_problems(replies: Any) -> Iterator[str]:
    """Yield what is wrong with quick replies, a sentence each, without their wording."""
    unusable = list(_listed(replies, "quick replies", QUICK_REPLIES))
    yield from unusable
    for reply in [] if unusable else replies:
        kind = reply.get("content_type")
        if kind == "text":
            yield from _wording(reply.get("title"), "A quick reply's title", QUICK_REPLY_TITLE)
            yield from _wording(reply.get("payload"), "A quick reply's payload", PAYLOAD)
        elif kind not in _ASKING_REPLIES:
            yield f"A quick reply's content_type is text, {' or '.join(_ASKING_REPLIES)}."


def _attachment_problems(value: object) -> Iterator[str]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    payload = value.get("payload") if isinstance(value, Mapping) else None
    if not isinstance(payload, Mapping) or kind not in (*MEDIA, "template"):
        yield f"An attachment has a payload and a type: {', '.join(MEDIA)} or template."
    elif kind == "template":
        yield from _template_problems(payload)
    elif ("url" in payload) == ("attachment_id" in payload):
        yield f"An attachment of type {kind} has either a url or an attachment_id."
    elif "url" in payload and not is_web_address(payload["url"]):
        yield f"The address of the {kind} does not begin with http:// or https://."


def _template_problems(payload: _Json) -> Iterator[str]:
    kind = payload.get("template_type")
    if kind == "button":
        yield from _wording(payload.get("text"), "The text of a button template", BUTTON_TEMPLATE_TEXT)
        yield from button_problems(payload.get("buttons"))
    elif kind == "generic":
        yield from element_problems(payload.get("elements"))
    elif kind == _REQUEST:
        if payload.keys() - {"template_type", "title", "payload"}:
            yield "Only title and payload of a permission request can be set."
        yield from _wording(payload.get("title"), "The title of a permission request", REQUEST_TITLE)
        yield from _wording(payload.get("payload"), "The payload of a permission request", REQUEST_PAYLOAD)
    elif not isinstance(kind, str) or not kind:
        yield "A template has a template_type."


def element_problems(elements: Any) -> Iterator[str]:
    """Yield what is wrong with elements, a sentence each, without their wording."""
    unusable = list(_listed(elements, "elements", ELEMENTS))
    yield from unusable
    for element in [] if unusable else elements:
        yield from _wording(element.get("title"), "An element's title", ELEMENT_TITLE)
        if "subtitle" in element:
            yield from _wording(element["subtitle"], "An element's subtitle", ELEMENT_SUBTITLE)
        if "image_url" in element and not is_web_address(element["image_url"]):
            yield "The address of an element's image does not begin with http:// or https://."
        if "buttons" in element:
            yield from button_problems(element["buttons"])


def button_problems(buttons: Any) -> Iterator[str]:
    """Yield what is wrong with buttons, a sentence each, without their wording."""
    unusable = list(_listed(buttons, "buttons", BUTTONS))
    yield from unusable
    for each in [] if unusable else buttons:
        kind = each.get("type")
        if not isinstance(kind, str) or not kind:
            yield "A button has a type."
        if kind in ("postback", "web_url", "phone_number") or "title" in each:
            yield from _wording(each.get("title"), "A button's title", BUTTON_TITLE)
        if kind in ("postback", "phone_number"):
            yield from _wording(each.get("payload"), "A button's payload", PAYLOAD)
        if kind == "web_url" and not is_web_address(each.get("url")):
            yield "A button's url does not begin with http:// or https://."


def is_web_address(value: object) -> bool:
    """Return whether it is an http(s) address."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.netloc)
