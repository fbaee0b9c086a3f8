"""What can be said in Messenger: the shapes of a message, and every limit that the platform puts on them. Pure.

A conversation may say it in several messages (`from_response`); a follow-up may not, because one permission pays
for exactly one (`as_one_message`). Source: platform page SEND, and OTN for the permission request.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from otn.errors import OtnError
from otn.events import clean

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

# What stands where Messenger wants a text and the response has none.
NO_TEXT = "…"

Message = dict[str, Any]
_Json = Mapping[str, Any]

_MEDIA = ("image", "audio", "video", "file")
_EXTENSIONS = {
    "image": ("jpg", "jpeg", "png", "gif", "webp"),
    "audio": ("mp3", "wav", "ogg", "m4a", "aac"),
    "video": ("mp4", "mov", "avi", "webm", "mkv"),
    "file": ("pdf", "txt", "csv", "zip", "doc", "docx", "xls", "xlsx", "ppt", "pptx"),
}
_MEDIA_BY_EXTENSION = {extension: kind for kind, found in _EXTENSIONS.items() for extension in found}
# A quick reply of these types asks for what Messenger knows; it has neither title nor payload of ours.
_ASKING_REPLIES = ("user_phone_number", "user_email")

_REQUEST = "one_time_notif_req"
_NO_REQUEST = "It asks for a permission, which action_request_otn alone may do."


class NotOneMessage(OtnError):
    """What was to be said is not exactly one Messenger message within the limits; nothing was sent or spent."""


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
    return _kind(message) in ("audio", "video")


def _template(payload: Message) -> Message:
    return {"attachment": {"type": "template", "payload": payload}}


def length(content: str) -> int:
    """Return the length in UTF-16 units: an emoji counts two, so that no way of counting finds more."""
    return len(content.encode("utf-16-le", "surrogatepass")) // 2


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
        yield from _reply_problems(message["quick_replies"])
    if "metadata" in message:
        yield from _wording(message["metadata"], "The metadata", METADATA)


def _wording(value: object, name: str, most: int) -> Iterator[str]:
    if not isinstance(value, str) or _is_blank(value):
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


def _reply_problems(replies: Any) -> Iterator[str]:
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
    if not isinstance(payload, Mapping) or kind not in (*_MEDIA, "template"):
        yield f"An attachment has a payload and a type: {', '.join(_MEDIA)} or template."
    elif kind == "template":
        yield from _template_problems(payload)
    elif ("url" in payload) == ("attachment_id" in payload):
        yield f"An attachment of type {kind} has either a url or an attachment_id."
    elif "url" in payload and not _is_web_address(payload["url"]):
        yield f"The address of the {kind} does not begin with http:// or https://."


def _template_problems(payload: _Json) -> Iterator[str]:
    kind = payload.get("template_type")
    if kind == "button":
        yield from _wording(payload.get("text"), "The text of a button template", BUTTON_TEMPLATE_TEXT)
        yield from _button_problems(payload.get("buttons"))
    elif kind == "generic":
        yield from _element_problems(payload.get("elements"))
    elif kind == _REQUEST:
        if payload.keys() - {"template_type", "title", "payload"}:
            yield "Only title and payload of a permission request can be set."
        yield from _wording(payload.get("title"), "The title of a permission request", REQUEST_TITLE)
        yield from _wording(payload.get("payload"), "The payload of a permission request", REQUEST_PAYLOAD)
    elif not isinstance(kind, str) or not kind:
        yield "A template has a template_type."


def _element_problems(elements: Any) -> Iterator[str]:
    unusable = list(_listed(elements, "elements", ELEMENTS))
    yield from unusable
    for element in [] if unusable else elements:
        yield from _wording(element.get("title"), "An element's title", ELEMENT_TITLE)
        if "subtitle" in element:
            yield from _wording(element["subtitle"], "An element's subtitle", ELEMENT_SUBTITLE)
        if "image_url" in element and not _is_web_address(element["image_url"]):
            yield "The address of an element's image does not begin with http:// or https://."
        if "buttons" in element:
            yield from _button_problems(element["buttons"])


def _button_problems(buttons: Any) -> Iterator[str]:
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
        if kind == "web_url" and not _is_web_address(each.get("url")):
            yield "A button's url does not begin with http:// or https://."


def _is_web_address(value: object) -> bool:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.netloc)


def _is_blank(content: str) -> bool:
    # Not by "printable": emoji that are younger than Python's tables are unassigned (Cn) there.
    return all(unicodedata.category(each) in ("Zs", "Zl", "Zp", "Cc", "Cf", "Cs") for each in content)


# --- a Rasa response ---


def from_response(response: _Json) -> tuple[list[Message], list[str]]:
    """Return the messages that say a Rasa response, in order, and a log line for all that had to be cut or dropped.

    `response` is what `OutputChannel.send_response` gets; keys that it doesn't know are ignored. Every
    message keeps the limits. The lines hold numbers, never wording. As in Rasa's own channels a blank line
    in a plain text begins a new message. None asks for a permission: that takes more than words (`otn.asking`).
    """
    return _composed(response, paragraphs=True)


def as_one_message(response: _Json) -> Message:
    """Return the one message that says the response; blank lines stay in it.

    Raises NotOneMessage if it takes more than one, or if anything would have to be cut or dropped.
    """
    messages, notes = _composed(response, paragraphs=False)
    if notes:
        raise NotOneMessage(f"A permission pays for one message within Messenger's limits: {' '.join(notes)}")
    if len(messages) != 1:
        kinds = ", ".join(map(_kind, messages)) or "nothing to say"
        raise NotOneMessage(
            f"A permission pays for exactly one message, and this makes {len(messages)} ({kinds}): shorten the text "
            f"to {TEXT} characters ({BUTTON_TEMPLATE_TEXT} above buttons), or leave out what goes beside it."
        )
    return messages[0]


def _composed(response: _Json, *, paragraphs: bool) -> tuple[list[Message], list[str]]:
    notes: list[str] = []
    replies, buttons = _choices(response, notes)
    content = _content(response.get("text"), notes)
    split = _paragraphs(content) if paragraphs and not replies and not buttons else [content]
    said = [
        *(part for each in split for part in _said(each, buttons, notes)),
        *_custom(response.get("custom"), notes),
        *_shown(response, notes),
        *_cards(response.get("elements"), notes),
    ]
    return _with_replies(_allowed(said, notes), replies, notes), notes


def _with_replies(messages: list[Message], replies: list[Message], notes: list[str]) -> list[Message]:
    """Quick replies go onto the last message that can bear them: they vanish when another one follows."""
    if not replies:
        return messages
    bearers = [each for each in messages if "quick_replies" not in each]
    if not bearers:
        return [*messages, text(_placeholder(notes), replies)]
    bearers[-1]["quick_replies"] = replies
    return messages


def _allowed(messages: list[Message], notes: list[str]) -> list[Message]:
    kept = []
    for message in messages:
        found = [_NO_REQUEST] if _is_request(message) else problems(message)
        notes += [f"A message was dropped ({_kind(message)}): {' '.join(found)}"] if found else []
        kept += [] if found else [message]
    return kept


def _is_request(message: object) -> bool:
    # Whether Meta tells capital letters apart is not documented.
    return _kind(message).lower() == f"{_REQUEST} template"


def _kind(message: object) -> str:
    held = message.get("attachment") if isinstance(message, Mapping) else None
    if not isinstance(held, Mapping):
        return "text"
    payload = held.get("payload")
    template = payload.get("template_type") if isinstance(payload, Mapping) else None
    return f"{template} template" if isinstance(template, str) else str(held.get("type"))


def _content(value: object, notes: list[str]) -> str:
    if isinstance(value, str):
        return clean(value).strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    notes += [] if value is None else ["A text was dropped: it is no text."]
    return ""


def _paragraphs(content: str) -> list[str]:
    return [part for part in content.split("\n\n") if not _is_blank(part)]


def _said(content: str, buttons: list[Message], notes: list[str]) -> Iterator[Message]:
    parts = split_text(content, TEXT)
    if not buttons:
        yield from map(text, parts)
        return
    last = split_text(parts[-1], BUTTON_TEMPLATE_TEXT) if parts else [_placeholder(notes)]
    yield from map(text, [*parts[:-1], *last[:-1]])
    for at in range(0, len(buttons), BUTTONS):
        yield button_template(NO_TEXT if at else last[-1], buttons[at : at + BUTTONS])


def _placeholder(notes: list[str]) -> str:
    notes.append("Buttons or quick replies came without a text; Messenger wants one.")
    return NO_TEXT


def _shown(response: _Json, notes: list[str]) -> Iterator[Message]:
    """The image and the attachment of a response; the latter is an address or an attachment of Messenger's."""
    image, held = response.get("image"), response.get("attachment")
    if image:
        yield attachment("image", image)
    if isinstance(held, Mapping):
        yield {"attachment": _trimmed(held, notes)}
    elif isinstance(held, str) and held.strip():
        yield _from_address(clean(held).strip())
    elif held:
        notes.append("An attachment was dropped: it is neither an address nor an object.")


def _from_address(address: str) -> Message:
    """Media if the address ends like media, else the address itself: Messenger shows what is behind it."""
    extension = urlsplit(address).path.rpartition(".")[2].lower() if _is_web_address(address) else ""
    kind = _MEDIA_BY_EXTENSION.get(extension)
    return attachment(kind, address) if kind else text(address)


def _custom(value: object, notes: list[str]) -> Iterator[Message]:
    """Raw Messenger JSON: a message, a whole call (its recipient is ignored), an attachment, or a list of them."""
    for each in value if isinstance(value, list) else [value] if value else []:
        if not isinstance(each, Mapping):
            notes.append("A custom message was dropped: it is no object.")
            continue
        inner = each.get("message")
        message = dict(inner if isinstance(inner, Mapping) else each)
        # Rasa's facebook channel lets a custom message name its recipient; here the bot's partner is meant.
        for envelope in ("sender", "recipient", "messaging_type", "notification_type", "tag", "metadata"):
            message.pop(envelope, None)
        if "attachment" not in message and {"type", "payload"} <= message.keys():
            message = {"attachment": message}
        if "attachment" in message:
            message["attachment"] = _trimmed(message["attachment"], notes)
        if isinstance(message.get("quick_replies"), list):
            message["quick_replies"] = _replies(message["quick_replies"], notes)
        yield message


def _cards(value: object, notes: list[str]) -> Iterator[Message]:
    elements = _elements(value, notes)
    for at in range(0, len(elements), ELEMENTS):
        yield generic_template(elements[at : at + ELEMENTS])


# --- choices ---


def _choices(response: _Json, notes: list[str]) -> tuple[list[Message], list[Message]]:
    """Quick replies and buttons, as Messenger can show them.

    More than three buttons become quick replies, because these fit one message, also a follow-up; but only
    if all of them are taps: an address can't be a quick reply. What exceeds thirteen becomes several button
    templates, because quick replies on any but the last message vanish.
    """
    replies = _replies(response.get("quick_replies"), notes)
    buttons = _buttons(response.get("buttons"), notes)
    taps = all(each["type"] == "postback" for each in buttons)
    if len(buttons) > BUTTONS and taps and len(buttons) + len(replies) <= QUICK_REPLIES:
        return [*replies, *(quick_reply(each["title"], each["payload"]) for each in buttons)], []
    if len(replies) <= QUICK_REPLIES:
        return replies, buttons
    asking = [each for each in replies if each["content_type"] != "text"]
    tapped = [button(each["title"], payload=each["payload"]) for each in replies if each not in asking]
    return asking[:QUICK_REPLIES], [*buttons, *tapped]


def _replies(value: object, notes: list[str]) -> list[Message]:
    found = []
    for each in _objects(value, "A quick reply", notes):
        reply: Message = {"content_type": each.get("content_type") or "text"}
        if reply["content_type"] == "text":
            reply["title"] = _cut(each.get("title"), QUICK_REPLY_TITLE, "a quick reply's title", notes)
            reply["payload"] = _payload(each)
        if _is_web_address(each.get("image_url")):
            reply["image_url"] = each["image_url"]
        found += _sound(reply, list(_reply_problems([reply])), "A quick reply", notes)
    return found


def _buttons(value: object, notes: list[str]) -> list[Message]:
    found = []
    for each in _objects(value, "A button", notes):
        made = dict(each)
        made["type"] = each.get("type") or ("web_url" if each.get("url") else "postback")
        if "title" in each:
            made["title"] = _cut(each["title"], BUTTON_TITLE, "a button's title", notes)
        if made["type"] == "postback":
            made = {"type": "postback", "title": made.get("title"), "payload": _payload(each)}
        if made["type"] == "web_url":
            made.pop("payload", None)
        found += _sound(made, list(_button_problems([made])), "A button", notes)
    return found


def _payload(choice: _Json) -> str:
    """What comes back when it is tapped; as in Rasa's own channels the title, if nothing else is given."""
    return next(
        (each for each in (_content(choice.get(key), []) for key in ("payload", "title")) if each), ""
    )


def _elements(value: object, notes: list[str]) -> list[Message]:
    found = []
    for each in _objects(value, "An element", notes):
        element = dict(each)
        for key, most in (("title", ELEMENT_TITLE), ("subtitle", ELEMENT_SUBTITLE)):
            if element.get(key):
                element[key] = _cut(element[key], most, f"an element's {key}", notes)
        buttons = _buttons(element.pop("buttons", None), notes)
        if len(buttons) > BUTTONS:
            notes.append(f"An element has {len(buttons)} buttons; Messenger shows {BUTTONS}.")
        element = {key: part for key, part in element.items() if part not in (None, "")}
        element.update({"buttons": buttons[:BUTTONS]} if buttons else {})
        found += _sound(element, list(_element_problems([element])), "An element", notes)
    return found


def _objects(value: object, name: str, notes: list[str]) -> Iterator[_Json]:
    for each in value if isinstance(value, list | tuple) else [value] if value else []:
        if isinstance(each, Mapping):
            yield each
        else:
            notes.append(f"{name} was dropped: it is no object.")


def _sound(made: Message, found: list[str], name: str, notes: list[str]) -> list[Message]:
    notes += [f"{name} was dropped: {' '.join(found)}"] if found else []
    return [] if found else [made]


def _trimmed(held: object, notes: list[str]) -> object:
    """The same attachment, with buttons and elements that keep the limits so far as cutting helps."""
    payload = held.get("payload") if isinstance(held, Mapping) else None
    if not isinstance(held, Mapping) or not isinstance(payload, Mapping):
        return held
    trimmed = dict(payload)
    if held.get("type") in _MEDIA and "src" in payload:
        # What Rasa's documentation calls the address of a video.
        trimmed["url"] = trimmed.pop("src")
    if payload.get("template_type") == "generic":
        trimmed["elements"] = _elements(payload.get("elements"), notes)
    elif "buttons" in payload:
        trimmed["buttons"] = _buttons(payload["buttons"], notes)
    return {**held, "payload": trimmed}


# --- cutting ---


def split_text(content: str, most: int) -> list[str]:
    """Return the text in parts of at most `most` characters (see `length`), none blank, no character broken.

    It is cut after a sentence, else at the end of a line, else between words, else within the word.
    """
    parts = []
    rest = content.strip()
    while length(rest) > most:
        fitting = _fitting(rest, most)
        at = _cutting_point(rest[:fitting], rest[fitting])
        parts.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return [part for part in [*parts, rest] if not _is_blank(part)]


# After a sentence (also a Chinese or Japanese one), after a line, after a word.
_ENDINGS = (
    re.compile("[.!?\u2026][\"'\u201d\u2019\u00bb)\\]]*\\s+|[\u3002\uff01\uff1f]"),
    re.compile(r"\n"),
    re.compile(r"\s+"),
)


def _cutting_point(window: str, following: str) -> int:
    # With the blank that follows: a word or sentence that just fits ends there.
    view = window + following if following.isspace() else window
    for ending in _ENDINGS:
        # In the second half only: a short first part reads worse than a cut sentence.
        found = [match.end() for match in ending.finditer(view) if match.end() > len(window) // 2]
        if found:
            return found[-1]
    return max((match.end() for match in _ENDINGS[-1].finditer(view)), default=len(window))


def _cut(value: object, most: int, name: str, notes: list[str]) -> str | None:
    content = _content(value, notes)
    if length(content) <= most:
        return content or None
    notes.append(f"The wording of {name} has {length(content)} characters and was cut to {most}.")
    return content[: _fitting(content, most - 1)].rstrip() + "…"


def _fitting(content: str, most: int) -> int:
    """How many code points fit into `most` without breaking a character that people see as one."""
    units = 0
    fitting = 0
    for at, each in enumerate(content):
        if _begins_character(content, at):
            fitting = at
        units += 2 if each > "\uffff" else 1
        if units > most:
            # Something longer than all there is room for is broken after all: nobody reads it.
            return fitting or max(at, 1)
    return len(content)


# The joiner, the later parts of a Korean syllable, skin colours, tags.
_CONTINUING = re.compile("[\u200d\u1160-\u11ff\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
_HALF_FLAGS = re.compile("[\U0001f1e6-\U0001f1ff]+$")


def _begins_character(content: str, at: int) -> bool:
    """Whether people see a new character begin here: an approximation of Unicode's grapheme clusters (UAX 29)."""
    each, before = content[at], content[at - 1 : at]
    if each == "\n" or before == "\u200d":
        return before not in ("\r", "\u200d")
    if each < "\u0300":
        return True
    if unicodedata.category(each) in ("Mn", "Mc", "Me") or _CONTINUING.match(each):
        return False
    # Two of these make a flag: an odd number of them before this one means that it is the second half.
    flags = _HALF_FLAGS.search(content[max(0, at - 64) : at]) if _HALF_FLAGS.match(each) else None
    return flags is None or len(flags.group()) % 2 == 0
