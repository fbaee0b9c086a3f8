"""Asking for a permission: allowed by the rules, recorded before it is sent, never twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from otn import asking
from otn.errors import NotFound, OutcomeUnknown, Refusal, Refused, SendError, Throttled, Unreachable
from otn.graph.protocol import Sent
from otn.messages import REQUEST_PAYLOAD
from otn.models import AskAttempt, Contact, Page, RequestState, TokenState
from otn.policy import Deny, Reason
from otn.store import Store, Tx, contacts, pages, topics
from otn.store.schema import permission_request

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
YES = Sent(message_id="m_1", recipient_id="7007")


def no(refusal: Refusal) -> Refused:
    return Refused(refusal, code=613, subcode=None, detail="no")


def ask(
    store: Store, at: datetime, key: str = "turn:ask:1", topic: str = "restock"
) -> AskAttempt | Deny | None:
    with store.begin() as tx:
        return asking.begin(tx, page_id="1001", psid="7007", topic=topic, dedupe_key=key, now=at)


def asked(store: Store, at: datetime, key: str = "turn:ask:1", topic: str = "restock") -> AskAttempt:
    attempt = ask(store, at, key, topic)
    assert isinstance(attempt, AskAttempt)
    return attempt


def refused(store: Store, at: datetime, key: str = "turn:ask:1", topic: str = "restock") -> Reason:
    denied = ask(store, at, key, topic)
    assert isinstance(denied, Deny)
    return denied.reason


def settle(store: Store, attempt: AskAttempt, outcome: Sent | SendError, at: datetime) -> RequestState:
    with store.begin() as tx:
        return asking.settle(tx, attempt, outcome, at)


def foretold(store: Store, at: datetime, topic: str = "restock", psid: str = "7007") -> str:
    with store.read() as tx:
        decision = asking.decide(tx, psid=psid, topic=topic, now=at)
    assert decision.sentence.endswith(".")
    return decision.word


def person(store: Store) -> Contact:
    with store.read() as tx:
        found = contacts.find(tx, "1001", "7007")
        assert found is not None
        return found


def page(store: Store) -> Page:
    with store.read() as tx:
        found = pages.find(tx, "1001")
        assert found is not None
        return found


def states(store: Store) -> list[str]:
    with store.read() as tx:
        query = sa.select(permission_request.c.state).order_by(permission_request.c.id)
        return list(tx.execute(query).scalars())


# --- the payload ---


def test_the_payload_brings_topic_and_request_back() -> None:
    payload = asking.payload_of("a" * 64, 10**17)
    assert asking.topic_in(payload) == ("a" * 64, 10**17)
    assert asking.topic_in("otn:restock") == ("restock", None)
    assert len(payload) <= REQUEST_PAYLOAD
    for other in (None, "", "otn:", "otn:x:", "otn:X", "OTN:x", "otn:x:1 ", "otn:x\n", "restock", "otn:-x"):
        assert asking.topic_in(other) is None


# --- decisions ---


def test_a_request_is_recorded_before_it_leaves_and_carries_its_own_number(
    store: Store, make: Any, now: datetime
) -> None:
    make.in_window()
    topic = make.topic()
    assert foretold(store, now) == "asked"
    attempt = asked(store, now)
    assert (attempt.page_id, attempt.psid, attempt.topic, attempt.title) == (
        "1001",
        "7007",
        "restock",
        topic.title,
    )
    assert attempt.payload == f"otn:restock:{attempt.request_id}"
    assert attempt.wire_id.startswith("otn:")
    assert states(store) == ["sending"]
    assert settle(store, attempt, YES, now) is RequestState.SENT
    assert states(store) == ["sent"]


def test_every_decision_has_the_word_that_stories_branch_on(store: Store, make: Any, now: datetime) -> None:
    make.topic()
    assert foretold(store, now, topic="nothing") == "unknown_topic"
    assert foretold(store, now) == "window_closed"  # a stranger
    contact = make.in_window()
    assert foretold(store, now) == "asked"
    assert foretold(store, now + DAY) == "window_closed"
    asked(store, now)
    assert foretold(store, now + HOUR) == "too_soon"
    with store.begin() as tx:
        pages.pause(tx, "1001", "by hand", None)
    assert foretold(store, now) == "page_paused"
    with store.begin() as tx:
        pages.resume(tx, "1001")
    make.token(contact, make.topic())
    assert foretold(store, now + HOUR) == "already_permitted"
    for mark in (
        lambda tx: contacts.mark_undeliverable(tx, contact.id, "blocked"),
        lambda tx: contacts.request_erasure(tx, contact.id, now),
    ):
        with store.begin() as tx:
            mark(tx)
        assert foretold(store, now) == "window_closed"
    with store.begin() as tx:
        topics.archive(tx, "restock", now)
    assert foretold(store, now) == "unknown_topic"


def test_several_pages_that_know_a_psid_must_be_told_apart(store: Store, make: Any, now: datetime) -> None:
    make.topic()
    make.in_window()
    make.in_window(page_id="2002")
    with store.read() as tx:
        assert asking.decide(tx, psid="7007", topic="restock", now=now, page_id="2002").word == "asked"
        with pytest.raises(NotFound):
            asking.decide(tx, psid="7007", topic="restock", now=now)


def test_what_the_rules_forbid_is_not_recorded_as_asked(store: Store, make: Any, now: datetime) -> None:
    make.out_of_window()
    make.topic()
    assert refused(store, now) is Reason.WINDOW_CLOSED
    assert states(store) == []
    make.says()
    assert isinstance(ask(store, now), AskAttempt)  # the key has not asked yet


def test_the_least_interval_is_per_topic_and_the_cap_per_person(
    store: Store, make: Any, now: datetime
) -> None:
    make.in_window()
    make.topic("restock-*", weekly_cap=3)
    for number in range(3):
        settle(store, asked(store, now, f"k{number}", f"restock-{number}"), YES, now)
    assert refused(store, now, "k9", "restock-0") is Reason.TOO_SOON
    assert refused(store, now, "k9", "restock-9") is Reason.TOO_SOON
    later = now + 7 * DAY
    make.says(at=later, arrives=later)
    assert isinstance(ask(store, later, "k9", "restock-9"), AskAttempt)


def test_a_family_s_topic_comes_to_be_when_it_is_asked_for(store: Store, make: Any, now: datetime) -> None:
    make.in_window()
    make.topic("restock-*", title="Back in stock")
    assert foretold(store, now, "restock-blue") == "asked"
    assert asked(store, now, topic="restock-blue").title == "Back in stock"


# --- once ---


def test_a_key_asks_once_whatever_became_of_it(store: Store, make: Any, now: datetime) -> None:
    make.in_window()
    make.topic(min_interval=timedelta(0), weekly_cap=100)
    for number, outcome in enumerate(
        (None, YES, OutcomeUnknown("lost"), no(Refusal.BAD_REQUEST), Unreachable("down"))
    ):
        attempt = asked(store, now, f"k{number}")
        if outcome is not None:
            settle(store, attempt, outcome, now)
        assert ask(store, now, f"k{number}") is None
    assert states(store) == ["sending", "sent", "unknown", "refused", "refused"]


def test_the_same_turn_run_twice_at_once_asks_once(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    make.in_window()
    make.topic()

    def begin(tx: Tx) -> Any:
        return asking.begin(tx, page_id="1001", psid="7007", topic="restock", dedupe_key="k", now=now)

    begun = at_once(begin, begin, begin)
    assert sorted(str(type(one).__name__) for one in begun) == ["AskAttempt", "NoneType", "NoneType"]


def test_two_turns_at_once_ask_once(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    make.in_window()
    make.topic()

    def begin(key: str) -> Callable[[Tx], Any]:
        return lambda tx: asking.begin(
            tx, page_id="1001", psid="7007", topic="restock", dedupe_key=key, now=now
        )

    begun = at_once(begin("one"), begin("two"))
    assert sorted(str(type(one).__name__) for one in begun) == ["AskAttempt", "Deny"]


def test_a_question_that_may_have_been_asked_counts_as_asked(store: Store, make: Any, now: datetime) -> None:
    make.in_window()
    make.topic()
    asked(store, now, "crashed")  # and nobody ever settled it
    assert refused(store, now + HOUR, "next") is Reason.TOO_SOON
    make.says(at=now + DAY, arrives=now + DAY)
    settle(store, asked(store, now + DAY, "lost"), OutcomeUnknown("lost"), now + DAY)
    assert refused(store, now + DAY + HOUR, "another") is Reason.TOO_SOON


def test_a_question_that_meta_refused_does_not_count(store: Store, make: Any, now: datetime) -> None:
    make.in_window()
    make.topic()
    for number, outcome in enumerate((no(Refusal.BAD_REQUEST), Unreachable("down"))):
        settle(store, asked(store, now, f"k{number}"), outcome, now)
    assert foretold(store, now) == "asked"


# --- what Meta says ---


def test_too_many_requests_stops_asking_this_person_and_nobody_else(
    store: Store, make: Any, now: datetime
) -> None:
    make.in_window()
    make.in_window("8008")
    make.topic()
    make.topic("other")
    attempt = asked(store, now)
    assert settle(store, attempt, no(Refusal.TOO_MANY_REQUESTS), now) is RequestState.REFUSED
    assert refused(store, now + HOUR, "k", "other") is Reason.TOO_SOON
    assert foretold(store, now, psid="8008") == "asked"
    assert page(store).paused_reason is None
    make.says(at=now + DAY, arrives=now + DAY)
    assert refused(store, now + DAY - SECOND, "k", "other") is Reason.TOO_SOON
    assert isinstance(ask(store, now + DAY, "k", "other"), AskAttempt)


def test_a_page_that_may_not_ask_goes_on_talking(store: Store, make: Any, now: datetime) -> None:
    make.in_window()
    make.topic()
    settle(store, asked(store, now), no(Refusal.PERMISSION_MISSING), now)
    assert refused(store, now, "k") is Reason.PAGE_PAUSED
    assert page(store).otn_denied_reason
    assert page(store).paused_reason is None
    with store.begin() as tx:
        pages.resume(tx, "1001")
    assert isinstance(ask(store, now, "k"), AskAttempt)


@pytest.mark.parametrize("opened_since", [False, True])
def test_a_window_that_meta_calls_closed_is_closed_unless_it_opened_since(
    store: Store, make: Any, now: datetime, opened_since: bool
) -> None:
    make.in_window()
    make.topic()
    attempt = asked(store, now)
    if opened_since:
        make.says(at=now + SECOND, arrives=now + SECOND)
    settle(store, attempt, no(Refusal.OUTSIDE_WINDOW), now + 2 * SECOND)
    until = now + SECOND + DAY if opened_since else now + 2 * SECOND
    assert person(store).window_until == until


def test_other_answers_affect_page_and_person_as_for_any_message(
    store: Store, make: Any, now: datetime
) -> None:
    make.in_window()
    make.topic()
    settle(store, asked(store, now), Throttled(60.0, code=613), now)
    assert page(store).paused_until == now + timedelta(seconds=60)
    settle(store, asked(store, now + timedelta(seconds=60), "k"), no(Refusal.PERSON_UNAVAILABLE), now + HOUR)
    assert person(store).undeliverable_reason


@pytest.mark.parametrize("outcome", [OutcomeUnknown("lost"), no(Refusal.BAD_REQUEST)])
def test_an_echo_proves_a_request_before_the_answer_and_after_it(
    store: Store, make: Any, now: datetime, outcome: SendError
) -> None:
    make.in_window()
    make.topic(min_interval=timedelta(0))
    early, late = asked(store, now, "early"), asked(store, now, "late")
    make.echoes(early.wire_id, "m_early")
    assert settle(store, early, outcome, now) is RequestState.SENT
    settle(store, late, outcome, now)
    make.echoes(late.wire_id, "m_other", psid="8008")
    assert states(store)[1] != "sent"
    make.echoes(late.wire_id, "m_late")
    assert states(store) == ["sent", "sent"]


# --- what somebody agreed to ---


def test_agreements_are_the_unused_permissions_by_topic(store: Store, make: Any, now: datetime) -> None:
    with store.read() as tx:
        assert asking.agreements(tx, psid="7007", now=now) == []
    contact, restock, offers = make.contact(), make.topic(), make.topic("offers", title="Offers")
    for opted_in_at in (now - DAY, now - 3 * DAY):
        make.token(contact, restock, opted_in_at=opted_in_at)
    make.token(contact, offers)
    make.token(contact, offers, opted_in_at=now - 365 * DAY)
    make.token(contact, offers, state=TokenState.USED)
    make.token(contact, None)
    with store.read() as tx:
        found = asking.agreements(tx, psid="7007", now=now)
    assert [(one.topic, one.title, one.available, one.soonest_expiry) for one in found] == [
        ("offers", "Offers", 1, now + 363 * DAY),
        ("restock", "Back in stock", 2, now + 362 * DAY),
    ]
