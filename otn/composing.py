"""A Rasa response becomes messages of Messenger's. Pure.

A conversation may say it in several messages (`from_response`); a follow-up may not, because one permission pays
for exactly one (`as_one_message`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from otn.errors import OtnError
from otn.events import clean
from otn.messages import (
    BUTTON_TEMPLATE_TEXT,
    BUTTON_TITLE,
    BUTTONS,
    ELEMENT_SUBTITLE,
    ELEMENT_TITLE,
    ELEMENTS,
    MEDIA,
    NO_TEXT,
    QUICK_REPLIES,
    QUICK_REPLY_TITLE,
    TEXT,
    Message,
    attachment,
    button,
    button_problems,
    button_template,
    element_problems,
    generic_template,
    is_request,
    is_web_address,
    kind_of,
    problems,
    quick_reply,
    reply_problems,
    text,
)
from otn.wording import is_blank, length, shortened, split_text

_Json = Mapping[str, Any]

_EXTENSIONS = {
    "image": ("jpg", "jpeg", "png", "gif", "webp"),
    "audio": ("mp3", "wav", "ogg", "m4a", "aac"),
    "video": ("mp4", "mov", "avi", "webm", "mkv"),
    "file": ("pdf", "txt", "csv", "zip", "doc", "docx", "xls", "xlsx", "ppt", "pptx"),
}
_MEDIA_BY_EXTENSION = {extension: kind for kind, found in _EXTENSIONS.items() for extension in found}
_NO_REQUEST = "It asks for a permission, which action_request_otn alone may do."


class NotOneMessage(OtnError):
    """What was to be said is not exactly one Messenger message within the limits; nothing was sent or spent."""


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
        kinds = ", ".join(map(kind_of, messages)) or "nothing to say"
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
        found = [_NO_REQUEST] if is_request(message) else problems(message)
        notes += [f"A message was dropped ({kind_of(message)}): {' '.join(found)}"] if found else []
        kept += [] if found else [message]
    return kept


def _content(value: object, notes: list[str]) -> str:
    if isinstance(value, str):
        return clean(value).strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    notes += [] if value is None else ["A text was dropped: it is no text."]
    return ""


def _paragraphs(content: str) -> list[str]:
    return [part for part in content.split("\n\n") if not is_blank(part)]


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
    extension = urlsplit(address).path.rpartition(".")[2].lower() if is_web_address(address) else ""
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
        if is_web_address(each.get("image_url")):
            reply["image_url"] = each["image_url"]
        found += _sound(reply, list(reply_problems([reply])), "A quick reply", notes)
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
        found += _sound(made, list(button_problems([made])), "A button", notes)
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
        found += _sound(element, list(element_problems([element])), "An element", notes)
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
    if held.get("type") in MEDIA and "src" in payload:
        # What Rasa's documentation calls the address of a video.
        trimmed["url"] = trimmed.pop("src")
    if payload.get("template_type") == "generic":
        trimmed["elements"] = _elements(payload.get("elements"), notes)
    elif "buttons" in payload:
        trimmed["buttons"] = _buttons(payload["buttons"], notes)
    return {**held, "payload": trimmed}


def _cut(value: object, most: int, name: str, notes: list[str]) -> str | None:
    content = _content(value, notes)
    if length(content) > most:
        notes.append(f"The wording of {name} has {length(content)} characters and was cut to {most}.")
    return shortened(content, most) or None
