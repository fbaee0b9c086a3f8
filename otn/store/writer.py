"""One writer for a process with an event loop: what waits together is committed together.

    writer = GroupWriter(store)
    settled = await writer.run(lambda tx: delivery.settle(tx, ...))    # returned: it is durable
    recorded = await writer.run_all(record, events)                    # record(tx, events): many at a time
    await writer.close()                                               # after what was handed in is done

A commit costs a flush to the disk, and SQLite lets one writer in at a time. So one thread takes all that waits, runs
each function in a SAVEPOINT of its own, unless it is the only one, and commits once. Whose function is the same is
served in one call of it, because many rows in one statement cost little more than one.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from otn.errors import StoreUnavailable
from otn.store.engine import DATABASE_TROUBLE, Store, Tx, is_conflict

T = TypeVar("T")
Item = TypeVar("Item")

# So many items keep the write transaction short: other processes write too, and SQLite starves whoever waits longest.
LARGEST_GROUP = 200
# Beyond this many, callers wait before they are queued: memory stays bounded while the database is slow.
MOST_WAITING = 1000
# How often the same is tried when the database ends it for the sake of another transaction.
TRIES = 5
# A commit costs as much as five small jobs: in a rush it is worth waiting for company. Fifty messages a second make
# one, with three jobs each; before that, the wait would save nobody anything.
RUSH = 150  # jobs a second
SMALL_GROUP = 8  # jobs; more share a commit well enough, and that many waiting need wait for no more


class GroupWriter:
    """Runs functions that write, from one event loop, off that loop. Make it in the process that uses it.

    What `run` returns is durable. What a function raises reaches its caller only and costs nobody else
    anything: its SAVEPOINT is rolled back. If the database can't be reached or doesn't commit, everybody in
    the group gets StoreUnavailable, and nothing of the group was recorded. If it says that this transaction
    and another one wait for each other (PostgreSQL), each function runs again in a transaction of its own.
    """

    def __init__(
        self,
        store: Store,
        *,
        most_waiting: int = MOST_WAITING,
        largest_group: int = LARGEST_GROUP,
        breath: float = 0.0,
        linger: float = 0.0,
    ) -> None:
        """`largest_group`: items in a transaction. Seconds after each: `breath`, for others who write (SQLite), or,
        in a rush in which few share a commit, `linger`, in which some more come.
        """
        self._store = store
        self._largest_group = largest_group
        self._breath = breath
        self._linger = linger
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(most_waiting)
        self._thread: threading.Thread | None = None
        self._closed = False
        self._rush = Rush()

    async def run(self, fn: Callable[[Tx], T]) -> T:
        """Run a function in a transaction that is committed before this returns. In the order of calls.

        Raises what the function raises, or StoreUnavailable. A function lets through what the database raises: after
        it PostgreSQL keeps nothing of the transaction. If the caller is cancelled, the function may
        run all the same. It may run again, after what it did was rolled back.
        """
        (outcome,) = await (await self._hand_in(lambda tx, _one: [fn(tx)], [None]))
        if isinstance(outcome, Exception):
            raise outcome
        result: T = outcome
        return result

    async def run_all(
        self, fn: Callable[[Tx, list[Item]], Sequence[T]], items: Sequence[Item]
    ) -> list[T | Exception]:
        """Like `run`, for a function that does many items at once and returns a result for each.

        Everybody's items that wait for the same function are done in one call. If that raises, each is done
        by itself, and what that raises is the item's outcome. Raises only StoreUnavailable.
        """
        most = self._largest_group
        parts = [items[first : first + most] for first in range(0, len(items), most)]
        handed_in = [await self._hand_in(fn, part) for part in parts]
        return [outcome for part in await asyncio.gather(*handed_in) for outcome in part]

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run a function that only reads, in a thread of its own and without waiting for the writers."""
        return await asyncio.to_thread(self._read, fn)

    async def close(self) -> None:
        """Take nothing more, finish what was handed in, and end the thread."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    async def _hand_in(self, fn: _Work, items: Sequence[Any]) -> asyncio.Future[list[Any]]:
        await self._room.acquire()
        if self._closed:
            self._room.release()
            raise StoreUnavailable("the writer is closed: this process is stopping")
        loop = asyncio.get_running_loop()
        job = _Job(fn=fn, items=items, loop=loop, future=loop.create_future(), on_done=self._room.release)
        self._start()
        self._jobs.put(job)
        return job.future

    def _read(self, fn: Callable[[Tx], T]) -> T:
        with self._store.read() as tx:
            return fn(tx)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="otn writer", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        going_on = True
        while going_on:
            group, going_on = self._next_group()
            if group:
                self._write(group)
                rushed = self._rush.goes_on(len(group), time.monotonic())
                few = max(len(group), self._jobs.qsize()) < SMALL_GROUP
                # In a thread of its own; nobody announces the jobs to come, nor what other processes write.
                time.sleep(self._linger if rushed and few else self._breath)

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take what waits behind it; False after the last one."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if sum(len(each.items) for each in group) >= self._largest_group:
                return group, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _write(self, group: list[_Job], tries: int = TRIES) -> None:
        try:
            with self._store.begin() as tx:
                _attempt(tx, group)
        except _Conflict as exc:
            self._write_alone(group, tries - 1, exc)
        except _Failed as failed:
            (job,) = group
            job.outcomes = [_outcome_of(failed.error)]
            job.resolve()
        except Exception as exc:  # noqa: BLE001 - whatever it was, nothing was committed and all must hear of it
            for job in group:
                job.fail(exc)
        else:
            for job in group:
                job.resolve()

    def _write_alone(self, group: list[_Job], tries: int, conflict: _Conflict) -> None:
        """Each in a transaction of its own, which holds few locks and waits for few: so the circle ends."""
        for job in group:
            if tries > 0:
                self._write([job], tries)
            else:
                job.fail(conflict)


class Rush:
    """Whether one job follows the other lately, by the last ten groups of them."""

    def __init__(self) -> None:
        self._groups: deque[tuple[float, int]] = deque(maxlen=10)

    def goes_on(self, jobs: int, now: float) -> bool:
        """A group of so many jobs is done at `now` (seconds): whether more than RUSH a second were done lately."""
        self._groups.append((now, jobs))
        (since, _), *later = self._groups
        return len(later) == 9 and sum(done for _, done in later) > RUSH * (now - since)


_Work = Callable[[Tx, list[Any]], Sequence[Any]]


class _Conflict(Exception):
    """The database ended the transaction for the sake of another one."""


class _Failed(Exception):
    """The only function of the transaction raised: nothing of it was kept."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """A function, what to do with it, and the caller who waits for that in an event loop."""

    fn: _Work
    items: Sequence[Any] = field(repr=False)
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Any]]
    on_done: Callable[[], None]
    outcomes: list[Any] = field(default_factory=list, repr=False)  # for each item a result or an exception
    error: StoreUnavailable | None = None

    def resolve(self) -> None:
        """Give the caller what came of it."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle)

    def fail(self, cause: Exception) -> None:
        """Tell the caller that nothing was recorded."""
        self.error = _unavailable(cause)
        self.resolve()

    def _settle(self) -> None:
        self.on_done()
        if self.future.done():  # the caller was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.outcomes)


def _attempt(tx: Tx, group: list[_Job]) -> None:
    """Call the functions, each once with all that waits for it; raises only if the transaction is lost."""
    if len(group) == 1 and len(group[0].items) == 1:
        _attempt_alone(tx, group[0])
        return
    by_function: dict[_Work, list[_Job]] = {}
    for job in group:
        by_function.setdefault(job.fn, []).append(job)
    for fn, jobs in by_function.items():
        outcomes = iter(_outcomes(tx, fn, [item for job in jobs for item in job.items]))
        for job in jobs:
            job.outcomes = list(islice(outcomes, len(job.items)))


def _attempt_alone(tx: Tx, job: _Job) -> None:
    """Nobody else's work is at stake, so that the transaction itself does what a SAVEPOINT would."""
    try:
        job.outcomes = list(job.fn(tx, list(job.items)))
    except Exception as exc:  # it is the caller's, who waits in another thread
        if is_conflict(exc):
            raise _Conflict from exc
        raise _Failed(exc) from exc


def _outcomes(tx: Tx, fn: _Work, items: list[Any]) -> list[Any]:
    """What comes of each item. All in one SAVEPOINT, or, if that fails, each in one of its own."""
    savepoint = tx.begin_nested()
    try:
        results = list(fn(tx, items))
        savepoint.commit()
    except Exception as exc:  # it is the caller's, who waits in another thread
        savepoint.rollback()
        if is_conflict(exc):
            raise _Conflict from exc
        if len(items) > 1:
            return [outcome for item in items for outcome in _outcomes(tx, fn, [item])]
        return [_outcome_of(exc)]
    return results


def _outcome_of(exc: Exception) -> Exception:
    return _unavailable(exc) if isinstance(exc, DATABASE_TROUBLE) else exc


def _unavailable(cause: Exception) -> StoreUnavailable:
    """One for each caller: an exception that several tasks raise collects all their tracebacks."""
    if isinstance(cause, StoreUnavailable):
        return StoreUnavailable(*cause.args)
    return StoreUnavailable(f"the database does not answer: {type(cause.__cause__ or cause).__name__}")
