"""Pages, topics, permission requests, the audit and the keys that a database was written with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from otn.errors import ConfigError, NotFound
from otn.models import AskingHistory, Contact, Page, RequestState, Topic
from otn.store import Store, Tx, audit, keys, pages, rates, requests, topics
from otn.store.schema import audit as audit_table
from otn.store.schema import permission_request as table
from otn.vault import Vault

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)

# --- pages ---


def page(store: Store) -> Page:
    with store.read() as tx:
        found = pages.find(tx, "1001")
        assert found is not None
        return found


def pause(store: Store, reason: str, until: datetime | None) -> bool:
    with store.begin() as tx:
        return pages.pause(tx, "1001", reason, until)


def test_a_page_is_made_once_and_takes_a_new_name(store: Store, now: datetime) -> None:
    with store.begin() as tx:
        assert pages.ensure(tx, "1001", now) == Page(page_id="1001")
        assert pages.ensure(tx, "1001", now, "The shop").name == "The shop"
        assert pages.ensure(tx, "1001", now).name == "The shop"
        assert [one.page_id for one in pages.every(tx)] == ["1001"]
        assert not pages.pause(tx, "2002", "nobody", None)
        assert not pages.resume(tx, "2002")


def test_of_two_pauses_the_longer_one_stays(store: Store, make: Any, now: datetime) -> None:
    make.contact()
    assert pause(store, "restricted", now + 6 * HOUR)
    assert not pause(store, "throttled", now + HOUR)
    assert page(store).paused_reason == "restricted"
    assert pause(store, "restricted again", now + 7 * HOUR)
    assert pause(store, "by hand", None)
    assert not pause(store, "throttled", now + DAY)
    assert not pause(store, "blocked", None)
    assert (page(store).paused_reason, page(store).paused_until) == ("by hand", None)


def test_resuming_ends_every_pause_and_lets_the_page_ask_again(
    store: Store, make: Any, now: datetime
) -> None:
    make.contact()
    pause(store, "by hand", None)
    with store.begin() as tx:
        pages.deny_otn(tx, "1001", "not allowed")
        assert pages.resume(tx, "1001")
    assert page(store) == Page(page_id="1001")
    assert pause(store, "throttled", now)


def test_a_pause_is_taken_back_only_by_whom_it_was_made(store: Store, make: Any) -> None:
    make.contact()
    pause(store, "by hand: 100% wrong price", None)
    with store.begin() as tx:
        assert not pages.resume_after(tx, "1001", ["Meta blocked", "100%"])
        assert pages.resume_after(tx, "1001", ["Meta blocked", "by hand: 100%"])
    assert page(store).paused_reason is None


# --- topics ---


def test_topics_keep_what_they_were_made_with(store: Store, make: Any, now: datetime) -> None:
    made = make.topic(
        "spring-sale", ask_while_available=True, min_interval=3 * HOUR, weekly_cap=2, note="ours"
    )
    assert (made.ask_while_available, made.min_interval, made.weekly_cap, made.note) == (
        True,
        3 * HOUR,
        2,
        "ours",
    )
    with store.begin() as tx:
        assert not topics.add(tx, made, now)
        topics.edit(tx, "spring-sale", title="Sale", min_interval=DAY)
        changed = topics.get(tx, "spring-sale")
        assert (changed.title, changed.min_interval, changed.id) == ("Sale", DAY, made.id)
        assert topics.by_id(tx, made.id) == changed
        for use in (lambda: topics.get(tx, "none"), lambda: topics.edit(tx, "none", title="x")):
            with pytest.raises(NotFound, match="otn topics list"):
                use()


def test_an_archived_topic_is_out_of_the_list_and_still_found(store: Store, make: Any, now: datetime) -> None:
    make.topic("a")
    make.topic("b")
    with store.begin() as tx:
        topics.archive(tx, "a", now)
        assert [one.name for one in topics.every(tx)] == ["b"]
        assert [one.name for one in topics.every(tx, archived=True)] == ["a", "b"]
        assert topics.get(tx, "a").archived_at == now
        topics.archive(tx, "a", None)
        assert topics.get(tx, "a").archived_at is None


def test_a_family_covers_the_names_that_begin_like_it_and_the_longest_wins(
    store: Store, make: Any, now: datetime
) -> None:
    make.topic("restock-*", title="Any", weekly_cap=1, min_interval=HOUR)
    make.topic("restock-shoes-*", title="Shoes")
    make.topic("restock-hat", title="The hat")
    titles = {
        "restock-blue": "Any",
        "restock-shoes-7": "Shoes",
        "restock-hat": "The hat",
        "restock-": "Any",
        "restock": None,
        "unrelated-1": None,
        "restock-*": None,
        "Restock-blue": None,
        "restock-blue\n": None,
    }
    with store.begin() as tx:
        for name, title in titles.items():
            found = topics.resolve(tx, name)
            assert (found.title if found else None) == title, name
            assert not found or (found.id == 0) is (name != "restock-hat")
        used = topics.use(tx, "restock-blue", now)
        assert used is not None
        assert (used.title, used.weekly_cap, used.min_interval, used.is_family) == ("Any", 1, HOUR, False)
        assert topics.resolve(tx, "restock-blue") == used
        assert topics.use(tx, "unrelated-1", now) is None


@pytest.mark.parametrize(
    ("family", "name", "title"),
    [
        ("Back in stock: {name}", "restock-trail-shoe-42", "Back in stock: trail shoe 42"),
        ("Back in stock", "restock-trail-shoe-42", "Back in stock"),
        ("{name}, {name}", "restock-a_b", "a b, a b"),
        ("👟 {name}", "restock-" + "x" * 56, "👟 " + "x" * 56),
        ("{name} is back in stock, soon", "restock-" + "x" * 56, "x" * 56 + " is back "),
    ],
)
def test_a_family_s_title_may_name_its_topic_within_messenger_s_limit(
    sqlite_store: Store, now: datetime, family: str, name: str, title: str
) -> None:
    with sqlite_store.begin() as tx:
        topics.add(tx, Topic(id=0, name="restock-*", title=family, kind="restock", is_family=True), now)
        used = topics.use(tx, name, now)
    assert used is not None
    assert used.title == title


def test_a_family_s_topic_used_twice_at_once_is_one_topic(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    make.topic("restock-*")
    for number in range(5):

        def use(tx: Tx, name: str = f"restock-{number}") -> Topic | None:
            return topics.use(tx, name, now)

        one, other = at_once(use, use)
        assert one == other
        assert one.id


# --- permission requests ---


def ask(tx: Tx, contact: Contact, topic: Topic, at: datetime, key: str) -> int:
    request_id = requests.record(
        tx, dedupe_key=key, contact_id=contact.id, topic_id=topic.id, wire_id=f"otn:{key}", now=at
    )
    assert request_id is not None
    return request_id


def test_one_key_asks_once_even_for_two_at_once(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    contact, topic = make.contact(), make.topic()
    for number in range(5):

        def record(tx: Tx, wire_id: str, key: str = f"k{number}") -> int | None:
            return requests.record(
                tx, dedupe_key=key, contact_id=contact.id, topic_id=topic.id, wire_id=wire_id, now=now
            )

        recorded = at_once(
            *(lambda tx, wire=f"{number}:{side}": record(tx, wire) for side in ("left", "right"))
        )
        assert sorted(one is None for one in recorded) == [False, True]
    with store.read() as tx:
        assert requests.exists(tx, "k1")
        assert not requests.exists(tx, "other")


def test_the_history_counts_what_may_have_reached_the_person(store: Store, make: Any, now: datetime) -> None:
    contact, topic, other = make.contact(), make.topic(), make.topic("other")
    with store.begin() as tx:
        assert requests.history(tx, contact.id, topic.id, now) == AskingHistory()
        for number, state in enumerate(RequestState):
            request_id = ask(tx, contact, topic, now - (number + 1) * HOUR, state.value)
            if state is not RequestState.SENDING:
                requests.settle(tx, request_id, state, now=now)
        ask(tx, contact, other, now - 7 * DAY + SECOND, "just within")
        ask(tx, contact, other, now - 7 * DAY, "just over")
        ask(tx, contact, other, now - 8 * DAY, "long ago")
        history = requests.history(tx, contact.id, topic.id, now)
    assert history == AskingHistory(last_asked_at=now - HOUR, asked_this_week=4)


def test_an_answer_settles_an_open_request_and_an_echo_any(store: Store, make: Any, now: datetime) -> None:
    contact, topic, other = make.contact(), make.topic(), make.contact("8")
    with store.begin() as tx:
        request_id = ask(tx, contact, topic, now, "k")
        assert requests.settle(tx, request_id, RequestState.UNKNOWN, now=now, error="time-out")
        assert requests.settle(tx, request_id, RequestState.REFUSED, now=now, error="no")
        assert not requests.settle(tx, request_id, RequestState.SENT, now=now)
        assert not requests.settle_by_echo(tx, other.id, "otn:k", "m_1", now)
        assert requests.settle_by_echo(tx, contact.id, "otn:k", "m_1", now)
        assert not requests.settle_by_echo(tx, contact.id, "otn:k", "m_2", now)
        row = tx.execute(sa.select(table.c.state, table.c.message_id, table.c.error)).one()
        assert tuple(row) == ("sent", "m_1", None)
        assert requests.went_to(tx, {request_id, 10**18 - 1}) == {request_id: contact.id}
        assert requests.went_to(tx, set()) == {}
        requests.erase(tx, contact.id)
        assert tx.execute(sa.select(table.c.message_id)).scalar_one() is None


# --- keys and the audit ---


def test_a_database_remembers_the_keys_it_was_written_with(store: Store, now: datetime) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    first, both, only_new = Vault([old], "h"), Vault([new, old], "h"), Vault([new], "h")
    with store.begin() as tx:
        keys.check_and_remember(tx, first, now)
        keys.check_and_remember(tx, first, now)
        assert "OTN_ENCRYPTION_KEYS" in keys.problems(tx, only_new)[0]
        assert "OTN_HASH_KEY" in keys.problems(tx, Vault([old], "another"))[0]
        keys.check_and_remember(tx, both, now)
        assert set(keys.in_use(tx)) == set(both.key_fingerprints)
        assert keys.problems(tx, only_new)
        keys.retire_all_but(tx, only_new.key_fingerprints[0], now)
        keys.check_and_remember(tx, only_new, now)
        assert keys.problems(tx, first)
        with pytest.raises(ConfigError):
            keys.check_and_remember(tx, first, now)
    with store.begin() as tx:  # nothing of a refused check stays
        assert keys.in_use(tx) == list(only_new.key_fingerprints)


def test_the_audit_says_who_did_what(store: Store, now: datetime) -> None:
    with store.begin() as tx:
        audit.record(tx, who="ada", action="page.pause", subject="1001", now=now, details={"reason": "why"})
        row = tx.execute(sa.select(audit_table)).one()
    assert (row.at, row.who, row.action, row.subject, row.details) == (
        now,
        "ada",
        "page.pause",
        "1001",
        {"reason": "why"},
    )


def test_permits_that_nobody_used_go_back_only_if_nobody_is_behind_them(store: Store) -> None:
    """Else the next in line would send beside those who took theirs since, and a second would have too many."""
    with store.begin() as tx:
        first = rates.reserve(tx, "1", rates.MESSAGES, 10, 1.0)
        second = rates.reserve(tx, "1", rates.MESSAGES, 10, 1.0)
        rates.give_back(tx, "1", rates.MESSAGES, 10, 1.0, first.end)
        assert rates.reserve(tx, "1", rates.MESSAGES, 1, 1.0).end == pytest.approx(second.end + 1)
        last = rates.reserve(tx, "1", rates.MESSAGES, 10, 1.0)
        rates.give_back(tx, "1", rates.MESSAGES, 4, 1.0, last.end)
        assert rates.reserve(tx, "1", rates.MESSAGES, 1, 1.0).end == pytest.approx(last.end - 3)
