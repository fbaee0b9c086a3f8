"""Sends the chunks of broadcasts: a few lanes side by side, each with a small batch between two transactions.

    permits of the Page's rate → begin (decide, reserve, `sending`; committed) → POSTs → settle → …

Whoever holds a chunk may die at any point: its lease runs out, what it was sending becomes unknown, and another worker
goes on. What was claimed but not yet sent when the lease may have run out is not sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import ceil
from typing import Protocol, TypeVar
from uuid import uuid4

from otn import batches, delivery, metrics
from otn.app import App
from otn.batches import Answered, Batch, Job, Result
from otn.delivery import LEASE_SECONDS
from otn.errors import InvalidMove, Kept, Refused, SendError, StoreUnavailable, Unreachable
from otn.graph.aio import AsyncGraph
from otn.graph.protocol import Sent, build_send
from otn.models import Attempt, DeliveryState
from otn.pacing import AT_ONCE, DatabaseClock, Lead, Permits, Rate, elapsed, spread
from otn.store import Tx, chunks, rates
from otn.store.engine import LOOK_SECONDS
from otn.store.writer import GroupWriter

T = TypeVar("T")

# A POST that would begin later than this after it was recorded does not begin: its lease may have run out before
# the answer is there. Below LEASE_SECONDS less the longest time of a POST.
LATEST_START = LEASE_SECONDS / 2
SETTLE_TRIES = (
    8  # while the database does not answer; then the lease runs out, and the outcome is found later
)
LAPSE = timedelta(seconds=LEASE_SECONDS)
RENEWAL = LEASE_SECONDS / 4  # between renewals of a chunk's lease while waiting for permits
LARGEST_GROUP = 3  # steps of lanes in a transaction, and
BREATH = 2 * LOOK_SECONDS  # seconds after it: conversations write too, and come first
LOOK = 0.25  # seconds between looks whether to stop, while waiting
AHEAD = 3.0  # seconds for which the lanes of a sender hold permits, at most
SPAN = 1.0  # seconds that the messages of a batch are apart, at most
KEPT = Kept("its moment had passed, or the worker was told to stop")

log = logging.getLogger(__name__)


class Stop(Protocol):
    """A `threading.Event`, as far as it is needed."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much at once. `batch`: messages a transaction; `lanes`: batches under way at once in one chunk.

    `per_second`: the Page's rate, over all workers; None only for measuring what is possible.
    """

    per_second: float | None
    batch: int = 10
    lanes: int = 20


async def send_due(app: App, stop: Stop, first: int | None = None, pace: Pace | None = None) -> int:
    """Send chunk after chunk until none is due or told to stop; how many messages were POSTed.

    `first`: where to begin, if that one is still free.
    """
    pace = pace or Pace(per_second=app.settings.sends_per_second)
    async with AsyncGraph(connections=2 * pace.batch * pace.lanes) as graph:
        mailing = _Mailing(app, graph, stop, pace)
        try:
            return await mailing.run(first)
        finally:
            await mailing.close()


class _Mailing:
    """One worker's share, in one event loop."""

    def __init__(self, app: App, graph: AsyncGraph, stop: Stop, pace: Pace) -> None:
        self._app = app
        self._graph = graph
        self._stop = stop
        self._pace = pace
        self._owner = f"mailing:{uuid4()}"
        # SQLite lets one writer in at a time, so that lanes do best to share their commits. On PostgreSQL each has
        # its own: who waits for a row must hold no row that somebody else's lane waits for.
        self._writer = (
            GroupWriter(app.store, largest_group=LARGEST_GROUP, breath=BREATH)
            if app.store.is_sqlite
            else None
        )
        self._database_clock, self._lead = DatabaseClock(), Lead()
        self._posted = 0
        self._graph_is_down = False

    async def run(self, first: int | None) -> int:
        job = await self._take(first) if first is not None else None
        while not self._stop.is_set() and not self._graph_is_down:
            job = job or await self._next()
            if job is None:
                break
            await self._send(job)
            job = None
        return self._posted

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close()

    async def _next(self) -> Job | None:
        """Hold the first chunk that is due and free."""
        now, pages = self._app.clock(), self._app.pages_with_token
        for chunk_id in await self._read(lambda tx: chunks.due(tx, now, 20, pages)):
            if (job := await self._take(chunk_id)) is not None:
                return job
        return None

    async def _take(self, chunk_id: int) -> Job | None:
        return await self._write(lambda tx: batches.take(tx, chunk_id, self._owner))

    async def _send(self, job: Job) -> None:
        pages = self._app.pages_with_token
        # A hint may come from a worker that knows more access tokens: the chunk is that one's.
        ended = await self._send_in_lanes(job) if pages is None or job.chunk.page_id in pages else []
        now = self._app.clock()
        await self._write(lambda tx: chunks.release(tx, job.chunk.id, job.chunk.fence, now, LAPSE))
        for trouble in ended:
            if trouble is not None:
                raise trouble

    async def _send_in_lanes(self, job: Job) -> list[BaseException | None]:
        """Send what is in a chunk; how each lane ended."""
        counted = await self._read(lambda tx: chunks.count(tx, job.chunk.id))
        left = _Left(counted.get("queued", 0) + counted.get("unknown", 0))
        lanes = min(self._lanes(job), -(-left.number // self._batch(job)))
        return await asyncio.gather(*(self._lane(job, left) for _ in range(lanes)), return_exceptions=True)

    async def _lane(self, job: Job, left: _Left) -> None:
        while not self._stop.is_set() and (number := left.take(self._batch(job))):
            if self._graph_is_down or (permits := await self._permitted(job, number)) is None:
                return
            began = elapsed()  # before it is recorded: a pause between the two counts as well
            batch = await self._begin(job, number)
            self._lead.learn(elapsed() - began)
            if unused := number - len(batch.attempts):
                await self._give_back(job, permits, unused)
            if batch.attempts:
                results = await self._post_all(batch, permits, began)
                await self._record(job, batch, results)
                left.put_back(sum(isinstance(outcome, Kept) for _, outcome in results))
            if not batch.taken:
                return

    def _lanes(self, job: Job) -> int:
        """How many lanes: fewer where few may leave in a second, since what others say waits behind their permits."""
        rate = self._rate(job)
        most = self._pace.lanes
        return most if rate is None else min(most, ceil(rate.per_second * AHEAD / self._batch(job)))

    def _batch(self, job: Job) -> int:
        """How many at once: where few may leave in a second, fewer, for what is recorded is not called back."""
        rate = self._rate(job)
        return self._pace.batch if rate is None else min(self._pace.batch, ceil(rate.per_second * SPAN))

    async def _begin(self, job: Job, number: int) -> Batch:
        vault, clock = self._app.require_vault(), self._app.clock
        for _ in range(SETTLE_TRIES):
            try:  # the clock is read when it is this batch's turn to be written
                return await self._write(lambda tx: batches.begin(tx, vault, job, number, clock()))
            except InvalidMove:  # a token went elsewhere between two looks; nothing was written
                continue
        return batches.NOTHING

    async def _post_all(self, batch: Batch, permits: Permits, began: float) -> list[Result]:
        """POST each at a moment that is permitted; what misses its moment is kept."""
        posts = list[asyncio.Task[Sent | SendError]]()

        def post() -> None:
            posts.append(asyncio.create_task(self._post(batch.attempts[len(posts)], began)))

        await spread(permits, len(batch.attempts), post)
        outcomes = [*await asyncio.gather(*posts), *(KEPT for _ in batch.attempts[len(posts) :])]
        left = [outcome for outcome in outcomes if not isinstance(outcome, Kept)]
        self._posted += len(left)
        # Nobody gets through: the next tick tries again, rather than all that wait one after the other.
        self._graph_is_down |= bool(left) and all(isinstance(outcome, Unreachable) for outcome in left)
        return list(zip(batch.attempts, outcomes, strict=True))

    async def _post(self, attempt: Attempt, began: float) -> Sent | SendError:
        if self._stop.is_set() or elapsed() - began > LATEST_START:
            return KEPT
        request = build_send(
            self._app.graph_config(attempt.page_id),
            recipient=attempt.recipient,
            message=attempt.message,
            messaging_type=attempt.messaging_type,
            tag=attempt.tag,
            notification_type=attempt.notification_type,
        )
        try:
            return await self._graph.send(request)
        except SendError as error:
            return error

    async def _record(self, job: Job, batch: Batch, results: Sequence[Result]) -> None:
        """Write down Meta's answers, and stop the broadcast if they are reason enough."""
        answers = await self._settle(results)
        for answer, state in answers:
            if not isinstance(answer, Kept):
                metrics.count(state)
        if batch.follows_refusals or any(isinstance(answer, Refused) for answer, _ in answers):
            now = self._app.clock()
            halted = await self._write(lambda tx: batches.draw_conclusions(tx, job, answers, now))
            if halted:
                log.warning("broadcast %d: -> halted: %s", job.broadcast.id, halted)

    async def _settle(self, results: Sequence[Result]) -> list[Answered]:
        """Write down Meta's answers; in the order of the results, what became of the deliveries."""
        together = await self._persist(lambda tx: batches.settle_together(tx, results, self._app.clock()))
        return [
            (
                answer,
                together[attempt.delivery_id]
                if attempt.delivery_id in together
                else await self._settle_one(attempt, answer),
            )
            for attempt, answer in results
        ]

    async def _settle_one(self, attempt: Attempt, answer: Sent | SendError) -> DeliveryState:
        settled = await self._persist(lambda tx: delivery.settle(tx, attempt, answer, self._app.clock()))
        return settled.delivery.state

    async def _persist(self, fn: Callable[[Tx], T]) -> T:
        """Write what Meta has said, also if the database does not answer for a while."""
        for tried in range(SETTLE_TRIES - 1):
            try:
                return await self._write(fn)
            except StoreUnavailable:
                await asyncio.sleep(min(5.0, 0.1 * 2**tried))
        return await self._write(fn)

    # --- the Page's rate ---

    def _rate(self, job: Job) -> Rate | None:
        """None: as fast as it goes."""
        if self._pace.per_second is None:
            return None
        kind = rates.kind_of(job.broadcast.message)
        per_second = rates.aim(kind, self._pace.per_second)
        return Rate(page_id=job.chunk.page_id, kind=kind, per_second=per_second, clock=self._database_clock)

    async def _permitted(self, job: Job, number: int) -> Permits | None:
        """Wait for the Page's rate; None if told to stop meanwhile, or if the chunk is not ours any more."""
        permits = await self._reserve(job, number)
        if await self._wait(job, permits.first - self._lead.seconds):
            return permits
        await self._give_back(job, permits, number)
        return None

    async def _reserve(self, job: Job, number: int) -> Permits:
        if (rate := self._rate(job)) is None:
            return AT_ONCE
        return await self._write(partial(rate.reserve, number=number, lead=self._lead.seconds))

    async def _wait(self, job: Job, until: float) -> bool:
        """Wait, and keep the chunk: where few messages a second may leave, others' permits can take minutes."""
        renew_at = elapsed() + RENEWAL
        while (seconds := until - elapsed()) > 0 and not self._stop.is_set():
            await asyncio.sleep(min(seconds, LOOK))
            if elapsed() >= renew_at:
                renew_at = elapsed() + RENEWAL
                if not await self._write(lambda tx: batches.keep(tx, job)):
                    return False
        return not self._stop.is_set()

    async def _give_back(self, job: Job, permits: Permits, number: int) -> None:
        if (rate := self._rate(job)) is not None:
            with suppress(StoreUnavailable):  # no reason to stop: the Page only waits for nobody once
                await self._write(lambda tx: rate.give_back(tx, permits, number))

    async def _write(self, fn: Callable[[Tx], T]) -> T:
        if self._writer is not None:
            return await self._writer.run(fn)
        return await asyncio.to_thread(self._in_transaction, fn)

    async def _read(self, fn: Callable[[Tx], T]) -> T:
        """Without SQLite's one place to write, which others wait for."""

        def read() -> T:
            with self._app.store.read() as tx:
                return fn(tx)

        return await asyncio.to_thread(read)

    def _in_transaction(self, fn: Callable[[Tx], T]) -> T:
        with self._app.store.begin() as tx:
            return fn(tx)


class _Left:
    """How many deliveries of a chunk no lane has asked for yet, so that lanes take no permits in vain."""

    def __init__(self, number: int) -> None:
        self.number = number

    def take(self, most: int) -> int:
        taken = min(most, self.number)
        self.number -= taken
        return taken

    def put_back(self, number: int) -> None:
        self.number += number
