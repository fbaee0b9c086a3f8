"""The promises with broadcasts among everything else that happens: plans, ticks, workers, leases, stops.

`test_promises.py` is played on, with the same judge. What is added are an operator, ticks and workers, each of which
may die or stand still between any two steps. After every step must hold besides:

- nobody gets a broadcast twice, and a broadcast starts once;
- its sums are those of its rows, and a finished one has nothing open but what only an echo can tell;
- nothing is begun for one that does not run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from campaign import settle, try_again
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from test_promises import HOUR, Flight, Promises, ends, faults, hurry, mostly, rarely, said, topic_names

from otn import batches, broadcasts, scheduler
from otn.audience import Audience
from otn.batches import Job
from otn.broadcasts import Plan, Timetable
from otn.errors import SendError
from otn.mailing import LAPSE
from otn.messages import text
from otn.models import Attempt, Broadcast, BroadcastState
from otn.store import Store, Tx, chunks
from otn.store import broadcasts as stored
from otn.store.schema import audit
from otn.store.schema import chunk as chunk_table
from otn.store.schema import contact as contact_table
from otn.store.schema import delivery as delivery_table
from otn.vault import Vault

_S = BroadcastState
REASONS = (
    "unreachable",
    "cannot_receive_now",
    "bad_media",
    "bad_request",
    "no_token",
    "token_used",
    "page_paused",
)


@dataclass(eq=False)
class Held:
    """A chunk that a worker holds, or thinks that it does; and what of it is on its way."""

    job: Job
    leased: bool = True


@dataclass
class Look:
    """The members that a tick has found and not frozen yet."""

    planned: Broadcast
    before: Any
    found: Any
    after: Any


class Broadcasts(Promises):
    """The bot between people and Meta, with an operator who sends to everybody."""

    # What has no part in broadcasts makes room for what has.
    the_bot_asks = None  # type: ignore[assignment]
    the_bot_replies = None  # type: ignore[assignment]
    everybody_gets_the_same_follow_up = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Held] = []
        self.looks: list[Look] = []
        self.jobs: dict[str, Job] = {}  # by wire id, of what was begun
        self.made = 0

    def _broadcasts(self, *states: BroadcastState) -> list[Broadcast]:
        with self.store.read() as tx:
            return stored.every(tx, states=states)

    # --- an operator ---

    @rule(topic=topic_names, window_too=st.booleans(), wait=st.sampled_from([0, 0, 0, 2]), bad=rarely)
    def an_operator_plans_a_broadcast(self, topic: str, window_too: bool, wait: int, bad: bool) -> None:
        self.made += 1
        message = text(f"{'bad' if bad else 'good'} broadcast {self.made} on {topic}")
        plan = Plan(topic=topic, message=message, audience=Audience(window_too=window_too), created_by="ann")
        with self.store.begin() as tx:
            made = broadcasts.create(tx, plan, self.now)
            start_at = self.now + wait * HOUR
            broadcasts.schedule(tx, made.id, Timetable(start_at=start_at), who="ann", now=self.now)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), what=st.sampled_from(["pause", "resume", "resume", "cancel", "retry"]))
    def an_operator_decides_otherwise(self, data: st.DataObject, what: str) -> None:
        states = {
            "pause": (_S.RUNNING,),
            "resume": (_S.PAUSED, _S.HALTED),
            "cancel": (_S.RUNNING, _S.PAUSED, _S.HALTED, _S.SCHEDULED),
            "retry": (_S.FINISHED, _S.RUNNING),
        }[what]
        fitting = [each for each in self._broadcasts(*states) if what != "retry" or each.frozen_at]
        if not fitting or (what == "cancel" and data.draw(mostly)):
            return
        chosen = data.draw(st.sampled_from(fitting))
        with self.store.begin() as tx:
            if what == "retry":
                try_again(tx, chosen.id, REASONS, self.now)
            elif what != "resume" or chosen.started_at is not None:
                getattr(broadcasts, what)(tx, chosen.id, who="ann", now=self.now)

    # --- ticks ---

    @precondition(lambda self: self.made)
    @rule(dies=st.booleans())
    def a_tick_starts_and_ends(self, dies: bool) -> None:
        for step in (
            scheduler.start_due,
            scheduler.finish,
            scheduler.sweep_cancelled,
            scheduler.close_cancelled,
        ):
            self._in_one(lambda tx, step=step: step(tx, self.now), dies)

    def _in_one(self, step: Callable[[Tx], object], dies: bool = False) -> None:
        """In one transaction, before whose commit we may die."""
        try:
            with self.store.begin() as tx:
                step(tx)
                if dies:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            return

    @precondition(lambda self: self.made)
    @rule()
    def a_tick_looks_for_members(self) -> None:
        with self.store.read() as tx:
            for planned in stored.running(tx, frozen=False):
                self.looks.append(Look(planned, *scheduler.next_members(tx, planned, self.now)))

    @precondition(lambda self: self.looks)
    @rule(data=st.data(), dies=st.booleans(), again=st.booleans())
    def a_tick_freezes_them(self, data: st.DataObject, dies: bool, again: bool) -> None:
        """Perhaps late, perhaps while another does the same."""
        look = data.draw(st.sampled_from(self.looks))
        for _ in range(1 + again):
            self._in_one(
                lambda tx: scheduler.freeze(tx, look.planned, look.before, look.found, look.after, self.now),
                dies,
            )
        if not dies:
            self.looks.remove(look)

    # --- workers ---

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def a_worker_takes_a_chunk(self, data: st.DataObject) -> None:
        with self.store.read() as tx:
            due = chunks.due(tx, self.now, 3)
        if not due:
            return
        with self.store.begin() as tx:
            job = batches.take(tx, data.draw(st.sampled_from(due)), "worker")
        if job is not None:
            self.held.append(Held(job))

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(), limit=st.integers(1, 2), end=ends, dies=st.sampled_from([None, None, "early", "late"])
    )
    def a_worker_sends_a_batch(self, data: st.DataObject, limit: int, end: str, dies: str | None) -> None:
        """It may die before the commit, after it, between two POSTs, or before the answers are recorded."""
        held = data.draw(st.sampled_from(self.held))
        begun = self._begin(held, limit, dies == "early")
        if dies == "early":
            self.held.remove(held)
            return
        flights = []
        for number, attempt in enumerate(begun):
            if dies == "late" and number == data.draw(st.integers(0, len(begun))):
                break
            flights.append(self._fly(attempt, data.draw(faults)))
        if dies == "late" or end == "dead":
            self.held.remove(held)
        elif end == "late":
            self.flights += flights
        else:
            for flight in flights:
                self._settle(flight)

    def _begin(self, held: Held, limit: int, dies: bool = False) -> tuple[Attempt, ...]:
        begun: list[Attempt] = []

        def begin(tx: Tx) -> None:
            begun.extend(batches.begin(tx, self.vault, held.job, limit, self.now).attempts)

        before = state_of(self.store, held.job.broadcast.id)
        self._in_one(begin, dies)
        assert before is _S.RUNNING or not begun, "begun although it does not run"
        assert held.leased or not begun, "begun from a chunk that is somebody else's"
        self.jobs.update((attempt.wire_id, held.job) for attempt in begun)
        return tuple(begun)

    def _fly(self, attempt: Attempt, fault: Any) -> Flight:
        with self.store.read() as tx:
            query = (
                sa.select(contact_table.c.psid)
                .join(delivery_table, delivery_table.c.contact_id == contact_table.c.id)
                .where(delivery_table.c.id == attempt.delivery_id)
            )
            psid = tx.execute(query).scalar_one()
        key, token = said(attempt.message), attempt.recipient.get("one_time_notif_token")
        if token is not None:
            given = self.meta.tokens[token]
            assert (given.psid, given.topic) == (psid, key.rpartition(" ")[2]), "another one's permission"
            assert self.holder.setdefault(token, key) == key, "one token went out for two messages"
        outcome = self._post(
            attempt.recipient, attempt.message, psid, fault, messaging_type=attempt.messaging_type
        )
        return Flight(attempt, psid, self.now, outcome)

    def _settle(self, flight: Flight) -> None:
        job = self.jobs.get(flight.attempt.wire_id)
        if job is None or not isinstance(flight.attempt, Attempt):
            super()._settle(flight)
            return
        answers = settle(self.store, [(flight.attempt, flight.outcome)], self.now)
        with self.store.begin() as tx:
            batches.draw_conclusions(tx, job, answers, self.now)
        if isinstance(flight.outcome, SendError):
            self._learn(flight.outcome, flight.psid, flight.posted, flight.attempt.route)
        self._free_tokens()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_worker_gives_a_chunk_back(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        self._give_back(held)

    def _give_back(self, held: Held) -> None:
        with self.store.begin() as tx:
            chunks.release(tx, held.job.chunk.id, held.job.chunk.fence, self.now, LAPSE)

    def _leases_run_out(self, *, late_ones_too: bool) -> None:
        """Of chunks too: the dead hold nothing any more, and those who stand still do not know it."""
        for held in self.held if late_ones_too else []:
            held.leased = False
        alive = [held.job.chunk.id for held in self.held if held.leased]
        over = chunk_table.c.id.not_in(alive) & chunk_table.c.lease_until.isnot(None)
        with self.store.begin() as tx:
            tx.execute(chunk_table.update().where(over).values(lease_until=1.0))
        super()._leases_run_out(late_ones_too=late_ones_too)

    # --- the promises ---

    @invariant()
    def broadcasts_keep_their_promises(self) -> None:
        with self.store.read() as tx:
            planned = stored.every(tx)
            sums = {each.id: {s: n for s, n in chunks.progress(tx, each.id).items() if n} for each in planned}
            columns = delivery_table.c
            rows = tx.execute(
                sa.select(columns.broadcast_id, columns.state, columns.route, columns.contact_id).where(
                    columns.broadcast_id.isnot(None)
                )
            ).all()
            begun = tx.execute(
                sa.select(audit.c.subject).where(audit.c.action == "broadcast.start")
            ).scalars()
            starts = Counter(begun)
        assert all(times == 1 for times in starts.values()), "started twice"
        for each in planned:
            mine = [row for row in rows if row.broadcast_id == each.id]
            assert sums[each.id] == Counter(row.state for row in mine), "the sums are not those of the rows"
            assert len({row.contact_id for row in mine}) == len(mine), "somebody is meant twice"
            if each.state is _S.FINISHED:
                still = [row for row in mine if row.state in ("queued", "sending")]
                asked = [row for row in mine if row.state == "unknown" and row.route == "token"]
                assert not still + asked, "finished, and not done"

    def teardown(self) -> None:
        """Everybody comes back, nothing goes wrong any more: each broadcast ends, and nothing of it stays open."""
        if not hasattr(self, "flights"):
            return
        while self.flights:
            self._settle(self.flights.pop())
        self._leases_run_out(late_ones_too=True)
        while self.held:
            self._give_back(self.held.pop())
        for _ in range(40):
            if not self._broadcasts(_S.SCHEDULED, _S.RUNNING, _S.PAUSED, _S.HALTED):
                break
            self._go_on_calmly()
        self.a_tick_starts_and_ends(dies=False)
        assert not self._broadcasts(_S.SCHEDULED, _S.RUNNING, _S.PAUSED), "a broadcast that never ends"
        self.broadcasts_keep_their_promises()
        super().teardown()

    def _go_on_calmly(self) -> None:
        self.an_operator_resumes_the_page()
        for stopped in self._broadcasts(_S.PAUSED, _S.HALTED):
            with self.store.begin() as tx:
                if stopped.started_at is not None:
                    broadcasts.resume(tx, stopped.id, who="ann", now=self.now)
                else:
                    broadcasts.schedule(tx, stopped.id, Timetable(), who="ann", now=self.now)
        self.a_tick_starts_and_ends(dies=False)
        self.looks.clear()
        self.a_tick_looks_for_members()
        for look in self.looks:
            self._in_one(
                lambda tx, look=look: scheduler.freeze(  # type: ignore[misc]
                    tx, look.planned, look.before, look.found, look.after, self.now
                )
            )
        with self.store.read() as tx:
            due = chunks.due(tx, self.now, 100)
        for chunk_id in due:
            with self.store.begin() as tx:
                job = batches.take(tx, chunk_id, "worker")
            if job is None:
                continue
            held = Held(job)
            while begun := self._begin(held, 10):
                for attempt in begun:
                    self._settle(self._fly(attempt, None))
            self._give_back(held)
        self._leases_run_out(late_ones_too=False)
        self.now += 3 * HOUR


def state_of(store: Store, broadcast_id: int) -> BroadcastState:
    with store.read() as tx:
        return stored.get(tx, broadcast_id).state


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    # One person a transaction, so that there are several.
    monkeypatch.setattr(broadcasts, "ROWS", 1)
    monkeypatch.setattr(scheduler, "FREEZE", 1)
    monkeypatch.setattr(scheduler, "SWEEP", 1)


def play(fresh: Callable[[], Store], vault: Vault, examples: int) -> None:
    machine = type("Bound", (Broadcasts,), {"fresh": staticmethod(fresh), "vault": vault})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=120,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_broadcasts_keep_the_promises_whatever_happens_on_sqlite(
    sqlite_store: Store, empty: Callable[[Store], Store], vault: Vault
) -> None:
    sa.event.listen(sqlite_store.engine, "connect", hurry)
    play(lambda: empty(sqlite_store), vault, examples=25)


def test_broadcasts_keep_the_promises_whatever_happens_on_postgresql(
    postgresql_store: Store, empty: Callable[[Store], Store], vault: Vault
) -> None:
    play(lambda: empty(postgresql_store), vault, examples=5)
