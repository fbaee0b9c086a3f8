"""What has to be done outside of conversations: jobs, each safe to repeat.

Any number of workers may run. Every job is harmless to run twice: the database decides who does what. `otn.queue` hands
the jobs to workers; here stands what they do.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from otn import mailing, metrics, scheduler, sending
from otn.app import App
from otn.errors import OtnError, StoreUnavailable
from otn.intake import INBOX_KEPT
from otn.models import Broadcast
from otn.sending import Graph
from otn.store import Tx, broadcasts, chunks, deliveries, inbox, tokens

TICK = timedelta(seconds=2)  # between looks for something that is due
HOUSEKEEPING = timedelta(minutes=1)  # between rounds of what is never urgent
TROUBLE_PAUSE = timedelta(minutes=5)  # before a delivery is looked at again that raised an error
BATCH = 200  # rows a write transaction: more would make the webhook wait
BREATH = timedelta(milliseconds=40)  # after each batch, for the same reason
FREEZES_A_TICK = 20  # batches, so that a tick stays short
HINTS = 4  # chunks that a tick names: more than any one worker sends at once

log = logging.getLogger(__name__)


class Stop(Protocol):
    """A `threading.Event`, as far as it is needed: whether to stop, and a wait that a stop cuts short."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float) -> bool: ...


def run_once(app: App, graph: Graph, stop: Stop) -> int:
    """Do what is due until nothing is, or told to stop; how many messages were taken up."""
    taken_up = 0
    while not stop.is_set():
        moved = tick(app, graph, stop)
        sent = send(app, stop)
        taken_up += moved.deliveries + sent
        if not (moved.is_busy or moved.deliveries or sent):
            break
    keep_house(app, stop)
    return taken_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one tick came to. `deliveries`: single ones taken up; `is_busy`: there is more to do at once.

    `chunks`: parts of broadcasts that are due and that nobody holds.
    """

    deliveries: int
    is_busy: bool
    chunks: tuple[int, ...] = ()


def tick(app: App, graph: Graph, stop: Stop) -> Tick:
    """Everything that time brings: starts, members frozen, dead senders, single deliveries, ends.

    Any number of ticks may run at once.
    """
    lapse_leases(app, stop)
    start_broadcasts(app)
    is_busy = freeze_members(app, stop)
    finish_broadcasts(app, stop)
    deliveries_taken_up = deliver_due(app, graph, stop)
    with app.store.read() as tx:
        due = chunks.due(tx, app.clock(), HINTS, app.pages_with_token)
        silent = chunks.waiting_pages(tx, app.pages_with_token)
    for page_id in silent:
        _warn_of_missing_token(page_id)
    return Tick(deliveries=deliveries_taken_up, is_busy=is_busy, chunks=tuple(due))


def send(app: App, stop: Stop, first: int | None = None) -> int:
    """Send the chunks that are due, beginning with `first`; how many messages were POSTed."""
    return asyncio.run(mailing.send_due(app, stop, first))


def start_broadcasts(app: App) -> None:
    """Start those whose time has come."""
    now = app.clock()
    with app.store.read() as tx:
        anything = bool(broadcasts.due(tx, now, 1))
    if anything:
        with app.store.begin() as tx:
            log.info("broadcasts scheduled -> running or halted: %d", scheduler.start_due(tx, now))


def freeze_members(app: App, stop: Stop) -> bool:
    """Freeze some members of each broadcast that has started; whether any are left."""
    with app.store.read() as tx:
        unfrozen = broadcasts.running(tx, frozen=False)
    left = [planned for planned in unfrozen if not _freeze(app, planned, stop)]
    return bool(left) and not stop.is_set()


def _freeze(app: App, planned: Broadcast, stop: Stop) -> bool:
    """Freeze some; whether that were all of them."""
    for _ in range(FREEZES_A_TICK):
        if stop.is_set():
            return False
        now = app.clock()
        with app.store.read() as tx:
            before, found, after = scheduler.next_members(tx, planned, now)
        with app.store.begin() as tx:
            if not scheduler.freeze(tx, planned, before, found, after, now):
                return True  # somebody else freezes it at this moment, or it was stopped
        if after is None:
            log.info("broadcast %d: all members are frozen", planned.id)
            return True
        stop.wait(BREATH.total_seconds())
    return False


def finish_broadcasts(app: App, stop: Stop) -> None:
    """End those of which nothing is left to send, and empty the queues of cancelled ones."""
    now = app.clock()
    with app.store.read() as tx:
        ending = scheduler.anything_to_end(tx)
    if ending:
        with app.store.begin() as tx:
            scheduler.finish(tx, now)
        for step, what, at_once in (
            (scheduler.sweep_cancelled, "deliveries -> cancelled", scheduler.SWEEP),
            (scheduler.close_cancelled, "chunks of cancelled broadcasts done", scheduler.CHUNKS),
        ):
            _in_batches(app, stop, functools.partial(step, now=now), what, at_once)


@functools.cache  # once a Page and process
def _warn_of_missing_token(page_id: str) -> None:
    log.warning("broadcasts wait: no access token for page %s (credentials.yml: pages)", page_id)


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
        settled = sending.go_on(app, graph, delivery_id)
        if settled is not None:
            metrics.count(settled.delivery.state)
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


def _in_batches(
    app: App, stop: Stop, change: Callable[[Tx], int], what: str, at_once: int | None = None
) -> int:
    total = 0
    while not stop.is_set():
        with app.store.begin() as tx:
            changed = change(tx)
        total += changed
        if changed < (at_once or BATCH):
            break
        stop.wait(BREATH.total_seconds())
    if total:
        log.info("%s: %d", what, total)
    return total


def survives(job: Callable[[], object]) -> bool:
    """Do a job; whatever goes wrong is logged, and tried again by whoever comes next."""
    try:
        job()
    except OtnError as problem:
        log.error("%s; trying again", problem)
        return False
    except Exception as bug:
        log.error("something went wrong that should not have (%s); trying again", type(bug).__name__)
        log.debug("details", exc_info=True)
        return False
    return True
