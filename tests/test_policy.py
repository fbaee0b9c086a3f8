"""The law, at every boundary to the second, and what each answer of Meta leads to."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from otn.errors import OutcomeUnknown, Refusal, Refused, SendError, Throttled, Unreachable
from otn.events import WindowOpening
from otn.graph.protocol import classify, lost
from otn.models import AskingHistory, Contact, Page, Route, TokenCount, TokenState, Topic
from otn.policy import (
    MAX_ASKED,
    MAX_TRIES,
    Allow,
    Deny,
    Fate,
    Reaction,
    Reason,
    backoff,
    choose_route,
    may_ask,
    may_reply,
    page_is_paused,
    pause_for,
    react,
    token_expiry,
    undeliverable_for,
    window_until,
)

NOW = datetime(2026, 10, 1, 12, 0, tzinfo=timezone.utc)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
OPEN = {"window_until": NOW + HOUR}
CLOSED = {"window_until": NOW - HOUR}
ONE = TokenCount(available=1)


def person(**facts: Any) -> Contact:
    return Contact(id=1, page_id="1001", psid="7007", first_name="Grace", **facts)


def page(**facts: Any) -> Page:
    return Page(page_id="1001", **facts)


def topic(**facts: Any) -> Topic:
    return Topic(id=1, name="restock", title="Back in stock", kind="restock", **facts)


def asking(
    contact: Contact | None = None,
    of: Topic | None = None,
    on: Page | None = None,
    tokens: TokenCount | None = None,
    **history: Any,
) -> str:
    """`yes`, or the word of the reason, for a person whose window is open unless told otherwise."""
    return word(
        may_ask(
            contact or person(**OPEN),
            on or page(),
            of or topic(),
            tokens or TokenCount(),
            AskingHistory(**history),
            NOW,
        )
    )


def routing(contact: Contact | None, tokens: TokenCount = ONE, on: Page | None = None, **how: Any) -> str:
    return word(choose_route(contact, on or page(), tokens, NOW, **how))


def word(decision: Allow | Deny) -> str:
    return "yes" if isinstance(decision, Allow) else decision.reason.value


# --- windows and lives ---


@pytest.mark.parametrize(
    ("opening", "length"),
    [*((opening, DAY) for opening in WindowOpening if opening is not WindowOpening.AD), ("ad", 7 * DAY)],
)
def test_the_window_is_open_to_the_last_second_and_closed_after_it(opening: str, length: timedelta) -> None:
    contact = person(window_until=window_until(WindowOpening(opening), NOW))
    end = NOW + length
    assert word(may_reply(contact, page(), NOW)) == "yes"
    assert word(may_reply(contact, page(), end - SECOND)) == "yes"
    assert word(may_reply(contact, page(), end)) == "window_closed"
    assert word(may_reply(contact, page(), end + SECOND)) == "window_closed"


def test_a_window_that_was_never_open_is_closed_and_the_sentence_says_so() -> None:
    refused = may_reply(person(), page(), NOW)
    assert isinstance(refused, Deny)
    assert refused.reason is Reason.WINDOW_CLOSED
    assert "never open" in refused.sentence


def test_a_token_lives_365_days() -> None:
    assert token_expiry(NOW) == NOW + 365 * DAY


@pytest.mark.parametrize(
    ("after", "answer"),
    [(7 * DAY - SECOND, "yes"), (7 * DAY, "window_closed"), (7 * DAY + SECOND, "window_closed")],
)
def test_a_person_may_write_by_hand_for_seven_days_after_the_last_message(
    after: timedelta, answer: str
) -> None:
    contact = person(last_message_at=NOW - after, **CLOSED)
    decision = choose_route(contact, page(), TokenCount(), NOW, human_agent=True)
    assert word(decision) == answer
    if isinstance(decision, Allow):
        assert decision.route is Route.HUMAN_AGENT


def test_nothing_automatic_ever_takes_the_human_agents_way() -> None:
    contact = person(last_message_at=NOW - 2 * DAY, **CLOSED)
    assert routing(contact, TokenCount()) == "no_token"
    assert routing(person(**CLOSED), ONE, human_agent=True) == "window_closed"


@pytest.mark.parametrize(
    ("pause", "paused"),
    [
        ({}, False),
        ({"paused_until": NOW + HOUR}, False),  # an end without a reason is no pause
        ({"paused_reason": "by hand"}, True),
        ({"paused_reason": "throttled", "paused_until": NOW + SECOND}, True),
        ({"paused_reason": "throttled", "paused_until": NOW}, False),
        ({"paused_reason": "throttled", "paused_until": NOW - SECOND}, False),
        ({"blocked_reason": "spam"}, True),
        ({"blocked_reason": "spam", "paused_reason": "throttled", "paused_until": NOW - SECOND}, True),
    ],
)
def test_a_pause_ends_at_its_end_and_not_before(pause: dict[str, Any], paused: bool) -> None:
    assert page_is_paused(page(**pause), NOW) is paused
    assert (word(may_reply(person(**OPEN), page(**pause), NOW)) == "page_paused") is paused


# --- asking ---


def test_asking_is_allowed_in_the_window_and_never_outside() -> None:
    assert asking() == "yes"
    assert asking(person(window_until=NOW + SECOND)) == "yes"
    assert asking(person(window_until=NOW)) == "window_closed"
    assert asking(person()) == "window_closed"


@pytest.mark.parametrize(
    ("ago", "answer"), [(24 * HOUR - SECOND, "too_soon"), (24 * HOUR, "yes"), (24 * HOUR + SECOND, "yes")]
)
def test_a_topic_is_asked_for_again_after_its_least_interval(ago: timedelta, answer: str) -> None:
    assert asking(last_asked_at=NOW - ago) == answer


def test_a_topic_may_have_no_least_interval() -> None:
    assert asking(of=topic(min_interval=timedelta(0)), last_asked_at=NOW) == "yes"


@pytest.mark.parametrize(("asked", "answer"), [(4, "yes"), (5, "too_soon"), (6, "too_soon")])
def test_the_weekly_cap_is_the_most_that_one_person_is_asked(asked: int, answer: str) -> None:
    assert asking(asked_this_week=asked) == answer


@pytest.mark.parametrize(
    ("until", "answer"), [(NOW + SECOND, "too_soon"), (NOW, "yes"), (NOW - SECOND, "yes")]
)
def test_meta_s_too_many_requests_is_obeyed_to_its_end(until: datetime, answer: str) -> None:
    assert asking(person(do_not_ask_until=until, **OPEN)) == answer


def test_who_agreed_already_is_not_asked_unless_the_topic_says_so() -> None:
    assert asking(tokens=ONE) == "already_permitted"
    assert asking(of=topic(ask_while_available=True), tokens=ONE) == "yes"
    for spent in (TokenCount(used=1), TokenCount(expired=1), TokenCount(suspect=1), TokenCount(invalid=1)):
        assert asking(tokens=spent) == "yes"


def test_a_page_that_may_not_use_the_feature_asks_nobody_and_still_talks() -> None:
    denied = page(otn_denied_reason="no permission (10)")
    assert asking(on=denied) == "page_paused"
    assert word(may_reply(person(**OPEN), denied, NOW)) == "yes"


def test_an_archived_or_missing_topic_is_unknown() -> None:
    assert asking(of=topic(archived_at=NOW)) == "unknown_topic"
    decision = may_ask(person(**OPEN), page(), None, TokenCount(), AskingHistory(), NOW)
    assert word(decision) == "unknown_topic"


# --- the route of a follow-up ---


def test_inside_the_window_no_token_is_spent() -> None:
    for tokens in (TokenCount(), ONE, TokenCount(used=3)):
        decision = choose_route(person(**OPEN), page(), tokens, NOW)
        assert isinstance(decision, Allow)
        assert decision.route is Route.WINDOW


def test_outside_the_window_a_token_pays() -> None:
    decision = choose_route(person(**CLOSED), page(), ONE, NOW)
    assert isinstance(decision, Allow)
    assert decision.route is Route.TOKEN


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (TokenCount(), "no_token"),
        (TokenCount(invalid=1), "no_token"),
        (TokenCount(expired=1), "token_expired"),
        (TokenCount(used=1, expired=1), "token_used"),
        (TokenCount(suspect=1, used=1), "token_suspect"),
        (TokenCount(reserved=1, suspect=1, used=1), "token_reserved"),
    ],
)
def test_outside_the_window_without_a_token_the_reason_says_which_is_missing(
    tokens: TokenCount, reason: str
) -> None:
    assert routing(person(**CLOSED), tokens) == reason


@pytest.mark.parametrize(
    ("contact", "on", "reason"),
    [
        (None, {}, "unknown_contact"),
        ({"erase_requested_at": NOW}, {}, "erased"),
        ({"undeliverable_reason": "blocked us"}, {}, "undeliverable"),
        ({}, {"paused_reason": "by hand"}, "page_paused"),
        ({}, {"blocked_reason": "Meta blocked the page: spam"}, "page_paused"),
    ],
)
def test_some_people_and_pages_get_nothing_by_any_way(
    contact: dict[str, Any] | None, on: dict[str, Any], reason: str
) -> None:
    who = None if contact is None else person(last_message_at=NOW, **contact, **OPEN)
    assert word(may_reply(who, page(**on), NOW)) == reason
    assert routing(who, ONE, page(**on)) == reason
    assert routing(who, ONE, page(**on), human_agent=True) == reason
    decision = may_ask(who, page(**on), topic(), TokenCount(), AskingHistory(), NOW)
    assert word(decision) == reason


def test_every_decision_is_a_sentence_that_names_nobody() -> None:
    contacts = [None, person(), person(**OPEN), person(**CLOSED), person(do_not_ask_until=NOW + DAY, **OPEN)]
    contacts += [
        person(erase_requested_at=NOW),
        person(undeliverable_reason="blocked"),
        person(last_message_at=NOW),
    ]
    pages = [
        page(),
        page(paused_reason="by hand"),
        page(blocked_reason="spam"),
        page(paused_reason="throttled", paused_until=NOW + HOUR),
    ]
    counts = [
        TokenCount(**{state: 1})
        for state in ("available", "reserved", "used", "suspect", "invalid", "expired")
    ]
    histories = [AskingHistory(), AskingHistory(last_asked_at=NOW), AskingHistory(asked_this_week=9)]
    decisions = [may_reply(contact, on, NOW) for contact in contacts for on in pages]
    for contact in contacts:
        for on in [*pages, page(otn_denied_reason="not allowed")]:
            for tokens in counts:
                for human in (True, False):
                    decisions.append(choose_route(contact, on, tokens, NOW, human_agent=human))
                for history in histories:
                    decisions.append(may_ask(contact, on, topic(), tokens, history, NOW))
    decisions.append(may_ask(person(**OPEN), page(), None, TokenCount(), AskingHistory(), NOW))
    for decision in decisions:
        sentence = decision.rule if isinstance(decision, Allow) else decision.sentence
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert not any(name in sentence for name in ("7007", "1001", "Grace", "None"))
    found = {decision.reason for decision in decisions if isinstance(decision, Deny)}
    said_elsewhere = {  # by the channel, by what is wrong with a message, by a broadcast's plan
        Reason.NOT_MESSENGER,
        Reason.NOT_ONE_MESSAGE,
        Reason.FILTERED,
        Reason.MISSED_TIME,
        Reason.CANCELLED,
    }
    assert found == set(Reason) - said_elsewhere


# --- what Meta's answers lead to: section 4 of the platform notes, row by row ---

FINAL = (Fate.REFUSED, None)
RELEASED = (Fate.REFUSED, TokenState.AVAILABLE)
DOUBTED = (Fate.REFUSED, TokenState.SUSPECT)
SAME_TOKEN_AGAIN = (Fate.UNKNOWN, TokenState.RESERVED)
GIVEN_UP = (Fate.UNCONFIRMED, TokenState.SUSPECT)
MAYBE = (Fate.UNKNOWN, None)
LATER = (Fate.RETRY, None)
LATER_RELEASED = (Fate.RETRY, TokenState.AVAILABLE)

# code, subcode: by psid, by token, by token after an attempt that may have arrived
TABLE: dict[tuple[int, int | None], tuple[Any, Any, Any]] = {
    **dict.fromkeys([(1, None), (2, None), (341, None)], (MAYBE, SAME_TOKEN_AGAIN, SAME_TOKEN_AGAIN)),
    (1, 1357046): (MAYBE, SAME_TOKEN_AGAIN, SAME_TOKEN_AGAIN),
    **dict.fromkeys(
        [(code, None) for code in (4, 17, 32, 613, 80001, 80006)] + [(613, 2534040), (613, 1996)],
        (LATER, LATER_RELEASED, SAME_TOKEN_AGAIN),
    ),
    **dict.fromkeys(
        [(613, 1893016), (9, 2018352), (10, 1404170), (4, 2018354)], (FINAL, RELEASED, SAME_TOKEN_AGAIN)
    ),
    **dict.fromkeys([(10, 2018278), (10, 2018065)], ((Fate.DECIDE_AGAIN, None), DOUBTED, GIVEN_UP)),
    (10, 2018108): (FINAL, RELEASED, SAME_TOKEN_AGAIN),
    **dict.fromkeys([(10, 1893063), (368, None)], (FINAL, RELEASED, SAME_TOKEN_AGAIN)),
    **dict.fromkeys([(10, None), (10, 4711), (200, None), (200, 4711)], (FINAL, RELEASED, SAME_TOKEN_AGAIN)),
    (100, 2018001): (FINAL, RELEASED, GIVEN_UP),
    **dict.fromkeys([(100, None), (100, 4711)], (FINAL, DOUBTED, GIVEN_UP)),
    **dict.fromkeys(
        [(100, 2018008), (100, 2018047), (100, 2018109), (100, 2018294)], (FINAL, RELEASED, GIVEN_UP)
    ),
    (190, None): (FINAL, RELEASED, SAME_TOKEN_AGAIN),
    **dict.fromkeys([(200, 1545041), (551, None)], (FINAL, RELEASED, GIVEN_UP)),
    **dict.fromkeys([(10, 2018300), (100, 2018300), (200, 2018300)], (FINAL, RELEASED, SAME_TOKEN_AGAIN)),
}
PAUSED_UNTIL_RESUMED = {(10, None), (10, 4711), (200, None), (200, 4711), (190, None)}
PAUSED_FOR_A_WHILE = {(10, 1893063), (368, None), (613, 2534040), (613, 1996)} | {
    (code, None) for code in (4, 17, 32, 613, 80001, 80006)
}
UNDELIVERABLE = {(100, 2018001), (200, 1545041), (551, None)}


def answer(code: int, subcode: int | None = None, status: int = 400) -> SendError:
    error = {"message": "no", "code": code, **({"error_subcode": subcode} if subcode else {})}
    with pytest.raises(SendError) as caught:
        classify(status, {}, json.dumps({"error": error}).encode())
    return caught.value


def fate(reaction: Reaction) -> tuple[Fate, TokenState | None]:
    return reaction.fate, reaction.token


@pytest.mark.parametrize("number", TABLE, ids=lambda number: f"{number[0]}/{number[1] or '-'}")
def test_each_error_of_meta_leads_to_what_the_platform_notes_say(number: tuple[int, int | None]) -> None:
    by_psid, by_token, in_doubt = TABLE[number]
    error = answer(*number)
    assert fate(react(error, route=Route.WINDOW, attempts=1, doubtful=False)) == by_psid
    assert fate(react(error, route=Route.TOKEN, attempts=1, doubtful=False)) == by_token
    assert fate(react(error, route=Route.TOKEN, attempts=2, doubtful=True)) == in_doubt
    by_hand = (Fate.REFUSED, None) if by_psid[0] is Fate.DECIDE_AGAIN else by_psid
    assert fate(react(error, route=Route.HUMAN_AGENT, attempts=1, doubtful=False)) == by_hand


@pytest.mark.parametrize("number", TABLE, ids=lambda number: f"{number[0]}/{number[1] or '-'}")
def test_only_some_errors_are_about_the_page_or_the_person(number: tuple[int, int | None]) -> None:
    error = answer(*number)
    pause = pause_for(error)
    assert (pause is not None) == (number in PAUSED_UNTIL_RESUMED | PAUSED_FOR_A_WHILE)
    assert (pause is not None and pause.wait is None) == (number in PAUSED_UNTIL_RESUMED)
    assert (undeliverable_for(error) is not None) == (number in UNDELIVERABLE)


def test_each_refusal_is_in_the_table() -> None:
    errors = [answer(*number) for number in TABLE]
    assert {error.refusal for error in errors if isinstance(error, Refused)} == set(Refusal)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_error_never_counts_as_a_refusal(status: int) -> None:
    for number in TABLE:
        assert isinstance(answer(*number, status=status), OutcomeUnknown)


def test_a_request_that_never_left_us_is_tried_again_a_few_times() -> None:
    error = Unreachable("refused")
    for route, token in ((Route.WINDOW, None), (Route.TOKEN, TokenState.AVAILABLE)):
        waits = [react(error, route=route, attempts=n, doubtful=False).wait for n in range(1, MAX_TRIES + 1)]
        assert waits == [timedelta(seconds=s) for s in (5, 10, 20, 40)] + [None]
        last = react(error, route=route, attempts=MAX_TRIES, doubtful=False)
        assert fate(last) == (Fate.REFUSED, token)


def test_after_a_doubtful_attempt_not_leaving_us_changes_nothing() -> None:
    for attempts in (2, MAX_TRIES, 100):
        reaction = react(Unreachable("refused"), route=Route.TOKEN, attempts=attempts, doubtful=True)
        assert fate(reaction) == SAME_TOKEN_AGAIN


@pytest.mark.parametrize("error", [OutcomeUnknown("no answer"), answer(10, 2018108)])
def test_what_stays_in_doubt_is_asked_about_for_a_day(error: SendError) -> None:
    """As long as for the echo of a window send: else somebody unreachable keeps a broadcast going for a year."""
    waits = []
    for attempts in range(2, MAX_ASKED):
        reaction = react(error, route=Route.TOKEN, attempts=attempts, doubtful=True)
        assert fate(reaction) == SAME_TOKEN_AGAIN
        assert reaction.wait is not None
        waits.append(reaction.wait)
    assert timedelta(hours=20) < sum(waits, timedelta()) < timedelta(hours=36)
    last = react(error, route=Route.TOKEN, attempts=MAX_ASKED, doubtful=True)
    assert fate(last) == (Fate.UNCONFIRMED, TokenState.SUSPECT)
    first = react(OutcomeUnknown("no answer"), route=Route.TOKEN, attempts=MAX_ASKED, doubtful=False)
    assert fate(first) == SAME_TOKEN_AGAIN


def test_an_answer_that_got_lost_leaves_the_outcome_open() -> None:
    from otn.graph.protocol import GraphConfig, build_send

    config = GraphConfig(base_url="http://localhost", api_version="v26.0", access_token="t0ken")
    request = build_send(config, recipient={"id": "7007"}, message={"text": "hi"})
    assert isinstance(lost(request, written=True, reason="reset"), OutcomeUnknown)
    assert isinstance(lost(request, written=False, reason="refused"), Unreachable)


def test_a_window_send_is_decided_again_once_only() -> None:
    error = answer(10, 2018278)
    first = react(error, route=Route.WINDOW, attempts=1, doubtful=False)
    second = react(error, route=Route.WINDOW, attempts=2, doubtful=False, window_refused=True)
    assert (first.fate, second.fate) == (Fate.DECIDE_AGAIN, Fate.REFUSED)


def test_throttling_waits_as_long_as_meta_says() -> None:
    error = Throttled(90.0, code=613)
    for route, doubtful in ((Route.WINDOW, False), (Route.TOKEN, False), (Route.TOKEN, True)):
        assert react(error, route=route, attempts=1, doubtful=doubtful).wait == timedelta(seconds=90)
    pause = pause_for(error)
    assert pause is not None
    assert pause.wait == timedelta(seconds=90)


def test_a_message_by_psid_is_never_repeated_on_its_own() -> None:
    for route in (Route.WINDOW, Route.HUMAN_AGENT):
        reaction = react(OutcomeUnknown("time-out"), route=route, attempts=1, doubtful=False)
        assert (reaction.fate, reaction.wait) == (Fate.UNKNOWN, None)


def test_a_token_is_tried_again_ever_more_slowly() -> None:
    waits = [
        react(OutcomeUnknown("time-out"), route=Route.TOKEN, attempts=n, doubtful=n > 1).wait
        for n in range(1, MAX_ASKED)
    ]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (timedelta(seconds=5), 6 * HOUR)
    assert backoff(10_000) == 6 * HOUR


def test_a_missing_human_agent_permission_does_not_silence_the_page() -> None:
    missing = answer(10)
    assert pause_for(missing, Route.HUMAN_AGENT) is None
    assert pause_for(missing, Route.WINDOW) is not None
    assert pause_for(missing, Route.TOKEN) is not None
    assert pause_for(answer(190), Route.HUMAN_AGENT) is not None
