"""A topic that a million people agreed to, in one SQLite file: how soon it starts, and who notices.

While `otn worker` freezes and sends, Messenger goes on delivering to `rasa run` from the same file. The peer is the
same bot on the same file before the broadcast began.
"""

from __future__ import annotations

import asyncio
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles

from benchmarks import campaign, population, programs, traffic
from benchmarks.programs import OTN, Server
from benchmarks.results import Finding, met
from benchmarks.traffic import Post

PEOPLE = 1_000_000
PER_SECOND = 20.0
LIMIT_MS = 50.0
START_SECONDS = 5.0
MOST_MB = 200.0
GRAPH_SECONDS = "0.2"


def run(*, quick: bool) -> Finding:
    """Measure."""
    people, seconds = (20_000, 5.0) if quick else (PEOPLE, 90.0)
    with programs.helper("graph", GRAPH_SECONDS) as graph:
        stage = programs.set_up("million", graph=graph.url)
        with campaign.opened(stage) as app:
            population.settle(app, people)
            with (
                programs.rasa(stage, "messenger") as bot,
                programs.running(stage, [OTN, "worker"], None) as worker,
            ):
                before = asyncio.run(_answers(bot, seconds / 3))
                made = campaign.schedule(app)
                during = asyncio.run(_answers(bot, seconds))
                frozen, peak = campaign.frozen(app, made), _peak_mb(worker.pid)
    return _finding(
        people,
        before,
        during,
        campaign.seconds_to_first(app, made),
        campaign.sent(app, made),
        frozen,
        peak,
        seconds,
    )


async def _answers(server: Server, seconds: float) -> list[float]:
    url = f"{server.url}/webhooks/messenger/webhook"
    writers = cycle(traffic.people(5_000))
    posts: list[Post] = [
        traffic.webhook(url, traffic.message(psid))
        for psid, _ in zip(writers, range(round(PER_SECOND * seconds)), strict=False)
    ]
    return await traffic.steadily(posts, PER_SECOND)


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _finding(
    people: int,
    before: list[float],
    during: list[float],
    first: float,
    messages: int,
    frozen: int,
    peak: float,
    seconds: float,
) -> Finding:
    rounds = {"before the broadcast": before, "while it freezes and sends": during}
    p99 = {name: 1000 * quantiles(each, n=100, method="inclusive")[-1] for name, each in rounds.items()}
    return Finding(
        name="million",
        columns=["the webhook's 200", "webhooks", "median ms", "99th percentile ms", "longest ms"],
        rows=[
            [
                name,
                str(len(each)),
                f"{1000 * median(each):.1f}",
                f"{p99[name]:.1f}",
                f"{1000 * max(each):.1f}",
            ]
            for name, each in rounds.items()
        ],
        says=[
            f"{people:,} tokens of one topic; {PER_SECOND:.0f} webhooks a second, each with a turn; in {seconds:.0f} s "
            f"{frozen:,} members were frozen and {messages:,} messages sent.",
            f"The first message left {first:.1f} s after the broadcast was scheduled; "
            f"the worker's memory peaked at {peak:.0f} MB.",
            met(f"99 of 100 answers within {LIMIT_MS:.0f} ms", p99["while it freezes and sends"] < LIMIT_MS),
            met(f"First message within {START_SECONDS:.0f} s", first < START_SECONDS),
            met(f"Worker's peak below {MOST_MB:.0f} MB", peak < MOST_MB),
        ],
    )
