"""The group writer: what it returns is durable, and nobody pays for a neighbour's mistake."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from otn.errors import StoreUnavailable
from otn.store import Store, Tx
from otn.store.writer import GroupWriter


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'group.db'}")
    raw = store.engine.raw_connection()
    raw.cursor().execute("PRAGMA journal_mode=WAL")
    raw.close()
    with store.begin() as tx:
        tx.execute(sa.text("CREATE TABLE note (id INTEGER PRIMARY KEY, word TEXT UNIQUE)"))
    return store


@pytest.fixture
async def writer(store: Store) -> AsyncIterator[GroupWriter]:
    writer = GroupWriter(store)
    yield writer
    await writer.close()
    store.close()


def add(word: str):
    def insert(tx: Tx) -> str:
        tx.execute(sa.text("INSERT INTO note (word) VALUES (:word)"), {"word": word})
        return word

    return insert


def words(store: Store) -> list[str]:
    with store.read() as tx:
        return list(tx.execute(sa.text("SELECT word FROM note ORDER BY id")).scalars())


class Held:
    """Keeps the writer busy until it is let go, so that what is handed in meanwhile waits as one group."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self._entered = threading.Event()

    def __call__(self, _tx: Tx) -> None:
        self._entered.set()
        assert self._go.wait(10)

    async def entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, 10)

    def let_go(self) -> None:
        self._go.set()


def commits(store: Store) -> list[int]:
    seen: list[int] = []
    sa.event.listen(store.engine, "commit", lambda _connection: seen.append(1))
    return seen


async def test_what_run_returns_is_durable(store: Store, writer: GroupWriter) -> None:
    assert await writer.run(add("a")) == "a"
    assert words(Store(f"sqlite:///{store.path}")) == ["a"]


async def test_functions_run_in_the_order_of_the_calls(store: Store, writer: GroupWriter) -> None:
    expected = [f"word {number:03}" for number in range(300)]
    assert await asyncio.gather(*(writer.run(add(word)) for word in expected)) == expected
    assert words(store) == expected


async def test_what_waits_together_is_committed_together(store: Store, writer: GroupWriter) -> None:
    seen, held = commits(store), Held()
    first = asyncio.create_task(writer.run(held))
    await held.entered()
    rest = [asyncio.create_task(writer.run(add(f"w{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    held.let_go()
    await asyncio.gather(first, *rest)
    assert len(seen) == 2
    assert len(words(store)) == 50


async def test_an_exception_reaches_its_caller_only_and_undoes_only_its_own_work(
    store: Store, writer: GroupWriter
) -> None:
    def half_done(tx: Tx) -> None:
        add("half")(tx)
        raise ValueError("no")

    held = Held()
    first = asyncio.create_task(writer.run(held))
    await held.entered()
    tasks = [asyncio.create_task(writer.run(fn)) for fn in (add("a"), half_done, add("a"), add("b"))]
    await asyncio.sleep(0)
    held.let_go()
    await first
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == "a"
    assert isinstance(results[1], ValueError)
    assert isinstance(results[2], sa.exc.IntegrityError)
    assert results[3] == "b"
    assert words(store) == ["a", "b"]


async def test_a_failed_commit_reaches_everybody_and_nothing_is_recorded(
    store: Store, writer: GroupWriter
) -> None:
    def fail(_connection: object) -> None:
        raise sa.exc.OperationalError("COMMIT", {}, OSError("disk full"))

    held = Held()
    first = asyncio.create_task(writer.run(held))
    await held.entered()
    sa.event.listen(store.engine, "commit", fail)
    tasks = [asyncio.create_task(writer.run(add(word))) for word in "abc"]
    await asyncio.sleep(0)
    held.let_go()
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    sa.event.remove(store.engine, "commit", fail)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert words(store) == []
    assert await writer.run(add("later")) == "later"


async def test_an_unreachable_database_gives_store_unavailable() -> None:
    writer = GroupWriter(Store("postgresql://nobody:x@127.0.0.1:1/none?connect_timeout=1"))
    with pytest.raises(StoreUnavailable):
        await writer.run(add("a"))
    await writer.close()


async def test_a_database_error_inside_a_function_is_no_ones_fault_but_the_databases(
    writer: GroupWriter,
) -> None:
    def broken(tx: Tx) -> None:
        tx.execute(sa.text("SELECT nothing FROM nowhere"))

    with pytest.raises(StoreUnavailable):
        await writer.run(broken)


async def test_a_cancelled_caller_disturbs_nobody(store: Store, writer: GroupWriter) -> None:
    held = Held()
    first = asyncio.create_task(writer.run(held))
    await held.entered()
    gone = asyncio.create_task(writer.run(add("gone")))
    stays = asyncio.create_task(writer.run(add("stays")))
    await asyncio.sleep(0)
    gone.cancel()
    held.let_go()
    await first
    assert await stays == "stays"
    assert words(store) == ["gone", "stays"]


async def test_callers_wait_when_too_many_are_queued(store: Store) -> None:
    writer = GroupWriter(store, most_waiting=2)
    held = Held()
    first = asyncio.create_task(writer.run(held))
    await held.entered()
    rest = [asyncio.create_task(writer.run(add(word))) for word in "abcd"]
    await asyncio.sleep(0)
    assert writer._jobs.qsize() == 1
    held.let_go()
    await asyncio.gather(first, *rest)
    assert sorted(words(store)) == list("abcd")
    await writer.close()


async def test_close_finishes_what_was_handed_in_and_takes_nothing_more(store: Store) -> None:
    writer = GroupWriter(store)
    held = Held()
    first = asyncio.create_task(writer.run(held))
    await held.entered()
    rest = [asyncio.create_task(writer.run(add(word))) for word in "abc"]
    await asyncio.sleep(0)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await writer.run(add("late"))
    held.let_go()
    await asyncio.gather(first, closing, *rest)
    assert words(store) == list("abc")


async def test_reads_do_not_wait_for_the_writer(store: Store, writer: GroupWriter) -> None:
    await writer.run(add("a"))
    held = Held()
    first = asyncio.create_task(writer.run(held))
    await held.entered()
    count = await writer.read(lambda tx: tx.execute(sa.text("SELECT count(*) FROM note")).scalar_one())
    assert count == 1
    held.let_go()
    await first
