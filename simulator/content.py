"""What a message may look like: every limit of the Send API on content, as a stream of broken rules. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from simulator.people import Json
from simulator.refusal import BAD_MEDIA, BAD_PARAMETER, Code

# SEND: "under 2000", "under 1000"; the rest are the greatest allowed lengths.
TEXT_BELOW = 2000
METADATA_BELOW = 1000
QUICK_REPLIES = 13
QUICK_REPLY_TITLE = 20
PAYLOAD = 1000
BUTTON_TEMPLATE_TEXT = 640
BUTTONS = 3
BUTTON_TITLE = 20
ELEMENTS = 10
ELEMENT_TITLE = 80
ELEMENT_SUBTITLE = 80
# OTN: "title: at most 65 characters".
REQUEST_TITLE = 65

MEDIA = ("image", "audio", "video", "file")
_MESSAGE_KEYS = {"text", "attachment", "quick_replies", "metadata"}
_QUICK_REPLY_TYPES = ("text", "user_phone_number", "user_email")
_BUTTON_NEEDS = {
    "postback": ("title", "payload"),
    "web_url": ("title", "url"),
    "phone_number": ("title", "payload"),
    "game_play": ("title",),
    "account_link": ("url",),
    "account_unlink": (),
}


class Broken(NamedTuple):
    """A rule that a message breaks, in words, and the error Graph answers with."""

    rule: str
    code: Code = BAD_PARAMETER


def broken_rules(message: Json, request_payload_limit: int = PAYLOAD) -> Iterator[Broken]:
    """Every content rule that `message` breaks, first things first."""
    for key in message.keys() - _MESSAGE_KEYS:
        yield Broken(f"message has an unexpected key {key!r} (SEND)")
    if ("text" in message) == ("attachment" in message):
        yield Broken("message must have exactly one of text and attachment (SEND)")
    if "text" in message:
        yield from _text(message["text"], "message text", TEXT_BELOW - 1)
    if "metadata" in message:
        yield from _text(message["metadata"], "metadata", METADATA_BELOW - 1, least=0)
    if "quick_replies" in message:
        yield from _quick_replies(message["quick_replies"])
    if "attachment" in message:
        yield from _attachment(message["attachment"], request_payload_limit)


def postback_buttons(message: Json) -> dict[str, str]:
    """The postback buttons a person can tap in a message, payload to title."""
    payload = message.get("attachment", {}).get("payload", {})
    holders = [payload, *payload.get("elements", [])]
    buttons = [button for holder in holders for button in holder.get("buttons", [])]
    return {button["payload"]: button["title"] for button in buttons if button["type"] == "postback"}


def quick_replies(message: Json) -> dict[str, str]:
    """The text quick replies a person can tap under a message, payload to title."""
    replies = message.get("quick_replies", [])
    return {reply["payload"]: reply["title"] for reply in replies if reply.get("content_type") == "text"}


def _text(value: Any, name: str, most: int, least: int = 1) -> Iterator[Broken]:
    if not isinstance(value, str):
        yield Broken(f"{name} must be text (SEND)")
    elif not least <= len(value) <= most:
        yield Broken(f"{name} has {len(value)} characters, allowed are {least} to {most} (SEND)")


def _list(value: Any, name: str, most: int) -> Iterator[Broken]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        yield Broken(f"{name} must be a list of objects (SEND)")
    elif not 1 <= len(value) <= most:
        yield Broken(f"there are {len(value)} {name}, allowed are 1 to {most} (SEND)")


def _quick_replies(replies: Any) -> Iterator[Broken]:
    bad = list(_list(replies, "quick replies", QUICK_REPLIES))
    yield from bad
    for reply in [] if bad else replies:
        if reply.get("content_type") not in _QUICK_REPLY_TYPES:
            yield Broken(
                f"a quick reply's content_type must be one of {', '.join(_QUICK_REPLY_TYPES)} (SEND)"
            )
        if reply.get("content_type") == "text":
            yield from _text(reply.get("title"), "a quick reply's title", QUICK_REPLY_TITLE)
            yield from _text(reply.get("payload"), "a quick reply's payload", PAYLOAD)


def _attachment(attachment: Any, request_payload_limit: int) -> Iterator[Broken]:
    payload = attachment.get("payload") if isinstance(attachment, dict) else None
    if not isinstance(payload, dict):
        yield Broken("an attachment has a type and a payload object (SEND)")
    elif attachment.get("type") in MEDIA:
        yield from _media(payload)
    elif attachment.get("type") != "template":
        yield Broken(f"an attachment's type must be one of {', '.join(MEDIA)}, template (SEND)")
    elif payload.get("template_type") == "button":
        yield from _button_template(payload)
    elif payload.get("template_type") == "generic":
        yield from _generic_template(payload)
    elif payload.get("template_type") == "one_time_notif_req":
        yield from _request(payload, request_payload_limit)
    else:
        yield Broken("template_type must be one of button, generic, one_time_notif_req (SEND, OTN)")


def _media(payload: Json) -> Iterator[Broken]:
    if ("url" in payload) == ("attachment_id" in payload):
        yield Broken("media needs either url or attachment_id (SEND)")
    elif "url" in payload and not _is_web_address(payload["url"]):
        yield Broken("the url of media must be an http(s) address (SEND)", BAD_MEDIA)
    elif "attachment_id" in payload and not isinstance(payload["attachment_id"], str):
        yield Broken("attachment_id must be text (SEND)")


def _button_template(payload: Json) -> Iterator[Broken]:
    yield from _text(payload.get("text"), "a button template's text", BUTTON_TEMPLATE_TEXT)
    yield from _buttons(payload.get("buttons"))


def _generic_template(payload: Json) -> Iterator[Broken]:
    bad = list(_list(payload.get("elements"), "elements", ELEMENTS))
    yield from bad
    for element in [] if bad else payload["elements"]:
        yield from _text(element.get("title"), "an element's title", ELEMENT_TITLE)
        if "subtitle" in element:
            yield from _text(element["subtitle"], "an element's subtitle", ELEMENT_SUBTITLE)
        if "image_url" in element and not _is_web_address(element["image_url"]):
            yield Broken("an element's image_url must be an http(s) address (SEND)", BAD_MEDIA)
        if "buttons" in element:
            yield from _buttons(element["buttons"])


def _buttons(buttons: Any) -> Iterator[Broken]:
    bad = list(_list(buttons, "buttons", BUTTONS))
    yield from bad
    for button in [] if bad else buttons:
        needs = _BUTTON_NEEDS.get(str(button.get("type")))
        if needs is None:
            yield Broken(f"a button's type must be one of {', '.join(_BUTTON_NEEDS)} (SEND)")
            continue
        if "title" in needs:
            yield from _text(button.get("title"), "a button's title", BUTTON_TITLE)
        if "payload" in needs:
            yield from _text(button.get("payload"), "a button's payload", PAYLOAD)
        if "url" in needs and not _is_web_address(button.get("url")):
            yield Broken("a button's url must be an http(s) address (SEND)")


def _request(payload: Json, payload_limit: int) -> Iterator[Broken]:
    """OTN: only title and payload can be set; heading and button are Messenger's own."""
    for key in payload.keys() - {"template_type", "title", "payload"}:
        yield Broken(f"a permission request has no {key!r}: only title and payload can be set (OTN)")
    yield from _text(payload.get("title"), "a permission request's title", REQUEST_TITLE)
    yield from _text(payload.get("payload"), "a permission request's payload", payload_limit)


def _is_web_address(value: Any) -> bool:
    try:
        return (
            isinstance(value, str)
            and urlsplit(value).scheme in ("http", "https")
            and bool(urlsplit(value).netloc)
        )
    except ValueError:
        return False
