"""Forgetting a person: nothing of them stays, nobody loses what they gave afterwards."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import Make

from otn import asking, delivery, people, privacy, remembering
from otn.delivery import Order
from otn.errors import OutcomeUnknown, Unreachable
from otn.events import Event, parse
from otn.graph.protocol import Sent
from otn.intake import record_broken
from otn.models import AskAttempt, Attempt, Contact, DeliveryState, InboxState, Origin, TokenState
from otn.policy import Deny, Reason
from otn.store import Store, audit, contacts, deliveries, tokens
from otn.store.schema import delivery as delivery_table
from otn.store.schema import inbound_event, metadata, otn_token
from otn.vault import Vault

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
SECRET, WORDS, FOLLOW_UP, NAME, MID = "t0ken-secret", "my-own-words", "follow-up-words", "Grace", "m_private"


def follow_up(store: Store, vault: Vault, now: datetime, key: str = "k") -> Any:
    with store.begin() as tx:
        order = Order(
            page_id="1001",
            psid="7007",
            topic="restock",
            message={"text": FOLLOW_UP},
            dedupe_key=key,
            origin=Origin.CLI,
        )
        return delivery.begin(tx, vault, order, now)


def attempt_of(store: Store, vault: Vault, now: datetime, key: str = "k") -> Attempt:
    begun = follow_up(store, vault, now, key)
    assert isinstance(begun, Attempt)
    return begun


def settle(store: Store, attempt: Attempt, outcome: Any, now: datetime) -> DeliveryState:
    with store.begin() as tx:
        return delivery.settle(tx, attempt, outcome, now).delivery.state


def mark(store: Store, contact: Contact, at: datetime) -> None:
    with store.begin() as tx:
        privacy.request_erasure(tx, contact, who="ada", now=at)


def erase(store: Store, contact: Contact, at: datetime) -> bool:
    with store.begin() as tx:
        return privacy.erase(tx, contact.id, at)


def forget(store: Store, contact: Contact, at: datetime) -> None:
    mark(store, contact, at)
    assert erase(store, contact, at)


def look(store: Store, contact: Contact) -> Contact:
    with store.read() as tx:
        return contacts.get(tx, contact.id)


def everything(store: Store, vault: Vault) -> str:
    """All that the database holds, with what is sealed opened."""
    found: list[str] = []
    with store.read() as tx:
        for table in metadata.sorted_tables:
            for row in tx.execute(sa.select(table)):
                for value in row:
                    if isinstance(value, bytes):
                        value = vault.open(value).decode()
                    found.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return "\n".join(found)


def live(store: Store, vault: Vault, make: Any, now: datetime) -> Contact:
    """A life with the bot: chat, profile, tokens, requests and deliveries in every state."""
    contact: Contact = make.in_window()
    topic = make.topic(ask_while_available=True)
    make.says(WORDS, at=now - HOUR)
    make.receive({"optin": {"ref": WORDS}}, at=now - HOUR)
    make.taps(f"{WORDS}-payload", SECRET, at=now - HOUR)
    make.token(contact, topic, secret=f"{SECRET}-2")
    make.token(contact, topic, secret=f"{SECRET}-3", state=TokenState.SUSPECT)
    with store.begin() as tx:
        profile = {
            "first_name": NAME,
            "last_name": NAME,
            "locale": "fr_FR",
            "timezone": "Europe/Paris",
            "do_not_ask_until": now,
        }
        tx.execute(metadata.tables["contact"].update().values(**profile))
        facts, _notes = remembering.read({"city": f"{NAME}-city"}, [f"{NAME}-tag"])
        remembering.remember(tx, contact.id, facts)
        asked = asking.begin(tx, page_id="1001", psid="7007", topic="restock", dedupe_key="ask", now=now)
        assert isinstance(asked, AskAttempt)
        asking.settle(tx, asked, Sent(message_id=MID, recipient_id=None), now)
    outcomes = [Sent(message_id=MID, recipient_id=None), OutcomeUnknown(WORDS), Unreachable(WORDS)]
    for number, outcome in enumerate(outcomes):
        settle(store, attempt_of(store, vault, now, f"window {number}"), outcome, now)
    with store.begin() as tx:
        contacts.close_window(tx, contact.id, now)
    settle(store, attempt_of(store, vault, now, "token"), OutcomeUnknown(WORDS), now)
    follow_up(store, vault, now, "denied")
    with store.begin() as tx:
        delivery.record_unsent_reply(
            tx,
            page_id="1001",
            psid="7007",
            message={"text": WORDS},
            wire_id="otn:reply",
            why=Deny(reason=Reason.WINDOW_CLOSED, sentence=WORDS),
            now=now,
        )
    return contact


def test_neither_words_nor_tokens_nor_profile_stay_in_any_column(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    contact = live(store, vault, make, now)
    planted = (SECRET, WORDS, FOLLOW_UP, NAME, MID, "fr_FR", "Europe/Paris")
    before = everything(store, vault)
    assert all(word in before for word in planted)
    forget(store, contact, now)
    after = everything(store, vault)
    assert [word for word in planted if word in after] == []


def test_sums_and_keys_survive_an_erasure(store: Store, make: Any, vault: Vault, now: datetime) -> None:
    contact = live(store, vault, make, now)
    with store.read() as tx:
        before = {row.dedupe_key: row.state for row in tx.execute(sa.select(delivery_table))}
    forget(store, contact, now)
    with store.read() as tx:
        after = {row.dedupe_key: row.state for row in tx.execute(sa.select(delivery_table))}
    ended = {"queued": "skipped", "unknown": "unconfirmed"}
    assert after == {key: ended.get(state, state) for key, state in before.items()}
    make.taps("otn:restock", SECRET)  # the same token, told again long after
    with store.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(otn_token)).scalar_one() == 3


def test_from_the_mark_on_nothing_new_is_sent(store: Store, make: Any, vault: Vault, now: datetime) -> None:
    contact = live(store, vault, make, now)
    mark(store, contact, now)
    make.says(at=now + SECOND, arrives=now + SECOND)
    for moment in (now, now + SECOND):
        with store.read() as tx:
            said = delivery.may_say(tx, page_id="1001", psid="7007", now=moment)
        begun = follow_up(store, vault, moment, f"at {moment}")
        assert isinstance(said, Deny)
        assert isinstance(begun, Deny)
        assert (said.reason, begun.reason) == (Reason.ERASED, Reason.ERASED)
    with store.read() as tx:
        assert asking.decide(tx, psid="7007", topic="restock", now=now).word == "window_closed"


def test_a_message_on_its_way_delays_the_erasure(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    contact = make.out_of_window()
    make.token(contact, make.topic(), secret=SECRET)
    attempt = attempt_of(store, vault, now)
    mark(store, contact, now)
    assert not erase(store, contact, now)
    assert SECRET in everything(store, vault)
    settle(store, attempt, Sent(message_id=MID, recipient_id=None), now)
    assert erase(store, contact, now)
    assert SECRET not in everything(store, vault)


def test_a_dead_sender_delays_it_only_for_its_lease_and_the_truth_may_come_later(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    contact = make.out_of_window()
    make.token(contact, make.topic(), secret=SECRET)
    attempt = attempt_of(store, vault, now)
    with store.begin() as tx:
        tx.execute(delivery_table.update().values(lease_until=1.0))
    forget(store, contact, now)
    with store.read() as tx:
        assert deliveries.get(tx, attempt.delivery_id).state is DeliveryState.UNCONFIRMED
    assert settle(store, attempt, Unreachable("down"), now) is DeliveryState.UNCONFIRMED
    assert settle(store, attempt, Sent(message_id=None, recipient_id=None), now) is DeliveryState.SENT
    with store.read() as tx:
        assert tx.execute(sa.select(otn_token.c.state)).scalar_one() == "used"
        assert deliveries.unnoted(tx, contact.id) == []


def test_events_from_before_the_wish_do_not_bring_a_person_back(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.in_window()
    make.topic()
    for erased in (False, True):
        if erased:
            assert erase(store, contact, now + HOUR)
        else:
            mark(store, contact, now)
        recorded = [
            *make.says(WORDS, at=now - SECOND, arrives=now + 2 * HOUR),
            *make.says(WORDS, at=now, arrives=now + 2 * HOUR),
            *make.taps(token=SECRET, at=now - SECOND, arrives=now + 2 * HOUR),
        ]
        assert {(one.state, one.is_new, one.contact_id) for one in recorded} == {
            (InboxState.IGNORED, False, None)
        }
    with store.read() as tx:
        for table in (inbound_event, otn_token):
            assert tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 0
    assert look(store, contact).window_until is None


def test_an_event_that_comes_in_during_the_erasure_does_not_slip_past_it(
    postgresql_store: Store, vault: Vault, now: datetime
) -> None:
    make = Make(postgresql_store, vault, now)
    contact = make.in_window()
    make.topic()
    with ThreadPoolExecutor(1) as pool:
        with postgresql_store.begin() as tx:
            privacy.request_erasure(tx, contact, who="ada", now=now)
            assert privacy.erase(tx, contact.id, now)
            tapping = pool.submit(make.taps, token=SECRET, at=now - HOUR)
            while not tapping.done() and not somebody_waits_for_a_lock(postgresql_store):
                pass
        (recorded,) = tapping.result(10)
    assert recorded.state is InboxState.IGNORED
    assert SECRET not in everything(postgresql_store, vault)


def somebody_waits_for_a_lock(store: Store) -> bool:
    with store.read() as tx:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return bool(tx.execute(sa.text(waiting)).scalar_one())


@pytest.mark.parametrize("when", ["before it was carried out", "after it was carried out"])
def test_what_a_person_does_after_the_wish_is_kept(store: Store, make: Any, now: datetime, when: str) -> None:
    contact = make.contact(wrote_at=now - 2 * DAY, opened_by="ad")
    topic = make.topic()
    make.token(contact, topic, secret="old")
    mark(store, contact, now)
    if when.startswith("after"):
        assert erase(store, contact, now)
    later = now + SECOND
    make.says("hello again", at=later, arrives=later)
    make.taps(token="new", at=later, arrives=later)
    if when.startswith("before"):
        assert erase(store, contact, now + HOUR)
    found = look(store, contact)
    assert found.erase_requested_at is None
    assert found.erased_at == now
    assert found.last_message_at == later
    assert found.window_until is not None
    assert found.window_until > now + HOUR
    with store.read() as tx:
        assert tokens.count(tx, contact.id, topic.id, now).available == 1
        assert tx.execute(sa.select(sa.func.count()).select_from(inbound_event)).scalar_one() == 2


def test_asking_twice_forgets_everything_up_to_the_second_time(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    contact = make.in_window()
    make.topic()
    mark(store, contact, now)
    make.says(WORDS, at=now + SECOND, arrives=now + SECOND)
    make.taps(token=SECRET, at=now + SECOND, arrives=now + SECOND)
    forget(store, contact, now + HOUR)
    assert WORDS not in everything(store, vault)
    assert SECRET not in everything(store, vault)


def test_without_a_wish_nothing_is_erased_and_twice_is_as_good_as_once(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    contact = live(store, vault, make, now)
    before = everything(store, vault)
    assert erase(store, contact, now)
    assert everything(store, vault) == before
    forget(store, contact, now)
    first = everything(store, vault)
    assert erase(store, contact, now + DAY)
    assert everything(store, vault) == first


def test_nobody_else_is_touched(store: Store, make: Any, vault: Vault, now: datetime) -> None:
    contact = make.in_window()
    other, topic = make.in_window("8008"), make.topic()
    make.says("somebody else's words", psid="8008", at=now - HOUR)
    token = make.token(other, topic, secret="theirs")
    forget(store, contact, now)
    shown = everything(store, vault)
    assert "somebody else's words" in shown
    assert "theirs" in shown
    with store.read() as tx:
        assert tokens.every(tx, psid="8008")[0].id == token
    assert look(store, other) == other


def test_an_erasure_is_all_or_nothing(
    store: Store, make: Any, vault: Vault, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    contact = live(store, vault, make, now)
    mark(store, contact, now)
    before = everything(store, vault)
    for module, name in (
        (privacy.deliveries, "erase"),
        (privacy.tokens, "erase"),
        (privacy.requests, "erase"),
        (privacy.inbox, "erase"),
        (privacy.contacts, "erase"),
    ):
        whole = getattr(module, name)

        def dies(*args: Any, whole: Any = whole) -> None:
            whole(*args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dies)
            with pytest.raises(KeyboardInterrupt):
                erase(store, contact, now)
        assert everything(store, vault) == before
    with store.read() as tx:
        assert [one.id for one in contacts.to_erase(tx)] == [contact.id]
    assert erase(store, contact, now)


# --- all of it handed out ---


def test_what_is_kept_on_a_person_is_handed_out_without_secrets(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    contact = live(store, vault, make, now)
    with store.begin() as tx:
        people.change(tx, contact.id, people.read({"size": "42"}, ["vip"])[0], who="ada", now=now)
        audit.record(tx, who="ada", action="contact.change", subject="contact 99", now=now)
    make.token(make.contact("8008"), None, secret="somebody else's")
    with store.begin() as tx:
        broken = record_broken(tx, vault, opt_in(now), "boom", now)
    assert broken.state is InboxState.BROKEN
    found = handed_out(store, vault, contact, now)
    shown = json.dumps(found, default=str)
    assert SECRET not in shown
    assert "8008" not in shown
    assert all(word in shown for word in (WORDS, FOLLOW_UP, NAME, MID, "fr_FR", "Europe/Paris"))
    assert "vip" in found["tags"]
    assert found["attributes"]["size"] == "42"
    assert [each["details"] for each in found["changes"]] == [{"attributes": ["size"], "tags": 1}]
    assert [each["topic"] for each in found["permission_requests"]] == ["restock"]
    with store.read() as tx:
        rows = tx.execute(sa.select(sa.func.count()).select_from(inbound_event)).scalar_one()
        sent = tx.execute(sa.select(sa.func.count()).select_from(delivery_table)).scalar_one()
    assert (len(found["events"]), len(found["deliveries"])) == (rows, sent)


def test_of_who_was_forgotten_there_is_nothing_to_hand_out(
    store: Store, make: Any, vault: Vault, now: datetime
) -> None:
    contact = live(store, vault, make, now)
    with store.begin() as tx:
        people.change(tx, contact.id, people.read({"size": WORDS}, [NAME])[0], who="ada", now=now)
    forget(store, contact, now)
    shown = json.dumps(handed_out(store, vault, look(store, contact), now), default=str)
    planted = (SECRET, WORDS, FOLLOW_UP, NAME, MID, "fr_FR", "Europe/Paris")
    assert [word for word in planted if word in shown] == []


def handed_out(store: Store, vault: Vault, contact: Contact, now: datetime) -> dict[str, Any]:
    with store.read() as tx:
        return privacy.export(tx, vault, contacts.get(tx, contact.id), now)


def opt_in(now: datetime) -> Event:
    """Somebody agrees, and what tells so cannot be recorded."""
    optin = {"type": "one_time_notif_req", "one_time_notif_token": f"{SECRET}-4", "payload": "otn:restock"}
    item = {"sender": {"id": "7007"}, "recipient": {"id": "1001"}, "timestamp": int(now.timestamp() * 1000)}
    body = {"object": "page", "entry": [{"id": "1001", "messaging": [{**item, "optin": optin}]}]}
    (event,) = parse(json.dumps(body).encode(), now)
    return event
