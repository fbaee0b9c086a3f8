"""May we ask this person for permission to write about this topic? And: that we asked is on record.

A request is sent at most once: it is recorded before the first byte leaves, and a key that has asked
never asks again, not even after a crash that may have come before the send. (An unsent request costs
one question; a second one is spam.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from otn.errors import OutcomeUnknown, Refusal, Refused, SendError
from otn.graph.protocol import Sent
from otn.models import AskAttempt, AskingHistory, Contact, Page, RequestState, TokenCount, Topic
from otn.policy import ASK_PAUSE, Allow, Deny, Reason, may_ask
from otn.reactions import affect_page_and_person
from otn.store import Tx, contacts, pages, requests, tokens, topics

ASKED = "asked"

_PAYLOAD = re.compile(r"otn:(?P<topic>[a-z0-9][a-z0-9_-]{0,63})(?::(?P<request>[0-9]{1,18}))?")

_DECISION_OF = {  # what stories need to tell apart; the finer reason is in the sentence
    Reason.UNKNOWN_CONTACT: Reason.WINDOW_CLOSED,
    Reason.UNDELIVERABLE: Reason.WINDOW_CLOSED,
    Reason.ERASED: Reason.WINDOW_CLOSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AskDecision:
    """`word` is the value of the slot `otn_request_decision`; the sentence says why."""

    word: str
    sentence: str
    topic: Topic | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What one person agreed to: unused permissions of one topic."""

    topic: str
    title: str
    kind: str
    available: int
    soonest_expiry: datetime


def payload_of(topic: str, request_id: int) -> str:
    """The payload that comes back with the tap: topic and request."""
    return f"otn:{topic}:{request_id}"


def topic_in(payload: str | None) -> tuple[str, int | None] | None:
    """Topic name and request id of a payload that is ours; None for any other."""
    match = _PAYLOAD.fullmatch(payload or "")
    if match is None:
        return None
    return match["topic"], int(match["request"]) if match["request"] else None


def decide(tx: Tx, *, psid: str, topic: str, now: datetime, page_id: str | None = None) -> AskDecision:
    """May we ask? Reads only; the word is `asked` if so, else the reason as the slot has it."""
    contact = contacts.by_psid(tx, psid, page_id)
    found = topics.resolve(tx, topic)
    decision = _decide(tx, contact, found, now)
    if isinstance(decision, Allow):
        return AskDecision(word=ASKED, sentence=decision.rule, topic=found)
    word = _DECISION_OF.get(decision.reason, decision.reason)
    return AskDecision(word=word.value, sentence=decision.sentence, topic=found)


def agreements(tx: Tx, *, psid: str, now: datetime, page_id: str | None = None) -> list[Agreement]:
    """What this person agreed to and was not told yet, by topic."""
    contact = contacts.by_psid(tx, psid, page_id)
    if contact is None:
        return []
    found = []
    for topic_id, available, soonest in tokens.per_topic(tx, contact.id, now):
        topic = topics.by_id(tx, topic_id)
        found.append(
            Agreement(
                topic=topic.name,
                title=topic.title,
                kind=topic.kind,
                available=available,
                soonest_expiry=soonest,
            )
        )
    return sorted(found, key=lambda agreement: agreement.topic)


def begin(
    tx: Tx, *, page_id: str, psid: str, topic: str, dedupe_key: str, now: datetime
) -> AskAttempt | Deny | None:
    """Decide once more and record the request as `sending`; None if this key has asked already.

    Commit before the first byte goes out, then POST, then `settle`.
    """
    contact = contacts.find(tx, page_id, psid)
    if contact is not None:
        contact = contacts.lock(tx, contact.id)
    if requests.exists(tx, dedupe_key):
        return None
    found = topics.use(tx, topic, now)
    decision = _decide(tx, contact, found, now)
    if isinstance(decision, Deny):
        return decision
    assert contact is not None  # noqa: S101 - the decision refuses a missing contact
    assert found is not None  # noqa: S101 - and a missing topic
    wire_id = f"otn:{uuid4()}"
    request_id = requests.record(
        tx, dedupe_key=dedupe_key, contact_id=contact.id, topic_id=found.id, wire_id=wire_id, now=now
    )
    if request_id is None:
        return None
    return AskAttempt(
        request_id=request_id,
        page_id=page_id,
        psid=psid,
        wire_id=wire_id,
        topic=found.name,
        title=found.title,
        payload=payload_of(found.name, request_id),
        asked_at=now,
    )


def settle(tx: Tx, attempt: AskAttempt, outcome: Sent | SendError, now: datetime) -> RequestState:
    """Record what Meta said to a request, and what that means for the person and the page.

    The state that the request is in now: an echo may have proved meanwhile that it was sent.
    """
    if isinstance(outcome, Sent):
        requests.settle(tx, attempt.request_id, RequestState.SENT, now=now, message_id=outcome.message_id)
        return RequestState.SENT
    state = RequestState.UNKNOWN if isinstance(outcome, OutcomeUnknown) else RequestState.REFUSED
    settled = requests.settle(tx, attempt.request_id, state, now=now, error=str(outcome))
    contact = contacts.ensure(tx, attempt.page_id, attempt.psid, now)
    refusal = outcome.refusal if isinstance(outcome, Refused) else None
    if refusal is Refusal.TOO_MANY_REQUESTS:
        contacts.do_not_ask_before(tx, contact.id, now + ASK_PAUSE)
    elif refusal is Refusal.PERMISSION_MISSING:
        pages.deny_otn(tx, attempt.page_id, str(outcome))
    elif refusal is Refusal.OUTSIDE_WINDOW:
        contacts.close_window(tx, contact.id, now, asked_at=attempt.asked_at)
    else:
        affect_page_and_person(tx, attempt.page_id, contact.id, outcome, now, asked_at=attempt.asked_at)
    return state if settled else RequestState.SENT


def _decide(tx: Tx, contact: Contact | None, topic: Topic | None, now: datetime) -> Allow | Deny:
    page = (pages.find(tx, contact.page_id) if contact else None) or Page(page_id="")
    counted, history = TokenCount(), AskingHistory()
    if contact is not None and topic is not None:
        counted = tokens.count(tx, contact.id, topic.id, now)
        history = requests.history(tx, contact.id, topic.id, now)
    return may_ask(contact, page, topic, counted, history, now)
