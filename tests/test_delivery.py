"""begin and settle: decided once, sent once, and every answer of Meta leads somewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from otn import delivery
from otn.delivery import Order, Settled
from otn.errors import OutcomeUnknown, Refusal, Refused, SendError, Throttled, Unreachable
from otn.graph.protocol import Sent
from otn.models import Attempt, Contact, Delivery, DeliveryState, Origin, Page, Route, TokenState
from otn.policy import MAX_TRIES, Allow, Deny, Reason
from otn.store import Store, Tx, contacts, deliveries, pages, tokens, topics
from otn.store.schema import delivery as table
from otn.store.schema import metadata, otn_token
from otn.vault import Vault

SECOND, HOUR, DAY, YEAR = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1), timedelta(days=365)
QUEUED, SENDING, SENT, REFUSED, SKIPPED, UNKNOWN, UNCONFIRMED = DeliveryState
YES = Sent(message_id="m_1", recipient_id=None)
NOBODY_KNOWS = OutcomeUnknown("time-out")


def no(refusal: Refusal, code: int = 100, subcode: int | None = None) -> Refused:
    return Refused(refusal, code=code, subcode=subcode, detail="no")


@dataclass
class Desk:
    """Takes orders and carries them out, each step in a transaction of its own, as callers do."""

    store: Store
    vault: Vault
    now: datetime

    def order(self, key: str = "k", psid: str = "7007", topic: str | None = "restock", **more: Any) -> Order:
        values: dict[str, Any] = {"message": {"text": "It is back"}, "origin": Origin.CLI, **more}
        return Order(page_id="1001", psid=psid, topic=topic, dedupe_key=key, **values)

    def begin(self, key: str = "k", **more: Any) -> Attempt | Deny | Delivery:
        with self.store.begin() as tx:
            return delivery.begin(tx, self.vault, self.order(key, **more), self.now)

    def start(self, key: str = "k", **more: Any) -> Attempt:
        begun = self.begin(key, **more)
        assert isinstance(begun, Attempt)
        return begun

    def settle(self, attempt: Attempt, outcome: Sent | SendError) -> Settled:
        with self.store.begin() as tx:
            return delivery.settle(tx, attempt, outcome, self.now)

    def resume(self, delivery_id: int) -> Attempt | Deny | None:
        with self.store.begin() as tx:
            return delivery.resume(tx, self.vault, delivery_id, self.now)

    def retry(self, delivery_id: int) -> Attempt:
        resumed = self.resume(delivery_id)
        assert isinstance(resumed, Attempt)
        return resumed

    def lapse(self, attempt: Attempt) -> None:
        """The process that sent it is dead, and its lease is over."""
        with self.store.begin() as tx:
            tx.execute(table.update().where(table.c.id == attempt.delivery_id).values(lease_until=1.0))
            deliveries.lapse_leases(tx, self.now)

    def look(self, delivery_id: int) -> Delivery:
        with self.store.read() as tx:
            return deliveries.get(tx, delivery_id)

    def token_states(self) -> list[str]:
        with self.store.read() as tx:
            return list(tx.execute(sa.select(otn_token.c.state).order_by(otn_token.c.id)).scalars())

    def page(self) -> Page:
        with self.store.read() as tx:
            found = pages.find(tx, "1001")
            assert found is not None
            return found

    def contact(self, psid: str = "7007") -> Contact:
        with self.store.read() as tx:
            found = contacts.find(tx, "1001", psid)
            assert found is not None
            return found


@pytest.fixture
def desk(store: Store, vault: Vault, now: datetime) -> Desk:
    return Desk(store, vault, now)


@pytest.fixture
def agreed(make: Any) -> list[int]:
    """Somebody who wrote two days ago and gave two permissions; the second lapses first."""
    contact, topic = make.out_of_window(), make.topic()
    later = make.token(contact, topic, secret="later")
    sooner = make.token(contact, topic, secret="sooner", opted_in_at=make.now - 300 * DAY)
    return [later, sooner]


# --- deciding ---


def test_inside_the_window_it_goes_by_psid_and_the_token_stays(desk: Desk, make: Any) -> None:
    make.token(make.in_window(), make.topic())
    attempt = desk.start(notification_type="SILENT_PUSH")
    assert attempt.route is Route.WINDOW
    assert (attempt.recipient, attempt.messaging_type, attempt.tag) == ({"id": "7007"}, "UPDATE", None)
    assert attempt.message == {"text": "It is back", "metadata": attempt.wire_id}
    assert attempt.notification_type == "SILENT_PUSH"
    assert desk.look(attempt.delivery_id).state is SENDING
    settled = desk.settle(attempt, YES)
    assert (settled.delivery.state, settled.delivery.message_id, settled.again_at) == (SENT, "m_1", None)
    assert desk.token_states() == ["available"]


def test_outside_the_window_the_token_that_lapses_first_pays(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start()
    assert attempt.route is Route.TOKEN
    assert attempt.recipient == {"one_time_notif_token": "sooner"}
    assert (attempt.messaging_type, attempt.tag) == (None, None)
    assert desk.token_states() == ["available", "reserved"]
    settled = desk.settle(attempt, YES)
    assert settled.delivery.token_id == agreed[1]
    assert desk.token_states() == ["available", "used"]
    with desk.store.read() as tx:
        assert tokens.sealed(tx, agreed[1])[0] is None


def test_a_person_s_own_words_carry_the_tag_and_no_token(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start(human_agent=True, origin=Origin.CONSOLE)
    assert attempt.route is Route.HUMAN_AGENT
    assert (attempt.recipient, attempt.messaging_type, attempt.tag) == (
        {"id": "7007"},
        "MESSAGE_TAG",
        "HUMAN_AGENT",
    )
    assert desk.token_states() == ["available", "available"]


def test_neither_token_nor_words_show_in_a_repr(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start()
    for shown in (repr(attempt), repr(desk.look(attempt.delivery_id)), repr(desk.vault), repr(desk.store)):
        assert "sooner" not in shown
        assert "It is back" not in shown


def test_a_refusal_of_the_rules_is_on_record_with_word_and_sentence(desk: Desk, make: Any) -> None:
    make.out_of_window()
    make.topic()
    denied = desk.begin()
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.NO_TOKEN
    recorded = desk.begin()
    assert isinstance(recorded, Delivery)
    assert (recorded.state, recorded.reason, recorded.error) == (SKIPPED, "no_token", denied.sentence)


def test_a_key_that_was_decided_is_never_decided_again(desk: Desk, make: Any) -> None:
    contact, topic = make.out_of_window(), make.topic()
    assert isinstance(desk.begin("refused"), Deny)
    make.token(contact, topic)
    attempt = desk.start("sent")
    desk.settle(attempt, YES)
    make.token(contact, topic)
    make.says()
    for key, state in (("refused", SKIPPED), ("sent", SENT)):
        again = desk.begin(key)
        assert isinstance(again, Delivery)
        assert again.state is state
    assert desk.resume(attempt.delivery_id) is None


def test_strangers_and_unknown_topics_get_a_reason(desk: Desk, make: Any) -> None:
    unknown = desk.begin()
    assert isinstance(unknown, Deny)
    assert unknown.reason is Reason.UNKNOWN_CONTACT
    make.in_window()
    unknown = desk.begin(topic="nothing")
    assert isinstance(unknown, Deny)
    assert unknown.reason is Reason.UNKNOWN_TOPIC


def test_a_family_s_topic_is_made_by_its_first_follow_up(desk: Desk, make: Any) -> None:
    make.in_window()
    make.topic("restock-*")
    assert desk.start(topic="restock-blue").route is Route.WINDOW
    with desk.store.read() as tx:
        decision = delivery.decide(tx, psid="7007", topic="restock-red", now=desk.now)
    assert isinstance(decision, Allow)
    assert isinstance(desk.begin("family", topic="restock-*"), Deny)


def test_what_is_foretold_is_what_happens(desk: Desk, make: Any, agreed: list[int]) -> None:
    for key in ("first", "second", "third"):
        with desk.store.read() as tx:
            foretold = delivery.decide(tx, psid="7007", topic="restock", now=desk.now)
        begun = desk.begin(key)
        if isinstance(begun, Attempt):
            assert isinstance(foretold, Allow)
            recorded = desk.look(begun.delivery_id)
            assert (foretold.route, foretold.rule) == (begun.route, recorded.rule)
            desk.settle(begun, YES)
        else:
            assert foretold == begun
    assert desk.token_states() == ["used", "used"]


def test_the_same_wish_twice_at_once_is_one_message(
    desk: Desk, agreed: list[int], at_once: Callable[..., list[Any]]
) -> None:
    def begin(tx: Tx) -> Any:
        return delivery.begin(tx, desk.vault, desk.order(), desk.now)

    begun = at_once(begin, begin, begin)
    assert sorted(type(one).__name__ for one in begun) == ["Attempt", "Delivery", "Delivery"]
    assert sorted(desk.token_states()) == ["available", "reserved"]


def test_two_wishes_at_once_never_share_a_token(
    desk: Desk, make: Any, agreed: list[int], at_once: Callable[..., list[Any]]
) -> None:
    wishes = [
        lambda tx, key=f"k{number}": delivery.begin(tx, desk.vault, desk.order(key), desk.now)
        for number in range(4)
    ]
    begun = at_once(*wishes)
    attempts = [one for one in begun if isinstance(one, Attempt)]
    denied = [one for one in begun if isinstance(one, Deny)]
    assert {one.recipient["one_time_notif_token"] for one in attempts} == {"sooner", "later"}
    assert [one.reason for one in denied] == [Reason.TOKEN_RESERVED] * 2


# --- settling ---


@pytest.mark.parametrize("refusal", Refusal)
def test_a_refused_token_is_free_again_unless_the_token_itself_may_be_meant(
    desk: Desk, agreed: list[int], refusal: Refusal
) -> None:
    settled = desk.settle(desk.start(), no(refusal))
    suspect = refusal in (Refusal.BAD_REQUEST, Refusal.OUTSIDE_WINDOW)
    assert desk.token_states() == ["available", "suspect" if suspect else "available"]
    assert (settled.delivery.state, settled.again_at) == (REFUSED, None)
    assert settled.delivery.reason == refusal.value
    assert (settled.delivery.error_code, settled.delivery.error_subcode) == (100, None)
    assert settled.delivery.error


def test_a_window_that_meta_calls_closed_is_decided_once_more_and_a_token_pays(desk: Desk, make: Any) -> None:
    make.token(make.in_window(), make.topic(), secret="token")
    first = desk.start()
    settled = desk.settle(first, no(Refusal.OUTSIDE_WINDOW, 10, 2018278))
    assert (settled.delivery.state, settled.again_at) == (QUEUED, desk.now)
    assert desk.contact().window_until == desk.now
    second = desk.retry(first.delivery_id)
    assert second.recipient == {"one_time_notif_token": "token"}
    assert second.wire_id == first.wire_id
    assert desk.settle(second, YES).delivery.state is SENT


def test_without_a_token_the_second_decision_says_so(desk: Desk, make: Any) -> None:
    make.in_window()
    make.topic()
    first = desk.start()
    desk.settle(first, no(Refusal.OUTSIDE_WINDOW, 10, 2018278))
    denied = desk.resume(first.delivery_id)
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.NO_TOKEN
    assert desk.look(first.delivery_id).state is SKIPPED


def test_a_window_that_opened_again_meanwhile_is_believed_once(desk: Desk, make: Any) -> None:
    make.in_window()
    make.topic()
    first = desk.start()
    make.says(at=desk.now + SECOND, arrives=desk.now + SECOND)
    desk.now += 2 * SECOND
    desk.settle(first, no(Refusal.OUTSIDE_WINDOW, 10, 2018278))
    second = desk.retry(first.delivery_id)
    assert second.route is Route.WINDOW
    assert desk.settle(second, no(Refusal.OUTSIDE_WINDOW, 10, 2018278)).delivery.state is REFUSED


def test_what_never_left_us_is_decided_anew_each_time_and_given_up_in_the_end(
    desk: Desk, make: Any, agreed: list[int]
) -> None:
    attempt = desk.start()
    for tried in range(1, MAX_TRIES):
        settled = desk.settle(attempt, Unreachable("refused"))
        assert settled.delivery.state is QUEUED
        assert settled.again_at is not None
        assert desk.token_states() == ["available", "available"]
        desk.now = settled.again_at
        with desk.store.read() as tx:
            assert deliveries.due(tx, desk.now - SECOND) == []
            assert deliveries.due(tx, desk.now) == [attempt.delivery_id]
        attempt = desk.retry(attempt.delivery_id)
        assert desk.look(attempt.delivery_id).attempts == tried + 1
    settled = desk.settle(attempt, Unreachable("refused"))
    assert (settled.delivery.state, settled.again_at) == (REFUSED, None)
    assert desk.token_states() == ["available", "available"]


def test_a_retry_goes_by_the_window_if_it_opened_meanwhile(desk: Desk, make: Any, agreed: list[int]) -> None:
    attempt = desk.start()
    desk.settle(attempt, Unreachable("refused"))
    make.says()
    desk.now += HOUR
    again = desk.retry(attempt.delivery_id)
    assert again.route is Route.WINDOW
    desk.settle(again, YES)
    assert desk.token_states() == ["available", "available"]


def test_when_meta_limits_us_the_page_rests_and_what_waited_goes_on_after_it(
    desk: Desk, agreed: list[int]
) -> None:
    attempt = desk.start()
    settled = desk.settle(attempt, Throttled(60.0, code=613))
    assert settled.again_at == desk.now + timedelta(seconds=60)
    assert desk.page().paused_until == settled.again_at
    early = desk.begin("early")
    assert isinstance(early, Deny)
    assert early.reason is Reason.PAGE_PAUSED
    assert desk.resume(attempt.delivery_id) is None
    assert desk.look(attempt.delivery_id).state is QUEUED
    desk.now += timedelta(seconds=60)
    assert desk.settle(desk.retry(attempt.delivery_id), YES).delivery.state is SENT


def test_what_waits_goes_on_when_somebody_resumes_the_page(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start()
    desk.settle(attempt, Unreachable("refused"))
    with desk.store.begin() as tx:
        pages.pause(tx, "1001", "paused by hand", None)
    desk.now += HOUR
    assert desk.resume(attempt.delivery_id) is None
    found = desk.look(attempt.delivery_id)
    assert (found.state, found.next_attempt_at) == (QUEUED, desk.now + delivery.PAUSED_PAUSE)
    assert desk.token_states() == ["available", "available"]
    with desk.store.begin() as tx:
        pages.resume(tx, "1001")
    desk.now += delivery.PAUSED_PAUSE
    assert desk.settle(desk.retry(attempt.delivery_id), YES).delivery.state is SENT


@pytest.mark.parametrize(
    ("error", "paused", "unreachable"),
    [
        (no(Refusal.BAD_ACCESS_TOKEN, 190), True, False),
        (no(Refusal.PERMISSION_MISSING, 10), True, False),
        (no(Refusal.PAGE_RESTRICTED, 368), True, False),
        (no(Refusal.PERSON_UNAVAILABLE, 551), False, True),
        (no(Refusal.NO_SUCH_PERSON, 100, 2018001), False, True),
        (no(Refusal.BAD_REQUEST), False, False),
        (NOBODY_KNOWS, False, False),
        (Unreachable("refused"), False, False),
    ],
)
def test_some_answers_are_about_the_page_or_the_person(
    desk: Desk, agreed: list[int], error: SendError, paused: bool, unreachable: bool
) -> None:
    desk.settle(desk.start(), error)
    assert (desk.page().paused_reason is not None) is paused
    assert (desk.contact().undeliverable_reason is not None) is unreachable


def test_a_missing_human_agent_permission_leaves_the_page_alone(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start(human_agent=True)
    assert desk.settle(attempt, no(Refusal.PERMISSION_MISSING, 10)).delivery.state is REFUSED
    assert desk.page().paused_reason is None


# --- when the answer got lost ---


def test_a_lost_answer_is_asked_for_with_the_same_token_and_no_other(
    desk: Desk, make: Any, agreed: list[int]
) -> None:
    attempt = desk.start()
    for _ in range(4):
        settled = desk.settle(attempt, NOBODY_KNOWS)
        assert settled.delivery.state is UNKNOWN
        assert settled.again_at is not None
        desk.now = settled.again_at
        make.says(at=desk.now, arrives=desk.now)  # not even an open window changes the route
        again = desk.retry(attempt.delivery_id)
        assert again.recipient == attempt.recipient
        assert again.wire_id == attempt.wire_id
        attempt = again
    assert desk.token_states() == ["available", "reserved"]
    assert desk.settle(attempt, YES).delivery.state is SENT
    assert desk.token_states() == ["available", "used"]


def test_a_void_token_after_a_lost_answer_proves_nothing_by_itself(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start()
    desk.settle(attempt, NOBODY_KNOWS)
    settled = desk.settle(desk.retry(attempt.delivery_id), no(Refusal.BAD_REQUEST))
    assert (settled.delivery.state, settled.again_at) == (UNCONFIRMED, None)
    assert desk.token_states() == ["available", "suspect"]
    assert desk.resume(attempt.delivery_id) is None


@pytest.mark.parametrize(
    ("refusal", "proof"),
    [
        (Refusal.BAD_REQUEST, True),
        (Refusal.OUTSIDE_WINDOW, True),
        (Refusal.BAD_MEDIA, False),  # the message is at fault
        (Refusal.PERSON_UNAVAILABLE, False),  # they blocked us: before or after, nobody knows
        (Refusal.NO_SUCH_PERSON, False),
    ],
)
def test_a_void_token_proves_arrival_only_if_the_same_message_was_accepted_for_somebody_else(
    desk: Desk, make: Any, agreed: list[int], refusal: Refusal, proof: bool
) -> None:
    make.in_window("8008")
    desk.settle(desk.start("other", psid="8008"), YES)
    attempt = desk.start()
    desk.settle(attempt, NOBODY_KNOWS)
    settled = desk.settle(desk.retry(attempt.delivery_id), no(refusal))
    assert settled.delivery.state is (SENT if proof else UNCONFIRMED)
    assert desk.token_states() == ["available", "used" if proof else "suspect"]


def test_the_same_message_to_the_same_person_proves_nothing(desk: Desk, agreed: list[int]) -> None:
    desk.settle(desk.start("earlier"), YES)
    attempt = desk.start()
    desk.settle(attempt, NOBODY_KNOWS)
    settled = desk.settle(desk.retry(attempt.delivery_id), no(Refusal.BAD_REQUEST))
    assert settled.delivery.state is UNCONFIRMED


def test_a_passing_refusal_after_a_lost_answer_keeps_asking(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start()
    desk.settle(attempt, NOBODY_KNOWS)
    settled = desk.settle(desk.retry(attempt.delivery_id), no(Refusal.CANNOT_RECEIVE_NOW, 10, 2018108))
    assert settled.delivery.state is UNKNOWN
    assert settled.again_at == desk.now + HOUR
    assert desk.token_states() == ["available", "reserved"]


def test_asking_again_waits_while_the_page_is_paused(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start()
    desk.settle(attempt, NOBODY_KNOWS)
    with desk.store.begin() as tx:
        pages.pause(tx, "1001", "paused by hand", None)
    assert desk.resume(attempt.delivery_id) is None
    found = desk.look(attempt.delivery_id)
    assert (found.state, found.next_attempt_at) == (UNKNOWN, desk.now + delivery.PAUSED_PAUSE)


def test_asking_again_ends_when_the_token_lapses(desk: Desk, agreed: list[int]) -> None:
    attempt = desk.start()
    desk.settle(attempt, NOBODY_KNOWS)
    desk.now += 65 * DAY - SECOND
    desk.settle(desk.retry(attempt.delivery_id), NOBODY_KNOWS)
    desk.now += SECOND
    assert desk.resume(attempt.delivery_id) is None
    assert desk.look(attempt.delivery_id).state is UNCONFIRMED
    assert desk.token_states() == ["available", "suspect"]
    with desk.store.begin() as tx:
        assert tokens.destroy_lapsed(tx, desk.now) == 1


def test_a_message_by_psid_is_not_repeated_and_waits_for_its_echo(desk: Desk, make: Any) -> None:
    make.in_window()
    make.topic()
    attempt = desk.start()
    settled = desk.settle(attempt, NOBODY_KNOWS)
    assert (settled.delivery.state, settled.again_at) == (UNKNOWN, None)
    assert desk.resume(attempt.delivery_id) is None
    make.echoes(attempt.wire_id, "m_9")
    found = desk.look(attempt.delivery_id)
    assert (found.state, found.message_id, found.reason) == (SENT, "m_9", None)


# --- when a process dies, and when answers come late ---


def test_before_the_commit_nothing_has_happened(desk: Desk, agreed: list[int]) -> None:
    def begin_and_die() -> None:
        with desk.store.begin() as tx:
            delivery.begin(tx, desk.vault, desk.order(), desk.now)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_and_die()
    assert desk.token_states() == ["available", "available"]
    assert desk.start().route is Route.TOKEN


def rows(desk: Desk) -> list[tuple[Any, ...]]:
    with desk.store.read() as tx:
        return [tuple(row) for one in metadata.sorted_tables for row in tx.execute(sa.select(one))]


def dies_after(patch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    whole = getattr(module, name)

    def dying(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        raise KeyboardInterrupt

    patch.setattr(module, name, dying)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (deliveries, "by_key"),
        (contacts, "lock"),
        (topics, "use"),
        (deliveries, "add"),
        (tokens, "count"),
        (tokens, "reserve_soonest"),
        (tokens, "sealed"),
        (deliveries, "start"),
    ],
)
def test_a_death_between_any_two_steps_of_begin_leaves_no_trace(
    desk: Desk, agreed: list[int], monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    before = rows(desk)
    with monkeypatch.context() as patch:
        dies_after(patch, module, name)
        with pytest.raises(KeyboardInterrupt):
            desk.begin()
    assert rows(desk) == before
    assert desk.settle(desk.start(), YES).delivery.state is SENT


@pytest.mark.parametrize(
    ("outcome", "module", "name", "end"),
    [
        (YES, deliveries, "settle_sent", UNCONFIRMED),
        (YES, tokens, "use_up", UNCONFIRMED),
        (no(Refusal.BAD_REQUEST), deliveries, "settle", UNCONFIRMED),
        (no(Refusal.BAD_REQUEST), tokens, "move", UNCONFIRMED),
        (Throttled(60.0, code=4), pages, "pause", SENT),
        (no(Refusal.PERSON_UNAVAILABLE, 551), contacts, "mark_undeliverable", SENT),
    ],
)
def test_a_death_between_any_two_steps_of_settle_leaves_the_doubt_to_be_settled(
    desk: Desk,
    agreed: list[int],
    monkeypatch: pytest.MonkeyPatch,
    outcome: Sent | SendError,
    module: Any,
    name: str,
    end: DeliveryState,
) -> None:
    attempt = desk.start()
    before = rows(desk)
    with monkeypatch.context() as patch:
        dies_after(patch, module, name)
        with pytest.raises(KeyboardInterrupt):
            desk.settle(attempt, outcome)
    assert rows(desk) == before
    desk.lapse(attempt)
    again = desk.retry(attempt.delivery_id)
    assert again.recipient == attempt.recipient
    # The same token again: refused if it arrived or was void, else accepted.
    settled = desk.settle(again, YES if end is SENT else no(Refusal.BAD_REQUEST))
    assert settled.delivery.state is end
    assert "reserved" not in desk.token_states()


def test_after_the_commit_the_message_may_be_out_and_only_its_token_can_tell(
    desk: Desk, agreed: list[int]
) -> None:
    attempt = desk.start()
    desk.lapse(attempt)
    assert desk.look(attempt.delivery_id).state is UNKNOWN
    assert isinstance(desk.begin(), Delivery)  # the wish, said again, changes nothing
    again = desk.retry(attempt.delivery_id)
    assert again.recipient == attempt.recipient
    settled = desk.settle(again, no(Refusal.BAD_REQUEST))
    assert settled.delivery.state is UNCONFIRMED


def test_a_death_while_sending_by_psid_leaves_the_message_to_its_echo(desk: Desk, make: Any) -> None:
    make.in_window()
    make.topic()
    attempt = desk.start()
    desk.lapse(attempt)
    assert desk.resume(attempt.delivery_id) is None
    with desk.store.begin() as tx:
        assert deliveries.give_up_unconfirmed(tx, desk.now + DAY) == 1
    make.echoes(attempt.wire_id, arrives=desk.now + 2 * DAY)
    assert desk.look(attempt.delivery_id).state is SENT


@pytest.mark.parametrize("answer", [no(Refusal.BAD_REQUEST), Unreachable("refused"), NOBODY_KNOWS])
def test_an_old_attempt_s_late_answer_never_undoes_a_newer_one(
    desk: Desk, agreed: list[int], answer: SendError
) -> None:
    old = desk.start()
    desk.lapse(old)
    new = desk.retry(old.delivery_id)
    assert desk.settle(old, answer).delivery.state is SENDING
    assert desk.token_states() == ["available", "reserved"]
    assert desk.settle(new, YES).delivery.state is SENT
    assert desk.settle(old, answer).delivery.state is SENT
    assert desk.token_states() == ["available", "used"]


def test_a_late_yes_wins_over_everything_that_was_believed_since(desk: Desk, agreed: list[int]) -> None:
    old = desk.start()
    desk.lapse(old)
    new = desk.retry(old.delivery_id)
    assert desk.settle(new, no(Refusal.BAD_REQUEST)).delivery.state is UNCONFIRMED
    assert desk.settle(old, YES).delivery.state is SENT
    assert desk.token_states() == ["available", "used"]


@pytest.mark.parametrize(
    ("answer", "state", "token"),
    [
        (no(Refusal.BAD_REQUEST), REFUSED, "suspect"),
        (no(Refusal.BAD_MEDIA), REFUSED, "available"),
        (Unreachable("refused"), QUEUED, "available"),
    ],
)
def test_the_only_attempt_s_answer_is_definite_even_if_it_comes_after_the_lease(
    desk: Desk, make: Any, agreed: list[int], answer: SendError, state: DeliveryState, token: str
) -> None:
    make.in_window("8008")
    desk.settle(desk.start("other", psid="8008"), YES)  # which would be proof if there were a doubt
    attempt = desk.start()
    desk.lapse(attempt)
    assert desk.settle(attempt, answer).delivery.state is state
    assert desk.token_states() == ["available", token]


@pytest.mark.parametrize("answer", [no(Refusal.BAD_REQUEST), Throttled(60.0, code=4), NOBODY_KNOWS])
def test_an_echo_proves_the_message_and_spends_the_token_whatever_meta_answered(
    desk: Desk, make: Any, agreed: list[int], answer: SendError
) -> None:
    attempt = desk.start()
    desk.settle(attempt, answer)
    make.echoes(attempt.wire_id)
    assert desk.look(attempt.delivery_id).state is SENT
    assert desk.token_states() == ["available", "used"]
    assert desk.resume(attempt.delivery_id) is None


def test_an_echo_may_come_before_the_answer(desk: Desk, make: Any, agreed: list[int]) -> None:
    attempt = desk.start()
    make.echoes(attempt.wire_id)
    for answer in (YES, no(Refusal.BAD_REQUEST), NOBODY_KNOWS):
        assert desk.settle(attempt, answer).delivery.state is SENT
    assert desk.token_states() == ["available", "used"]


def test_an_echo_about_somebody_else_settles_nothing(desk: Desk, make: Any, agreed: list[int]) -> None:
    attempt = desk.start()
    make.echoes(attempt.wire_id, psid="8008")
    make.echoes(attempt.wire_id, page_id="2002")
    make.echoes("otn:nothing of ours")
    make.echoes("what another app wrote")
    assert desk.look(attempt.delivery_id).state is SENDING


# --- people who go ---


def test_nobody_is_asked_for_who_can_t_be_reached_any_more(desk: Desk, agreed: list[int]) -> None:
    unknown, refused = desk.start("unknown"), desk.start("refused")
    desk.settle(unknown, NOBODY_KNOWS)
    desk.settle(refused, no(Refusal.PERSON_UNAVAILABLE, 551))
    assert desk.resume(unknown.delivery_id) is None
    assert desk.look(unknown.delivery_id).state is UNCONFIRMED
    assert sorted(desk.token_states()) == ["available", "suspect"]


def test_a_person_who_asked_to_be_forgotten_gets_nothing_more(
    desk: Desk, make: Any, agreed: list[int]
) -> None:
    unknown, queued = desk.start("unknown"), desk.start("queued")
    desk.settle(unknown, NOBODY_KNOWS)
    desk.settle(queued, Unreachable("refused"))
    with desk.store.begin() as tx:
        contacts.request_erasure(tx, desk.contact().id, desk.now)
    assert desk.resume(unknown.delivery_id) is None
    assert desk.look(unknown.delivery_id).state is UNCONFIRMED
    denied = desk.resume(queued.delivery_id)
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.ERASED
    new = desk.begin("new")
    assert isinstance(new, Deny)
    assert new.reason is Reason.ERASED


# --- ordinary replies ---


def record_unsent(desk: Desk, why: Deny | SendError, wire_id: str = "otn:reply", **more: Any) -> None:
    with desk.store.begin() as tx:
        delivery.record_unsent_reply(
            tx,
            page_id="1001",
            psid="7007",
            message={"text": "Hello"},
            wire_id=wire_id,
            why=why,
            now=desk.now,
            **more,
        )


def test_a_reply_may_go_out_in_the_window_only(desk: Desk, make: Any) -> None:
    with desk.store.read() as tx:
        assert isinstance(delivery.may_say(tx, page_id="1001", psid="7007", now=desk.now), Deny)
    make.in_window()
    with desk.store.read() as tx:
        assert isinstance(delivery.may_say(tx, page_id="1001", psid="7007", now=desk.now), Allow)
        assert isinstance(delivery.may_say(tx, page_id="1001", psid="7007", now=desk.now + DAY), Deny)


@pytest.mark.parametrize(
    ("why", "state", "reason"),
    [
        (Deny(reason=Reason.WINDOW_CLOSED, sentence="Closed."), SKIPPED, "window_closed"),
        (no(Refusal.BAD_REQUEST), REFUSED, "bad_request"),
        (no(Refusal.OUTSIDE_WINDOW, 10, 2018278), REFUSED, "outside_window"),
        (Unreachable("refused"), REFUSED, "unreachable"),
        (Throttled(5.0, code=4), REFUSED, "throttled"),
        (NOBODY_KNOWS, UNKNOWN, "outcome_unknown"),
    ],
)
def test_an_unsent_reply_is_on_record_with_its_reason_and_without_its_words(
    desk: Desk, make: Any, why: Deny | SendError, state: DeliveryState, reason: str
) -> None:
    contact = make.in_window()
    record_unsent(desk, why)
    with desk.store.read() as tx:
        (found,) = deliveries.recent(tx, contact.id)
        assert deliveries.due(tx, desk.now + 2 * YEAR) == []
    assert (found.state, found.reason, found.message, found.origin) == (state, reason, None, Origin.REPLY)
    assert found.error
    closed = isinstance(why, Refused) and why.refusal is Refusal.OUTSIDE_WINDOW
    assert (desk.contact().window_until == desk.now) is closed


def test_a_reply_in_doubt_is_settled_by_its_echo(desk: Desk, make: Any) -> None:
    contact = make.in_window()
    record_unsent(desk, NOBODY_KNOWS)
    make.echoes("otn:reply")
    with desk.store.read() as tx:
        (found,) = deliveries.recent(tx, contact.id)
        assert deliveries.unnoted(tx, contact.id) == []
    assert found.state is SENT


def test_a_reply_refused_as_late_leaves_a_window_alone_that_opened_after_it_was_sent(
    desk: Desk, make: Any
) -> None:
    make.in_window()
    record_unsent(desk, no(Refusal.OUTSIDE_WINDOW, 10, 2018278), sent_at=desk.now - 2 * HOUR)
    assert desk.contact().window_until == desk.now + 23 * HOUR


def test_every_settled_delivery_says_why(desk: Desk, make: Any, agreed: list[int]) -> None:
    answers = [YES, NOBODY_KNOWS, no(Refusal.BAD_REQUEST), Unreachable("x"), Throttled(1.0, code=4)]
    make.in_window("8008")
    for number, answer in enumerate(answers):
        for psid in ("7007", "8008"):
            begun = desk.begin(f"{psid}:{number}", psid=psid)
            if isinstance(begun, Attempt):
                desk.settle(begun, answer)
    with desk.store.read() as tx:
        rows = tx.execute(sa.select(table.c.state, table.c.reason, table.c.rule, table.c.error)).all()
    assert len(rows) == 2 * len(answers)
    for row in rows:
        assert row.rule if row.state == "sent" else row.reason and row.error


def test_a_token_in_use_by_a_live_delivery_is_reserved(desk: Desk, agreed: list[int]) -> None:
    desk.start("one")
    desk.settle(desk.start("two"), NOBODY_KNOWS)
    denied = desk.begin("three")
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.TOKEN_RESERVED
    assert desk.token_states() == [TokenState.RESERVED.value] * 2
