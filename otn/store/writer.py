"""One writer for a process with an event loop: what waits together is committed together.

    writer = GroupWriter(store)
    recorded = await writer.run(lambda tx: intake.record(tx, ...))     # returned: it is durable
    await writer.close()                                               # after what was handed in is done

A commit costs a flush to the disk, and SQLite lets one writer in at a time. So one thread takes all that
waits, runs each function in a SAVEPOINT of its own, and commits once.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa

from otn.errors import StoreUnavailable
from otn.store.engine import Store, Tx

T = TypeVar("T")

# Keeps the write transaction short: other processes write too, and SQLite starves whoever waits longest.
LARGEST_GROUP = 100
# Beyond this many, callers wait before they are queued: memory stays bounded while the database is slow.
MOST_WAITING = 1000


class GroupWriter:
    """Runs functions that write, from one event loop, off that loop. Make it in the process that uses it.

    What `run` returns is durable. What a function raises reaches its caller only and costs nobody else
    anything: its SAVEPOINT is rolled back. If the database can't be reached or doesn't commit, everybody in
    the group gets StoreUnavailable, and nothing of the group was recorded.
    """

    def __init__(self, store: Store, *, most_waiting: int = MOST_WAITING) -> None:
        self._store = store
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(most_waiting)
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run(self, fn: Callable[[Tx], T]) -> T:
        """Run a function in a transaction that is committed before this returns. In the order of calls.

        Raises what the function raises, or StoreUnavailable. If the caller is cancelled, the function may
        run all the same.
        """
        await self._room.acquire()
        if self._closed:
            self._room.release()
            raise StoreUnavailable("the writer is closed: this process is stopping")
        loop = asyncio.get_running_loop()
        job = _Job(fn=fn, loop=loop, future=loop.create_future(), on_done=self._room.release)
        self._start()
        self._jobs.put(job)
        result: T = await job.future
        return result

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

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take what waits behind it; False after the last one."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == LARGEST_GROUP:
                return group, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _write(self, group: list[_Job]) -> None:
        try:
            with self._store.begin() as tx:
                for job in group:
                    job.attempt(tx)
        except Exception as exc:  # noqa: BLE001 - whatever it was, nothing was committed and all must hear of it
            for job in group:
                job.fail(exc)
        else:
            for job in group:
                job.resolve()


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """A function, and the caller who waits for it in an event loop."""

    fn: Callable[[Tx], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    on_done: Callable[[], None]
    result: Any = field(default=None, repr=False)
    error: Exception | None = None

    def attempt(self, tx: Tx) -> None:
        """Run in a SAVEPOINT and keep what comes of it; raises only if the transaction itself is lost."""
        savepoint = tx.begin_nested()
        try:
            self.result = self.fn(tx)
            savepoint.commit()
        except Exception as exc:  # noqa: BLE001 - it is the caller's, who waits in another thread
            savepoint.rollback()
            self.error = _unavailable(exc) if isinstance(exc, _DATABASE_TROUBLE) else exc

    def resolve(self) -> None:
        """Give the caller the result, or what the function raised."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle)

    def fail(self, cause: Exception) -> None:
        """Tell the caller that nothing was recorded, unless the function itself is to blame."""
        self.error = self.error or _unavailable(cause)
        self.resolve()

    def _settle(self) -> None:
        self.on_done()
        if self.future.done():  # the caller was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


_DATABASE_TROUBLE = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)


def _unavailable(cause: Exception) -> StoreUnavailable:
    """One for each caller: an exception that several tasks raise collects all their tracebacks."""
    if isinstance(cause, StoreUnavailable):
        return StoreUnavailable(*cause.args)
    return StoreUnavailable(f"the database does not answer: {type(cause.__cause__ or cause).__name__}")
