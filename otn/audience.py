"""Who a broadcast is meant for: conditions on people, and the same as a predicate. Pure.

`otn.store.audience` says the same in SQL; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Conditions on one person; of several values in one of them, any will do.

    `active_*` is the last action that opened the messaging window; `opted_in_*` when an unused permission of
    the broadcast's topic was given; `messaged_since`: a follow-up went out since. Times are UTC; "since" includes
    its moment, "before" does not. `listed`: the psid is in the list that was given with the broadcast.
    """

    pages: tuple[str, ...] = ()
    locales: tuple[str, ...] = ()
    time_zones: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    active_since: datetime | None = None
    active_before: datetime | None = None
    opted_in_since: datetime | None = None
    opted_in_before: datetime | None = None
    messaged_since: datetime | None = None
    listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Everyone with an available token of the topic who meets every condition of `include` and none of `exclude`.

    `window_too`: also those without a token whose messaging window is open.
    """

    include: Conditions = field(default_factory=Conditions)
    exclude: Conditions = field(default_factory=Conditions)
    window_too: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one person, as far as conditions ask for it."""

    page_id: str
    locale: str | None = None
    time_zone: str | None = None
    tags: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=dict)
    active_at: datetime | None = None
    opted_in_at: tuple[datetime, ...] = ()
    messaged_at: datetime | None = None
    is_included_by_list: bool = False
    is_excluded_by_list: bool = False


def left_out_by(audience: Audience, person: Facts) -> str | None:
    """The condition that leaves this person out, in words; None if they are meant."""
    for name, met in _checks(audience.include, person, listed=person.is_included_by_list):
        if not met:
            return f"not among those with {name}"
    for name, met in _checks(audience.exclude, person, listed=person.is_excluded_by_list):
        if met:
            return f"among those with {name}, who are left out"
    return None


def _checks(wanted: Conditions, person: Facts, *, listed: bool) -> Iterator[tuple[str, bool]]:
    """Each condition that is set: its name, and whether the person meets it."""
    for name, values, value in (
        ("page", wanted.pages, person.page_id),
        ("locale", wanted.locales, person.locale),
        ("time zone", wanted.time_zones, person.time_zone),
    ):
        if values:
            yield f"{name} {', '.join(values)}", value in values
    if wanted.tags:
        yield f"tag {', '.join(wanted.tags)}", not person.tags.isdisjoint(wanted.tags)
    if wanted.attributes:
        named = ", ".join(f"{key}={value}" for key, value in wanted.attributes)
        yield (
            f"attribute {named}",
            any(person.attributes.get(key) == value for key, value in wanted.attributes),
        )
    yield from _times(wanted, person)
    if wanted.listed:
        yield "a psid in the list", listed


def _times(wanted: Conditions, person: Facts) -> Iterator[tuple[str, bool]]:
    active, given, messaged = person.active_at, person.opted_in_at, person.messaged_at
    since, before = wanted.active_since, wanted.active_before
    if since:
        yield f"an action since {since:%Y-%m-%d %H:%M} UTC", active is not None and active >= since
    if before:
        # Who never did anything did nothing lately either.
        yield f"no action since {before:%Y-%m-%d %H:%M} UTC", active is None or active < before
    since, before = wanted.opted_in_since, wanted.opted_in_before
    if since:
        yield f"a permission given since {since:%Y-%m-%d %H:%M} UTC", any(at >= since for at in given)
    if before:
        yield f"a permission given before {before:%Y-%m-%d %H:%M} UTC", any(at < before for at in given)
    since = wanted.messaged_since
    if since:
        yield f"a follow-up since {since:%Y-%m-%d %H:%M} UTC", messaged is not None and messaged >= since


def is_same_but_for_moments(one: Audience, other: Audience) -> bool:
    """Whether both mean the same conditions, with whatever moments."""
    return (one.window_too, _timeless(one)) == (other.window_too, _timeless(other))


def _timeless(audience: Audience) -> list[dict[str, Any]]:
    return [
        {name: isinstance(value, datetime) or value for name, value in asdict(conditions).items()}
        for conditions in (audience.include, audience.exclude)
    ]


# --- as JSON, for the database ---


def to_json(audience: Audience) -> dict[str, Any]:
    """The audience as JSON; only what is set."""
    return {
        "include": _conditions_to_json(audience.include),
        "exclude": _conditions_to_json(audience.exclude),
        "window_too": audience.window_too,
    }


def from_json(stored: Mapping[str, Any]) -> Audience:
    """The audience that `to_json` wrote."""
    return Audience(
        include=_conditions_from_json(stored.get("include") or {}),
        exclude=_conditions_from_json(stored.get("exclude") or {}),
        window_too=bool(stored.get("window_too")),
    )


def _conditions_to_json(conditions: Conditions) -> dict[str, Any]:
    found = {}
    for name, value in asdict(conditions).items():
        if value:
            found[name] = value.isoformat() if isinstance(value, datetime) else value
    return found


def _conditions_from_json(stored: Mapping[str, Any]) -> Conditions:
    values: dict[str, Any] = {}
    for known in fields(Conditions):
        value = stored.get(known.name)
        if value is None:
            continue
        if known.name == "attributes":
            value = tuple((str(key), str(wanted)) for key, wanted in value)
        elif isinstance(value, list | tuple):
            value = tuple(value)
        elif isinstance(value, str):
            value = datetime.fromisoformat(value)
        values[known.name] = value
    return Conditions(**values)
