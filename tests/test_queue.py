"""The queue hands out jobs; losing it, or filling it with nonsense, loses nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli import forget_environment
from simulated import Project, project
from test_broadcasts import DAY_AND_HOUR, planned, standing

from otn import queue, worker
from otn.app import App
from otn.errors import StoreUnavailable
from otn.queue import Queue

PATIENCE = 30.0  # seconds for anything


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    monkeypatch.setattr(worker, "TICK", worker.BREATH)
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def app(shop: Project) -> Iterator[App]:
    with shop.opened() as found:
        yield found


class Told(threading.Event):
    """A stop signal that comes by itself once something holds, looked at whenever somebody waits for it."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        super().__init__()
        self._holds = holds
        self._patience = threading.Timer(PATIENCE, self.set)
        self._patience.daemon = True
        self._patience.start()

    def wait(self, timeout: float | None = None) -> bool:
        if self._holds():
            self.set()
        return super().wait(timeout)


def works_until(app: App, holds: Callable[[], bool]) -> None:
    Queue(app, Told(holds)).work()
    assert holds()


def is_finished(app: App, broadcast_id: int) -> bool:
    return standing(app, broadcast_id)[0] == "finished"


def test_a_worker_sends_what_was_planned(shop: Project, app: App) -> None:
    for number in range(30):
        shop.person(f"70{number:02}", permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    works_until(app, lambda: is_finished(app, made.id))
    assert standing(app, made.id) == ("finished", {"sent": 30})


def test_trouble_in_a_job_stops_nobody_and_shows_no_secret(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    troubles: list[Exception] = [StoreUnavailable("the database does not answer"), KeyError("what a secret")]
    real = worker.lapse_leases
    done = threading.Event()

    def troubled(*arguments: object) -> int:
        if troubles:
            raise troubles.pop(0)
        done.set()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "lapse_leases", troubled)
    works_until(app, done.is_set)
    assert "does not answer" in caplog.text
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_ticks_go_on_while_a_broadcast_is_sent(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its members would not be frozen, dead senders not be found, and nothing else be sent for its length."""
    sending, ticks, enough = threading.Semaphore(0), [0], threading.Event()

    def send(*_: object) -> int:
        sending.release()
        enough.wait(PATIENCE)
        return 0

    def tick(*_: object) -> worker.Tick:
        ticks[0] += sending.acquire(blocking=False) or bool(ticks[0])
        if ticks[0] > 20:
            enough.set()
        return worker.Tick(deliveries=0, is_busy=False, chunks=(1, 2, 3, 4))

    monkeypatch.setattr(worker, "send", send)
    monkeypatch.setattr(worker, "tick", tick)
    works_until(app, enough.is_set)


def test_the_queue_s_file_may_vanish(shop: Project, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        shop.person(f"70{number:02}", permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    ticks: list[int] = []
    real = worker.tick
    made: list[int] = []

    def ticking(*arguments: object) -> worker.Tick:
        ticks.append(1)
        if len(ticks) == 2:
            for path in (shop.root / ".otn").glob("queue.db*"):
                path.unlink()
            made.append(planned(app).id)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "tick", ticking)
    works_until(app, lambda: bool(made) and is_finished(app, made[0]))
    assert len(ticks) >= 2


def test_whoever_writes_into_the_queue_runs_no_code(shop: Project, app: App) -> None:
    """Neither pickles nor texts nor unknown jobs do anything but make a worker look."""
    huey = queue.open_huey(app.settings.queue_url)
    for nonsense in (
        b"cos\nsystem\n(S'touch pwned'\ntR.",
        b"{}",
        b'{"name": "x", "args": ["a"], "kwargs": {}}',
    ):
        huey.storage.enqueue(nonsense)
    shop.person("7001", permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    works_until(app, lambda: is_finished(app, made.id))
    assert not (shop.root / "pwned").exists()


def test_the_queue_is_a_file_of_its_own(app: App) -> None:
    queue.open_huey(app.settings.queue_url).storage.enqueue(b"hint")
    path = app.settings.root / ".otn" / "queue.db"
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM task").fetchone() == (1,)
