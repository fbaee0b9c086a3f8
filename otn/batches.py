"""The two transactions around every small batch of a broadcast: `begin` before the POSTs, `settle` after them.

The same decisions and the same order as `otn.delivery` takes for one message, for up to a dozen people with a
handful of statements. Whether the broadcast still runs, the Page is paused or it is quiet where the person lives is
looked at here, so that at most one small batch follows a decision to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from otn import delivery, placeholders
from otn.broadcasts import halt
from otn.delivery import LEASE_SECONDS, MESSAGING_TYPE
from otn.errors import InvalidMove, Kept, Refusal, Refused, SendError
from otn.graph.protocol import Sent, with_metadata
from otn.local_time import quiet_ends_at, zone_of
from otn.messages import problems
from otn.models import (
    Attempt,
    Broadcast,
    BroadcastState,
    Chunk,
    Contact,
    Delivery,
    DeliveryState,
    Page,
    Route,
)
from otn.policy import Allow, Decision, Deny, Reason, choose_route, page_is_paused, pause_for
from otn.store import Tx, batches, broadcasts, chunks, contact_facts, deliveries, pages, tokens
from otn.store.tokens import TokenRow
from otn.vault import Vault

EQUAL_REFUSALS = 5  # so many in a row halt a broadcast

# They say something about one person, and nothing about the next.
_PERSONAL = {
    Refusal.PERSON_UNAVAILABLE,
    Refusal.NO_SUCH_PERSON,
    Refusal.CANNOT_RECEIVE_NOW,
    Refusal.THREAD_CONTROL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A chunk that is held, and what it belongs to, as it was when it was taken."""

    broadcast: Broadcast
    chunk: Chunk
    topic_ids: tuple[int, ...]
    placeholders: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What may be POSTed now. `taken`: how many deliveries were looked at; none means that nothing is left now.

    `follows_refusals`: the last message of this broadcast was refused, whoever sent it.
    """

    attempts: tuple[Attempt, ...] = ()
    taken: int = 0
    follows_refusals: bool = False


NOTHING = Batch()

Result = tuple[Attempt, Sent | SendError]
Answered = tuple[Sent | SendError, DeliveryState]
"""What Meta said, and what the delivery is now."""


@dataclass(slots=True, kw_only=True)
class _Decided:
    """What is to be written down about a batch."""

    starts: list[dict[str, Any]] = field(default_factory=list)
    skips: list[dict[str, Any]] = field(default_factory=list)
    later: list[dict[str, Any]] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)


def take(tx: Tx, chunk_id: int, owner: str) -> Job | None:
    """Hold a chunk; None if somebody else does."""
    chunk = chunks.lease(tx, chunk_id, owner, LEASE_SECONDS)
    if chunk is None:
        return None
    planned = broadcasts.get(tx, chunk.broadcast_id)
    names = placeholders.names(planned.message)
    if not names:  # nobody's differs, but for its braces: once is enough
        planned = replace(planned, message=placeholders.fill(planned.message, {}))
    return Job(
        broadcast=planned,
        chunk=chunk,
        topic_ids=tuple(broadcasts.topic_ids(tx, planned.topic)),
        placeholders=frozenset(names),
    )


def keep(tx: Tx, job: Job) -> bool:
    """Hold a chunk for longer; False if it is not held any more."""
    return chunks.renew(tx, job.chunk.id, job.chunk.fence, LEASE_SECONDS)


def begin(tx: Tx, vault: Vault, job: Job, limit: int, now: datetime) -> Batch:
    """Decide about the next deliveries of a chunk, reserve tokens, record them as `sending`.

    Commit before the first byte. Nothing, if the lease ran out, the broadcast does not run or the Page is paused.
    """
    if not keep(tx, job):
        return NOTHING
    page = pages.find(tx, job.chunk.page_id) or Page(page_id=job.chunk.page_id)
    state, refused_in_a_row = broadcasts.standing(tx, job.broadcast.id)
    if state is not BroadcastState.RUNNING or page_is_paused(page, now):
        return NOTHING
    claimed = batches.claim(tx, job.chunk.id, now, limit)
    queued = [each for each in claimed if each[0].state is DeliveryState.QUEUED]
    decided = _decide_all(tx, vault, job, page, queued, now)
    _write(tx, decided, now)
    unknown = [each for each in claimed if each[0].state is DeliveryState.UNKNOWN]
    again = [_again(tx, vault, job, page, one, contact, now) for one, contact in unknown]
    attempts = (*decided.attempts, *(each for each in again if each is not None))
    return Batch(attempts=attempts, taken=len(claimed), follows_refusals=bool(refused_in_a_row))


def settle_together(tx: Tx, results: Sequence[Result], now: datetime) -> dict[int, DeliveryState]:
    """Record every yes of a batch and what did not leave; what became of these, by id. The rest is settled one by one.

    The rest are answers that touch a person or the Page, and messages whose echo is recorded at this moment, perhaps
    together with others': whoever waits for one row must hold no other, or the two would wait in a circle.
    """
    ours = {attempt.delivery_id: (attempt, answer) for attempt, answer in results if _is_ours_alone(answer)}
    settled = {}
    yes: list[tuple[Attempt, Sent]] = []
    for attempt, answer in (ours[each] for each in batches.lock_free(tx, list(ours))):
        if isinstance(answer, Sent):
            yes.append((attempt, answer))
            settled[attempt.delivery_id] = DeliveryState.SENT
        else:
            kept = delivery.settle(tx, attempt, answer, now)
            settled[attempt.delivery_id] = kept.delivery.state
    batches.settle_all_sent(tx, [(attempt.delivery_id, answer.message_id) for attempt, answer in yes], now)
    by_token = [attempt.delivery_id for attempt, _ in yes if attempt.route is Route.TOKEN]
    tokens.use_up_all(tx, by_token, now)
    return settled


def _is_ours_alone(answer: Sent | SendError) -> bool:
    return isinstance(answer, Sent | Kept)


def draw_conclusions(tx: Tx, job: Job, answers: Sequence[Answered], now: datetime) -> str | None:
    """Halt the broadcast if these answers are reason enough; the reason, None if it goes on.

    In a transaction of its own: it locks the broadcast's row, and must hold no person's meanwhile.
    """
    streak = broadcasts.refusals(tx, job.broadcast.id)
    for answer, state in answers:
        if isinstance(answer, Sent):
            streak = broadcasts.Refusals()
        if state is not DeliveryState.REFUSED or not isinstance(answer, Refused):
            continue
        if reason := _at_once(answer):
            return _halt(tx, job, reason, now)
        if answer.refusal not in _PERSONAL:
            streak = streak.next(f"{answer.code}/{answer.subcode}")
        if streak.length >= EQUAL_REFUSALS:
            return _halt(tx, job, f"Meta refused {EQUAL_REFUSALS} messages in a row alike: {answer}", now)
    broadcasts.note_refusals(tx, job.broadcast.id, streak)
    return None


def _at_once(error: Refused) -> str | None:
    if error.refusal is Refusal.BAD_MEDIA:
        return f"The message is at fault: {error}"
    return f"Nothing may leave the Page: {pause.reason}" if (pause := pause_for(error)) else None


def _halt(tx: Tx, job: Job, reason: str, now: datetime) -> str:
    halt(tx, job.broadcast.id, reason, now, who="meta")
    return reason


def _decide_all(
    tx: Tx,
    vault: Vault,
    job: Job,
    page: Page,
    queued: Sequence[tuple[Delivery, Contact]],
    now: datetime,
) -> _Decided:
    decided = _Decided()
    ids = [contact.id for _, contact in queued]
    held = tokens.of_contacts(tx, ids, job.topic_ids)
    attributes = contact_facts.attributes_of(tx, ids, job.placeholders) if job.placeholders else {}
    for one, contact in queued:
        if until := _quiet_until(job, contact, page, now):
            decided.later.append({"delivery": one.id, "until": until})
            continue
        rows = held.get(contact.id, [])
        decision: Decision = choose_route(contact, page, tokens.counted(rows, now), now)
        message = one.message or _worded(job, contact, attributes.get(contact.id, {}))
        if isinstance(decision, Allow) and job.placeholders and (found := problems(message)):
            decision = Deny(reason=Reason.NOT_ONE_MESSAGE, sentence=" ".join(found))
        if isinstance(decision, Deny):
            decided.skips.append(
                {"delivery": one.id, "why": decision.reason.value, "sentence": decision.sentence}
            )
        else:
            _start(decided, vault, one, contact, decision, message, rows, now)
    return decided


def _start(
    decided: _Decided,
    vault: Vault,
    one: Delivery,
    contact: Contact,
    allowed: Allow,
    message: dict[str, Any],
    rows: Sequence[TokenRow],
    now: datetime,
) -> None:
    token = tokens.soonest(rows, now) if allowed.route is Route.TOKEN else None
    if token is not None:
        assert token.ciphertext is not None  # noqa: S101 - destroyed only when used, lapsed or erased
        decided.reserved.append(token.id)
        recipient = {"one_time_notif_token": vault.open(token.ciphertext).decode()}
    else:
        recipient = {"id": contact.psid}
    decided.starts.append(
        {
            "delivery": one.id,
            "way": allowed.route.value,
            "allowed_by": allowed.rule,
            "token": token.id if token else None,
            # Inside the window: what the person agreed to last, as far as that is known.
            "about": token.topic_id if token else rows[-1].topic_id if rows else None,
            "said": message,
        }
    )
    decided.attempts.append(
        Attempt(
            delivery_id=one.id,
            fence=one.fence + 1,
            page_id=contact.page_id,
            route=allowed.route,
            wire_id=one.wire_id,
            recipient=recipient,
            message=with_metadata(message, one.wire_id),
            messaging_type=MESSAGING_TYPE[allowed.route],
            notification_type=one.notification_type,
        )
    )


def _write(tx: Tx, decided: _Decided, now: datetime) -> None:
    if decided.reserved and not tokens.reserve_all(tx, decided.reserved):
        raise InvalidMove("a permission was taken by somebody else at this moment; try again")
    batches.start_all(tx, decided.starts, LEASE_SECONDS, now)
    batches.skip_all(tx, decided.skips, now)
    batches.postpone_all(tx, decided.later)


def _again(
    tx: Tx, vault: Vault, job: Job, page: Page, one: Delivery, contact: Contact, now: datetime
) -> Attempt | None:
    """Asking what became of it may send it: not in quiet hours either."""
    if until := _quiet_until(job, contact, page, now):
        deliveries.postpone(tx, one.id, until)
        return None
    resumed = delivery.resume(tx, vault, one.id, now)
    return resumed if isinstance(resumed, Attempt) else None


def _quiet_until(job: Job, contact: Contact, page: Page, now: datetime) -> datetime | None:
    planned = job.broadcast
    if planned.quiet_from is None:
        return None
    where = zone_of(contact.timezone, page.time_zone)
    return quiet_ends_at(now, where, planned.quiet_from, planned.quiet_until)


def _worded(job: Job, contact: Contact, attributes: Mapping[str, str]) -> dict[str, Any]:
    if not job.placeholders:
        return job.broadcast.message
    return placeholders.fill(job.broadcast.message, placeholders.values_of(contact, attributes))
