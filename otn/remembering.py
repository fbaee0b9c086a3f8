"""What a conversation teaches us about a person: attributes and tags, checked before they are kept.

An attribute fills a placeholder of its name and narrows an audience; a tag narrows an audience.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from otn.events import clean
from otn.models import is_attribute_name
from otn.store import Tx, contact_facts, contacts

VALUE_MAX = 500  # characters
TAG_MAX = 64  # characters
MOST_AT_ONCE = 50  # attributes or tags in one wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is to be remembered. An attribute without a value is taken away."""

    attributes: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    tags: tuple[str, ...] = ()


def read(attributes: object, tags: object) -> tuple[Facts, list[str]]:
    """What can be remembered of a wish, and a line for all that can't. The lines hold names, never values."""
    kept, notes = _attributes(attributes)
    tagged, more = _tags(tags)
    return Facts(attributes=kept, tags=tagged), notes + more


def remember(tx: Tx, contact_id: int, facts: Facts) -> bool:
    """Remember it; False if the person wants to be forgotten."""
    if contacts.lock(tx, contact_id).erase_requested_at is not None:
        return False
    if facts.attributes:
        contact_facts.set_attributes(tx, contact_id, facts.attributes)
    contact_facts.tag(tx, contact_id, facts.tags)
    return True


def is_tag(tag: str) -> bool:
    """Whether this can be a tag."""
    return 0 < len(tag) <= TAG_MAX and tag.isprintable() and "," not in tag


def _attributes(wish: object) -> tuple[dict[str, str | None], list[str]]:
    if wish is None:
        return {}, []
    if not isinstance(wish, Mapping) or len(wish) > MOST_AT_ONCE:
        return {}, [f"Attributes are an object with at most {MOST_AT_ONCE} names."]
    kept: dict[str, str | None] = {}
    notes = []
    for name, value in wish.items():
        if not is_attribute_name(name):
            notes.append("An attribute was left out: it can't be called so.")
        elif value is not None and (not isinstance(value, str) or len(value) > VALUE_MAX):
            notes.append(
                f"The attribute {name} was left out: it is no text of at most {VALUE_MAX} characters."
            )
        else:
            kept[name] = (clean(value).strip() or None) if value is not None else None
    return kept, notes


def _tags(wish: object) -> tuple[tuple[str, ...], list[str]]:
    if wish is None:
        return (), []
    if not isinstance(wish, list) or len(wish) > MOST_AT_ONCE:
        return (), [f"Tags are a list of at most {MOST_AT_ONCE} words."]
    kept = [tag.strip() for tag in wish if isinstance(tag, str) and is_tag(tag.strip())]
    left_out = len(wish) - len(kept)
    notes = [f"{left_out} tags were left out: a tag has 1 to {TAG_MAX} printable characters, and no comma."]
    return tuple(dict.fromkeys(kept)), notes if left_out else []
