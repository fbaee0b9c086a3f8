"""A broadcast that somebody looks after, one step at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from conftest import Make

from otn import batches, broadcasts, mailing, scheduler
from otn.batches import Answered, Job
from otn.broadcasts import Plan, Timetable
from otn.delivery import settle as settle_one
from otn.errors import SendError
from otn.graph.protocol import Sent
from otn.messages import text
from otn.models import Attempt, Broadcast
from otn.store import Store, Tx, chunks, deliveries
from otn.store import broadcasts as stored
from otn.store.schema import chunk, delivery, otn_token

HOUR = timedelta(hours=1)
Answers = Sequence[tuple[Attempt, Sent | SendError]]


def settle(store: Store, answers: Answers, now: datetime) -> list[Answered]:
    """As the sender does: whatever was a yes together, the rest one by one."""
    with store.begin() as tx:
        together = batches.settle_together(tx, answers, now)
    found = []
    for attempt, answer in answers:
        state = together.get(attempt.delivery_id)
        if state is None:
            with store.begin() as tx:
                state = settle_one(tx, attempt, answer, now).delivery.state
        found.append((answer, state))
    return found


def try_again(tx: Tx, broadcast_id: int, reasons: Collection[str], now: datetime) -> int:
    """As `otn broadcasts retry` does, but in one transaction, and no more than ROWS people of ten chunks."""
    return sum(
        broadcasts.retry(tx, broadcast_id, parts, reasons, who="ann", now=now)
        for parts in broadcasts.parts_to_retry(tx, broadcast_id)
    )


class Campaign:
    """A broadcast that has started, and whose members are frozen; somebody to look after each step of it."""

    def __init__(
        self, make: Make, *psids: str, topic: str = "restock", in_window: bool = False, **timetable: Any
    ) -> None:
        self.make, self.store, self.now = make, make.store, make.now
        agreed = make.topic(topic) if psids or topic.endswith("*") else None
        for psid in psids:
            person = make.in_window(psid) if in_window else make.out_of_window(psid)
            make.token(person, agreed)
        with self.store.begin() as tx:
            plan = Plan(topic=topic, message=text("It is back."), created_by="ann")
            self.id = broadcasts.create(tx, plan, self.now).id
            broadcasts.schedule(tx, self.id, Timetable(**timetable), who="ann", now=self.now)
            scheduler.start_due(tx, self.now)
        self.freeze()

    @property
    def planned(self) -> Broadcast:
        with self.store.read() as tx:
            return stored.get(tx, self.id)

    def freeze(self) -> None:
        frozen = False
        while not frozen:
            with self.store.begin() as tx:
                before, found, after = scheduler.next_members(tx, self.planned, self.now)
                assert scheduler.freeze(tx, self.planned, before, found, after, self.now)
            frozen = after is None

    def take(self) -> Job:
        with self.store.begin() as tx:
            (chunk_id,) = chunks.due(tx, self.now, 1)
            job = batches.take(tx, chunk_id, "me")
        assert job is not None
        return job

    def begin(self, job: Job, limit: int = 10) -> tuple[Attempt, ...]:
        with self.store.begin() as tx:
            return batches.begin(tx, self.make.vault, job, limit, self.now).attempts

    def settle(self, answers: Answers) -> None:
        settle(self.store, answers, self.now)

    def release(self, job: Job) -> None:
        with self.store.begin() as tx:
            chunks.release(tx, job.chunk.id, job.chunk.fence, self.now, mailing.LAPSE)

    def send(self, answer: Sent | SendError) -> None:
        """Everything that is due, with the same answer to all of it."""
        job = self.take()
        while attempts := self.begin(job):
            self.settle([(each, answer) for each in attempts])
        self.release(job)

    def leases_run_out(self) -> None:
        with self.store.begin() as tx:
            for table in (delivery, chunk):
                held = table.c.lease_until.isnot(None)
                tx.execute(table.update().where(held).values(lease_until=1.0))
            deliveries.lapse_leases(tx, self.now)

    def end(self) -> None:
        with self.store.begin() as tx:
            scheduler.finish(tx, self.now)
            while scheduler.sweep_cancelled(tx, self.now) or scheduler.close_cancelled(tx, self.now):
                pass

    def is_due(self) -> bool:
        with self.store.read() as tx:
            return bool(chunks.due(tx, self.now, 1))

    def counts(self) -> dict[str, int]:
        with self.store.read() as tx:
            return {state: n for state, n in chunks.progress(tx, self.id).items() if n}

    def tokens(self) -> list[str]:
        with self.store.read() as tx:
            return list(tx.execute(sa.select(otn_token.c.state).order_by(otn_token.c.id)).scalars())
