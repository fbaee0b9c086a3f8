"""Placeholders in a message: `{first_name|there}` is the person's first name, or "there". Pure.

A name is `first_name`, `last_name`, `locale` or that of a contact attribute. What stands behind `|` is said to
those whose value is not known; it may be empty, and it has to be written, so that nobody gets a hole in a
sentence. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from otn.models import Contact

LONGEST_VALUE = 100  # characters: a value is cut there, so that one person's does not break the message

_PLACEHOLDER = re.compile(
    r"\{\{|\}\}|\{(?P<name>[A-Za-z_][A-Za-z0-9_]{0,63})(?:\|(?P<fallback>[^{}|]*))?\}|[{}]"
)
# What a message addresses or sends back is not said to anybody.
NOT_SAID = frozenset(
    {"url", "image_url", "payload", "type", "content_type", "template_type", "attachment_id"}
)


def names(message: Mapping[str, Any]) -> set[str]:
    """The names that the message asks for."""
    return {
        match["name"] for text in _texts(message) for match in _PLACEHOLDER.finditer(text) if match["name"]
    }


def problems(message: Mapping[str, Any]) -> list[str]:
    """What is wrong with the placeholders, in words."""
    found = []
    for text in _texts(message):
        for match in _PLACEHOLDER.finditer(text):
            if match["name"] and match["fallback"] is None:
                name = match["name"]
                found.append(
                    f"{{{name}}} says nothing to those whose {name} is not known: write {{{name}|there}}."
                )
            elif match[0] in ("{", "}"):
                found.append(f"A single {match[0]} is no placeholder: write {match[0] * 2} for a brace.")
    return found


def values_of(contact: Contact, attributes: Mapping[str, str]) -> dict[str, str | None]:
    """What the names stand for in a message to this person."""
    return {
        **attributes,
        "first_name": contact.first_name,
        "last_name": contact.last_name,
        "locale": contact.locale,
    }


def fill(message: Mapping[str, Any], values: Mapping[str, str | None]) -> dict[str, Any]:
    """The message as one person reads it."""

    def value_of(match: re.Match[str]) -> str:
        if not match["name"]:
            return match[0][0]
        known = values.get(match["name"])
        return known[:LONGEST_VALUE] if known else match["fallback"] or ""

    filled: dict[str, Any] = _mapped(message, lambda text: _PLACEHOLDER.sub(value_of, text))
    return filled


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in NOT_SAID or not isinstance(inner, str):
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            key: inner if key in NOT_SAID and isinstance(inner, str) else _mapped(inner, change)
            for key, inner in value.items()
        }
    return [_mapped(inner, change) for inner in value] if isinstance(value, list) else value
