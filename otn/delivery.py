"""The two transactions around every send: `begin` before it, `settle` after it. The caller does the POST.

    with store.begin() as tx: attempt = begin(tx, vault, ...)      # decided, token reserved, `sending`
    outcome = POST                                                 # outside any transaction
    with store.begin() as tx: settled = settle(tx, attempt, outcome, now)

`begin` must be committed, durably, before the first byte goes out. Nothing here is sent twice: a key that
was decided is never decided again, a message by psid is never repeated on its own, and a message that a
token pays for is repeated with that same token only, until the answer is definite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from otn.errors import Kept, OutcomeUnknown, Refused, SendError, Unreachable
from otn.graph.protocol import Sent, with_metadata
from otn.messages import fingerprint
from otn.models import (
    Attempt,
    Contact,
    Delivery,
    DeliveryState,
    Origin,
    Page,
    Route,
    TokenCount,
    TokenState,
    Topic,
)
from otn.policy import (
    UNKNOWN_CONTACT,
    Allow,
    Decision,
    Deny,
    Fate,
    Reaction,
    Reason,
    choose_route,
    may_mean_the_token,
    may_reply,
    page_is_paused,
    pause_of,
    react,
)
from otn.reactions import affect_page_and_person
from otn.store import Source, Tx, contacts, deliveries, pages, tokens, topics
from otn.vault import Vault

LEASE_SECONDS = 60.0  # longer than any send's total deadline
LONGEST_KEY = 255  # characters of `dedupe_key`
_MAY_HAVE_LEFT = {
    DeliveryState.SENDING,
    DeliveryState.SENT,
    DeliveryState.UNKNOWN,
    DeliveryState.UNCONFIRMED,
}
PAUSED_PAUSE = timedelta(minutes=5)  # between looks at a delivery whose page is paused
# SEND: proactive messages inside the window are UPDATE. OTN's own sample carries no type, so we send none.
MESSAGING_TYPE = {Route.WINDOW: "UPDATE", Route.TOKEN: None, Route.HUMAN_AGENT: "MESSAGE_TAG"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants sent: the same `dedupe_key` is the same wish, however often it is said."""

    page_id: str
    psid: str
    topic: str | None
    message: dict[str, Any]
    dedupe_key: str
    origin: Origin
    human_agent: bool = False
    notification_type: str | None = None


def key_of_event(person: Contact, topic: str, event_id: str) -> str:
    """The dedupe key of a follow-up that some event of the business caused: one event, one message a person."""
    key = f"event:{person.page_id}:{person.psid}:{topic}:{event_id}"
    return key if len(key) <= LONGEST_KEY else f"event:{hashlib.sha256(key.encode()).hexdigest()}"


def decide(
    tx: Tx,
    *,
    psid: str,
    topic: str | None,
    now: datetime,
    page_id: str | None = None,
    human_agent: bool = False,
) -> Decision:
    """What would happen to a follow-up on this topic now, and why. Reads only; the sender's own rule."""
    found = topics.resolve(tx, topic) if topic else None
    if topic and found is None:
        return Deny(reason=Reason.UNKNOWN_TOPIC, sentence=f"There is no topic '{topic}'.")
    return _decide(tx, contacts.by_psid(tx, psid, page_id), found, now, human_agent=human_agent)


def told_at(tx: Tx, *, psid: str, topic: str, event_id: str, page_id: str | None = None) -> datetime | None:
    """When the follow-up of this event went out to the person, or may have; None if it did not. Reads only."""
    contact = contacts.by_psid(tx, psid, page_id)
    earlier = deliveries.by_key(tx, key_of_event(contact, topic, event_id)) if contact else None
    return earlier.created_at if earlier and earlier.state in _MAY_HAVE_LEFT else None


def begin(tx: Tx, vault: Vault, order: Order, now: datetime) -> Attempt | Deny | Delivery:
    """Decide, reserve a token if one must pay, and record the delivery as `sending`.

    A `Deny` is recorded as `skipped`. A key that was decided before gives the delivery of then.
    """
    if earlier := deliveries.by_key(tx, order.dedupe_key):
        return earlier
    contact = contacts.find(tx, order.page_id, order.psid)
    if contact is None:
        return UNKNOWN_CONTACT
    contact = contacts.lock(tx, contact.id)
    topic = topics.use(tx, order.topic, now) if order.topic else None
    if order.topic and topic is None:
        return Deny(reason=Reason.UNKNOWN_TOPIC, sentence=f"There is no topic '{order.topic}'.")
    delivery_id = _add(tx, order, contact, topic, now)
    if delivery_id is None:
        return _decided_meanwhile(tx, order.dedupe_key)
    return _start(tx, vault, deliveries.get(tx, delivery_id), now)


def resume(tx: Tx, vault: Vault, delivery_id: int, now: datetime) -> Attempt | Deny | None:
    """Take up a delivery whose time has come again; None if there is nothing to do now.

    A queued one is decided afresh. An unknown one is sent again with the token it holds, and no other.
    """
    contacts.lock(tx, deliveries.get(tx, delivery_id).contact_id)
    current = deliveries.get(tx, delivery_id)
    if current.state is DeliveryState.QUEUED:
        return _start_unless_paused(tx, vault, current, now)
    if current.state is DeliveryState.UNKNOWN and current.route is Route.TOKEN:
        return _ask_again(tx, vault, current, now)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a delivery. `again_at`: when to `resume` it, None if never."""

    delivery: Delivery
    again_at: datetime | None = None


def settle(tx: Tx, attempt: Attempt, outcome: Sent | SendError, now: datetime) -> Settled:
    """Record Meta's answer, or that there is none. An answer that comes late never undoes a newer one."""
    if isinstance(outcome, Sent):
        settle_as_sent(tx, attempt.delivery_id, outcome.message_id, now)
        return Settled(delivery=deliveries.get(tx, attempt.delivery_id))
    current = deliveries.get(tx, attempt.delivery_id)
    affect_page_and_person(
        tx,
        current.page_id,
        current.contact_id,
        outcome,
        now,
        route=attempt.route,
        asked_at=current.sending_at,
    )
    # A broadcast waits for Graph to be back, however long that takes.
    waits = current.chunk_id is not None and isinstance(outcome, Unreachable)
    reaction = react(
        outcome,
        route=attempt.route,
        attempts=1 if waits else current.attempts,
        doubtful=current.doubtful,
        window_refused=current.window_refused,
    )
    return _settle_as(tx, current, attempt.fence, reaction, outcome, now)


def settle_as_sent(tx: Tx, delivery_id: int, message_id: str | None, now: datetime) -> bool:
    """Meta's yes, or the echo that proves it: the delivery is sent and its token spent."""
    if not deliveries.settle_sent(tx, delivery_id, message_id, now):
        return False
    token_id = deliveries.get(tx, delivery_id).token_id
    if token_id is not None:
        tokens.use_up(tx, token_id, now)
    return True


def leave_unconfirmed(tx: Tx, delivery_id: int, now: datetime) -> bool:
    """Ask no more what became of an unknown delivery; its token is kept, and suspect. False if it is not unknown."""
    return _leave_unconfirmed(tx, deliveries.get(tx, delivery_id), now)


def may_say(where: Source, *, page_id: str, psid: str, now: datetime) -> Decision:
    """May an ordinary reply of the conversation go out to this person now?"""
    contact, page = contacts.with_page(where, page_id, psid) or (None, Page(page_id=page_id))
    return may_reply(contact, page, now)


def record_unsent_reply(
    tx: Tx,
    *,
    page_id: str,
    psid: str,
    message: dict[str, Any],
    wire_id: str,
    why: Deny | SendError,
    now: datetime,
    sent_at: datetime | None = None,
) -> None:
    """A reply that did not go out, or that may not have, stays visible: without its words, with its reason.

    `sent_at`: just before the POST, so that Meta's "no" is not held against what the person did since.
    """
    contact = contacts.find(tx, page_id, psid)
    if contact is None:
        return
    values: dict[str, Any] = {
        "dedupe_key": f"reply:{wire_id}",
        "contact_id": contact.id,
        "origin": Origin.REPLY.value,
        "message_hash": fingerprint(message),
        "wire_id": wire_id,
        "created_at": now,
        "settled_at": now,
        "noted_at": now,
    }
    if isinstance(why, Deny):
        values |= {"state": DeliveryState.SKIPPED.value, "reason": why.reason.value, "error": why.sentence}
    else:
        affect_page_and_person(tx, page_id, contact.id, why, now, asked_at=sent_at)
        fate = react(why, route=Route.WINDOW, attempts=1, doubtful=False).fate
        state = DeliveryState.UNKNOWN if fate is Fate.UNKNOWN else DeliveryState.REFUSED
        values |= {
            "state": state.value,
            "route": Route.WINDOW.value,
            "sending_at": sent_at or now,
            **_error_values(why),
        }
        if fate is Fate.DECIDE_AGAIN:
            contacts.close_window(tx, contact.id, now, asked_at=sent_at)
    deliveries.add(tx, values)


def _decide(
    tx: Tx, contact: Contact | None, topic: Topic | None, now: datetime, *, human_agent: bool
) -> Decision:
    if contact is None:
        return UNKNOWN_CONTACT
    counted = tokens.count(tx, contact.id, topic.id, now) if topic else TokenCount()
    return choose_route(contact, _page(tx, contact.page_id), counted, now, human_agent=human_agent)


def _page(tx: Tx, page_id: str) -> Page:
    return pages.find(tx, page_id) or Page(page_id=page_id)


def _decided_meanwhile(tx: Tx, dedupe_key: str) -> Delivery:
    earlier = deliveries.by_key(tx, dedupe_key)
    assert earlier is not None  # noqa: S101 - the insert found this very key
    return earlier


def _add(tx: Tx, order: Order, contact: Contact, topic: Topic | None, now: datetime) -> int | None:
    return deliveries.add(
        tx,
        {
            "dedupe_key": order.dedupe_key,
            "contact_id": contact.id,
            "topic_id": topic.id if topic else None,
            "origin": order.origin.value,
            "state": DeliveryState.QUEUED.value,
            "message": order.message,
            "message_hash": fingerprint(order.message),
            "notification_type": order.notification_type,
            "human_agent": order.human_agent,
            "wire_id": f"otn:{uuid4()}",
            "created_at": now,
            # In a conversation Rasa itself puts what was said into the tracker.
            "noted_at": now if order.origin is Origin.STORY else None,
        },
    )


def _start(tx: Tx, vault: Vault, queued: Delivery, now: datetime) -> Attempt | Deny:
    contact = contacts.get(tx, queued.contact_id)
    topic = topics.find(tx, queued.topic) if queued.topic else None
    decision = _decide(tx, contact, topic, now, human_agent=queued.human_agent)
    token_id = None
    if isinstance(decision, Allow) and decision.route is Route.TOKEN:
        assert topic is not None  # noqa: S101 - tokens are counted for a topic only
        token_id = tokens.reserve_soonest(tx, contact.id, topic.id, now)
        if token_id is None:
            decision = Deny(
                reason=Reason.TOKEN_RESERVED, sentence="The permission was taken by another message just now."
            )
    if isinstance(decision, Deny):
        _skip(tx, queued, decision, now)
        return decision
    return _attempt(tx, vault, queued, decision, token_id, now)


def _start_unless_paused(tx: Tx, vault: Vault, queued: Delivery, now: datetime) -> Attempt | Deny | None:
    """A pause, whoever made it, only delays what waits: a new wish is denied, this one was granted before."""
    page = _page(tx, queued.page_id)
    if pause := pause_of(page, now):
        deliveries.postpone(tx, queued.id, pause.until or now + PAUSED_PAUSE)
        return None
    return _start(tx, vault, queued, now)


def _skip(tx: Tx, queued: Delivery, why: Deny, now: datetime) -> None:
    values = {"reason": why.reason.value, "error": why.sentence, "settled_at": now, "next_attempt_at": None}
    deliveries.end(tx, queued.id, queued.state, DeliveryState.SKIPPED, values)


def _attempt(
    tx: Tx, vault: Vault, current: Delivery, allowed: Allow, token_id: int | None, now: datetime
) -> Attempt:
    started = deliveries.start(
        tx,
        current.id,
        current.state,
        fence=current.fence,
        route=allowed.route,
        rule=allowed.rule,
        token_id=token_id,
        lease_seconds=LEASE_SECONDS,
        now=now,
    )
    assert started  # noqa: S101 - the contact's lock keeps others out
    assert current.message is not None  # noqa: S101 - only an erasure takes it away, and ends the delivery
    by_psid = allowed.route is not Route.TOKEN
    return Attempt(
        delivery_id=current.id,
        fence=current.fence + 1,
        page_id=current.page_id,
        route=allowed.route,
        wire_id=current.wire_id,
        recipient={"id": current.psid} if by_psid else _token_recipient(tx, vault, token_id),
        message=with_metadata(current.message, current.wire_id),
        messaging_type=MESSAGING_TYPE[allowed.route],
        tag="HUMAN_AGENT" if allowed.route is Route.HUMAN_AGENT else None,
        notification_type=current.notification_type,
    )


def _token_recipient(tx: Tx, vault: Vault, token_id: int | None) -> dict[str, str]:
    assert token_id is not None  # noqa: S101 - the token route has reserved one
    ciphertext, _expires_at = tokens.sealed(tx, token_id)
    assert ciphertext is not None  # noqa: S101 - destroyed only when used, lapsed or erased
    return {"one_time_notif_token": vault.open(ciphertext).decode()}


def _ask_again(tx: Tx, vault: Vault, current: Delivery, now: datetime) -> Attempt | None:
    """Send an unknown delivery once more with its own token: if it arrived, this can only be refused (OTN).

    Not to somebody who can't be reached any more: that answer is known.
    """
    assert current.token_id is not None  # noqa: S101 - the token route has one
    contact = contacts.get(tx, current.contact_id)
    ciphertext, expires_at = tokens.sealed(tx, current.token_id)
    gone = contact.erase_requested_at or contact.undeliverable_reason
    if ciphertext is None or now >= expires_at or gone:
        _leave_unconfirmed(tx, current, now)
        return None
    if page_is_paused(_page(tx, current.page_id), now):
        deliveries.postpone(tx, current.id, now + PAUSED_PAUSE)
        return None
    again = Allow(route=Route.TOKEN, rule=current.rule or "")
    return _attempt(tx, vault, current, again, current.token_id, now)


def _leave_unconfirmed(tx: Tx, current: Delivery, now: datetime) -> bool:
    values = {"settled_at": now, "next_attempt_at": None}
    left = deliveries.end(tx, current.id, DeliveryState.UNKNOWN, DeliveryState.UNCONFIRMED, values)
    if left:
        _move_token(tx, current, TokenState.SUSPECT)
    return left


def _settle_as(
    tx: Tx, current: Delivery, fence: int, reaction: Reaction, error: SendError, now: datetime
) -> Settled:
    if reaction.fate is Fate.UNCONFIRMED and _proved_by_others(tx, current, error):
        settle_as_sent(tx, current.id, None, now)
        return Settled(delivery=deliveries.get(tx, current.id))
    wait = timedelta() if reaction.fate is Fate.DECIDE_AGAIN else reaction.wait
    again_at = now + wait if wait is not None else None
    values = {**_error_values(error), "settled_at": now, "next_attempt_at": again_at}
    if isinstance(error, Kept):
        values["attempts"] = current.attempts - 1
        if current.doubtful:
            values |= {
                "reason": "outcome_unknown",
                "error": "An earlier try may have arrived; it is asked again",
            }
    if reaction.fate is Fate.DECIDE_AGAIN:
        values["window_refused"] = True
        contacts.close_window(tx, current.contact_id, now, asked_at=current.sending_at)
    if not _write_down(tx, current, fence, _STATE_OF[reaction.fate], values):
        return Settled(delivery=deliveries.get(tx, current.id))
    if reaction.token is not None:
        _move_token(tx, current, reaction.token)
    return Settled(delivery=deliveries.get(tx, current.id), again_at=again_at)


def _write_down(
    tx: Tx, current: Delivery, fence: int, state: DeliveryState, values: Mapping[str, Any]
) -> bool:
    if state is not DeliveryState.QUEUED or current.chunk_id is None or current.route is Route.TOKEN:
        return deliveries.settle(tx, current.id, fence, state, values)
    if deliveries.settle(tx, current.id, fence, state, values, old=(DeliveryState.SENDING,)):
        return True
    # Its lease ran out before the answer came: its chunk, and the broadcast, may have ended without it.
    ended = {**values, "next_attempt_at": None}
    late = (DeliveryState.UNKNOWN,)
    return deliveries.settle(tx, current.id, fence, DeliveryState.REFUSED, ended, old=late)


_STATE_OF = {
    Fate.REFUSED: DeliveryState.REFUSED,
    Fate.DECIDE_AGAIN: DeliveryState.QUEUED,
    Fate.RETRY: DeliveryState.QUEUED,
    Fate.UNKNOWN: DeliveryState.UNKNOWN,
    Fate.UNCONFIRMED: DeliveryState.UNCONFIRMED,
}


def _proved_by_others(tx: Tx, current: Delivery, error: SendError) -> bool:
    """The token is void, and the message is not at fault: then the doubtful attempt did arrive."""
    return may_mean_the_token(error) and deliveries.accepted_elsewhere(
        tx, current.message_hash, current.contact_id
    )


def _move_token(tx: Tx, current: Delivery, new: TokenState) -> None:
    if current.token_id is not None and new is not TokenState.RESERVED:
        reason = "Meta's answer leaves this permission in doubt" if new is TokenState.SUSPECT else None
        tokens.move(tx, current.token_id, TokenState.RESERVED, new, reason)


def _error_values(error: SendError) -> dict[str, Any]:
    values: dict[str, Any] = {"error": str(error), "reason": _reason(error)}
    values["error_code"] = getattr(error, "code", None)
    values["error_subcode"] = getattr(error, "subcode", None)
    return values


def _reason(error: SendError) -> str:
    if isinstance(error, Refused):
        return error.refusal.value
    return "outcome_unknown" if isinstance(error, OutcomeUnknown) else type(error).__name__.lower()
