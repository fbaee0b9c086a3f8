"""The sender's lanes: what happens while they wait, and when they stand still."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cli import forget_environment
from simulated import Project, project
from test_broadcasts import DAY_AND_HOUR, planned, standing, tokens_in, work

from otn import batches, broadcasts, mailing, worker
from otn.app import App
from otn.graph.sync import SyncGraph
from otn.models import Broadcast
from otn.store import rates
from otn.store.schema import chunk
from otn.store.writer import GroupWriter


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    # A test's clock is not its neighbour's: who is told to keep a distance from the other's messages waits for hours.
    monkeypatch.setattr(mailing, "_distance", mailing._Distance())
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def app(shop: Project) -> Iterator[App]:
    with shop.opened() as found:
        yield found


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
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frozen(shop, app, 2)
    elapsed, real = [0.0], batches.begin

    def begin_and_stand_still(*arguments: Any) -> Any:
        begun = real(*arguments)
        elapsed[0] += mailing.LATEST_START + 1
        return begun

    with monkeypatch.context() as patch:
        patch.setattr(mailing, "_elapsed", lambda: elapsed[0])
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


async def test_after_a_standstill_messages_leave_one_by_one_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, left = [100.0], list[float]()
    yield_ = asyncio.sleep

    async def sleep(seconds: float) -> None:
        until = now[0] + seconds
        while now[0] < until:
            await yield_(0)

    async def leave() -> None:
        await distance.keep("1001", 0.02)
        left.append(now[0])

    monkeypatch.setattr(mailing, "_elapsed", lambda: now[0])
    monkeypatch.setattr(mailing.asyncio, "sleep", sleep)
    distance = mailing._Distance()
    leaving = [asyncio.create_task(leave()) for _ in range(20)]
    for milliseconds in (*[1] * 50, 150, *[1] * 500):
        now[0] += milliseconds / 1000
        for _ in range(5):
            await yield_(0)
    await asyncio.gather(*leaving)
    gaps = [after - before for before, after in itertools.pairwise(left)]
    assert len(left) == 20
    assert min(gaps) >= 0.02 - mailing.LATE - 0.002


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
