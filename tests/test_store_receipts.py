"""What came back from people: a receipt covers what was sent before it, an answer is one to the newest follow-up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from test_store_deliveries import DAY, HOUR, REFUSED, SENT, UNKNOWN, put

from otn.models import Origin
from otn.store import Store, receipts
from otn.store.schema import delivery as table


def test_a_receipt_covers_what_was_sent_before_it_however_late_the_answer_came(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    before = put(store, contact, now, SENT, "a", sending_at=now - HOUR, settled_at=now + HOUR)
    after = put(store, contact, now, SENT, "b", sending_at=now + timedelta(seconds=1), settled_at=now + HOUR)
    with store.begin() as tx:
        receipts.mark_reached(tx, contact.id, "read_at", now, now + DAY)
        reached = dict(tx.execute(sa.select(table.c.id, table.c.read_at)).all())
    assert reached == {before: now + DAY, after: None}


def replies(store: Store, *answers: tuple[int, datetime]) -> dict[int, datetime]:
    """Who answered when; what each delivery says of it, where it says anything."""
    with store.begin() as tx:
        receipts.mark_answered(tx, "replied_at", answers)
        query = sa.select(table.c.id, table.c.replied_at).where(table.c.replied_at.isnot(None))
        return dict(tx.execute(query).all())


def test_an_answer_is_one_to_the_newest_follow_up_before_it(store: Store, make: Any, now: datetime) -> None:
    contact, other = make.contact(), make.contact("8")
    put(store, contact, now, SENT, "older", sending_at=now - 3 * HOUR)
    newest = put(store, contact, now, SENT, "newest", sending_at=now - HOUR)
    put(store, contact, now, SENT, "later", sending_at=now + HOUR)
    put(store, contact, now, REFUSED, "refused", sending_at=now)
    put(store, contact, now, SENT, "reply", sending_at=now, origin=Origin.REPLY.value)
    put(store, contact, now, UNKNOWN, "unknown", sending_at=now)
    theirs = put(store, other, now, SENT, "theirs", sending_at=now - HOUR)
    assert replies(store, (contact.id, now), (other.id, now - HOUR)) == {newest: now, theirs: now - HOUR}


def test_the_first_answer_stays_in_whatever_order_they_arrive(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    older = put(store, contact, now, SENT, "older", sending_at=now - 3 * HOUR)
    newest = put(store, contact, now, SENT, "newest", sending_at=now - HOUR)
    assert replies(store, (contact.id, now)) == {newest: now}
    assert replies(store, (contact.id, now + HOUR)) == {newest: now}
    assert replies(store, (contact.id, now - HOUR / 2)) == {newest: now - HOUR / 2}
    assert replies(store, (contact.id, now - 2 * HOUR))[older] == now - 2 * HOUR


@pytest.mark.parametrize(("late", "counts"), [(timedelta(0), True), (timedelta(seconds=1), False)])
def test_after_seven_days_it_is_no_answer_any_more(
    store: Store, make: Any, now: datetime, late: timedelta, counts: bool
) -> None:
    contact = make.contact()
    put(store, contact, now, SENT, sending_at=now - 7 * DAY - late)
    assert bool(replies(store, (contact.id, now))) is counts
    assert replies(store) == replies(store, (contact.id, now))
