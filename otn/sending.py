"""One message from the wish to its end: begin, POST, settle, and again where that is safe.

For code without an event loop: the command line and the worker. The POST is outside any transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from otn import delivery, messages
from otn.app import App
from otn.delivery import Order, Settled
from otn.errors import InvalidMove, MayBeSent, SendError, StoreUnavailable
from otn.graph.protocol import GraphConfig, HttpRequest, Sent, build_send
from otn.models import Attempt, Delivery, DeliveryState, Route
from otn.policy import Allow, Deny, Reason
from otn.store import contacts, deliveries, rates, tokens, topics

TRIES = 3  # of a message whose outcome stays open, before the worker goes on alone
LONGEST_WAIT = timedelta(seconds=30)  # that somebody at a keyboard is made to wait for the next try

Wait = Callable[[timedelta], object]
"""Lets time pass; handed in, so that tests need none and a signal can cut it short."""

log = logging.getLogger(__name__)


class Graph(Protocol):
    """The way to Meta: a yes, or a SendError."""

    def send(self, request: HttpRequest) -> Sent: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of an order, or what would: for people (`sentence`) and for programs.

    `state` is a delivery's, or `would_send` and `would_skip` where nothing was meant to be sent.
    """

    state: str
    route: Route | None = None
    rule: str | None = None
    reason: str | None = None
    sentence: str
    delivery_id: int | None = None
    message_id: str | None = None
    tokens_left: int

    @property
    def is_good(self) -> bool:
        """Whether the message is out, or would be."""
        return self.state in (DeliveryState.SENT.value, "would_send")


def send(app: App, graph: Graph, order: Order, wait: Wait) -> Report:
    """Send a message once, whatever happens: the same key again gives the first answer again.

    Raises ConfigError if the page has no access token, InvalidMove if the key stands for another message,
    MayBeSent if the database does not say what became of it.
    """
    if found := messages.problems(order.message):
        return _not_one_message(found)
    if order.page_id:  # else nobody knows the person, and nothing is sent
        app.graph_config(order.page_id)  # no token for this page: say so before anything is recorded
    with app.store.begin() as tx:
        first = delivery.begin(tx, app.require_vault(), order, app.clock())
    if isinstance(first, Delivery):
        _require_same(order, first)
    elif isinstance(first, Attempt):
        return _carry_out(app, graph, order, first, wait)
    return _report(app, order, first if isinstance(first, Deny) else None)


def foresee(app: App, order: Order) -> Report:
    """What `send` would do now, and why. Records nothing."""
    if found := messages.problems(order.message):
        return _not_one_message(found)
    with app.store.read() as tx:
        earlier = deliveries.by_key(tx, order.dedupe_key)
    if earlier is not None:
        _require_same(order, earlier)
        return _report(app, order)
    with app.store.read() as tx:
        decision = delivery.decide(
            tx,
            psid=order.psid,
            topic=order.topic,
            now=app.clock(),
            page_id=order.page_id,
            human_agent=order.human_agent,
        )
    left = _tokens_left(app, order)
    if isinstance(decision, Allow):
        route, rule = decision.route, decision.rule
        return Report(state="would_send", route=route, rule=rule, sentence=rule, tokens_left=left)
    return Report(
        state="would_skip", reason=decision.reason.value, sentence=decision.sentence, tokens_left=left
    )


def go_on(app: App, graph: Graph, delivery_id: int) -> Settled | None:
    """Take up a delivery whose time has come again; None if nothing was sent.

    Raises ConfigError if its page has no access token; the delivery stays as it was.
    """
    with app.store.begin() as tx:
        before = deliveries.get(tx, delivery_id)
        config = app.graph_config(before.page_id)
        attempt = delivery.resume(tx, app.require_vault(), delivery_id, app.clock())
    if isinstance(attempt, Deny):
        log.info("delivery %d: %s -> skipped (%s)", delivery_id, before.state.value, attempt.reason.value)
    if not isinstance(attempt, Attempt):
        return None
    return post(app, graph, config, attempt)


def post(app: App, graph: Graph, config: GraphConfig, attempt: Attempt) -> Settled:
    """Make the one POST that an attempt stands for, and record what Meta said."""
    request = build_send(
        config,
        recipient=attempt.recipient,
        message=attempt.message,
        messaging_type=attempt.messaging_type,
        tag=attempt.tag,
        notification_type=attempt.notification_type,
    )
    log.info("delivery %d: -> sending (%s)", attempt.delivery_id, attempt.route.value)
    _debit(app, attempt)
    outcome: Sent | SendError
    try:
        outcome = graph.send(request)
    except SendError as error:
        outcome = error
    settled = _settle(app, attempt, outcome)
    log.info("delivery %d: sending -> %s", attempt.delivery_id, settled.delivery.state.value)
    return settled


def _debit(app: App, attempt: Attempt) -> None:
    """Take it off the Page's rate without waiting, so that broadcasts yield to it.

    In a transaction of its own: who holds the Page's row makes every sender wait.
    """
    kind = rates.kind_of(attempt.message)
    per_second = rates.aim(kind, app.settings.sends_per_second)
    try:
        with app.store.begin() as tx:
            rates.take(tx, attempt.page_id, kind, 1, per_second)
    except StoreUnavailable as exc:  # no reason not to send what has begun
        log.debug("delivery %d: the Page's rate was not debited: %s", attempt.delivery_id, exc)


def _settle(app: App, attempt: Attempt, outcome: Sent | SendError) -> Settled:
    with app.store.begin() as tx:
        return delivery.settle(tx, attempt, outcome, app.clock())


def _carry_out(app: App, graph: Graph, order: Order, first: Attempt, wait: Wait) -> Report:
    """What has begun is not to be begun again, so that a database that goes away now is another matter."""
    try:
        _see_through(app, graph, post(app, graph, app.graph_config(first.page_id), first), wait)
        return _report(app, order)
    except StoreUnavailable as exc:
        raise MayBeSent(
            f"what became of delivery {first.delivery_id} could not be recorded or read: {exc}; `otn worker` finds "
            "out, and sends nothing twice",
            order.psid,
        ) from exc


def _see_through(app: App, graph: Graph, settled: Settled, wait: Wait) -> None:
    """Try again as far as it is safe and does not take long; what is left is the worker's."""
    last: Settled | None = settled
    waits = 0
    while last is not None and last.again_at is not None:
        pause = last.again_at - app.clock()
        if pause > timedelta(0):
            waits += 1
            if waits >= TRIES or pause > LONGEST_WAIT:
                return
            wait(pause)
        last = go_on(app, graph, last.delivery.id)


def _require_same(order: Order, earlier: Delivery) -> None:
    was = (earlier.page_id, earlier.psid, earlier.topic, earlier.message_hash)
    if was != (order.page_id, order.psid, order.topic, messages.fingerprint(order.message)):
        raise InvalidMove(
            f"this id was used for another message (delivery {earlier.id}); take an id of its own for each message"
        )


def _not_one_message(problems: list[str]) -> Report:
    return Report(
        state=DeliveryState.SKIPPED.value,
        reason=Reason.NOT_ONE_MESSAGE.value,
        sentence=" ".join(problems),
        tokens_left=0,
    )


def _report(app: App, order: Order, denied: Deny | None = None) -> Report:
    with app.store.read() as tx:
        found = deliveries.by_key(tx, order.dedupe_key)
    left = _tokens_left(app, order)
    if found is not None:
        return Report(
            state=found.state.value,
            route=found.route,
            rule=found.rule,
            reason=found.reason,
            sentence=_in_words(found),
            delivery_id=found.id,
            message_id=found.message_id,
            tokens_left=left,
        )
    assert denied is not None  # noqa: S101 - what is not denied is on record
    return Report(
        state=DeliveryState.SKIPPED.value,
        reason=denied.reason.value,
        sentence=denied.sentence,
        tokens_left=left,
    )


def _tokens_left(app: App, order: Order) -> int:
    with app.store.read() as tx:
        contact = contacts.find(tx, order.page_id, order.psid)
        topic = topics.find(tx, order.topic) if order.topic else None
        if contact is None or topic is None:
            return 0
        return tokens.count(tx, contact.id, topic.id, app.clock()).available


def _in_words(found: Delivery) -> str:
    said = (found.error or "").rstrip(".")
    if found.state is DeliveryState.SENT:
        return _HOW_SENT[found.route or Route.WINDOW]
    if found.state is DeliveryState.UNKNOWN:
        return f"{said}. {_IN_DOUBT[found.route is Route.TOKEN]}"
    if found.state is DeliveryState.UNCONFIRMED:
        return "It may have been sent, and nothing can tell; it is not sent again."
    return _OTHERWISE.get(found.state, "{said}.").format(said=said or "It was not sent")


_HOW_SENT = {
    Route.WINDOW: "Sent as a standard message; no permission was spent.",
    Route.TOKEN: "Sent; it spent one permission of the topic.",
    Route.HUMAN_AGENT: "Sent as a message that a person wrote (tag HUMAN_AGENT); no permission was spent.",
}
_IN_DOUBT = {  # by whether a token pays
    True: "It may have been sent. `otn worker` asks again with the same permission, which cannot send it twice.",
    False: "It may have been sent; its echo will tell. It is not sent again.",
}
_OTHERWISE = {
    DeliveryState.QUEUED: "Not sent yet ({said}). `otn worker` goes on.",
    DeliveryState.SENDING: "It is on its way: another process is sending it, or stopped while it was.",
}
