"""A broadcast in a project under measurement: planned, and frozen or not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from benchmarks import population
from benchmarks.programs import Stage
from otn import broadcasts, worker
from otn.app import SENDING, App, open_app
from otn.broadcasts import Plan, Timetable
from otn.graph.sync import SyncGraph
from otn.messages import text
from otn.store import broadcasts as stored
from otn.store import chunks
from otn.store.schema import delivery

MESSAGE = "Our spring collection is here, {first_name|dear friend}."


@contextmanager
def opened(stage: Stage) -> Iterator[App]:
    """The stage's parts, for who prepares it and looks at it afterwards."""
    app = open_app(stage.folder, stage.environ, need=SENDING)
    try:
        yield app
    finally:
        app.store.close()


def schedule(app: App) -> int:
    """A broadcast to everybody, due now; its id."""
    plan = Plan(topic=population.TOPIC, message=text(MESSAGE), created_by="benchmark")
    with app.store.begin() as tx:
        made = broadcasts.create(tx, plan, app.clock())
        broadcasts.schedule(tx, made.id, Timetable(), who="benchmark", now=app.clock())
    return made.id


def freeze(app: App) -> None:
    """Start what is due and freeze all its members; nothing is sent."""
    stop = threading.Event()
    with SyncGraph() as graph:
        while worker.tick(app, graph, stop).is_busy:
            pass


def sent(app: App, broadcast_id: int) -> int:
    """How many have got it."""
    with app.store.read() as tx:
        return chunks.progress(tx, broadcast_id)["sent"]


def frozen(app: App, broadcast_id: int) -> int:
    """How many of its members have become deliveries."""
    query = sa.select(sa.func.count()).select_from(delivery).where(delivery.c.broadcast_id == broadcast_id)
    with app.store.read() as tx:
        return int(tx.execute(query).scalar_one())


def seconds_to_first(app: App, broadcast_id: int) -> float:
    """How long after it was made its first message was on its way; the bot's own replies do not count."""
    first = sa.select(delivery.c.sending_at).where(
        delivery.c.broadcast_id == broadcast_id, delivery.c.sending_at.isnot(None)
    )
    with app.store.read() as tx:
        at = tx.execute(first.order_by(delivery.c.sending_at).limit(1)).scalar_one()
        made_at = stored.get(tx, broadcast_id).created_at
    return float((at - made_at).total_seconds())
