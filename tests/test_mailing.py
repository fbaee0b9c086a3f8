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
    made, stop = frozen(shop, app, 2), threading.Event()
    real = batches.begin

    def begin_and_stand_still(*arguments: Any) -> Any:
        begun = real(*arguments)
        stand_still(mailing.LATEST_START + 1)
        stop.set()
        return begun

    with monkeypatch.context() as patch:
        patch.setattr(batches, "begin", begin_and_stand_still)
        worker.send(app, stop)
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


def test_who_missed_the_moments_asks_for_others(
    shop: Project, app: App, stand_still: StandStill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the old ones others would be sending beside it. What did not leave is no try."""
    made = frozen(shop, app, 3)
    permitted, reserve, begin = list[int](), rates.reserve, batches.begin

    def reserve_and_count(*arguments: Any) -> rates.Slot:
        permitted.append(arguments[3])
        return reserve(*arguments)

    def begin_and_stand_still_once(*arguments: Any) -> batches.Batch:
        begun = begin(*arguments)
        stand_still(1.0 if len(permitted) == 1 else 0.0)
        return begun

    monkeypatch.setattr(rates, "reserve", reserve_and_count)
    monkeypatch.setattr(batches, "begin", begin_and_stand_still_once)
    worker.send(app, threading.Event())
    assert permitted[:2] == [3, 3]
    assert standing(app, made.id)[1] == {"sent": 3}
    with app.store.read() as tx:
        assert set(tx.execute(sa.select(delivery.c.attempts)).scalars()) == {1}


def test_where_few_may_leave_a_second_few_are_recorded_at_once(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded is not called back, and its lease runs."""
    frozen(shop, app, 2)
    begun, begin = list[int](), batches.begin

    def begin_and_count(tx: Tx, vault: Any, job: Any, number: int, now: Any) -> batches.Batch:
        begun.append(number)
        return begin(tx, vault, job, number, now)

    monkeypatch.setattr(batches, "begin", begin_and_count)
    asyncio.run(mailing.send_due(app, threading.Event(), pace=mailing.Pace(per_second=1.0, lanes=1)))
    assert begun[:2] == [1, 1]


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
