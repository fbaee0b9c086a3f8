"""Deliveries: every transition names the state it leaves, and the database refuses the rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from otn.models import Contact, Delivery, DeliveryState, Origin, Route
from otn.store import Store, Tx, deliveries
from otn.store.schema import delivery as table

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
QUEUED, SENDING, SENT, REFUSED, SKIPPED, UNKNOWN, UNCONFIRMED = DeliveryState


def add(tx: Tx, contact: Contact, now: datetime, key: str = "k", **values: Any) -> int | None:
    row = {
        "dedupe_key": key,
        "contact_id": contact.id,
        "origin": Origin.CLI.value,
        "state": QUEUED.value,
        "message": {"text": "It is back"},
        "message_hash": "hash",
        "wire_id": f"otn:{key}",
        "created_at": now,
    }
    return deliveries.add(tx, row | values)


def start(
    tx: Tx, delivery_id: int, now: datetime, old: DeliveryState = QUEUED, fence: int = 0, **how: Any
) -> bool:
    settings: dict[str, Any] = {"route": Route.WINDOW, "rule": "the rule", "token_id": None, **how}
    return deliveries.start(tx, delivery_id, old, fence=fence, lease_seconds=60, now=now, **settings)


def put(
    store: Store, contact: Contact, now: datetime, state: DeliveryState, key: str = "k", **values: Any
) -> int:
    """A delivery in some state, whatever led to it."""
    with store.begin() as tx:
        delivery_id = add(tx, contact, now, key, state=state.value, **values)
        assert delivery_id is not None
        return delivery_id


def look(store: Store, delivery_id: int) -> Delivery:
    with store.read() as tx:
        return deliveries.get(tx, delivery_id)


def lapse(store: Store, delivery_id: int) -> None:
    with store.begin() as tx:
        tx.execute(table.update().where(table.c.id == delivery_id).values(lease_until=1.0))


def test_one_key_is_one_delivery_even_for_two_at_once(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    contact = make.contact()
    for number in range(5):

        def decide(tx: Tx, wire_id: str, key: str = f"k{number}") -> int | None:
            return add(tx, contact, now, key, wire_id=wire_id)

        added = at_once(*(lambda tx, wire=f"{number}:{side}": decide(tx, wire) for side in ("left", "right")))
        assert sorted(one is None for one in added) == [False, True]
    with store.read() as tx:
        assert deliveries.by_key(tx, "k1") is not None
        assert deliveries.by_key(tx, "other") is None


def test_a_token_pays_for_one_live_delivery_only(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    token = make.token(contact, make.topic())
    for state in (SENT, REFUSED, SKIPPED, UNCONFIRMED, QUEUED):
        put(store, contact, now, state, state.value, token_id=token)
    put(store, contact, now, SENDING, "live", token_id=token)
    for state in (SENDING, UNKNOWN):
        with pytest.raises(sa.exc.IntegrityError):
            put(store, contact, now, state, "second", token_id=token)


def test_the_database_knows_no_other_states(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    with pytest.raises(sa.exc.IntegrityError), store.begin() as tx:
        add(tx, contact, now, state="perhaps")


@pytest.mark.parametrize("old", DeliveryState)
def test_sending_begins_only_from_the_state_and_fence_that_were_seen(
    store: Store, make: Any, now: datetime, old: DeliveryState
) -> None:
    delivery_id = put(store, make.contact(), now, old, fence=3)
    with store.begin() as tx:
        for other in set(DeliveryState) - {old}:
            assert not start(tx, delivery_id, now, other, 3)
        assert not start(tx, delivery_id, now, old, 2)
        assert start(tx, delivery_id, now, old, 3)
        assert not start(tx, delivery_id, now, old, 3)
    found = look(store, delivery_id)
    assert (found.state, found.fence, found.attempts, found.sending_at) == (SENDING, 4, 1, now)
    assert found.doubtful is (old is UNKNOWN)


@pytest.mark.parametrize("old", DeliveryState)
def test_an_answer_counts_while_the_newest_attempt_is_open(
    store: Store, make: Any, now: datetime, old: DeliveryState
) -> None:
    delivery_id = put(store, make.contact(), now, old, fence=3)
    with store.begin() as tx:
        assert not deliveries.settle(tx, delivery_id, 2, REFUSED, {})
        assert deliveries.settle(tx, delivery_id, 3, REFUSED, {"reason": "bad_request"}) is (
            old in (SENDING, UNKNOWN)
        )


@pytest.mark.parametrize("old", DeliveryState)
def test_proof_that_it_was_sent_wins_over_whatever_was_believed(
    store: Store, make: Any, now: datetime, old: DeliveryState
) -> None:
    believed = {"reason": "throttled", "error": "no", "error_code": 613, "next_attempt_at": now}
    delivery_id = put(store, make.contact(), now, old, **believed)
    with store.begin() as tx:
        assert deliveries.settle_sent(tx, delivery_id, "m_1", now) is (old is not SENT)
    if old is not SENT:
        found = look(store, delivery_id)
        assert (found.state, found.message_id, found.next_attempt_at) == (SENT, "m_1", None)
        assert (found.reason, found.error, found.error_code) == (None, None, None)


def test_nothing_undoes_a_delivery_that_was_sent(store: Store, make: Any, now: datetime) -> None:
    delivery_id = put(store, make.contact(), now, SENT, fence=1, lease_until=1.0, sending_at=now - 2 * DAY)
    with store.begin() as tx:
        assert not deliveries.settle(tx, delivery_id, 1, REFUSED, {})
        assert not deliveries.end(tx, delivery_id, UNKNOWN, UNCONFIRMED, {})
        assert deliveries.lapse_leases(tx, now) == 0
        assert deliveries.give_up_unconfirmed(tx, now) == 0
        assert deliveries.due(tx, now + DAY) == []
        deliveries.erase(tx, look(store, delivery_id).contact_id, now)
    assert look(store, delivery_id).state is SENT


@pytest.mark.parametrize(("route", "again"), [(Route.WINDOW, False), (Route.TOKEN, True)])
def test_when_a_sender_dies_its_delivery_becomes_unknown_and_only_a_token_is_tried_again(
    store: Store, make: Any, now: datetime, route: Route, again: bool
) -> None:
    contact = make.contact()
    token = make.token(contact, make.topic()) if again else None
    delivery_id = put(store, contact, now, QUEUED)
    with store.begin() as tx:
        start(tx, delivery_id, now, route=route, token_id=token)
        assert deliveries.being_sent(tx, contact.id) == 1
        assert deliveries.lapse_leases(tx, now) == 0
    lapse(store, delivery_id)
    with store.begin() as tx:
        assert deliveries.being_sent(tx, contact.id) == 0
        assert deliveries.lapse_leases(tx, now) == 1
        assert deliveries.due(tx, now) == ([delivery_id] if again else [])
    found = look(store, delivery_id)
    assert (found.state, found.reason) == (UNKNOWN, "sender_died")
    assert not found.doubtful  # the one attempt may still be answered; the next would be in doubt
    with store.begin() as tx:
        assert deliveries.settle(tx, delivery_id, 1, REFUSED, {"reason": "bad_request"})


def test_lapsed_and_given_up_deliveries_are_taken_a_few_at_a_time(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    for number in range(3):
        put(
            store,
            contact,
            now,
            SENDING,
            f"k{number}",
            route="window",
            lease_until=1.0,
            sending_at=now - DAY,
        )
    with store.begin() as tx:
        assert [deliveries.lapse_leases(tx, now, limit=2) for _ in range(3)] == [2, 1, 0]
        assert [deliveries.give_up_unconfirmed(tx, now, limit=2) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("age", "route", "given_up"),
    [
        (DAY - timedelta(seconds=1), Route.WINDOW, 0),
        (DAY, Route.WINDOW, 1),
        (DAY, Route.HUMAN_AGENT, 1),
        (400 * DAY, Route.TOKEN, 0),
    ],
)
def test_a_message_by_psid_without_an_echo_for_a_day_is_given_up(
    store: Store, make: Any, now: datetime, age: timedelta, route: Route, given_up: int
) -> None:
    delivery_id = put(
        store, make.contact(), now, UNKNOWN, route=route.value, sending_at=now - age, reason="outcome_unknown"
    )
    with store.begin() as tx:
        assert deliveries.give_up_unconfirmed(tx, now) == given_up
    assert look(store, delivery_id).state is (UNCONFIRMED if given_up else UNKNOWN)


def test_what_is_due_comes_in_order_and_not_before_its_time(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    second = put(store, contact, now, QUEUED, "a", next_attempt_at=now)
    first = put(store, contact, now, UNKNOWN, "b", next_attempt_at=now - HOUR)
    later = put(store, contact, now, QUEUED, "c", next_attempt_at=now + timedelta(seconds=1))
    put(store, contact, now, UNKNOWN, "d")
    for state in (SENT, REFUSED, SKIPPED, UNCONFIRMED, SENDING):
        put(store, contact, now, state, state.value, next_attempt_at=now - HOUR)
    with store.begin() as tx:
        assert deliveries.due(tx, now) == [first, second]
        assert deliveries.due(tx, now, limit=1) == [first]
        deliveries.postpone(tx, first, now + HOUR)
        assert deliveries.due(tx, now + HOUR) == [second, later, first]


def test_the_same_message_counts_as_accepted_only_for_somebody_else(
    store: Store, make: Any, now: datetime
) -> None:
    contact, other = make.contact(), make.contact("8")
    put(store, contact, now, SENT, "mine")
    put(store, other, now, REFUSED, "refused")
    put(store, other, now, SENT, "different", message_hash="other")
    with store.begin() as tx:
        assert not deliveries.accepted_elsewhere(tx, "hash", contact.id)
        assert deliveries.accepted_elsewhere(tx, "hash", other.id)


def test_what_was_sent_is_noted_in_the_tracker_once_and_in_order(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    second = put(store, contact, now, SENT, "a", settled_at=now)
    first = put(store, contact, now, SENT, "b", settled_at=now - HOUR)
    put(store, contact, now, SENT, "c", settled_at=now, noted_at=now)
    put(store, contact, now, REFUSED, "d", settled_at=now)
    put(store, make.contact("8"), now, SENT, "e", settled_at=now)
    with store.begin() as tx:
        assert [one.id for one in deliveries.unnoted(tx, contact.id)] == [first, second]
        deliveries.note(tx, [first], now)
        assert [one.id for one in deliveries.unnoted(tx, contact.id)] == [second]
        assert len(deliveries.recent(tx, contact.id)) == 4


def test_an_erasure_ends_what_is_open_and_keeps_no_words(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    words = {"message_id": "m_1", "error": "somebody's words"}
    ids = {state: put(store, contact, now, state, state.value, **words) for state in DeliveryState}
    with store.begin() as tx:
        deliveries.erase(tx, contact.id, now)
    ended = {QUEUED: SKIPPED, SENDING: UNCONFIRMED, UNKNOWN: UNCONFIRMED}
    for state, delivery_id in ids.items():
        found = look(store, delivery_id)
        assert found.state is ended.get(state, state)
        assert (found.message, found.message_id, found.error) == (None, None, None)
        assert found.noted_at == now
