"""The inbox: each event once, each person's in order, so many attempts, one leader at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from otn.models import Contact, InboxState
from otn.store import Store, Tx, contacts, inbox
from otn.store.inbox import MAX_ATTEMPTS, InboxRow, NewEvent
from otn.store.schema import contact as contact_table
from otn.store.schema import inbound_event as table

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def put(
    tx: Tx, contact: Contact | None, now: datetime, key: str = "k", at: datetime | None = None, **more: Any
) -> int | None:
    values: dict[str, Any] = {"page_id": "1001", "kind": "message", "state": "new", **more}
    event = NewEvent(
        event_key=key,
        contact_id=contact.id if contact else None,
        event_at=at or now,
        received_at=now,
        raw=b"sealed",
        standby=False,
        **values,
    )
    return next(iter(inbox.record(tx, [event]).values()), None)


def claim(store: Store, contact: Contact, now: datetime, owner: str = "a") -> InboxRow | None:
    with store.begin() as tx:
        return inbox.claim(tx, contact.id, owner, 60, now)


def lapse(store: Store) -> None:
    with store.begin() as tx:
        tx.execute(contact_table.update().values(turn_lease_until=1.0))


def states(store: Store) -> dict[str, str]:
    with store.read() as tx:
        return dict(tx.execute(sa.select(table.c.event_key, table.c.state)).all())


def test_an_event_is_recorded_once_a_page_even_if_it_comes_twice_at_once(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    contact = make.contact()
    for number in range(5):

        def record(tx: Tx, key: str = f"k{number}") -> int | None:
            return put(tx, contact, now, key)

        recorded = at_once(record, record, record)
        assert sorted(one is None for one in recorded) == [False, True, True]
    with store.begin() as tx:
        assert put(tx, contact, now, "k1", page_id="2002") is not None


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
        with store.begin() as tx:
            assert inbox.close(tx, row, contact.id, "a", InboxState.DONE, now)
    assert claimed == ["first", "second", "third", "fourth"]
    with store.read() as tx:
        assert not contacts.holds_turn(tx, contact.id, "a")


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
        assert inbox.waiting(tx) == []
    lapse(store)
    with store.read() as tx:
        assert inbox.waiting(tx) == [contact.id]
    again = claim(store, contact, now, "b")
    assert again is not None
    assert (again.id, again.attempts) == (row.id, 1)
    with store.begin() as tx:  # the first leader wakes up
        assert not inbox.close(tx, row, contact.id, "a", InboxState.DONE, now)
        inbox.put_back(tx, row, contact.id, "a")
    assert states(store) == {"k": "new"}
    with store.begin() as tx:
        assert inbox.close(tx, again, contact.id, "b", InboxState.DONE, now)


def test_of_several_who_claim_at_once_one_gets_the_event(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    for number in range(5):
        contact = make.contact(str(number))
        with store.begin() as tx:
            put(tx, contact, now, f"k{number}")
        claims = [
            lambda tx, owner=owner, contact=contact: inbox.claim(tx, contact.id, owner, 60, now)
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
            inbox.put_back(tx, row, contact.id, "a")
    assert states(store) == {"k": "new"}


def test_a_closed_event_stays_as_it_was_closed(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    with store.begin() as tx:
        put(tx, contact, now)
    row = claim(store, contact, now)
    assert row is not None
    with store.begin() as tx:
        inbox.close(tx, row, contact.id, "a", InboxState.DONE, now)
        inbox.close(tx, row, contact.id, "a", InboxState.FAILED, now, "too late")
    assert states(store) == {"k": "done"}


def test_only_what_was_dealt_with_is_pruned_and_no_token_is(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    with store.begin() as tx:
        for state in InboxState:
            put(tx, contact, now - DAY, state.value, state=state.value)
        put(tx, contact, now - DAY, "broken opt-in", state="broken", kind="optin_otn")
        put(tx, contact, now, "young", state="done")
    with store.begin() as tx:
        assert [inbox.prune(tx, now, limit=3) for _ in range(3)] == [3, 2, 0]
    assert states(store) == {"new": "new", "broken opt-in": "broken", "young": "done"}


def test_an_erasure_takes_one_person_s_events_up_to_a_moment(store: Store, make: Any, now: datetime) -> None:
    contact, other = make.contact(), make.contact("8")
    with store.begin() as tx:
        put(tx, contact, now, "before", now - SECOND)
        put(tx, contact, now, "at")
        put(tx, contact, now, "after", now + SECOND)
        put(tx, other, now, "other", now - SECOND)
    with store.begin() as tx:
        inbox.erase(tx, contact.id, now)
    assert set(states(store)) == {"after", "other"}


@pytest.mark.parametrize(("other", "newer"), [(-SECOND, False), (timedelta(0), False), (SECOND, True)])
def test_a_newer_event_of_a_kind_is_known(store: Store, now: datetime, other: timedelta, newer: bool) -> None:
    with store.begin() as tx:
        put(tx, None, now, "a", now + other, kind="policy_enforcement")
        put(tx, None, now, "b", now + DAY)
        put(tx, None, now, "c", now + DAY, kind="policy_enforcement", page_id="2002")
        assert inbox.has_newer(tx, "1001", "policy_enforcement", now) is newer


def test_a_rotation_walks_through_all_events(store: Store, now: datetime) -> None:
    with store.begin() as tx:
        ids = [put(tx, None, now, f"k{number}") for number in range(3)]
        first = inbox.to_reseal(tx, 0, 2)
        assert [one[0] for one in first] == ids[:2]
        inbox.reseal(tx, first[0][0], b"anew")
        assert inbox.to_reseal(tx, 0, 1) == [(ids[0], b"anew")]
        assert [one[0] for one in inbox.to_reseal(tx, first[-1][0], 2)] == ids[2:]
