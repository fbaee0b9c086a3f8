"""What has to be done outside of conversations: jobs, each short and safe to repeat, and a plain loop around them.

Any number of workers may run. Every job is harmless to run twice: the database decides who does what.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from otn import sending
from otn.app import App
from otn.errors import OtnError, StoreUnavailable
from otn.intake import INBOX_KEPT
from otn.sending import Graph
from otn.store import Tx, deliveries, inbox, tokens

TICK = timedelta(seconds=2)  # between looks for something that is due
HOUSEKEEPING = timedelta(minutes=1)  # between rounds of what is never urgent
TROUBLE_PAUSE = timedelta(minutes=5)  # before a delivery is looked at again that raised an error
BATCH = 500  # rows a write transaction: more would make the webhook wait
BREATH = timedelta(milliseconds=20)  # after each batch, for the same reason

log = logging.getLogger(__name__)


class Stop(Protocol):
    """A `threading.Event`, as far as it is needed: whether to stop, and a wait that a stop cuts short."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float) -> bool: ...


def run(app: App, graph: Graph, stop: Stop) -> None:
    """Do what is due, until told to stop. What is being sent at that moment is sent and recorded first."""
    kept_house_at: datetime | None = None
    while not stop.is_set():
        now = app.clock()
        keeping_house = kept_house_at is None or abs(now - kept_house_at) >= HOUSEKEEPING
        if _survives(app, graph, stop, keeping_house=keeping_house) and keeping_house:
            kept_house_at = now
        stop.wait(TICK.total_seconds())


def run_once(app: App, graph: Graph, stop: Stop) -> int:
    """Do what is due until nothing is, or told to stop; how many deliveries were taken up."""
    taken_up = 0
    while not stop.is_set() and (number := settle_what_is_open(app, graph, stop)):
        taken_up += number
    keep_house(app, stop)
    return taken_up


def settle_what_is_open(app: App, graph: Graph, stop: Stop) -> int:
    """One round over the deliveries that wait for something; how many were taken up."""
    lapse_leases(app, stop)
    return deliver_due(app, graph, stop)


def keep_house(app: App, stop: Stop) -> None:
    """Give up what no echo proved, forget old events, destroy the secrets of permissions that lapsed."""
    give_up_unconfirmed(app, stop)
    prune_inbox(app, stop)
    destroy_lapsed_tokens(app, stop)


def lapse_leases(app: App, stop: Stop) -> int:
    """What was being sent by a process that died may have been sent: it is `unknown` now."""
    now = app.clock()
    return _in_batches(app, stop, lambda tx: deliveries.lapse_leases(tx, now, BATCH), "deliveries -> unknown")


def give_up_unconfirmed(app: App, stop: Stop) -> int:
    """Window sends that no echo proved for a day stay `unconfirmed`."""
    now = app.clock()
    return _in_batches(
        app,
        stop,
        lambda tx: deliveries.give_up_unconfirmed(tx, now, BATCH),
        "deliveries unknown -> unconfirmed",
    )


def deliver_due(app: App, graph: Graph, stop: Stop) -> int:
    """Take up the deliveries whose time has come, one after the other; how many."""
    with app.store.read() as tx:
        due = deliveries.due(tx, app.clock())
    taken_up = 0
    for delivery_id in due:
        if stop.is_set():
            break
        deliver(app, graph, delivery_id)
        taken_up += 1
    return taken_up


def deliver(app: App, graph: Graph, delivery_id: int) -> None:
    """Take up one delivery. What goes wrong with it costs its neighbours nothing."""
    try:
        sending.go_on(app, graph, delivery_id)
    except StoreUnavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - a broken delivery must not stop the others
        # The text of our own errors is made for people; that of others may hold anything.
        why = str(exc) if isinstance(exc, OtnError) else type(exc).__name__
        log.error("delivery %d: put off for %s: %s", delivery_id, TROUBLE_PAUSE, why)
        with app.store.begin() as tx:
            deliveries.postpone(tx, delivery_id, app.clock() + TROUBLE_PAUSE)


def prune_inbox(app: App, stop: Stop) -> int:
    """Delete events that were dealt with and are older than the time in which Meta may deliver them again."""
    before = app.clock() - INBOX_KEPT
    return _in_batches(app, stop, lambda tx: inbox.prune(tx, before, BATCH), "inbox events deleted")


def destroy_lapsed_tokens(app: App, stop: Stop) -> int:
    """Destroy the secrets of permissions that nobody used within their year."""
    now = app.clock()
    return _in_batches(
        app, stop, lambda tx: tokens.destroy_lapsed(tx, now, BATCH), "secrets of lapsed tokens destroyed"
    )


def _in_batches(app: App, stop: Stop, change: Callable[[Tx], int], what: str) -> int:
    total = 0
    while not stop.is_set():
        with app.store.begin() as tx:
            changed = change(tx)
        total += changed
        if changed < BATCH:
            break
        stop.wait(BREATH.total_seconds())
    if total:
        log.info("%s: %d", what, total)
    return total


def _survives(app: App, graph: Graph, stop: Stop, *, keeping_house: bool) -> bool:
    """One round; whatever goes wrong is logged and tried again in the next one."""
    try:
        settle_what_is_open(app, graph, stop)
        if keeping_house:
            keep_house(app, stop)
    except OtnError as problem:
        log.error("%s; trying again", problem)
        return False
    except Exception as bug:
        log.error("something went wrong that should not have (%s); trying again", type(bug).__name__)
        log.debug("details", exc_info=True)
        return False
    return True
