"""A broadcast to thousands, its workers as processes that somebody kills, and a Messenger in which much goes wrong."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
from simulated import environment, write_project

from otn import broadcasts
from otn.app import SENDING, App, open_app
from otn.broadcasts import Plan, Timetable
from otn.dev.processes import answers, free_port
from otn.messages import text
from otn.models import BroadcastState, DeliveryState, Topic
from otn.policy import STANDARD_WINDOW, token_expiry
from otn.store import broadcasts as stored
from otn.store import chunks, deliveries, pages, topics
from otn.store.schema import chunk, contact, delivery, otn_token
from simulator.config import DEFAULT_PAGE_ID
from simulator.people import token_id

ROOT, BIN = Path(__file__).resolve().parents[1], Path(sys.executable).parent
TOPIC, SAID = "restock-blue", "It is back, {first_name|dear friend}."
PATIENCE = 900.0  # seconds for a broadcast
START = 120.0  # seconds for a process to start on a busy machine
NICE = ("nice", "-n", "5")  # Messenger judges, and must not stand still itself: it has the machine first
AT_ONCE = 500  # rows or people in one go
LOOK = 0.25

# What befalls Graph calls and webhooks, each of them with this probability, without end.
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "lost_answer", "probability": 0.01},
    {"kind": "no_answer", "probability": 0.003, "seconds": 2},
    {"kind": "reset", "probability": 0.01},
    {"kind": "slow", "probability": 0.01, "seconds": 1},
    {"kind": "server_error", "probability": 0.01},
    {"kind": "server_error", "probability": 0.005, "delivered": True},
    {"kind": "bare_error", "probability": 0.005},
    {"kind": "html", "probability": 0.005},
    {"kind": "false_error", "probability": 0.01},
    {"kind": "duplicate_webhook", "probability": 0.05},
    {"kind": "delay_echo", "probability": 0.1, "seconds": 3},
    {"kind": "reorder_webhook", "probability": 0.02},
    {"kind": "lose_echo", "probability": 0.1},
)
# What nobody outside Meta knows (section 7 of the platform's notes): now this, now that.
OPEN_QUESTIONS: tuple[dict[str, Any], ...] = (
    {"used_token_error": "100/2018320", "token_answer_has_recipient_id": True},
    {"used_token_error": "100", "token_answer_has_recipient_id": False},
    {"used_token_error": "10/2018278", "messaging_type_with_token": False},
    {"used_token_error": "10/2018065", "token_send_needs_thread": True, "batch_size": 5},
)


@dataclass(frozen=True)
class Somebody:
    """A person of the crowd, with the texts of their permissions."""

    psid: str
    tokens: tuple[str, ...]
    wrote: bool = False
    change: dict[str, Any] = field(default_factory=dict)  # what is wrong with them


def crowd(number: int, seed: int, *, odd_ones: float) -> list[Somebody]:
    """People with a permission each, a few with two; some inside the window, a share of them can't be reached."""
    chance = random.Random(seed)  # noqa: S311 - chance, not secrets
    odd = [{"blocked": True}, {"unreachable": True}, {"thread_owner": "other"}]
    people = []
    for n in range(number):
        texts = tuple(
            f"token-{n}-{k}-{chance.getrandbits(64):x}" for k in range(1 + (chance.random() < 0.03))
        )
        change = chance.choice(odd) if chance.random() < odd_ones else {}
        people.append(Somebody(f"8{n:08}", texts, wrote=chance.random() < 0.02, change=change))
    return people


class Worker:
    """One `otn worker`, which somebody may kill."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._log = root, root / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*NICE, str(BIN / "otn"), "worker"],
                cwd=self._root,
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self._process is not None:
            self._process.wait(60)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


@dataclass
class Scene:
    """The stage of one broadcast."""

    root: Path
    app: App
    simulator: str
    people: list[Somebody]
    chance: random.Random
    workers: list[Worker]
    sleeper: Worker  # one that nobody kills
    id: int = 0
    kills: int = 0
    session: requests.Session = field(default_factory=requests.Session)

    def control(self, method: str, path: str, body: object = None) -> Any:
        answer = self.session.request(method, f"{self.simulator}/simulator{path}", json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def delivered(self) -> int:
        """How many messages have reached people."""
        return int(self.control("GET", "/stats")["delivered"])

    def pass_time(self, seconds: float) -> None:
        self.control("POST", "/clock", {"advance": seconds})

    def schedule(self, message: dict[str, Any] | None = None) -> None:
        with self.app.store.begin() as tx:
            plan = Plan(topic=TOPIC, message=message or text(SAID), created_by="test")
            self.id = broadcasts.create(tx, plan, self.app.clock()).id
            broadcasts.schedule(tx, self.id, Timetable(), who="test", now=self.app.clock())

    def state(self) -> BroadcastState:
        with self.app.store.read() as tx:
            return stored.get(tx, self.id).state

    def counts(self) -> dict[str, int]:
        with self.app.store.read() as tx:
            return {state: n for state, n in chunks.progress(tx, self.id).items() if n}

    def kill_one(self) -> None:
        worker = self.chance.choice(self.workers)
        worker.kill()
        worker.start()
        self.kills += 1

    def leases_run_out(self) -> None:
        """Instead of waiting for a minute. What somebody is writing at this moment is left alone."""
        for table in (delivery, chunk):
            held = sa.select(table.c.id).where(table.c.lease_until.isnot(None))
            free = held.with_for_update(skip_locked=True)
            with self.app.store.begin() as tx:
                tx.execute(table.update().where(table.c.id.in_(free)).values(lease_until=1.0))
        with self.app.store.begin() as tx:
            deliveries.lapse_leases(tx, self.app.clock())

    def hurry(self) -> None:
        """Let simulated time pass, where everything waits for it: until all that waits is due."""
        now = self.app.clock()
        with self.app.store.read() as tx:
            page = pages.find(tx, DEFAULT_PAGE_ID)
            nothing_now = (chunks.next_due(tx) or now) > now
            last = tx.execute(
                sa.select(sa.func.max(chunk.c.due_at)).where(chunk.c.done_at.is_(None))
            ).scalar_one()
        moments = [last if nothing_now else None, page.paused_until if page else None]
        waits = [(moment - now).total_seconds() for moment in moments if moment is not None]
        if waits and max(waits) > 0:
            self.pass_time(max(waits) + 1)

    def until(
        self,
        holds: Callable[[], bool],
        look: Callable[[], object] = lambda: None,
        patience: float = PATIENCE,
    ) -> None:
        """Wait, and look again and again meanwhile."""
        deadline = time.monotonic() + patience
        while not holds():
            assert time.monotonic() < deadline, f"{self.counts()} after {patience:.0f} s, see {self.root}"
            look()
            time.sleep(LOOK)

    def until_quiet(self) -> None:
        """Wait until Messenger has nothing more to tell."""
        self.until(lambda: self.control("GET", "/stats")["webhooks_waiting"] == 0)


@contextmanager
def scene(
    root: Path, people: Sequence[Somebody], seed: int, workers: int, **settings: str
) -> Iterator[Scene]:
    """Everything real, on loopback; `settings` are variables of the project (`OTN_DATABASE_URL`, …)."""
    ports = {"simulator": free_port(), "receiver": free_port()}
    url = f"http://127.0.0.1:{ports['simulator']}"
    root.mkdir(exist_ok=True)
    write_project(root, url, **settings)
    subprocess.run(
        [str(BIN / "otn"), "init"], cwd=root, env=environment(), check=True, stdout=subprocess.DEVNULL
    )
    with ExitStack() as end:
        _start(end, root, "simulator", ["-m", "simulator"], ports)
        receiver = str(Path(__file__).with_name("receiving.py"))
        _start(end, root, "receiver", [receiver, str(root), str(ports["receiver"])], ports)
        app = open_app(root, {}, need=SENDING)
        end.callback(app.store.close)
        playing = Scene(root, app, url, list(people), random.Random(seed), [], Worker(root, "sleeper"))  # noqa: S311 - chance, no secret
        addresses = [f"{url}/simulator/health", f"http://127.0.0.1:{ports['receiver']}/"]
        playing.until(lambda: all(answers(address) for address in addresses), patience=START)
        playing.control("PATCH", "/settings", {"deliveries": False, "retry_delays": [0.5] * 20 + [4.0] * 80})
        populate(playing)
        playing.workers += [Worker(root, f"worker{number}") for number in range(workers)]
        for worker in (*playing.workers, playing.sleeper):
            end.callback(worker.kill)
        yield playing


def _start(end: ExitStack, root: Path, name: str, command: list[str], ports: dict[str, int]) -> None:
    with (root / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=root,
            env={
                **environment(),
                "SIMULATOR_PORT": str(ports["simulator"]),
                "SIMULATOR_WEBHOOK_URL": f"http://127.0.0.1:{ports['receiver']}/",
                "OTN_CLOCK_FILE": str(root / ".otn" / "clock"),
                "PYTHONPATH": str(ROOT),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end.callback(process.wait)
    end.callback(process.kill)


def populate(playing: Scene) -> None:
    """The crowd is known to Messenger and to the store."""
    for first in range(0, len(playing.people), AT_ONCE):
        some = playing.people[first : first + AT_ONCE]
        wish = [{"psid": one.psid, "tokens": one.tokens, "wrote": one.wrote} for one in some]
        playing.control("POST", "/people", wish)
    for one in playing.people:
        if one.change:
            playing.control("PATCH", f"/people/{one.psid}", one.change)
    now = playing.app.clock()
    with playing.app.store.begin() as tx:
        pages.ensure(tx, DEFAULT_PAGE_ID, now)
        topics.add(tx, Topic(id=0, name=TOPIC, title="Back in stock", kind="restock"), now)
        topic_id = topics.get(tx, TOPIC).id
        tx.execute(contact.insert(), [_contact(n, one, now) for n, one in enumerate(playing.people, 1)])
        rows = [
            _token(playing.app, n, topic_id, secret, now)
            for n, one in enumerate(playing.people, 1)
            for secret in one.tokens
        ]
        tx.execute(otn_token.insert(), rows)


def _contact(number: int, one: Somebody, now: datetime) -> dict[str, Any]:
    opened = now if one.wrote else now - timedelta(days=30)
    return {
        "id": number,
        "page_id": DEFAULT_PAGE_ID,
        "psid": one.psid,
        "window_opened_at": opened,
        "window_opened_by": "message",
        "window_until": opened + STANDARD_WINDOW,
        "created_at": opened,
    }


def _token(app: App, contact_id: int, topic_id: int, secret: str, now: datetime) -> dict[str, Any]:
    vault = app.require_vault()
    return {
        "contact_id": contact_id,
        "topic_id": topic_id,
        "token_hash": vault.token_hash(secret),
        "ciphertext": vault.seal(secret.encode()),
        "opted_in_at": now,
        "expires_at": token_expiry(now),
        "state": "available",
        "created_at": now,
    }


# --- the judge ---


@dataclass(frozen=True)
class Findings:
    """What Messenger's own journal and the store say, held against each other."""

    twice: int
    tokens: dict[str, int]
    states: dict[str, int]
    routes: dict[str, int]
    lost: list[str]
    untrue: list[str]
    unexplained: list[str]
    faults: dict[str, int]


def judge(playing: Scene) -> Findings:
    """Compare every message and every token."""
    entries = playing.control("GET", "/journal?kind=delivered")["entries"]
    struck = playing.control("GET", "/journal?kind=fault")["entries"]
    got: dict[str, str] = {}
    people: set[str] = set()
    twice = 0
    for entry in entries:
        twice += entry["psid"] in people
        people.add(entry["psid"])
        got[entry["message"]["metadata"]] = entry["psid"]
    used = {entry["token_id"] for entry in entries if entry.get("token_id")}
    with playing.app.store.read() as tx:
        rows = tx.execute(
            sa.select(delivery, contact.c.psid).join(contact).where(delivery.c.broadcast_id == playing.id)
        ).all()
        kept = {row.token_hash: row for row in tx.execute(sa.select(otn_token))}
    payers = {row.token_id: row for row in rows if row.token_id is not None}
    return Findings(
        twice=twice,
        tokens=dict(Counter(row.state for row in kept.values())),
        states=dict(Counter(row.state for row in rows)),
        routes=dict(Counter(row.route for row in rows if row.state == DeliveryState.SENT.value)),
        lost=[found for one in playing.people for found in _lost(playing, one, kept, used, payers)],
        untrue=[f"{row.psid}: {row.state}" for row in rows if not _is_true(row, got)],
        faults=dict(Counter(fault["fault"] for fault in struck)),
        unexplained=[f"{row.psid}: {row.state}" for row in rows if row.state != "sent" and not row.reason],
    )


def _lost(
    playing: Scene, one: Somebody, kept: dict[str, Any], used: set[str], payers: dict[int, Any]
) -> Iterator[str]:
    """Permissions of a person that are not where they should be."""
    for secret in one.tokens:
        row, is_used = kept.get(playing.app.require_vault().token_hash(secret)), token_id(secret) in used
        if row is None:
            yield f"{one.psid}: no row"
        elif row.state == "used":
            if not (is_used and payers[row.id].state == "sent"):
                yield f"{one.psid}: called used, and paid for nothing"
        elif row.state == "available":
            if is_used or row.ciphertext is None:
                yield f"{one.psid}: called available, and cannot pay"
        elif not (row.state == "suspect" and row.state_reason and payers[row.id].state == "unconfirmed"):
            yield f"{one.psid}: {row.state} ({row.state_reason})"


def _is_true(row: Any, got: dict[str, str]) -> bool:
    """Whether what the store says about a message is what happened; `unconfirmed` leaves it open."""
    if row.wire_id in got and got[row.wire_id] != row.psid:
        return False
    return row.state == "unconfirmed" or (row.wire_id in got) == (row.state == "sent")
