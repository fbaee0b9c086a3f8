"""The words: those of the code are those of the database, and names fit into it."""

from __future__ import annotations

import re
from enum import Enum

import pytest
import sqlalchemy as sa

from otn.models import (
    FAMILY_NAME,
    TOPIC_NAME,
    DeliveryState,
    InboxState,
    Origin,
    RequestState,
    Route,
    TokenState,
)
from otn.policy import Reason
from otn.store.schema import delivery, inbound_event, otn_token, permission_request, topic


@pytest.mark.parametrize(
    ("table", "states"),
    [
        (delivery, DeliveryState),
        (inbound_event, InboxState),
        (permission_request, RequestState),
        (otn_token, TokenState),
    ],
)
def test_the_database_allows_exactly_the_states_of_the_code(table: sa.Table, states: type[Enum]) -> None:
    (check,) = (one for one in table.constraints if isinstance(one, sa.CheckConstraint))
    assert set(re.findall(r"'(\w+)'", str(check.sqltext))) == {state.value for state in states}


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (delivery.c.state, DeliveryState),
        (delivery.c.route, Route),
        (delivery.c.origin, Origin),
        (delivery.c.reason, Reason),
    ],
)
def test_every_word_fits_into_its_column(column: sa.Column[str], words: type[Enum]) -> None:
    assert max(len(word.value) for word in words) <= column.type.length


def test_the_longest_names_fit_into_their_column() -> None:
    length = topic.c.name.type.length
    assert TOPIC_NAME.fullmatch("a" * length)
    assert not TOPIC_NAME.fullmatch("a" * (length + 1))
    assert FAMILY_NAME.fullmatch("a" * (length - 2) + "-*")
    assert not FAMILY_NAME.fullmatch("a" * (length - 1) + "-*")


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a:b", "a.b", "ä", "a*", "a-*", "a\n"])
def test_what_is_no_topic_name(name: str) -> None:
    assert not TOPIC_NAME.fullmatch(name)
