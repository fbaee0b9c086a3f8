"""People: one row each, windows that only grow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from otn.errors import NotFound
from otn.models import Contact
from otn.store import Store, contacts, pages
from otn.store.contacts import Opening

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
