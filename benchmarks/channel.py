"""Messages per second through our channel, Rasa's own facebook channel, and Rasa's rest channel (its ceiling).

All run the same trained bot and are asked in turns. The peers are Rasa as it comes, with Rasa's own SQL tracker store;
rest runs a second time with ours, which shows what of the difference is the channel's. A person's "hi" is answered
with one message. The rate is messages by the time until the last reply arrived: at Graph, or in rest's answer. rest
sends nothing to anybody, checks nothing and keeps no inbox: what it does is Rasa itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

import requests

from benchmarks import programs, traffic
from benchmarks.machine import cpu_seconds
from benchmarks.programs import Server
from benchmarks.results import Finding, met
from benchmarks.traffic import Json, Post

TIMES_FACEBOOK = 40
SHARE_OF_REST = 0.75
MESSAGES_EACH = 4  # of every person: the first begins a conversation
PATIENCE = 300.0  # seconds for a round


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A channel under measurement. `people`: how many write in a round; `says`: what each of them writes."""

    name: str
    channel: str
    server: Server
    people: int
    connections: int
    says: str = "hi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round came to: messages per second, and CPU milliseconds per message of two processes."""

    rate: float
    rasa_ms: float
    graph_ms: float


def run(*, quick: bool) -> Finding:
    """Measure."""
    rounds = 1 if quick else 5
    many, few = (25, 1) if quick else (250, 3)
    with ExitStack() as stack:
        graph = stack.enter_context(programs.helper("graph"))
        contender = partial(on_air, stack, graph, people=many)
        as_shipped = programs.RASAS_TRACKER_STORE
        contenders = [
            contender("messenger"),
            contender("rest", credentials=programs.REST, store=as_shipped),
            contender("facebook", credentials=programs.FACEBOOK, store=as_shipped, people=few, connections=8),
            contender("rest", credentials=programs.REST),
        ]
        return _finding(compare(graph, contenders, rounds), rounds)


def on_air(
    stack: ExitStack,
    graph: Server,
    channel: str,
    *,
    people: int,
    connections: int = 32,
    says: str = "hi",
    credentials: Json | None = None,
    store: str | None = None,
    actions: str | None = None,
) -> Contender:
    """Start a Rasa with this channel, which ends with the stack. `store`, `actions`: as for `programs.set_up`."""
    name = channel if store or credentials is None else f"{channel}, our tracker store"
    stage = programs.set_up(
        name.replace(", ", "-").replace(" ", "-"),
        graph=graph.url,
        credentials=credentials,
        tracker_store=store,
        actions=actions,
    )
    server = stack.enter_context(programs.rasa(stage, channel))
    return Contender(
        name=name, channel=channel, server=server, people=people, connections=connections, says=says
    )


def compare(graph: Server, contenders: list[Contender], rounds: int) -> dict[str, Round]:
    """Ask them in turns; the medians of each by its name."""
    for contender in contenders:
        measure(contender, graph, people=4)  # connections, caches, the database's first pages
    found: dict[str, list[Round]] = {}
    for _ in range(rounds):
        for contender in contenders:
            found.setdefault(contender.name, []).append(measure(contender, graph))
    return {name: _middle(each) for name, each in found.items()}


def measure(contender: Contender, graph: Server, people: int | None = None) -> Round:
    """One round: everybody writes once, then everybody again, …; each waits for nobody."""
    posts = list(_posts(contender, people or contender.people))
    requests.post(f"{graph.url}/reset", timeout=10)
    before = cpu_seconds(contender.server.pid), cpu_seconds(graph.pid)
    started = time.monotonic()
    asyncio.run(traffic.as_fast_as_taken(posts, contender.connections))
    ended = time.monotonic() if contender.channel == "rest" else _last_arrival(graph, len(posts))
    spent = cpu_seconds(contender.server.pid) - before[0], cpu_seconds(graph.pid) - before[1]
    return Round(
        rate=len(posts) / (ended - started),
        rasa_ms=1000 * spent[0] / len(posts),
        graph_ms=1000 * spent[1] / len(posts),
    )


def _posts(contender: Contender, people: int) -> Iterator[Post]:
    url = f"{contender.server.url}/webhooks/{contender.channel}/webhook"
    psids = traffic.people(people)
    for _ in range(MESSAGES_EACH):
        for psid in psids:
            if contender.channel == "rest":
                yield Post(url=url, body=json.dumps({"sender": psid, "message": contender.says}).encode())
            else:
                yield traffic.webhook(url, traffic.message(psid, contender.says))


def _last_arrival(graph: Server, expected: int) -> float:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        told = requests.get(f"{graph.url}/count", timeout=10).json()
        if told["messages"] >= expected:
            assert told["messages"] == expected, f"{told['messages']} replies to {expected} messages"
            return float(told["last_at"])
        time.sleep(0.05)
    raise SystemExit(f"only {told['messages']} of {expected} replies arrived")


def _middle(rounds: list[Round]) -> Round:
    return Round(
        rate=median(each.rate for each in rounds),
        rasa_ms=median(each.rasa_ms for each in rounds),
        graph_ms=median(each.graph_ms for each in rounds),
    )


def _finding(middles: dict[str, Round], rounds: int) -> Finding:
    ours, rest, facebook = middles["messenger"], middles["rest"], middles["facebook"]
    return Finding(
        name="channel",
        columns=["channel", "messages/s", "ours is", "CPU ms per message: rasa", "fake Graph"],
        rows=[
            [
                name,
                f"{each.rate:.1f}",
                f"{ours.rate / each.rate:.2f} times",
                f"{each.rasa_ms:.1f}",
                f"{each.graph_ms:.1f}",
            ]
            for name, each in middles.items()
        ],
        says=[
            f"Medians of {rounds} interleaved rounds; one Graph call takes 100 ms; "
            f"one rasa process each, {os.cpu_count()} cores for everything.",
            met(f"At least {TIMES_FACEBOOK} times facebook", ours.rate >= TIMES_FACEBOOK * facebook.rate),
            met(f"At least {SHARE_OF_REST:.0%} of rest", ours.rate >= SHARE_OF_REST * rest.rate),
        ],
    )
