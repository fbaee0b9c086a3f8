"""An event arrives: kept once, with all that follows from it, or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from otn import intake
from otn.events import Event, parse
from otn.models import Contact, InboxState, OtnToken, Page, TokenState
from otn.store import Store, Tx, contacts, deliveries, inbox, pages, requests, tokens, topics
from otn.store.schema import audit, contact, delivery, inbound_event, otn_token
from otn.vault import Vault

SECOND, HOUR, DAY, YEAR = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1), timedelta(days=365)


def person(store: Store, psid: str = "7007") -> Contact:
    with store.read() as tx:
        found = contacts.find(tx, "1001", psid)
        assert found is not None
        return found


def kept(store: Store) -> list[OtnToken]:
    with store.read() as tx:
        return tokens.every(tx)


def count(store: Store, table: sa.Table) -> int:
    with store.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def page(store: Store) -> Page | None:
    with store.read() as tx:
        return pages.find(tx, "1001")


# --- once ---


def test_a_message_opens_the_window_from_its_own_time_and_waits_for_its_turn(
    store: Store, make: Any, now: datetime
) -> None:
    (recorded,) = make.says(at=now - HOUR)
    found = person(store)
    assert (recorded.state, recorded.is_new, recorded.contact_id) == (InboxState.NEW, True, found.id)
    assert (found.window_opened_at, found.window_until) == (now - HOUR, now + 23 * HOUR)
    assert (found.window_opened_by, found.last_message_at) == ("message", now - HOUR)


def test_the_same_events_again_change_nothing(store: Store, make: Any, now: datetime) -> None:
    make.topic()

    def everything() -> list[Any]:
        return [
            *make.says("hi", "m_1", at=now - HOUR),
            *make.taps(token="token", at=now - HOUR),
            *make.echoes("otn:x", "m_2", at=now - HOUR),
        ]

    first = everything()
    before = (person(store), kept(store), count(store, inbound_event))
    with store.begin() as tx:
        row = inbox.claim(tx, before[0].id, "a", 60, now)
        assert row is not None
        inbox.close(tx, row, before[0].id, "a", InboxState.DONE, now)
        contacts.give_turn_back(tx, before[0].id, "a")
    store.close()  # a restart
    again = everything()
    assert [one.is_new for one in first] == [True] * 3
    assert [one.is_new for one in again] == [False] * 3
    assert (person(store), kept(store), count(store, inbound_event)) == before
    with store.begin() as tx:  # the one that was dealt with stays so
        assert [row.event_key for row in waiting(tx, before[0])] == [
            f"optin_otn:{hashlib.sha256(b'token').hexdigest()}"
        ]


def waiting(tx: Tx, who: Contact) -> list[Any]:
    query = sa.select(inbound_event.c.event_key).where(
        inbound_event.c.contact_id == who.id, inbound_event.c.state == "new"
    )
    return list(tx.execute(query))


def test_one_event_told_to_two_processes_at_once_is_one(
    store: Store, make: Any, vault: Vault, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    make.topic()
    for number in range(5):
        optin = {"type": "one_time_notif_req", "payload": "otn:restock", "one_time_notif_token": f"t{number}"}
        event = event_of({"optin": optin}, now, psid=f"p{number}")

        def record(tx: Tx, event: Event = event) -> Any:
            return intake.record(tx, vault, event, own_pages={"1001"}, now=now)

        assert sorted(one.is_new for one in at_once(record, record)) == [False, True]
    assert len(kept(store)) == 5


def event_of(item: dict[str, Any], now: datetime, psid: str = "7007", page_id: str = "1001") -> Event:
    whole = {
        "sender": {"id": psid},
        "recipient": {"id": page_id},
        "timestamp": int(now.timestamp() * 1000),
        **item,
    }
    body = {"object": "page", "entry": [{"id": page_id, "messaging": [whole]}]}
    (event,) = parse(json.dumps(body).encode(), now)
    return event


# --- which events do what ---


@pytest.mark.parametrize(
    ("event", "opened_by", "turn"),
    [
        ({"message": {"mid": "m", "text": "hi"}}, "message", True),
        ({"message": {"mid": "m", "text": "hi", "referral": {"source": "ADS"}}}, "ad", True),
        ({"postback": {"mid": "m", "title": "Start", "payload": "START"}}, "postback", True),
        ({"referral": {"ref": "x", "source": "SHORTLINK"}}, "referral", True),
        ({"reaction": {"mid": "m", "action": "react", "reaction": "love"}}, "reaction", True),
        ({"optin": {"ref": "plugin"}}, "plugin", False),
        ({"optin": {"type": "one_time_notif_req", "one_time_notif_token": "t"}}, None, True),
        ({"optin": {"type": "notification_messages", "notification_messages_token": "t"}}, None, False),
        ({"reaction": {"mid": "m", "action": "unreact"}}, None, False),
        ({"read": {"watermark": 1790000000000}}, None, False),
        ({"delivery": {"watermark": 1790000000000}}, None, False),
        ({"message": {"mid": "m", "is_echo": True}}, None, False),
        ({"pass_thread_control": {"new_owner_app_id": 1}}, None, False),
        ({"message_edit": {"mid": "m", "text": "hello"}}, None, False),
        ({"something_new": {}}, None, False),
    ],
)
def test_each_kind_opens_the_window_or_does_not_and_starts_a_turn_or_does_not(
    store: Store, make: Any, now: datetime, event: dict[str, Any], opened_by: str | None, turn: bool
) -> None:
    parties = {"sender": {"id": "1001"}, "recipient": {"id": "7007"}} if "is_echo" in str(event) else {}
    (recorded,) = make.receive({**event, **parties}, at=now - HOUR)
    found = person(store)
    assert found.window_opened_by == opened_by
    assert (found.window_until is not None) is (opened_by is not None)
    assert (recorded.state is InboxState.NEW) is turn
    assert (recorded.contact_id is not None) is turn


def test_events_of_another_app_s_thread_count_but_start_no_turn(
    store: Store, make: Any, now: datetime
) -> None:
    make.topic()
    (said,), (tapped,) = make.says(where="standby"), make.taps(where="standby")
    assert [(one.state, one.contact_id) for one in (said, tapped)] == [(InboxState.DONE, None)] * 2
    assert person(store).window_opened_at == now
    (token,) = kept(store)
    assert (token.topic, token.state) == ("restock", TokenState.AVAILABLE)


def test_who_writes_again_can_be_reached_again(store: Store, make: Any, now: datetime) -> None:
    found = make.contact()
    with store.begin() as tx:
        contacts.mark_undeliverable(tx, found.id, "blocked")
    make.taps(None)
    assert person(store).undeliverable_reason == "blocked"
    make.says()
    assert person(store).undeliverable_reason is None


def test_a_page_that_is_not_ours_leaves_a_record_and_nothing_else(store: Store, make: Any) -> None:
    recorded = [*make.says(page_id="666"), *make.taps(page_id="666")]
    assert {one.state for one in recorded} == {InboxState.FOREIGN}
    assert [count(store, table) for table in (inbound_event, contact, otn_token)] == [2, 0, 0]
    assert page(store) is None


def test_a_broken_event_is_kept_with_the_reason(store: Store, make: Any) -> None:
    (recorded,) = make.receive({"reaction": {"action": "shrug"}})
    assert (recorded.state, recorded.is_new) == (InboxState.BROKEN, True)
    with store.read() as tx:
        assert "neither react" in tx.execute(sa.select(inbound_event.c.error)).scalar_one()


def test_what_cannot_be_recorded_is_kept_with_its_token_and_known_person(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    known = make.contact()
    optin = {"type": "one_time_notif_req", "payload": "otn:x", "one_time_notif_token": "the token"}
    event = event_of({"optin": optin}, now)
    with store.begin() as tx:
        assert intake.record_broken(tx, vault, event, "why", now).is_new
        assert not intake.record_broken(tx, vault, event, "why", now).is_new
        row = tx.execute(sa.select(inbound_event)).one()
    assert (row.state, row.error, row.contact_id) == ("broken", "why", known.id)
    assert b"the token" not in row.raw
    assert json.loads(vault.open(row.raw))["optin"] == optin


def test_nothing_of_an_event_stays_if_its_recording_fails(
    store: Store, make: Any, vault: Vault, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.topic()
    steps = [
        (pages, "ensure"),
        (contacts, "ensure"),
        (inbox, "record"),
        (topics, "use"),
        (requests, "belongs_to"),
        (tokens, "keep"),
    ]
    optin = {"type": "one_time_notif_req", "payload": "otn:restock:1", "one_time_notif_token": "the token"}
    event = event_of({"optin": optin}, now)

    def record() -> None:
        with store.begin() as tx:
            intake.record(tx, vault, event, own_pages={"1001"}, now=now)

    for module, name in steps:
        whole = getattr(module, name)

        def dies(*args: Any, whole: Any = whole, **kwargs: Any) -> None:
            whole(*args, **kwargs)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dies)
            with pytest.raises(KeyboardInterrupt):
                record()
        assert [count(store, table) for table in (inbound_event, contact, otn_token)] == [0, 0, 0]
    record()  # Meta, who got no 200, delivers again
    assert [count(store, table) for table in (inbound_event, contact, otn_token)] == [1, 1, 1]


def test_an_event_is_read_again_as_it_was_recorded(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    make.topic()
    text = {"message": {"mid": "m", "text": "\ud83d grüß \x00 dich"}}
    for item in (text, {"optin": {"type": "one_time_notif_req", "one_time_notif_token": "t"}}):
        event = event_of(item, now - HOUR)
        with store.begin() as tx:
            intake.record(tx, vault, event, own_pages={"1001"}, now=now)
            row = inbox.claim(tx, person_in(tx).id, "a", 60, now)
            assert row is not None
            assert replace(intake.reread(vault, row), raw=event.raw) == replace(event, token=None)
            inbox.close(tx, row, person_in(tx).id, "a", InboxState.DONE, now)


def person_in(tx: Tx) -> Contact:
    found = contacts.find(tx, "1001", "7007")
    assert found is not None
    return found


# --- the token ---


def test_a_tap_keeps_the_token_sealed_for_a_year_from_the_tap(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    make.topic()
    make.taps(token="the token", at=now - HOUR)
    (token,) = kept(store)
    assert (token.topic, token.psid, token.page_id, token.payload) == (
        "restock",
        "7007",
        "1001",
        "otn:restock",
    )
    assert (token.opted_in_at, token.expires_at) == (now - HOUR, now - HOUR + YEAR)
    with store.read() as tx:
        ciphertext, _ = tokens.sealed(tx, token.id)
        rows = [
            str(tuple(row)) for table in (inbound_event, otn_token) for row in tx.execute(sa.select(table))
        ]
    assert ciphertext is not None
    assert vault.open(ciphertext) == b"the token"
    assert not any("the token" in row for row in rows)


def test_two_taps_are_two_tokens(store: Store, make: Any) -> None:
    make.topic()
    make.taps()
    make.taps()
    assert len(kept(store)) == 2


def test_a_family_s_topic_comes_to_be_by_a_tap_and_an_archived_one_still_records(
    store: Store, make: Any, now: datetime
) -> None:
    make.topic("restock-*")
    make.topic("old")
    with store.begin() as tx:
        topics.archive(tx, "old", now)
        topics.archive(tx, "restock-*", now)
    make.taps("otn:restock-blue")
    make.taps("otn:old:12")
    assert [token.topic for token in kept(store)] == ["restock-blue", "old"]


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "",
        "SUBSCRIBE",
        "otn:",
        "otn:no-such-topic",
        "otn:Restock",
        "otn:restock:",
        "otn:restock:x",
        "otn:restock:1:2",
        "otn:restock:" + "9" * 19,
        "otn:restock\n",
        " otn:restock",
        "otn:" + "a" * 65,
        "ﬁ" * 999,
    ],
)
def test_a_payload_that_is_not_ours_keeps_the_token_without_a_topic(
    store: Store, make: Any, payload: str | None
) -> None:
    topic = make.topic()
    make.taps(payload)
    (token,) = kept(store)
    assert (token.topic, token.payload, token.permission_request_id) == (None, payload, None)
    with store.begin() as tx:
        assert tokens.assign(tx, token.id, topic.id)


def test_a_tap_names_only_a_request_that_went_to_the_same_person(
    store: Store, make: Any, now: datetime
) -> None:
    mine, theirs, topic = make.contact(), make.contact("8"), make.topic()
    with store.begin() as tx:
        ids = [
            requests.record(
                tx,
                dedupe_key=f"k{number}",
                contact_id=who.id,
                topic_id=topic.id,
                wire_id=f"otn:{number}",
                now=now,
            )
            for number, who in enumerate((mine, theirs))
        ]
    for request_id in (*ids, 999_999):
        make.taps(f"otn:restock:{request_id}")
    assert [token.permission_request_id for token in kept(store)] == [ids[0], None, None]
    assert {token.topic for token in kept(store)} == {"restock"}


# --- receipts and the page ---


def test_reading_is_remembered_and_never_goes_back(store: Store, make: Any, now: datetime) -> None:
    for seconds in (30, 10, 20):
        watermark = int((now - timedelta(seconds=seconds)).timestamp() * 1000)
        make.receive({"read": {"watermark": watermark}})
    with store.read() as tx:
        assert tx.execute(sa.select(contact.c.read_at)).scalar_one() == now - 10 * SECOND


@pytest.mark.parametrize(
    ("event", "replied", "tapped"),
    [
        ({"message": {"mid": "m", "text": "yes please"}}, True, False),
        ({"message": {"mid": "m", "text": "Yes", "quick_reply": {"payload": "YES"}}}, True, True),
        ({"message": {"mid": "m", "text": "Yes", "quick_reply": {"payload": ""}}}, True, True),
        ({"postback": {"mid": "m", "title": "Yes", "payload": "YES"}}, False, True),
        ({"reaction": {"mid": "m", "action": "react", "reaction": "love"}}, False, False),
        ({"optin": {"type": "one_time_notif_req", "one_time_notif_token": "t"}}, False, False),
    ],
)
def test_what_a_person_does_after_a_follow_up_is_written_beside_it(
    store: Store, make: Any, now: datetime, event: dict[str, Any], replied: bool, tapped: bool
) -> None:
    who = make.contact()
    sent = {"contact_id": who.id, "origin": "broadcast", "state": "sent", "sending_at": now - 2 * HOUR}
    words = {"message": {"text": "It is back"}, "message_hash": "hash", "wire_id": "otn:1", "created_at": now}
    with store.begin() as tx:
        deliveries.add(tx, {"dedupe_key": "k", **sent, **words})
    make.receive(event, at=now - HOUR, arrives=now)
    with store.read() as tx:
        found = tx.execute(sa.select(delivery.c.replied_at, delivery.c.tapped_at)).one()
    assert tuple(found) == (now - HOUR if replied else None, now - HOUR if tapped else None)


def enforce(make: Any, action: str, at: datetime, name: str = "policy-enforcement") -> None:
    make.receive({"sender": {}, name: {"action": action, "reason": "spam"}}, at=at)


def test_a_block_pauses_the_page_until_it_is_taken_back(store: Store, make: Any, now: datetime) -> None:
    enforce(make, "warning", now - 3 * HOUR)
    found = page(store)
    assert found is not None
    assert found.paused_reason is None
    enforce(make, "block", now - 2 * HOUR)
    found = page(store)
    assert found is not None
    assert (found.paused_reason, found.paused_until) == ("Meta blocked the page: spam", None)
    enforce(make, "unblock", now - HOUR, "policy_enforcement")
    assert page(store) == Page(page_id="1001")
    with store.read() as tx:
        said = list(tx.execute(sa.select(audit.c.action).order_by(audit.c.id)).scalars())
    assert said == ["page.warning", "page.block", "page.unblock"]


@pytest.mark.parametrize(("late", "blocked"), [("unblock", True), ("block", False)])
def test_the_newest_word_about_a_page_counts_and_not_the_last_to_arrive(
    store: Store, make: Any, now: datetime, late: str, blocked: bool
) -> None:
    enforce(make, "block" if late == "unblock" else "unblock", now - HOUR)
    enforce(make, late, now - 2 * HOUR)
    found = page(store)
    assert found is not None
    assert (found.paused_reason is not None) is blocked


def test_meta_s_unblock_ends_its_own_restriction_and_nobody_else_s_pause(
    store: Store, make: Any, now: datetime
) -> None:
    make.contact()
    for reason, ends in (
        ("Meta restricted the page (368)", True),
        ("wrong price", False),
        ("the page access token is not valid any more", False),
    ):
        with store.begin() as tx:
            pages.resume(tx, "1001")
            pages.pause(tx, "1001", reason, now + DAY)
            pages.deny_otn(tx, "1001", "no permission")
        enforce(make, "unblock", now)
        found = page(store)
        assert found is not None
        assert (found.paused_reason is None) is ends
        assert found.otn_denied_reason == "no permission"
        now += SECOND
