"""What a conversation teaches about a person: checked, then kept, unless they want to be forgotten."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from otn import privacy, remembering
from otn.remembering import MOST_AT_ONCE, TAG_MAX, VALUE_MAX, Facts
from otn.store import Store, contact_facts


def kept(store: Store, contact_id: int) -> tuple[dict[str, str], set[str]]:
    with store.read() as tx:
        attributes = contact_facts.attributes_of(tx, [contact_id])
        return attributes.get(contact_id, {}), contact_facts.tags_of(tx, [contact_id]).get(contact_id, set())


def remember(store: Store, contact_id: int, attributes: Any = None, tags: Any = None) -> bool:
    facts, notes = remembering.read(attributes, tags)
    assert notes == []
    with store.begin() as tx:
        return remembering.remember(tx, contact_id, facts)


def test_attributes_and_tags_are_kept_replaced_and_taken_away(store: Store, make: Any) -> None:
    one, other = make.contact(), make.contact("8")
    assert remember(store, one.id, {"size": "42", "city": "Bern"}, ["runner", "runner"])
    assert remember(store, other.id, {"size": "38"})
    assert remember(store, one.id, {"size": "43", "city": None}, ["walker"])
    assert kept(store, one.id) == ({"size": "43"}, {"runner", "walker"})
    assert kept(store, other.id) == ({"size": "38"}, set())


def test_of_who_wants_to_be_forgotten_nothing_more_is_kept(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    remember(store, contact.id, {"size": "42"}, ["runner"])
    with store.begin() as tx:
        privacy.request_erasure(tx, contact, who="contact", now=now)
    assert not remember(store, contact.id, {"size": "43"}, ["walker"])
    assert kept(store, contact.id) == ({"size": "42"}, {"runner"})
    with store.begin() as tx:
        privacy.erase(tx, contact.id, now)
    assert kept(store, contact.id) == ({}, set())


@pytest.mark.parametrize(
    "attributes",
    [
        {"": "x"},
        {"two words": "x"},
        {"1st": "x"},
        {"n" * 65: "x"},
        {7: "x"},
        {"first_name": "x"},
        {"size": 42},
        {"size": ["42"]},
        {"size": "x" * (VALUE_MAX + 1)},
    ],
)
def test_an_attribute_that_cannot_be_one_is_left_out_alone(attributes: Any) -> None:
    facts, notes = remembering.read({**attributes, "city": " Bern "}, None)
    assert facts.attributes == {"city": "Bern"}
    assert len(notes) == 1
    assert "xx" not in notes[0], "a value is no matter of the log"


@pytest.mark.parametrize(
    "tag", ["", " ", "a,b", "x" * (TAG_MAX + 1), "two\nlines", "a\x00", "\ud83d", 7, None]
)
def test_a_tag_that_cannot_be_one_is_left_out_alone(tag: Any) -> None:
    facts, notes = remembering.read(None, [tag, " runner "])
    assert facts.tags == ("runner",)
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("attributes", "tags"),
    [
        ("x", None),
        ([1], None),
        (None, "x"),
        (None, {"a": 1}),
        (dict.fromkeys(map(str, range(999)), ""), None),
    ],
)
def test_what_is_no_wish_is_none(attributes: Any, tags: Any) -> None:
    facts, notes = remembering.read(attributes, tags)
    assert facts == Facts()
    assert len(notes) == 1
    assert remembering.read(None, ["a"] * (MOST_AT_ONCE + 1))[0] == Facts()


def test_a_value_is_made_safe_for_sql_and_a_blank_one_is_none() -> None:
    facts, _notes = remembering.read({"a": "x\x00y\ud83d", "b": " \x00 ", "c": None}, None)
    assert facts.attributes == {"a": "xy", "b": None, "c": None}
