"""One event of the business, one broadcast: however often it is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import Make

from otn import messages
from otn.errors import InvalidInput
from otn.models import Broadcast, BroadcastState
from otn.notify import LONGEST_EVENT_ID, notify
from otn.store import Store, Tx, broadcasts
from otn.store.schema import audit

BACK = messages.text("The blue one is back.")


def tell(tx: Tx, now: datetime, **more: Any) -> Broadcast:
    wish = {"topic": "restock", "event_id": "e1", "message": BACK, "who": "shop", **more}
    return notify(tx, now=now, **wish)


def test_an_event_is_scheduled_at_once_and_on_record(store: Store, make: Make, now: datetime) -> None:
    make.topic()
    with store.begin() as tx:
        made = tell(tx, now, notification_type="NO_PUSH")
        assert (made.state, made.start_at, made.name) == (BroadcastState.SCHEDULED, now, "restock: e1")
        assert made.notification_type == "NO_PUSH"
        recorded = tx.execute(sa.select(audit.c.who, audit.c.action).order_by(audit.c.id)).all()
    assert recorded == [("shop", "broadcast.create"), ("shop", "broadcast.schedule")]


def test_the_same_event_again_is_the_broadcast_of_then(store: Store, make: Make, now: datetime) -> None:
    make.topic()
    with store.begin() as tx:
        first = tell(tx, now)
        broadcasts.move(tx, first.id, (BroadcastState.SCHEDULED,), BroadcastState.FINISHED)
        again = tell(tx, now + timedelta(days=9))
        assert (again.id, again.state) == (first.id, BroadcastState.FINISHED)
        assert len(broadcasts.every(tx)) == 1


def test_an_id_that_stands_for_another_message_is_refused(store: Store, make: Make, now: datetime) -> None:
    make.topic()
    with store.begin() as tx:
        tell(tx, now)
        with pytest.raises(InvalidInput, match="whose topic or message is another"):
            tell(tx, now, message=messages.text("Something else."))


def test_a_response_that_was_edited_since_is_still_the_same_event(
    store: Store, make: Make, now: datetime
) -> None:
    make.topic()
    with store.begin() as tx:
        first = tell(tx, now, response="utter_back")
        again = tell(tx, now, response="utter_back", message=messages.text("Edited."))
        assert (again.id, again.message) == (first.id, BACK)


def test_the_same_id_for_another_topic_is_another_event(store: Store, make: Make, now: datetime) -> None:
    make.topic()
    make.topic("spring-sale")
    with store.begin() as tx:
        assert tell(tx, now).id != tell(tx, now, topic="spring-sale").id


def test_told_twice_at_the_same_moment_it_is_one_broadcast(
    store: Store, make: Make, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    make.topic()
    made = at_once(*[lambda tx: tell(tx, now)] * 4)
    assert len({each.id for each in made}) == 1
    assert {each.state for each in made} == {BroadcastState.SCHEDULED}


@pytest.mark.parametrize("event_id", ["", "x" * (LONGEST_EVENT_ID + 1), "two\nlines"])
def test_an_event_id_is_a_short_word(store: Store, make: Make, now: datetime, event_id: str) -> None:
    make.topic()
    with store.begin() as tx, pytest.raises(InvalidInput, match="An event id has"):
        tell(tx, now, event_id=event_id)


def test_the_longest_topic_and_id_fit(store: Store, make: Make, now: datetime) -> None:
    make.topic("t" * 64)
    with store.begin() as tx:
        assert len(tell(tx, now, topic="t" * 64, event_id="e" * LONGEST_EVENT_ID).dedupe_key) <= 255


def test_what_is_wrong_is_said_and_nothing_is_made(store: Store, now: datetime) -> None:
    with store.begin() as tx, pytest.raises(InvalidInput) as wrong:
        tell(tx, now, message=messages.text("Hi {first_name}"), notification_type="LOUD")
    assert len(wrong.value.problems) == 3
    with store.read() as tx:
        assert broadcasts.every(tx) == []
