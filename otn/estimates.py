"""What a broadcast would come to: counted for everybody at once, or explained person by person; and what became of it.

    estimate = SQL that says the law a second time, under a second for a million tokens
    explain  = the sender's own function (`otn.policy.choose_route`), a line for each person, as a stream

Both look at the same people, and a test holds the sums of the second against the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from otn.audience import Audience, from_json, left_out_by
from otn.models import Broadcast, DeliveryState, Page, Route
from otn.policy import Allow, Decision, Deny, Reason, choose_route, page_is_paused
from otn.store import Store, Tx, broadcasts, candidates, estimates, figures, pages, reports, topics
from otn.store.candidates import Candidate, Place

A_LOOK = 300  # people whose lines are made from one transaction
HORIZONS = (timedelta(days=7), timedelta(days=30), timedelta(days=90))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsing:
    """Permissions that lapse while the broadcast waits for its start, and people who then have none left."""

    tokens: int = 0
    people: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Everybody who ever agreed to the topic (or whose window is open, if they are meant too), each in one class.

    `left_out` is by reason. `waiting`: those of them who are taken up all the same, because their reason may be
    over when their turn comes. `expiring_before_start` counts among those who would be sent to.
    """

    estimated_at: datetime
    would_send_by_token: int
    would_send_by_window: int
    left_out: Mapping[str, int]
    waiting: Mapping[str, int]
    expiring_before_start: Lapsing
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What would happen to one person: the route, or the reason; and the rule in a sentence."""

    psid: str
    page_id: str
    would: Route | None
    reason: Reason | None
    sentence: str


def estimate(tx: Tx, broadcast: Broadcast, now: datetime, *, start_at: datetime | None = None) -> Estimate:
    """Count what would happen if it were sent now. `start_at`: when it is meant to start, if not as planned."""
    start_at = start_at or broadcast.start_at
    paused = [page.page_id for page in pages.every(tx) if page_is_paused(page, now)]
    sums = estimates.count(tx, broadcast, now, paused=paused)
    by_class, waiting = sums.by_class, sums.waiting
    lapsing = Lapsing()
    if start_at is not None and start_at > now:
        tokens, people = estimates.lapsing(tx, broadcast, now, until=start_at, paused=paused)
        lapsing = Lapsing(tokens=tokens, people=people)
    return Estimate(
        estimated_at=now,
        would_send_by_token=by_class[Route.TOKEN.value],
        would_send_by_window=by_class[Route.WINDOW.value],
        left_out={reason.value: by_class[reason.value] for reason in Reason if by_class[reason.value]},
        waiting={reason.value: waiting[reason.value] for reason in Reason if waiting[reason.value]},
        expiring_before_start=lapsing,
        total=sum(by_class.values()),
    )


def to_json(found: Estimate) -> dict[str, Any]:
    """The estimate as it is kept with the broadcast."""
    return {**asdict(found), "estimated_at": found.estimated_at.isoformat()}


def explain(store: Store, broadcast: Broadcast, now: datetime) -> Iterator[Explained]:
    """A line for everybody whom `estimate` counts, read as they are needed: a transaction each few hundred."""
    meant = from_json(broadcast.audience)
    place: Place | None = Place()
    while place is not None:
        with store.read() as tx:
            found, place = candidates.next_ids(
                tx, broadcast, place, now, window_too=meant.window_too, limit=A_LOOK
            )
            people = candidates.look_at(tx, broadcast, found, now)
            known = {page.page_id: page for page in pages.every(tx)}
        for person in people:
            page_id = person.contact.page_id
            yield _explained(person, decide(meant, person, known.get(page_id) or Page(page_id=page_id), now))


def decide(meant: Audience, person: Candidate, page: Page, now: datetime) -> Decision:
    """What would happen to this person: the conditions of the broadcast first, then the sender's own rules."""
    if words := left_out_by(meant, person.facts):
        return Deny(reason=Reason.FILTERED, sentence=f"The person is {words}.")
    decision = choose_route(person.contact, page, person.tokens, now)
    by_window = isinstance(decision, Allow) and decision.route is Route.WINDOW
    if not by_window or person.tokens.available or meant.window_too:
        return decision
    without_window = replace(person.contact, window_until=None)
    why = choose_route(without_window, page, person.tokens, now)
    assert isinstance(why, Deny)  # noqa: S101 - neither a window nor a token
    return replace(why, sentence=_ONLY_WITH_PERMISSION)


_ONLY_WITH_PERMISSION = (
    "The window is open, but only people with an unused permission of the topic are meant."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLine:
    """How many were estimated, and how many it came to: by a route, for a reason, or in a state that is not final."""

    what: str
    estimated: int
    result: int


def drift(tx: Tx, broadcast: Broadcast) -> list[DriftLine]:
    """The estimate that was kept with a broadcast against its result; empty if none was kept.

    The sums of both sides differ by the people who came or went between the estimate and the freezing.
    """
    if broadcast.estimate is None:
        return []
    kept = broadcast.estimate
    estimated = Counter(
        {
            Route.TOKEN.value: kept["would_send_by_token"],
            Route.WINDOW.value: kept["would_send_by_window"],
            **kept["waiting"],
        }
    )
    result: Counter[str] = Counter()
    for state, route, reason, number in reports.outcomes(tx, broadcast.id):
        result[_what(state, route, reason)] += number
    return [
        DriftLine(what=what, estimated=estimated[what], result=result[what])
        for what in dict.fromkeys([*estimated, *sorted(result)])
    ]


def _what(state: DeliveryState, route: Route | None, reason: str | None) -> str:
    if state is DeliveryState.SENT and route is not None:
        return route.value
    if state in (DeliveryState.SKIPPED, DeliveryState.REFUSED) and reason is not None:
        return reason
    return state.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The available permissions of a topic (None: of no topic), and how many of them lapse in so many days."""

    topic: str | None
    available: int
    within_7_days: int = 0
    within_30_days: int = 0
    within_90_days: int = 0


def forecast(tx: Tx, now: datetime, topic: str | None = None) -> list[Forecast]:
    """What lapses if nobody is written to: of every topic, or of one, or of a family's. Raises NotFound."""
    if topic is not None and topics.resolve(tx, topic) is None:
        topics.get(tx, topic)
    ids = None if topic is None else broadcasts.topic_ids(tx, topic)
    found = figures.lapsing(tx, now, HORIZONS, ids)
    names: dict[int | None, str | None] = {
        each.id: each.name
        for each in topics.every(tx, archived=True)
        if not each.is_family and (ids is None or each.id in ids)
        if each.id in found or each.archived_at is None
    }
    if None in found:
        names[None] = None
    return [_forecast(name, *found.get(key, (0, 0, 0, 0))) for key, name in names.items()]


def _forecast(topic: str | None, available: int, in_7: int, in_30: int, in_90: int) -> Forecast:
    return Forecast(
        topic=topic, available=available, within_7_days=in_7, within_30_days=in_30, within_90_days=in_90
    )


def _explained(person: Candidate, decision: Decision) -> Explained:
    return Explained(
        psid=person.contact.psid,
        page_id=person.contact.page_id,
        would=decision.route if isinstance(decision, Allow) else None,
        reason=decision.reason if isinstance(decision, Deny) else None,
        sentence=decision.rule if isinstance(decision, Allow) else decision.sentence,
    )
