"""How long Meta waits for the webhook's 200: while every turn takes three seconds, and while others write.

A response server makes each turn last. In the second round another process writes a hundred thousand rows into
the same SQLite file, at most 500 a transaction and a pause after each, as everything here does. The peer is
Rasa's facebook channel, which answers after the turn.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from itertools import cycle, islice, takewhile
from statistics import median, quantiles

from benchmarks import programs, traffic
from benchmarks.programs import PYTHON, Server, Stage
from benchmarks.results import Finding, met
from benchmarks.traffic import Post

TURN_SECONDS = 3.0
RESPONSE = '{"text": "Hi!"}'
PER_SECOND = 20.0
PER_SECOND_FACEBOOK = 1.0  # it manages two, with a Graph that takes 100 ms a call
LIMIT_MS = 50.0
ROWS = 100_000
PEOPLE = 5_000  # who write in turns


def run(*, quick: bool) -> Finding:
    """Measure."""
    seconds, rows = (4, 5_000) if quick else (40, ROWS)
    with programs.helper("graph") as graph, programs.helper("reply", str(TURN_SECONDS), RESPONSE) as nlg:
        ours = programs.set_up("messenger", graph=graph.url, nlg=nlg.url)
        with programs.rasa(ours, "messenger") as server:
            alone = asyncio.run(_answers(server, "messenger", PER_SECOND, seconds))
        ours = programs.set_up("messenger", graph=graph.url, nlg=nlg.url)  # without the backlog of turns
        with programs.rasa(ours, "messenger") as server:
            beside, took = asyncio.run(_answers_beside_a_writer(server, ours, rows))
        theirs = programs.set_up("facebook", graph=graph.url, nlg=nlg.url, credentials=programs.FACEBOOK)
        with programs.rasa(theirs, "facebook") as server:
            facebook = asyncio.run(_answers(server, "facebook", PER_SECOND_FACEBOOK, seconds))
    rounds = {"messenger": alone, f"messenger, {rows:,} rows written": beside, "facebook": facebook}
    return _finding(rounds, rows / took)


async def _answers(server: Server, channel: str, per_second: float, seconds: float) -> list[float]:
    posts = islice(_posts(server, channel), round(per_second * seconds))
    return await traffic.steadily(posts, per_second)


async def _answers_beside_a_writer(server: Server, stage: Stage, rows: int) -> tuple[list[float], float]:
    """The answers while the writer writes, and the seconds that it wrote."""
    writer = await asyncio.create_subprocess_exec(
        *(PYTHON, "-m", "benchmarks.writer", str(rows)),
        cwd=stage.folder,
        env=stage.environ,
        stdout=subprocess.PIPE,
    )
    try:
        until_it_ends = takewhile(lambda _: writer.returncode is None, _posts(server, "messenger"))
        answers = await traffic.steadily(until_it_ends, PER_SECOND)
    finally:
        if writer.returncode is None:
            writer.kill()
    return answers, float((await writer.communicate())[0])


def _posts(server: Server, channel: str) -> Iterator[Post]:
    url = f"{server.url}/webhooks/{channel}/webhook"
    for psid in cycle(traffic.people(PEOPLE)):
        yield traffic.webhook(url, traffic.message(psid))


def _finding(rounds: dict[str, list[float]], rows_per_second: float) -> Finding:
    p99 = {name: _p99_ms(answers) for name, answers in rounds.items()}
    ours = [value for name, value in p99.items() if name != "facebook"]
    return Finding(
        name="answer",
        columns=[
            "channel",
            "webhooks",
            "median ms",
            "99th percentile ms",
            "longest ms",
            "facebook's 99th is",
        ],
        rows=[
            [
                name,
                str(len(answers)),
                f"{1000 * median(answers):.1f}",
                f"{p99[name]:.1f}",
                f"{1000 * max(answers):.1f}",
                f"{p99['facebook'] / p99[name]:.0f} times",
            ]
            for name, answers in rounds.items()
        ],
        says=[
            f"Every turn takes {TURN_SECONDS:.0f} s; {PER_SECOND:.0f} webhooks a second, to facebook "
            f"{PER_SECOND_FACEBOOK:.0f}, each timed from the moment when it was due; "
            f"the writer wrote {rows_per_second:,.0f} rows a second.",
            met(f"99 of 100 answers within {LIMIT_MS:.0f} ms", max(ours) < LIMIT_MS),
        ],
    )


def _p99_ms(answers: list[float]) -> float:
    return 1000 * quantiles(answers, n=100, method="inclusive")[-1]
