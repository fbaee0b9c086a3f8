"""People: one row each, windows that only grow, one conversation at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
import sqlalchemy as sa

from otn.errors import NotFound
from otn.models import Contact
from otn.store import Store, contacts, pages
from otn.store.contacts import Opening
from otn.store.schema import contact as table

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def look(store: Store, contact: Contact) -> Contact:
    with store.read() as tx:
        return contacts.get(tx, contact.id)


def open_window(
    store: Store, contact: Contact, at: datetime, length: timedelta = DAY, by: str = "message"
) -> None:
    opening = Opening(contact_id=contact.id, opened_by=by, at=at, until=at + length)
    with store.begin() as tx:
        contacts.open_windows(tx, [opening])


def test_a_person_is_one_row_a_page(store: Store, make: Any) -> None:
    first, again, elsewhere = make.contact("7"), make.contact("7"), make.contact("7", page_id="2002")
    assert first.id == again.id != elsewhere.id


def test_two_first_sights_at_once_make_one_row(
    store: Store, at_once: Callable[..., list[Any]], now: datetime
) -> None:
    for number in range(5):

        def meet(tx: Any, psid: str = str(number)) -> int:
            pages.ensure(tx, "1001", now)
            return contacts.ensure(tx, "1001", psid, now).id

        assert len(set(at_once(meet, meet, meet))) == 1


def test_a_person_is_found_by_psid_unless_several_pages_know_it(store: Store, make: Any) -> None:
    here = make.contact("7")
    with store.read() as tx:
        assert contacts.by_psid(tx, "7") == here
        assert contacts.by_psid(tx, "8") is None
    there = make.contact("7", page_id="2002")
    with store.read() as tx:
        assert contacts.by_psid(tx, "7", "2002") == there
        with pytest.raises(NotFound, match="--page"):
            contacts.by_psid(tx, "7")
        with pytest.raises(NotFound):
            contacts.get(tx, 4711)


@pytest.mark.parametrize("order", permutations(range(3)))
def test_events_in_any_order_leave_the_same_window(
    store: Store, make: Any, now: datetime, order: tuple[int, ...]
) -> None:
    contact = make.contact()
    events = [(now - 3 * DAY, 7 * DAY, "ad"), (now - HOUR, DAY, "reaction"), (now - 2 * DAY, DAY, "message")]
    for index in order:
        at, length, by = events[index]
        open_window(store, contact, at, length, by)
    found = look(store, contact)
    assert (found.window_until, found.window_opened_by) == (now + 4 * DAY, "ad")
    assert found.last_message_at == now - 2 * DAY


@pytest.mark.parametrize("by", ["postback", "referral", "reaction", "plugin"])
def test_only_messages_let_a_person_answer_by_hand_for_seven_days(
    store: Store, make: Any, now: datetime, by: str
) -> None:
    contact = make.contact(wrote_at=now - 2 * DAY)
    open_window(store, contact, now - HOUR, by=by)
    found = look(store, contact)
    assert (found.window_opened_at, found.last_message_at) == (now - HOUR, now - 2 * DAY)


def test_meta_s_word_closes_a_window_but_not_one_opened_since_we_asked(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact(wrote_at=now - HOUR)
    with store.begin() as tx:
        contacts.close_window(tx, contact.id, now, asked_at=now - 2 * HOUR)
    assert look(store, contact).window_until == now - HOUR + DAY
    with store.begin() as tx:
        contacts.close_window(tx, contact.id, now, asked_at=now - HOUR / 2)
    assert look(store, contact).window_until == now
    open_window(store, contact, now + HOUR)
    assert look(store, contact).window_until == now + HOUR + DAY


def test_who_wrote_since_we_asked_can_be_reached(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact(wrote_at=now)
    with store.begin() as tx:
        contacts.mark_undeliverable(tx, contact.id, "blocked", asked_at=now - HOUR)
    assert look(store, contact).undeliverable_reason is None
    with store.begin() as tx:
        contacts.mark_undeliverable(tx, contact.id, "blocked", asked_at=now + HOUR)
    assert look(store, contact).undeliverable_reason == "blocked"
    with store.begin() as tx:
        contacts.mark_undeliverable(tx, contact.id, None)
    assert look(store, contact).undeliverable_reason is None


def test_asking_to_be_forgotten_again_means_everything_up_to_now(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    for at in (now, now + HOUR, now - HOUR):
        with store.begin() as tx:
            contacts.request_erasure(tx, contact.id, at)
    assert look(store, contact).erase_requested_at == now + HOUR
    with store.read() as tx:
        assert [marked.id for marked in contacts.to_erase(tx)] == [contact.id]


# --- one conversation at a time ---


def lapse(store: Store, contact: Contact) -> None:
    with store.begin() as tx:
        tx.execute(table.update().where(table.c.id == contact.id).values(turn_lease_until=1.0))


def take(store: Store, contact: Contact, owner: str) -> bool:
    with store.begin() as tx:
        return contacts.take_turn(tx, contact.id, owner, 60)


def test_a_conversation_has_one_leader_until_it_is_given_back(store: Store, make: Any) -> None:
    contact = make.contact()
    assert take(store, contact, "a")
    assert not take(store, contact, "b")
    assert take(store, contact, "a")  # renewed
    with store.begin() as tx:
        assert contacts.holds_turn(tx, contact.id, "a")
        assert not contacts.holds_turn(tx, contact.id, "b")
        contacts.give_turn_back(tx, contact.id, "b")  # not theirs to give
    assert not take(store, contact, "b")
    with store.begin() as tx:
        contacts.give_turn_back(tx, contact.id, "a")
        assert not contacts.holds_turn(tx, contact.id, "a")
    assert take(store, contact, "b")


def test_a_dead_leader_s_conversation_is_free_once_the_lease_is_over(store: Store, make: Any) -> None:
    contact = make.contact()
    assert take(store, contact, "a")
    lapse(store, contact)
    assert take(store, contact, "b")
    with store.read() as tx:
        assert not contacts.holds_turn(tx, contact.id, "a")


def test_a_lease_is_on_the_database_s_clock(store: Store, make: Any) -> None:
    contact = make.contact()
    take(store, contact, "a")
    with store.read() as tx:
        until = tx.execute(sa.select(table.c.turn_lease_until)).scalar_one()
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
            lambda tx, owner=owner, contact=contact: contacts.take_turn(tx, contact.id, owner, 60)
            for owner in "abcd"
        ]
        assert sum(at_once(*wishes)) == 1


def test_a_profile_is_kept_unless_the_person_wanted_to_be_forgotten_since(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    ada = {"first_name": "Ada", "locale": "en_GB"}

    def kept() -> tuple[str | None, str | None, datetime | None]:
        with store.read() as tx:
            found = contacts.get(tx, contact.id)
        return found.first_name, found.locale, found.profile_asked_at

    with store.begin() as tx:
        contacts.keep_profile(tx, contact.id, ada, now)
        contacts.keep_profile(tx, contact.id, {}, now + timedelta(days=30))
    assert kept() == ("Ada", "en_GB", now + timedelta(days=30))
    with store.begin() as tx:
        contacts.request_erasure(tx, contact.id, now)
        contacts.keep_profile(tx, contact.id, {"first_name": "Bob"}, now)
        contacts.erase(tx, contacts.get(tx, contact.id), now)
        contacts.keep_profile(tx, contact.id, ada, now)  # asked before, answered after
    assert kept() == (None, None, None)
    with store.begin() as tx:  # they came back
        contacts.keep_profile(tx, contact.id, ada, now + timedelta(seconds=1))
    assert kept()[0] == "Ada"
