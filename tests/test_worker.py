"""The worker finishes what others began, and never sends anything twice."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cli import CommandLine, forget_environment
from simulated import TOPIC, Project, environment, project

from otn import delivery, sending, worker
from otn.app import App
from otn.delivery import Order
from otn.errors import ConfigError, Unreachable
from otn.graph.protocol import HttpRequest, Sent
from otn.graph.sync import SyncGraph
from otn.messages import text
from otn.models import Origin
from otn.sending import Graph
from otn.store import deliveries, pages, tokens
from otn.store.schema import inbound_event, otn_token

PROJECT = Path(__file__).parents[1]
DAY_AND_HOUR = timedelta(hours=25)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def app(shop: Project) -> Iterator[App]:
    with shop.opened() as found:
        yield found


@pytest.fixture
def graph() -> Iterator[SyncGraph]:
    with SyncGraph() as found:
        yield found


class Rounds:
    """A stop signal that comes after some waits, which take no time."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.waits: list[float] = []

    def is_set(self) -> bool:
        return self.left <= 0

    def wait(self, timeout: float) -> bool:
        self.waits.append(timeout)
        self.left -= 1
        return self.is_set()


def once(app: App, graph: Graph) -> int:
    return worker.run_once(app, graph, threading.Event())


class Killed(BaseException):
    """The process ends here, as by kill -9: nothing catches it."""


class DiesBefore:
    """The process dies before the first byte leaves."""

    def send(self, request: HttpRequest) -> Sent:
        raise Killed


class Down:
    """No network."""

    def send(self, request: HttpRequest) -> Sent:
        raise Unreachable("ConnectionRefusedError")


class DiesAfter:
    """The process dies after Meta has the message."""

    def __init__(self, graph: SyncGraph) -> None:
        self.graph = graph

    def send(self, request: HttpRequest) -> Sent:
        self.graph.send(request)
        raise Killed


def order(shop: Project, words: str = "It is back.", *, psid: str = "7007", key: str = "cli:1") -> Order:
    return Order(
        page_id=shop.page_id,
        psid=psid,
        topic=TOPIC,
        message=text(words),
        dedupe_key=key,
        origin=Origin.CLI,
    )


def killed(app: App, graph: Graph, wish: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender dies in the middle, and its lease is over."""
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "LEASE_SECONDS", -1.0)
        with pytest.raises(Killed):
            sending.send(app, graph, wish, no_waiting)


def no_waiting(_length: timedelta) -> None:
    pass


def state(app: App, key: str = "cli:1") -> str:
    with app.store.read() as tx:
        found = deliveries.by_key(tx, key)
    assert found is not None
    return found.state.value


def available(app: App) -> int:
    with app.store.read() as tx:
        return sum(token.state == "available" for token in tokens.every(tx))


def test_a_sender_that_died_before_the_post_costs_no_message_and_no_permission(
    shop: Project, app: App, graph: SyncGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 2."""
    shop.person(permissions=2)
    shop.pass_time(DAY_AND_HOUR)
    killed(app, DiesBefore(), order(shop), monkeypatch)
    assert (state(app), shop.heard()) == ("sending", [])
    assert once(app, graph) == 1
    assert (state(app), shop.heard()) == ("sent", ["It is back."])
    assert available(app) == 1
    assert once(app, graph) == 0


def test_a_sender_that_died_after_the_post_sends_nothing_twice(
    shop: Project, app: App, graph: SyncGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 2: only the same permission is tried again, and Meta has voided that one."""
    shop.person(permissions=2)
    shop.pass_time(DAY_AND_HOUR)
    killed(app, DiesAfter(graph), order(shop), monkeypatch)
    assert once(app, graph) == 1
    assert (state(app), shop.heard()) == ("unconfirmed", ["It is back."])
    assert available(app) == 1
    assert sending.send(app, graph, order(shop), no_waiting).state == "unconfirmed"
    shop.pass_time(DAY_AND_HOUR)
    once(app, graph)
    assert shop.heard() == ["It is back."]


def test_what_others_got_proves_that_a_doubtful_message_arrived(
    shop: Project, app: App, graph: SyncGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    for psid in ("7007", "7008"):
        shop.person(psid, permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    assert sending.send(app, graph, order(shop, psid="7008", key="cli:0"), no_waiting).is_good
    killed(app, DiesAfter(graph), order(shop), monkeypatch)
    once(app, graph)
    assert (state(app), shop.heard()) == ("sent", ["It is back."])


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_window_send_whose_sender_died_is_never_repeated(
    shop: Project, app: App, graph: SyncGraph, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    shop.person(permissions=1)
    killed(app, DiesBefore() if dies == "before" else DiesAfter(graph), order(shop), monkeypatch)
    assert once(app, graph) == 0
    assert state(app) == "unknown"
    shop.pass_time(DAY_AND_HOUR)
    assert once(app, graph) == 0
    assert state(app) == "unconfirmed"
    assert shop.heard() == (["It is back."] if dies == "after" else [])
    assert available(app) == 1


def test_a_sender_that_still_works_is_left_alone(
    shop: Project, app: App, graph: SyncGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    with pytest.raises(Killed):
        sending.send(app, DiesBefore(), order(shop), no_waiting)
    assert once(app, graph) == 0
    assert state(app) == "sending"


def test_an_open_question_is_asked_again_later_with_longer_and_longer_pauses(
    shop: Project, app: App, graph: SyncGraph
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    shop.control("/faults", {"kind": "server_error", "count": None})
    assert sending.send(app, graph, order(shop), no_waiting).state == "unknown"
    assert once(app, graph) == 0
    shop.pass_time(timedelta(minutes=1))
    assert once(app, graph) == 1
    assert once(app, graph) == 0
    shop.control("/faults", method="DELETE")
    shop.pass_time(timedelta(hours=1))
    assert once(app, graph) == 1
    assert (state(app), shop.heard()) == ("sent", ["It is back."])


def test_a_limit_of_metas_delays_everything_of_the_page_and_loses_nothing(
    shop: Project, app: App, graph: SyncGraph
) -> None:
    for psid in ("7007", "7008"):
        shop.person(psid, permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    # 7007's message never left us and is due in seconds; 7008's is answered by a limit of a minute.
    with app.store.begin() as tx:
        first = delivery.begin(tx, app.require_vault(), order(shop), app.clock())
    assert isinstance(first, delivery.Attempt)
    sending.post(app, Down(), app.graph_config(shop.page_id), first)
    shop.fault("throttle")
    assert sending.send(app, graph, order(shop, psid="7008", key="cli:2"), no_waiting).state == "queued"
    shop.pass_time(timedelta(seconds=10))
    once(app, graph)
    assert (state(app, "cli:1"), state(app, "cli:2")) == ("queued", "queued")
    shop.pass_time(timedelta(minutes=2))
    once(app, graph)
    assert (state(app, "cli:1"), state(app, "cli:2")) == ("sent", "sent")
    assert shop.heard() == shop.heard("7008") == ["It is back."]


def test_an_error_in_one_delivery_does_not_stop_the_rest(
    shop: Project,
    app: App,
    graph: SyncGraph,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number, psid in enumerate(("7007", "7008")):
        shop.person(psid, permissions=1)
        with app.store.begin() as tx:
            begun = delivery.begin(
                tx, app.require_vault(), order(shop, psid=psid, key=f"cli:{number}"), app.clock()
            )
        assert isinstance(begun, delivery.Attempt)
        sending.post(app, Down(), app.graph_config(shop.page_id), begun)
    shop.pass_time(timedelta(minutes=1))
    real, calls = App.graph_config, []

    def fails_first(self: App, page_id: str | None) -> object:
        calls.append(page_id)
        if len(calls) == 1:
            raise ConfigError(["no access token is configured for page 1"])
        return real(self, page_id)

    monkeypatch.setattr(App, "graph_config", fails_first)
    with caplog.at_level(logging.INFO, "otn"):
        assert once(app, graph) == 2
    assert (state(app, "cli:0"), state(app, "cli:1")) == ("queued", "sent")
    assert "delivery 1: put off" in caplog.text
    assert "delivery 2: sending -> sent" in caplog.text
    shop.pass_time(timedelta(minutes=6))
    once(app, graph)
    assert state(app, "cli:0") == "sent"


def test_two_workers_send_a_delivery_once(
    shop: Project, app: App, graph: SyncGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.person(permissions=2)
    shop.pass_time(DAY_AND_HOUR)
    killed(app, DiesBefore(), order(shop), monkeypatch)
    with shop.opened() as other:

        class Meanwhile:
            def send(self, request: HttpRequest) -> Sent:
                assert once(other, graph) == 0
                return graph.send(request)

        assert once(app, Meanwhile()) == 1
    assert shop.heard() == ["It is back."]


def test_old_events_are_deleted_in_batches_and_lapsed_secrets_destroyed(
    shop: Project, app: App, graph: SyncGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BATCH", 1)
    shop.person(permissions=1)
    with app.store.begin() as tx:
        tx.execute(inbound_event.update().values(state="done"))
    rounds = Rounds(100)
    worker.keep_house(app, rounds)
    assert left(app) == (2, 1)
    shop.pass_time(timedelta(days=8))
    worker.keep_house(app, rounds)
    assert left(app) == (0, 1)
    assert rounds.waits == [worker.BREATH.total_seconds()] * 2
    shop.pass_time(timedelta(days=365))
    worker.keep_house(app, rounds)
    assert left(app) == (0, 0)


def left(app: App) -> tuple[int, int]:
    with app.store.read() as tx:
        events = tx.execute(sa.select(sa.func.count()).select_from(inbound_event)).scalar_one()
        query = sa.select(sa.func.count()).select_from(otn_token).where(otn_token.c.ciphertext.isnot(None))
        return events, tx.execute(query).scalar_one()


def test_a_paused_page_keeps_an_open_question_open(
    shop: Project, app: App, graph: SyncGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    killed(app, DiesBefore(), order(shop), monkeypatch)
    with app.store.begin() as tx:
        pages.pause(tx, shop.page_id, "the access token is not valid any more", None)
    once(app, graph)
    assert (state(app), shop.heard()) == ("unknown", [])
    with app.store.begin() as tx:
        pages.resume(tx, shop.page_id)
    shop.pass_time(timedelta(minutes=6))
    once(app, graph)
    assert (state(app), shop.heard()) == ("sent", ["It is back."])


def test_kill_9_in_the_middle_of_a_send_sends_nothing_twice(
    shop: Project, app: App, graph: SyncGraph
) -> None:
    """Promise 2, for real."""
    shop.person(permissions=2)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("no_answer", seconds=30)
    command = [sys.executable, "-m", "otn.cli", "--root", str(shop.root)]
    command += ["send", "7007", "--topic", TOPIC, "--text", "It is back.", "--id", "1"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**environment(), "PYTHONPATH": str(PROJECT)}
    )
    arrived = shop.control(f"/journal?kind=delivered&psid=7007&after={asked(shop)}&wait=30", method="GET")
    process.kill()
    process.communicate()
    assert len(arrived["entries"]) == 1
    assert state(app) == "sending"
    with app.store.begin() as tx:
        tx.execute(sa.text("UPDATE delivery SET lease_until = 0"))  # a minute has passed
    once(app, graph)
    assert (state(app), shop.heard()) == ("unconfirmed", ["It is back."])
    assert available(app) == 1


def asked(shop: Project) -> int:
    """The journal's last entry so far: permission requests were delivered too."""
    return int(shop.control("/journal", method="GET")["last"])


# --- otn worker


def test_once_says_what_was_done_and_shows_no_secret(
    shop: Project,
    app: App,
    graph: SyncGraph,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    otn = CommandLine(shop.root, capsys)
    assert otn("worker", "--once").err == "Nothing is due.\n"
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    killed(app, DiesBefore(), order(shop), monkeypatch)
    answer = otn("worker", "--once")
    assert (answer.code, answer.out) == (0, "")
    assert "delivery 1: sending -> sent" in answer.err
    for secret in (*shop.secrets(), "7007", "It is back."):
        assert secret not in otn.printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_worker_stops_cleanly(shop: Project, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "otn.cli", "--root", str(shop.root), "worker", "--metrics-port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "PYTHONPATH": str(PROJECT)},
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert "works on" in first, first
    os.kill(process.pid, number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "has stopped" in rest
    assert "Traceback" not in rest
