"""How fast a broadcast goes out: at the Page's rate by `otn worker`, and as fast as it can with the limit lifted.

One Graph call takes 200 ms. The peer of the second part is an aiohttp loop that only posts: no database, no tokens,
nothing recorded. Two workers share one PostgreSQL there; how much of the machine was idle tells whether it had room for
the second one, beside the server and Graph. In the last two rows a call takes 600 ms, which leaves that room.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import requests

from benchmarks import campaign, population, programs
from benchmarks.capture import databases
from benchmarks.programs import OTN, PYTHON, Server, Stage
from benchmarks.results import Finding, met
from otn.policy import MOST_SENDS_PER_SECOND, SENDS_PER_SECOND

SECONDS = 0.2  # a Graph call
SLOW_SECONDS = 0.6  # one that leaves room on the machine for a second worker
SUSTAINED = 0.98  # of the rate aimed at
TIMES_ONE = 1.7
PATIENCE = 600.0
BARE = "a loop that only posts"
ONE, TWO = "PostgreSQL, one worker", "PostgreSQL, two workers"
SLOWLY = f", a call takes {SLOW_SECONDS * 1000:.0f} ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Messages a second, CPU milliseconds of the senders per message, and how much of the machine had nothing to do."""

    rate: float
    cpu_ms: float
    idle: float


def run(*, quick: bool) -> Finding:
    """Measure."""
    limited, lifted, rounds = (1_000, 500, 1) if quick else (30_000, 6_000, 3)
    with (
        programs.helper("graph", str(SECONDS)) as graph,
        programs.helper("graph", str(SLOW_SECONDS)) as slow,
        databases() as urls,
    ):
        rate, most = _at_the_limit(graph, limited)
        sqlite = programs.set_up("lifted-sqlite", graph=graph.url)
        server = programs.set_up("lifted-postgresql", graph=graph.url, OTN_DATABASE_URL=urls["PostgreSQL"])
        patient = replace(server, environ={**server.environ, "MESSENGER_GRAPH_URL": slow.url})
        found: dict[str, list[Sent]] = {}
        for _ in range(rounds):
            for name, sent in (
                (BARE, _bare(graph, lifted)),
                ("SQLite, one worker", _lifted(sqlite, graph, lifted, 1)),
                (ONE, _lifted(server, graph, lifted, 1)),
                (TWO, _lifted(server, graph, lifted, 2)),
                (f"{ONE}{SLOWLY}", _lifted(patient, slow, lifted, 1)),
                (f"{TWO}{SLOWLY}", _lifted(patient, slow, lifted, 2)),
            ):
                found.setdefault(name, []).append(sent)
    return _finding(
        limited, rate, most, lifted, {name: _middle(each) for name, each in found.items()}, rounds
    )


def _finding(
    limited: int, rate: float, most: int, lifted: int, found: dict[str, Sent], rounds: int
) -> Finding:
    crowded = found[TWO].rate / found[ONE].rate
    times = found[f"{TWO}{SLOWLY}"].rate / found[f"{ONE}{SLOWLY}"].rate
    return Finding(
        name="broadcast",
        columns=["sender, limit lifted", "messages/s", "CPU ms per message", "machine idle"],
        rows=[
            [f"`otn worker` at the Page's rate, {limited:,} messages", f"{rate:.1f}", "", ""],
            *(
                [name, f"{each.rate:,.0f}", f"{each.cpu_ms:.2f}", f"{each.idle:.0%}"]
                for name, each in found.items()
            ),
        ],
        says=[
            f"One Graph call takes {SECONDS * 1000:.0f} ms. "
            f"At the Page's rate no second saw more than {most} messages.",
            f"Limit lifted: medians of {rounds} interleaved rounds of {lifted:,} messages.",
            met(
                f"At least {SUSTAINED:.0%} of {SENDS_PER_SECOND:.0f} a second",
                rate >= SUSTAINED * SENDS_PER_SECOND,
            ),
            met(f"No second above {MOST_SENDS_PER_SECOND:.0f}", most <= MOST_SENDS_PER_SECOND),
            met(
                f"Two workers send at least {TIMES_ONE} times what one sends, where the machine has room for both "
                f"({times:.2f} times{SLOWLY}; {crowded:.2f} times where one leaves {found[ONE].idle:.0%} of it idle)",
                times >= TIMES_ONE,
            ),
        ],
    )


def _at_the_limit(graph: Server, people: int) -> tuple[float, int]:
    """Messages a second of one real worker, and the most in any one second, as Graph saw them arrive."""
    stage = programs.set_up("limited", graph=graph.url)
    with campaign.opened(stage) as app:
        population.settle(app, people)
        requests.post(f"{graph.url}/reset", timeout=10)
        with programs.running(stage, [OTN, "worker"], None):
            campaign.schedule(app)
            told = _until(graph, people)
    return (people - 1) / (told["last_at"] - told["first_at"]), int(told["most_a_second"])


def _until(graph: Server, messages: int) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        told: dict[str, Any] = requests.get(f"{graph.url}/count", timeout=10).json()
        if told["messages"] >= messages:
            return told
        time.sleep(0.2)
    raise SystemExit(f"only {told['messages']} of {messages} messages arrived")


def _lifted(stage: Stage, graph: Server, people: int, workers: int) -> Sent:
    """What came of so many senders."""
    with campaign.opened(stage) as app:
        population.empty(app)
        population.settle(app, people)
        made = campaign.schedule(app)
        campaign.freeze(app)
        found = _senders(stage, "worker", graph, people, workers)
        got = campaign.sent(app, made)
        assert got == people, f"{got} of {people} were sent"
    return found


def _bare(graph: Server, number: int) -> Sent:
    return _senders(programs.set_up("bare", graph=graph.url), "bare", graph, number, 1)


def _senders(stage: Stage, which: str, graph: Server, number: int, workers: int) -> Sent:
    command = [PYTHON, "-m", "benchmarks.sender", which, graph.url, str(number)]
    running = [
        subprocess.Popen(command, cwd=stage.folder, env=stage.environ, stdout=subprocess.PIPE)
        for _ in range(workers)
    ]
    told = [json.loads(process.communicate(timeout=PATIENCE)[0]) for process in running]
    seconds = max(each["ended"] for each in told) - min(each["began"] for each in told)
    idle = max(each["idle_at_end"] for each in told) - min(each["idle_at_begin"] for each in told)
    return Sent(
        rate=number / seconds,
        cpu_ms=1000 * sum(each["cpu"] for each in told) / number,
        idle=idle / (seconds * (os.cpu_count() or 1)),
    )


def _middle(found: list[Sent]) -> Sent:
    return Sent(
        rate=median(each.rate for each in found),
        cpu_ms=median(each.cpu_ms for each in found),
        idle=median(each.idle for each in found),
    )
