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
from otn.policy import page_is_paused, pause_of
from otn.store import Store, Tx, contacts, deliveries, inbox, pages, requests, tokens, topics, turns
from otn.store.schema import audit, contact, delivery, inbound_event, otn_token
from otn.store.schema import page as page_table
from otn.store.statements import _Select
from otn.store.writer import GroupWriter
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
        claim = turns.claim(tx, before[0].id, "a", 60, now)
        assert claim
        assert claim.row
        turns.end(tx, claim.row, before[0].id, "a", InboxState.DONE, now)
        turns.give_back(tx, before[0].id, "a")
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
            return intake.record(tx, vault, intake.seal(vault, [event]), own_pages={"1001"}, now=now)[0]

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


# --- many at once ---


def optin(token: str, payload: str | None = "otn:restock-blue") -> dict[str, Any]:
    return {
        "optin": {"type": "one_time_notif_req", "one_time_notif_token": token}
        | ({} if payload is None else {"payload": payload})
    }


def everything_that_can_happen(now: datetime) -> list[Event]:
    """Of everybody, in every order, some of it twice."""
    enforcement = {"sender": {}, "policy_enforcement": {"action": "block", "reason": "spam"}}
    lifted = {"sender": {}, "policy_enforcement": {"action": "unblock"}}
    echo = {"sender": {"id": "1001"}, "recipient": {"id": "8"}, "message": {"mid": "e", "is_echo": True}}
    told = [
        event_of(optin("t1"), now, psid="9"),
        event_of({"message": {"mid": "m1", "text": "hi"}}, now - HOUR),
        event_of(optin("t1"), now, psid="9"),
        event_of(optin("t2", "otn:restock-red:1"), now - HOUR),
        event_of(optin("t3", None), now),
        event_of(optin("t4", "otn:no-such-topic"), now, psid="8"),
        event_of(lifted, now),
        event_of(enforcement, now - HOUR),
        event_of({"message": {"mid": "m2", "text": "hi"}}, now - 2 * HOUR),
        event_of({"postback": {"mid": "m3", "title": "Start", "payload": "START"}}, now, psid="8"),
        event_of({"read": {"watermark": int(now.timestamp() * 1000)}}, now, psid="8"),
        event_of({"reaction": {"action": "shrug"}}, now),
        event_of({"message": {"mid": "m4", "text": "hi"}}, now, page_id="666"),
        event_of({"message": {"mid": "m1", "text": "hi"}}, now, page_id="2002"),
        event_of(echo, now),
        event_of(optin("t5"), now - DAY, psid="forgotten"),
        event_of(optin("t6"), now + SECOND, psid="forgotten"),
    ]
    return [*told, *(replace(event, standby=True, key=f"{event.key} again") for event in told[:4])]


def what_is_kept(store: Store) -> dict[str, list[Any]]:
    """Everything that recording changes, without ids and seals."""
    who, said, given = contact.c, inbound_event.c, otn_token.c
    with store.read() as tx:
        topic_names = {one.id: one.name for one in topics.every(tx)}
        psids = dict(tx.execute(sa.select(who.id, who.psid)).all())
        queries = {
            "people": sa.select(
                who.page_id,
                who.psid,
                who.window_opened_at,
                who.window_opened_by,
                who.window_until,
                who.last_message_at,
                who.read_at,
                who.undeliverable_reason,
            ),
            "events": sa.select(
                said.page_id,
                said.event_key,
                said.kind,
                said.contact_id,
                said.event_at,
                said.state,
                said.error,
            ),
            "tokens": sa.select(
                given.contact_id, given.topic_id, given.token_hash, given.payload, given.opted_in_at
            ),
            "pages": sa.select(page_table.c.page_id, page_table.c.paused_reason, page_table.c.blocked_reason),
            "audit": sa.select(audit.c.action, audit.c.subject),
        }
        names = {"contact_id": psids, "topic_id": topic_names}
        return {
            what: sorted(
                str([names[key].get(value) if key in names else value for key, value in row.items()])
                for row in tx.execute(query).mappings()
            )
            for what, query in queries.items()
        }


def test_many_at_once_come_to_the_same_as_one_by_one(
    store: Store, make: Any, vault: Vault, now: datetime, empty: Callable[[Store], Store]
) -> None:
    def record(several: list[list[Event]]) -> tuple[list[Any], dict[str, list[Any]]]:
        empty(store)
        make.topic("restock-*")
        with store.begin() as tx:
            contacts.request_erasure(tx, make_in(tx, "forgotten", now).id, now)
            contacts.mark_undeliverable(tx, make_in(tx, "8", now).id, "blocked")
        outcomes = []
        for events in several:
            sealed = intake.seal(vault, events)
            with store.begin() as tx:
                outcomes += intake.record(tx, vault, sealed, own_pages={"1001", "2002"}, now=now)
        return [(one.state, one.is_new, one.contact_id is None) for one in outcomes], what_is_kept(store)

    told = everything_that_can_happen(now)
    one_by_one = record([[event] for event in told])
    assert record([told]) == one_by_one
    assert record([told[:7], told[7:]]) == one_by_one
    assert len(one_by_one[1]["tokens"]) == 5
    again = record([told, told])
    assert [is_new for _state, is_new, _waits in again[0][len(told) :]] == [False] * len(told)
    assert again[1] == one_by_one[1]


def make_in(tx: Tx, psid: str, now: datetime) -> Contact:
    pages.ensure(tx, "1001", now)
    return contacts.ensure(tx, "1001", psid, now)


async def test_what_the_database_cannot_take_costs_its_neighbours_nothing(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    make.topic()
    good = [event_of(optin(f"t{number}", "otn:restock"), now, psid=f"p{number}") for number in range(50)]
    bad = replace(good[0], key="bad", payload="half a character: \ud83d", psid="stranger")
    writer = GroupWriter(store)
    outcomes = await writer.run_all(
        lambda tx, events: intake.record(tx, vault, events, own_pages={"1001"}, now=now),
        intake.seal(vault, [*good[:20], bad, *good[20:]]),
    )
    await writer.close()
    assert isinstance(outcomes.pop(20), UnicodeEncodeError)
    assert all(isinstance(one, intake.Recorded) and one.is_new for one in outcomes)
    assert [count(store, table) for table in (inbound_event, contact, otn_token)] == [50] * 3


def test_fifty_opt_ins_cost_no_more_statements_than_five(
    store: Store, make: Any, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.topic()
    stored = _Select.stored  # what a Lookup runs is told to no listener

    def statements_for(many: int) -> int:
        seen: list[str] = []

        def see(*told: Any) -> None:
            seen.append(str(told))

        events = [event_of(optin(f"{many} {each}"), now, psid=f"{many} {each}") for each in range(many)]
        sa.event.listen(store.engine, "before_cursor_execute", see)
        monkeypatch.setattr(_Select, "stored", lambda select, values: see(select) or stored(select, values))
        with store.begin() as tx:
            intake.record(tx, make.vault, intake.seal(make.vault, events), own_pages={"1001"}, now=now)
        sa.event.remove(store.engine, "before_cursor_execute", see)
        return len(seen)

    statements_for(1)  # the first of all makes the page
    assert statements_for(50) == statements_for(5) < 15


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
        (contacts, "ensure_all"),
        (inbox, "record"),
        (topics, "use"),
        (requests, "went_to"),
        (tokens, "keep"),
    ]
    optin = {"type": "one_time_notif_req", "payload": "otn:restock:1", "one_time_notif_token": "the token"}
    event = event_of({"optin": optin}, now)

    def record() -> None:
        with store.begin() as tx:
            intake.record(tx, vault, intake.seal(vault, [event]), own_pages={"1001"}, now=now)

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
            intake.record(tx, vault, intake.seal(vault, [event]), own_pages={"1001"}, now=now)
            claim = turns.claim(tx, person_in(tx).id, "a", 60, now)
            assert claim
            assert claim.row
            assert replace(intake.reread(vault, claim.row), raw=event.raw) == replace(event, token=None)
            turns.end(tx, claim.row, person_in(tx).id, "a", InboxState.DONE, now)


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
    assert pause_of(found, now) == ("Meta blocked the page: spam", None, True)
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
    assert page_is_paused(found, now) is blocked


@pytest.mark.parametrize("hours", [8, None])
@pytest.mark.parametrize("first", ["block", "pause"])
def test_a_block_and_an_operator_s_pause_do_not_end_each_other(
    store: Store, make: Any, now: datetime, hours: int | None, first: str
) -> None:
    make.contact()
    until = now + hours * HOUR if hours else None

    def pause() -> None:
        with store.begin() as tx:
            assert pages.pause(tx, "1001", "wrong price", until)

    def standing() -> tuple[Any, ...] | None:
        found = page(store)
        assert found is not None
        return pause_of(found, now)

    if first == "pause":
        pause()
    enforce(make, "block", now - HOUR)
    if first == "block":
        pause()
    assert standing() == ("Meta blocked the page: spam", None, True)
    enforce(make, "unblock", now)
    assert standing() == ("wrong price", until, False)


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
