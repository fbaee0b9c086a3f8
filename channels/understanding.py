"""What an event says to Rasa: text for its NLU, or an intent of its own. Pure.

Only what the bot itself put into a button may name an intent (`/intent{json}`). What a person types never
does, and nothing that comes through a webhook can name an `EXTERNAL_` intent.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from otn.events import Attachment, Event, EventKind
from otn.models import Topic

# Rasa takes a text that begins so for an intent (`rasa.shared.constants.INTENT_MESSAGE_PREFIX`).
INTENT_PREFIX = "/"
EXTERNAL_PREFIX = "EXTERNAL_"
# Looks like a slash, is dropped by tokenizers like one, has its length, and means nothing to Rasa.
_HARMLESS_SLASH = "\u2044"
# Rasa's own notion of the intent's name (`YAMLStoryReader._regex_message_pattern`).
_INTENT = re.compile(r"/(?P<name>[^{@]+)")


class Vocabulary(Protocol):
    """The domain of the model that is loaded."""

    @property
    def intents(self) -> Collection[str]:
        """Names of all intents."""

    @property
    def entities(self) -> Collection[str]:
        """Names of all entities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Text for the NLU. `trusted`: it may begin with a slash and be taken for an intent."""

    text: str = field(repr=False)
    trusted: bool = False

    @property
    def needs_disarming(self) -> bool:
        """Whether Rasa would take what a person typed for an intent."""
        return not self.trusted and self.text.startswith(INTENT_PREFIX)

    @property
    def disarmed(self) -> str:
        """The text for the NLU alone: as long as the real one, so that entities stand where they stand."""
        return _HARMLESS_SLASH + self.text[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """An intent that no words made: a tap, a link, a reaction, a file."""

    intent: str
    entities: tuple[tuple[str, str], ...] = ()

    @property
    def parse_data(self) -> dict[str, Any]:
        """What the NLU would have answered. Without a text, so that no form takes it for an answer."""
        return {
            "text": None,
            "intent": {"name": self.intent, "confidence": 1.0},
            "entities": [{"entity": name, "value": value} for name, value in self.entities],
        }


def understand(event: Event, domain: Vocabulary, topic: Topic | None = None) -> Words | Sign | None:
    """What the event says; None if this bot has no word for it. `topic`: what an opt-in agrees to."""
    said = _said(event, domain, topic)
    if isinstance(said, Sign):
        if said.intent not in domain.intents:
            return None
        known = tuple(entity for entity in said.entities if entity[0] in domain.entities)
        return Sign(intent=said.intent, entities=known)
    return said


def metadata_of(event: Event) -> dict[str, Any]:
    """What stories and actions may want to know beside the words. Goes into the tracker: never a token."""
    found = {
        "page_id": event.page_id,
        "event": event.kind.value,
        "timestamp": int(event.at.timestamp() * 1000),
        "mid": event.mid,
        "reply_to": event.reply_to_mid,
        "quick_reply": event.quick_reply_payload,
        "postback": event.payload if event.kind is EventKind.POSTBACK else None,
        "attachments": [_attachment(each) for each in event.attachments],
        "referral": _present(ref=event.ref, source=event.referral_source, type=event.referral_type),
    }
    return _present(**found)


def _said(event: Event, domain: Vocabulary, topic: Topic | None) -> Words | Sign | None:
    if event.kind is EventKind.MESSAGE:
        return _message(event, domain)
    if event.kind is EventKind.POSTBACK:
        return _tapped(event.payload, event.title, domain)
    if event.kind is EventKind.OPTIN_OTN:
        agreed = (("otn_opted_topic", topic.name), ("otn_opted_kind", topic.kind)) if topic else ()
        return Sign(intent="otn_opted_in", entities=agreed)
    if event.kind is EventKind.REFERRAL:
        return Sign(intent="otn_referral", entities=(("otn_ref", event.ref),) if event.ref else ())
    if event.kind is EventKind.REACTION:
        shown = event.emoji or event.reaction
        return Sign(intent="otn_reaction", entities=(("otn_emoji", shown),) if shown else ())
    return None


def _message(event: Event, domain: Vocabulary) -> Words | Sign | None:
    if event.quick_reply_payload:
        return _tapped(event.quick_reply_payload, event.text, domain)
    if words := _words(event.text):
        return words
    if not event.attachments:
        return None
    types = tuple(("otn_attachment_type", each.type) for each in event.attachments)
    return Sign(intent="otn_attachment", entities=types)


def _tapped(payload: str | None, title: str | None, domain: Vocabulary) -> Words | None:
    """A payload is the bot's own: an intent if it names one, else text, as in Rasa's facebook channel.

    What looks like an intent and is none of the domain's, or an external one, counts as its title.
    """
    said = _words(payload)
    if said is None:
        return _words(title)
    named = _INTENT.match(said.text)
    if named is None:
        return said
    name = named["name"].strip()
    if name in domain.intents and not name.startswith(EXTERNAL_PREFIX):
        return Words(text=said.text, trusted=True)
    return _words(title) or said


def _words(text: str | None) -> Words | None:
    # Stripped as Rasa strips it, or a blank could hide a slash.
    stripped = (text or "").strip()
    return Words(text=stripped) if stripped else None


def _attachment(attachment: Attachment) -> dict[str, Any]:
    return _present(
        type=attachment.type,
        url=attachment.url,
        title=attachment.title,
        sticker_id=attachment.sticker_id,
        latitude=attachment.latitude,
        longitude=attachment.longitude,
    )


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}
