"""The inbox: each event once, until it is dealt with and a while longer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from otn.models import Contact, InboxState
from otn.store import Store, Tx, inbox
from otn.store.inbox import NewEvent
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
