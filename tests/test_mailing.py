"""The sender's lanes: what happens while they wait, and when they stand still."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cli import forget_environment
from simulated import Project, project
from test_broadcasts import DAY_AND_HOUR, planned, standing, tokens_in, work

from otn import batches, broadcasts, mailing, pacing, worker
from otn.app import App
from otn.graph.sync import SyncGraph
from otn.models import Broadcast
from otn.store import Tx, rates
from otn.store.schema import chunk, delivery
from otn.store.writer import GroupWriter


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def app(shop: Project) -> Iterator[App]:
    with shop.opened() as found:
        yield found


StandStill = Callable[[float], None]


@pytest.fixture
def stand_still(monkeypatch: pytest.MonkeyPatch) -> StandStill:
    """Lets seconds pass by the clock that the sender's moments are on."""
    passed, elapsed = [0.0], pacing.elapsed
    for module in (pacing, mailing):
        monkeypatch.setattr(module, "elapsed", lambda: elapsed() + passed[0])

    def stand_still(seconds: float) -> None:
        passed[0] += seconds

    return stand_still


def frozen(shop: Project, app: App, people: int) -> Broadcast:
    """A broadcast to so many people that has started; nothing of it is sent yet."""
    for number in range(people):
        shop.person(f"70{number:02}", permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    with SyncGraph() as graph:
        worker.tick(app, graph, threading.Event())
    return made


def test_who_stood_still_before_the_first_byte_sends_nothing(
    shop: Project, app: App, stand_still: StandStill, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frozen(shop, app, 2)
    real = batches.begin

    def begin_and_stand_still(*arguments: Any) -> Any:
        begun = real(*arguments)
        stand_still(mailing.LATEST_START + 1)
        return begun

    with monkeypatch.context() as patch:
        patch.setattr(batches, "begin", begin_and_stand_still)
        worker.send(app, threading.Event())
    assert shop.heard("7000") == []
    assert standing(app, made.id) == ("running", {"queued": 2})
    assert tokens_in(app, "available") == 2


def test_what_is_decided_is_true_when_it_is_written(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer may be busy for a while before it comes to a batch, and a window close meanwhile."""
    frozen(shop, app, 1)
    real, decided = GroupWriter.run, []

    async def run_later(writer: GroupWriter, fn: Any) -> Any:
        shop.pass_time(timedelta(minutes=1))
        return await real(writer, fn)

    stop = threading.Event()

    def begin(*arguments: Any) -> batches.Batch:
        decided.append(app.clock() - arguments[-1])
        stop.set()
        return batches.NOTHING

    monkeypatch.setattr(GroupWriter, "run", run_later)
    monkeypatch.setattr(batches, "begin", begin)
    worker.send(app, stop)
    assert decided[0] < timedelta(seconds=30)


def missed(
    shop: Project, app: App, stand_still: StandStill, patch: pytest.MonkeyPatch, meanwhile: Any
) -> list[int]:
    """Send, but stand still for a second once a batch is recorded; how many were permitted at once, each time."""
    permitted, reserve, begin = list[int](), rates.reserve, batches.begin

    def reserve_and_count(*arguments: Any) -> rates.Slot:
        permitted.append(arguments[3])
        return reserve(*arguments)

    def begin_and_stand_still(tx: Tx, *arguments: Any) -> batches.Batch:
        begun = begin(tx, *arguments)
        meanwhile(tx)
        stand_still(1.0)
        return begun

    with patch.context() as patched:
        patched.setattr(rates, "reserve", reserve_and_count)
        patched.setattr(batches, "begin", begin_and_stand_still)
        worker.send(app, threading.Event())
    return permitted


def test_who_missed_the_moments_asks_for_others(
    shop: Project, app: App, stand_still: StandStill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the old ones others would be sending beside it."""
    made = frozen(shop, app, 3)
    permitted = missed(shop, app, stand_still, monkeypatch, lambda _tx: None)
    assert permitted[:2] == [3, 3]
    assert standing(app, made.id)[1] == {"sent": 3}


def test_who_missed_the_moments_while_others_send_for_long_sends_nothing(
    shop: Project, app: App, stand_still: StandStill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it may be under way when its lease runs out. That Graph is at fault is not said."""
    made = frozen(shop, app, 2)

    def others_send(tx: Tx) -> None:
        rates.take(tx, shop.page_id, rates.MESSAGES, int(mailing.LATEST_START), 1.0)

    missed(shop, app, stand_still, monkeypatch, others_send)
    assert shop.heard("7000") == []
    assert standing(app, made.id) == ("running", {"queued": 2})
    assert errors_in(app) == {str(mailing.KEPT)}


def test_a_pause_holds_for_who_missed_the_moments(
    shop: Project, app: App, stand_still: StandStill, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frozen(shop, app, 2)

    def pause(tx: Tx) -> None:
        broadcasts.pause(tx, made.id, who="ann", now=app.clock())

    missed(shop, app, stand_still, monkeypatch, pause)
    assert shop.heard("7000") == []
    assert standing(app, made.id) == ("paused", {"queued": 2})


def test_one_that_is_kept_does_not_stop_the_others(
    shop: Project, app: App, stand_still: StandStill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nobody gets through to Graph would."""
    made = frozen(shop, app, 2)
    begin, kept = batches.begin, list[int]()

    def begin_and_stand_still_once(*arguments: Any) -> batches.Batch:
        begun = begin(*arguments)
        if begun.attempts and not kept:
            kept.append(begun.attempts[0].delivery_id)
            stand_still(mailing.LATEST_START + 1)
        return begun

    monkeypatch.setattr(batches, "begin", begin_and_stand_still_once)
    one_by_one = mailing.Pace(per_second=100.0, batch=1, lanes=1)
    asyncio.run(mailing.send_due(app, threading.Event(), pace=one_by_one))
    assert standing(app, made.id) == ("running", {"queued": 1, "sent": 1})


def errors_in(app: App) -> set[str]:
    with app.store.read() as tx:
        return set(tx.execute(sa.select(delivery.c.error)).scalars())


def waiting(app: App, shop: Project, monkeypatch: pytest.MonkeyPatch, meanwhile: Any) -> None:
    """Send while the Page's permits are taken for a moment; `meanwhile` happens as soon as the sender waits."""
    with app.store.begin() as tx:
        rates.take(tx, shop.page_id, rates.MESSAGES, 60, app.settings.sends_per_second)
    monkeypatch.setattr(mailing, "LOOK", 0.01)
    monkeypatch.setattr(mailing, "RENEWAL", 0.0)
    real, told = batches.keep, []

    def keep(*arguments: Any) -> bool:
        if not told:
            told.append(meanwhile(arguments[0]))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "keep", keep)
        worker.send(app, threading.Event())
    assert told


def test_a_pause_holds_although_the_sender_waits_for_permits(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frozen(shop, app, 2)
    waiting(app, shop, monkeypatch, lambda tx: broadcasts.pause(tx, made.id, who="ann", now=app.clock()))
    assert shop.heard("7000") == []
    assert standing(app, made.id) == ("paused", {"queued": 2})


def test_who_waits_for_permits_keeps_the_chunk(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At ten a second for audio and video, the permits of ten workers are minutes ahead."""
    made = frozen(shop, app, 2)
    nearly_over = chunk.update().values(lease_until=chunk.c.lease_until - mailing.LEASE_SECONDS + 0.1)
    waiting(app, shop, monkeypatch, lambda tx: tx.execute(nearly_over))
    assert standing(app, made.id)[1] == {"sent": 2}


def test_who_lost_the_chunk_while_waiting_sends_nothing_from_it(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frozen(shop, app, 2)
    others = chunk.update().values(lease_until=4e9, fence=chunk.c.fence + 1)
    waiting(app, shop, monkeypatch, lambda tx: tx.execute(others))
    assert shop.heard("7000") == []
    with app.store.begin() as tx:
        tx.execute(chunk.update().values(lease_until=1.0))
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 2})
