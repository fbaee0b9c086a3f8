"""A million people's estimate, explanation and forecast, on SQLite and on PostgreSQL.

The peer is the least that could be called an estimate: counting the rows of one topic (`SELECT count(*)`). Ours also
knows of each person whether they would be sent to, by which route, and if not why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from statistics import median

import sqlalchemy as sa

from benchmarks import campaign, population, programs
from benchmarks.capture import databases
from benchmarks.results import Finding, met
from otn import broadcasts, estimates
from otn.app import App
from otn.audience import Audience, Conditions
from otn.broadcasts import Plan
from otn.messages import text
from otn.models import Broadcast
from otn.store import topics
from otn.store.schema import contact, otn_token

PEOPLE = 1_000_000
LIMIT_SECONDS = 1.0
FILTERS = Audience(
    include=Conditions(locales=("de_DE",)),
    exclude=Conditions(tags=("vip",), attributes=(("size", "42"),)),
    window_too=True,
)
Times = dict[str, list[float]]


def run(*, quick: bool) -> Finding:
    """Measure."""
    people, rounds = (20_000, 2) if quick else (PEOPLE, 7)
    found = {}
    with databases() as urls:
        stages = {
            "SQLite": programs.set_up("estimate-sqlite"),
            "PostgreSQL": programs.set_up("estimate-postgresql", OTN_DATABASE_URL=urls["PostgreSQL"]),
        }
        for database, stage in stages.items():
            with campaign.opened(stage) as app:
                population.settle(app, people)
                _mix(app)
                found[database] = _times(app, people, rounds)
    return _finding(found, people, rounds)


def _mix(app: App) -> None:
    """One in ten has no permission left, one in ten has an open window, half of them speak German."""
    now = app.clock()
    with app.store.begin() as tx:
        tx.execute(otn_token.update().where(otn_token.c.id % 10 == 1).values(state="used"))
        tx.execute(
            contact.update().where(contact.c.id % 10 == 2).values(window_until=now + timedelta(hours=9))
        )
        tx.execute(contact.update().where(contact.c.id % 2 == 0).values(locale="de_DE"))
    if not app.store.is_sqlite:  # as autovacuum does it within a minute
        with app.store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))


def _times(app: App, people: int, rounds: int) -> Times:
    plain, filtered = _planned(app, Audience()), _planned(app, FILTERS)
    works: dict[str, Callable[[], object]] = {
        "count(*)": lambda: _count(app),
        "estimate": lambda: _estimate(app, plain, people),
        "estimate with filters": lambda: _estimate(app, filtered, people),
        "forecast": lambda: _forecast(app),
        "first line of explain": lambda: next(estimates.explain(app.store, plain, app.clock())),
        "1,000 lines of explain": lambda: list(
            islice(estimates.explain(app.store, plain, app.clock()), 1_000)
        ),
    }
    times: Times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    return times


def _planned(app: App, meant: Audience) -> Broadcast:
    plan = Plan(
        topic=population.TOPIC, message=text(campaign.MESSAGE), audience=meant, created_by="benchmark"
    )
    with app.store.begin() as tx:
        return broadcasts.create(tx, plan, app.clock())


def _count(app: App) -> None:
    with app.store.read() as tx:
        topic_id = topics.get(tx, population.TOPIC).id
        query = sa.select(sa.func.count()).select_from(otn_token).where(otn_token.c.topic_id == topic_id)
        tx.execute(query).scalar_one()


def _estimate(app: App, planned: Broadcast, people: int) -> None:
    with app.store.read() as tx:
        assert estimates.estimate(tx, planned, app.clock()).total == people


def _forecast(app: App) -> None:
    with app.store.read() as tx:
        estimates.forecast(tx, app.clock())


def _finding(found: dict[str, Times], people: int, rounds: int) -> Finding:
    rows, slowest = [], 0.0
    for database, times in found.items():
        bare = median(times["count(*)"])
        slowest = max(slowest, median(times["estimate"]))
        rows += [
            [f"{name}, {database}", f"{1000 * median(each):,.0f}", f"{median(each) / bare:.1f} times"]
            for name, each in times.items()
        ]
    return Finding(
        name="estimate",
        columns=["what", "milliseconds", "the bare count"],
        rows=rows,
        says=[
            f"{people:,} people with a permission each; medians of {rounds} interleaved rounds. The filters ask for a "
            "locale, a tag and an attribute, and take open windows too.",
            met(f"Estimate within {LIMIT_SECONDS:.0f} s", slowest < LIMIT_SECONDS),
        ],
    )
