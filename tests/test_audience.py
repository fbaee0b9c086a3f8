"""Who is meant: each condition by itself, several together, and what it says of who is left out."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otn.audience import Audience, Conditions, Facts, from_json, left_out_by, to_json

NOW = datetime(2026, 10, 1, 12, tzinfo=timezone.utc)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
ADA = Facts(
    page_id="1001",
    locale="de_DE",
    time_zone="Europe/Berlin",
    tags=frozenset({"vip", "new"}),
    attributes={"colour": "red", "size": "42"},
    active_at=NOW,
    opted_in_at=(NOW - DAY, NOW + DAY),
    messaged_at=NOW,
    is_included_by_list=True,
    is_excluded_by_list=True,
)
NOBODY = Facts(page_id="9")

# The condition, who meets it, and who does not.
CASES: dict[str, tuple[Any, list[Facts], list[Facts]]] = {
    "pages": (("2002", "1001"), [ADA], [NOBODY]),
    "locales": (("de_DE", "fr_FR"), [ADA], [replace(ADA, locale="de_AT"), NOBODY]),
    "time_zones": (("Europe/Berlin",), [ADA], [replace(ADA, time_zone="Europe/Bern"), NOBODY]),
    "tags": (("old", "vip"), [ADA], [replace(ADA, tags=frozenset({"viper"})), NOBODY]),
    "attributes": (
        (("colour", "blue"), ("size", "42")),
        [ADA],
        [replace(ADA, attributes={"colour": "42", "size": "blue"}), NOBODY],
    ),
    "active_since": (NOW, [ADA], [replace(ADA, active_at=NOW - SECOND), NOBODY]),
    "active_before": (NOW, [replace(ADA, active_at=NOW - SECOND), NOBODY], [ADA]),
    "opted_in_since": (NOW, [ADA], [replace(ADA, opted_in_at=(NOW - DAY,)), NOBODY]),
    "opted_in_before": (NOW, [ADA], [replace(ADA, opted_in_at=(NOW, NOW + DAY)), NOBODY]),
    "messaged_since": (NOW, [ADA], [replace(ADA, messaged_at=NOW - SECOND), NOBODY]),
    "listed": (True, [ADA], [NOBODY]),
}


def test_every_condition_is_tried_here() -> None:
    assert CASES.keys() == {each.name for each in fields(Conditions)}


@pytest.mark.parametrize("name", CASES)
def test_a_condition_lets_in_who_meets_it_and_leaves_out_who_does_not(name: str) -> None:
    value, meet_it, do_not = CASES[name]
    only = Audience(include=Conditions(**{name: value}))
    all_but = Audience(exclude=Conditions(**{name: value}))
    for person in meet_it:
        assert left_out_by(only, person) is None
        assert (left_out_by(all_but, person) or "").startswith("among those with")
    for person in do_not:
        assert (left_out_by(only, person) or "").startswith("not among those with")
        assert left_out_by(all_but, person) is None


def test_without_conditions_nobody_is_left_out() -> None:
    assert left_out_by(Audience(), NOBODY) is None


def test_all_conditions_have_to_be_met_and_any_exclusion_is_enough() -> None:
    both = Audience(include=Conditions(locales=("de_DE",), tags=("old",)))
    either = Audience(exclude=Conditions(locales=("de_DE",), tags=("old",)))
    assert left_out_by(both, ADA) == "not among those with tag old"
    assert left_out_by(either, ADA) == "among those with locale de_DE, who are left out"


def test_the_two_lists_are_two() -> None:
    listed = Conditions(listed=True)
    included = replace(NOBODY, is_included_by_list=True)
    assert left_out_by(Audience(include=listed), included) is None
    assert left_out_by(Audience(exclude=listed), included) is None
    assert left_out_by(Audience(include=listed), replace(NOBODY, is_excluded_by_list=True)) is not None


WORDS = st.lists(st.text(max_size=5), max_size=3).map(tuple)
TIMES = st.none() | st.datetimes(timezones=st.just(timezone.utc))
CONDITIONS = st.builds(
    Conditions,
    pages=WORDS,
    locales=WORDS,
    time_zones=WORDS,
    tags=WORDS,
    attributes=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3).map(tuple),
    active_since=TIMES,
    active_before=TIMES,
    opted_in_since=TIMES,
    opted_in_before=TIMES,
    messaged_since=TIMES,
    listed=st.booleans(),
)


@given(st.builds(Audience, include=CONDITIONS, exclude=CONDITIONS, window_too=st.booleans()))
def test_an_audience_survives_the_database(audience: Audience) -> None:
    assert from_json(json.loads(json.dumps(to_json(audience)))) == audience
