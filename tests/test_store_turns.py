"""Who leads a conversation: one at a time, each person's events in order, so many attempts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from otn.models import Contact, DeliveryState, InboxState, sender_id_on_page
from otn.store import Store, contacts, deliveries, turns
from otn.store.inbox import InboxRow
from otn.store.schema import contact as contact_table
from otn.store.turns import MAX_ATTEMPTS
from tests.test_store_deliveries import add
from tests.test_store_inbox import put, states

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def claim(store: Store, contact: Contact, now: datetime, owner: str = "a") -> InboxRow | None:
    with store.begin() as tx:
        found = turns.claim(tx, contact.id, owner, 60, now)
    return found.row if found else None


def end(
    store: Store,
    row: InboxRow,
    contact: Contact,
    now: datetime,
    owner: str = "a",
    state: InboxState = InboxState.DONE,
) -> bool:
    with store.begin() as tx:
        return turns.end(tx, row, contact.id, owner, state, now)


def lapse(store: Store) -> None:
    with store.begin() as tx:
        tx.execute(contact_table.update().values(turn_lease_until=1.0))


def take(store: Store, contact: Contact, owner: str) -> bool:
    with store.begin() as tx:
        return turns.take(tx, contact.id, owner, 60)


def test_a_conversation_has_one_leader_until_it_is_given_back(store: Store, make: Any) -> None:
    contact = make.contact()
    assert take(store, contact, "a")
    assert not take(store, contact, "b")
    assert take(store, contact, "a")  # renewed
    with store.begin() as tx:
        assert turns.holds(tx, contact.id, "a")
        assert not turns.holds(tx, contact.id, "b")
        turns.give_back(tx, contact.id, "b")  # not theirs to give
    assert not take(store, contact, "b")
    with store.begin() as tx:
        turns.give_back(tx, contact.id, "a")
        assert not turns.holds(tx, contact.id, "a")
    assert take(store, contact, "b")


def test_a_dead_leader_s_conversation_is_free_once_the_lease_is_over(store: Store, make: Any) -> None:
    contact = make.contact()
    assert take(store, contact, "a")
    lapse(store)
    assert take(store, contact, "b")
    with store.read() as tx:
        assert not turns.holds(tx, contact.id, "a")


def test_a_lease_is_on_the_database_s_clock(store: Store, make: Any) -> None:
    contact = make.contact()
    take(store, contact, "a")
    with store.read() as tx:
        until = tx.execute(sa.select(contact_table.c.turn_lease_until)).scalar_one()
        real = tx.execute(
            sa.text(
                "SELECT strftime('%s','now') + 0.0" if store.is_sqlite else "SELECT extract(epoch from now())"
            )
        ).scalar_one()
    assert 58 < until - float(real) < 62


def test_of_several_who_want_to_lead_one_does(
    store: Store, make: Any, at_once: Callable[..., list[Any]]
) -> None:
    for number in range(5):
        contact = make.contact(str(number))
        wishes = [
            lambda tx, owner=owner, contact=contact: turns.take(tx, contact.id, owner, 60) for owner in "abcd"
        ]
        assert sum(at_once(*wishes)) == 1


def test_a_person_s_events_are_claimed_in_the_order_in_which_they_happened(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now, "third", now)
        put(tx, contact, now, "first", now - 2 * SECOND)
        put(tx, contact, now, "second", now - SECOND)
        put(tx, contact, now, "fourth", now)
        put(tx, contact, now, "no turn", now - DAY, state="done")
    claimed = []
    while row := claim(store, contact, now):
        claimed.append(row.event_key)
        more = end(store, row, contact, now)
        with store.read() as tx:
            assert turns.holds(tx, contact.id, "a") is more
    assert claimed == ["first", "second", "third", "fourth"]
    assert not more


def test_who_is_led_by_another_is_left_alone_until_that_one_dies(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now)
    row = claim(store, contact, now)
    assert row is not None
    assert claim(store, contact, now, "b") is None
    with store.read() as tx:
        assert turns.waiting(tx) == []
    lapse(store)
    with store.read() as tx:
        assert turns.waiting(tx) == [contact.id]
    again = claim(store, contact, now, "b")
    assert again is not None
    assert (again.id, again.attempts) == (row.id, 1)
    assert not end(store, row, contact, now)  # the first leader wakes up
    with store.begin() as tx:
        turns.put_back(tx, row, contact.id, "a")
        assert turns.holds(tx, contact.id, "b")
    assert states(store) == {"k": "new"}
    end(store, again, contact, now, "b")
    assert states(store) == {"k": "done"}


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)  # an SQLite file has one writer at a time
def test_what_comes_in_while_a_turn_ends_is_not_left_behind(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now)
    row = claim(store, contact, now)
    assert row is not None
    with ThreadPoolExecutor() as another:
        with store.begin() as tx:
            contacts.lock(tx, contact.id)  # as whoever records an event
            put(tx, contact, now, "meanwhile", now + SECOND)
            ending = another.submit(end, store, row, contact, now)
            waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while not tx.execute(waiting).scalar_one():
                assert not ending.done(), "it did not wait"
        assert ending.result()
    with store.begin() as tx:
        assert turns.holds(tx, contact.id, "a")
    assert states(store) == {"k": "done", "meanwhile": "new"}


def test_of_several_who_claim_at_once_one_gets_the_event(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    for number in range(5):
        contact = make.contact(str(number))
        with store.begin() as tx:
            put(tx, contact, now, f"k{number}")
        claims = [
            lambda tx, owner=owner, contact=contact: turns.claim(tx, contact.id, owner, 60, now)
            for owner in "abc"
        ]
        assert sum(row is not None for row in at_once(*claims)) == 1


def test_an_event_fails_visibly_after_its_last_attempt_and_the_next_one_gets_its_turn(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now, "poison", now - SECOND)
        put(tx, contact, now, "next")
    for attempt in range(MAX_ATTEMPTS):
        row = claim(store, contact, now)
        assert row is not None
        assert (row.event_key, row.attempts) == ("poison", attempt)
        lapse(store)
    row = claim(store, contact, now)
    assert row is not None
    assert row.event_key == "next"
    assert states(store) == {"poison": "failed", "next": "new"}


def test_a_claim_of_which_nothing_came_counts_as_no_attempt(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now)
    for _ in range(2 * MAX_ATTEMPTS):
        row = claim(store, contact, now)
        assert row is not None
        with store.begin() as tx:
            turns.put_back(tx, row, contact.id, "a")
    assert states(store) == {"k": "new"}


def test_a_closed_event_stays_as_it_was_closed(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now)
        put(tx, contact, now, "next", now + SECOND)
    row = claim(store, contact, now)
    assert row is not None
    assert end(store, row, contact, now)
    assert end(store, row, contact, now, state=InboxState.FAILED)
    assert states(store) == {"k": "done", "next": "new"}


def test_who_wants_to_be_forgotten_has_no_turns_but_a_leader(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now, "forget me")
        put(tx, contact, now, "next", now + SECOND)
    row = claim(store, contact, now)
    assert row is not None
    with store.begin() as tx:
        contacts.request_erasure(tx, contact.id, now)
    assert end(store, row, contact, now)
    with store.begin() as tx:
        found = turns.claim(tx, contact.id, "a", 60, now)
        assert found is not None
        assert (found.person.id, found.row) == (contact.id, None)
        assert turns.holds(tx, contact.id, "a")
    assert states(store) == {"forget me": "done", "next": "new"}


def test_a_conversation_has_the_psid_for_its_name_unless_another_page_s_has(
    store: Store, make: Any, now: datetime
) -> None:
    names = []
    for contact in (make.contact("7", page_id="2002"), make.contact("7"), make.contact("8")):
        with store.begin() as tx:
            put(tx, contact, now, f"k{contact.id}")
            found = turns.claim(tx, contact.id, "a", 60, now)
            assert found is not None
            names.append(found.sender_id)
    assert names == ["7", sender_id_on_page("7", "1001"), "8"]


def test_what_was_sent_outside_is_noticed_until_it_is_noted(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now)

    def has_unnoted() -> bool:
        with store.begin() as tx:
            found = turns.claim(tx, contact.id, "a", 60, now)
            assert found is not None
            return found.has_unnoted

    assert not has_unnoted()
    with store.begin() as tx:
        sent = add(tx, contact, now, state=DeliveryState.SENT.value)
    assert sent is not None
    assert has_unnoted()
    with store.begin() as tx:
        deliveries.note(tx, [sent], now)
    assert not has_unnoted()
