"""What operators know of people: tags, attributes and profile, by hand or from a file. Every change is in the audit.

The same names and lengths as for what a conversation teaches (`otn.remembering`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from otn.errors import InvalidInput
from otn.events import clean
from otn.local_time import zone
from otn.models import PROFILE_NAMES, Contact, is_attribute_name
from otn.remembering import VALUE_MAX, is_tag
from otn.store import Tx, audit, contact_facts, contacts

PROFILE = PROFILE_NAMES | {"timezone"}
_LOCALE = re.compile(r"[A-Za-z]{2,3}(?:[_-][A-Za-z0-9]{2,8}){0,2}")
_LONGEST = {"locale": 16, "timezone": 64}  # characters, as the columns have them


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be known of a person from now on. None takes an attribute, or a part of the profile, away."""

    attributes: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    profile: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    tags: tuple[str, ...] = ()
    untags: tuple[str, ...] = ()


def read(values: Mapping[str, str], tags: Iterable[str] = ()) -> tuple[Wish, list[str]]:
    """A wish as it was written, and everything that is wrong with it. An empty value takes away."""
    cleaned = {name: clean(value).strip() or None for name, value in values.items()}
    wish = Wish(
        attributes={name: value for name, value in cleaned.items() if name not in PROFILE},
        profile={name: value for name, value in cleaned.items() if name in PROFILE},
        tags=tuple(dict.fromkeys(tags)),
    )
    wrong_names = (name_problem(name) for name in wish.attributes)
    wrong_values = (_value_problem(name, value) for name, value in cleaned.items())
    wrong_tags = (None if is_tag(tag) else _NO_TAG.format(tag) for tag in wish.tags)
    return wish, [each for found in (wrong_names, wrong_values, wrong_tags) for each in found if each]


_NO_TAG = "'{}' can't be a tag: 1 to 64 printable characters and no comma."


def name_problem(name: str) -> str | None:
    """Why an attribute can't be called this; None if it can."""
    if name in PROFILE or is_attribute_name(name):
        return None
    return f"'{name}' can't be an attribute: letters, digits and _ at most 64, and no digit at the beginning."


def change(tx: Tx, contact_id: int, wish: Wish, *, who: str, now: datetime) -> None:
    """Change what is known of one person. Raises InvalidInput for somebody who wants to be forgotten."""
    person = contacts.lock(tx, contact_id)
    if is_forgotten(person):
        raise InvalidInput([FORGOTTEN.format(person.psid)])
    change_all(tx, [(person, wish)], who=who, now=now)


def change_all(tx: Tx, wishes: Iterable[tuple[Contact, Wish]], *, who: str, now: datetime) -> None:
    """Change what is known of people who are locked; of several wishes for one person, the last counts."""
    of_person: dict[int, Wish] = {}
    for person, wish in wishes:
        of_person[person.id] = _merged(of_person.get(person.id, Wish()), wish)
    for contact_id, wish in of_person.items():
        if wish.untags:
            contact_facts.untag(tx, contact_id, wish.untags)
    several = of_person.items()
    contact_facts.tag_all(tx, [(contact_id, tag) for contact_id, wish in several for tag in wish.tags])
    contact_facts.set_all(
        tx,
        {
            (contact_id, name): value
            for contact_id, wish in several
            for name, value in wish.attributes.items()
        },
    )
    contacts.set_profiles(tx, {contact_id: wish.profile for contact_id, wish in several if wish.profile})
    subjects = {f"contact {contact_id}": _details(wish) for contact_id, wish in several}
    changed = {subject: details for subject, details in subjects.items() if details}
    audit.record_all(tx, who=who, action="contact.change", now=now, subjects=changed)


def _merged(first: Wish, second: Wish) -> Wish:
    return Wish(
        attributes={**first.attributes, **second.attributes},
        profile={**first.profile, **second.profile},
        tags=tuple(dict.fromkeys([*first.tags, *second.tags])),
        untags=tuple(dict.fromkeys([*first.untags, *second.untags])),
    )


FORGOTTEN = "{} asked to be forgotten: nothing is kept until they write again."


def is_forgotten(person: Contact) -> bool:
    """Whether somebody wants to be forgotten, or was and has not written since."""
    if person.erase_requested_at is not None:
        return True
    since = person.window_opened_at
    return person.erased_at is not None and (since is None or since <= person.erased_at)


def _details(wish: Wish) -> dict[str, Any]:
    """What was changed, for the audit: no values and no tags, since an erasure does not reach them there."""
    found = {
        "attributes": sorted(wish.attributes),
        "profile": sorted(wish.profile),
        "tags": len(wish.tags),
        "untags": len(wish.untags),
    }
    return {name: value for name, value in found.items() if value}


def _value_problem(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if len(value) > (most := _LONGEST.get(name, VALUE_MAX)):
        return f"The {name} has {len(value)} characters; {most} are allowed."
    if name == "timezone" and zone(value) is None:
        return f"'{value}' is no time zone: a name like Europe/Berlin, or hours from UTC like -3.5."
    if name == "locale" and not _LOCALE.fullmatch(value):
        return f"'{value}' is no locale: it looks like en_US."
    return None
