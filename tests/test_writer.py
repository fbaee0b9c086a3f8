"""The group writer: what it returns is durable, and nobody pays for a neighbour's mistake."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from otn.errors import StoreUnavailable
from otn.store import Store, Tx, contacts, pages
from otn.store.writer import LARGEST_GROUP, RUSH, SMALL_GROUP, TRIES, GroupWriter, Rush


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


async def held_back(writer: GroupWriter, *callers: Coroutine[Any, Any, Any]) -> list[Any]:
    """What comes of callers that waited together, as one group."""
    held = Held()
    first = asyncio.create_task(writer.run(held))
    await held.entered()
    tasks = [asyncio.create_task(caller) for caller in callers]
    await asyncio.sleep(0)
    held.let_go()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_waits_for_one_function_is_done_in_one_call(store: Store, writer: GroupWriter) -> None:
    calls: list[list[str]] = []

    def add_all(tx: Tx, items: list[str]) -> list[str]:
        calls.append(items)
        return [add(item)(tx).upper() for item in items]

    outcomes = await held_back(
        writer,
        writer.run_all(add_all, ["a", "b"]),
        writer.run(add("alone")),
        writer.run_all(add_all, []),
        writer.run_all(add_all, ["c"]),
    )
    assert outcomes == [["A", "B"], "alone", [], ["C"]]
    assert calls == [["a", "b", "c"]]
    assert words(store) == ["a", "b", "c", "alone"]


async def test_an_item_that_fails_costs_its_neighbours_nothing(store: Store, writer: GroupWriter) -> None:
    def add_all(tx: Tx, items: list[str]) -> list[str]:
        return [add(item)(tx) for item in items]

    (first, second), other = await held_back(
        writer, writer.run_all(add_all, ["a", "a"]), writer.run_all(add_all, ["b"])
    )
    assert (first, other) == ("a", ["b"])
    assert isinstance(second, sa.exc.IntegrityError)
    assert words(store) == ["a", "b"]


async def test_very_many_items_are_done_in_several_transactions(store: Store, writer: GroupWriter) -> None:
    seen, many = commits(store), [f"word {number:03}" for number in range(2 * LARGEST_GROUP + 1)]
    assert await writer.run_all(lambda tx, items: [add(item)(tx) for item in items], many) == many
    assert len(seen) >= 3
    assert words(store) == many


async def test_two_groups_that_wait_for_each_other_both_get_through(
    postgresql_store: Store, now: datetime
) -> None:
    """Each process locks what its callers need, in the order of their calls: the database ends one of the two."""
    with postgresql_store.begin() as tx:
        pages.ensure(tx, "1001", now)
        people = [contacts.ensure(tx, "1001", psid, now).id for psid in "12"]
    both_hold_one = threading.Barrier(2)
    runs: list[str] = []

    def lock(name: str, contact_id: int, wait: bool):
        def work(tx: Tx) -> str:
            contacts.mark_undeliverable(tx, contact_id, name)
            runs.append(name)
            if wait and runs.count(name) == 1:
                both_hold_one.wait(10)
            return name

        return work

    async def group(store: Store, name: str, first: int, then: int) -> list[Any]:
        writer = GroupWriter(store)
        outcomes = await held_back(
            writer, writer.run(lock(f"{name}1", first, True)), writer.run(lock(f"{name}2", then, False))
        )
        await writer.close()
        return outcomes

    other_process = Store(postgresql_store.engine.url.render_as_string(hide_password=False))
    assert await asyncio.gather(
        group(postgresql_store, "a", people[0], people[1]), group(other_process, "b", people[1], people[0])
    ) == [["a1", "a2"], ["b1", "b2"]]
    other_process.close()
    assert len(runs) > 4, "nothing was tried again: they did not wait for each other"


async def test_what_is_in_the_way_every_time_is_an_unavailable_database(
    store: Store, writer: GroupWriter
) -> None:
    class Deadlock(Exception):
        pgcode = "40P01"

    calls: list[int] = []

    def never(_tx: Tx) -> None:
        calls.append(1)
        raise sa.exc.OperationalError("SELECT", {}, Deadlock())

    bad, good = await held_back(writer, writer.run(never), writer.run(add("a")))
    assert isinstance(bad, StoreUnavailable)
    assert good == "a"
    assert len(calls) == TRIES
    assert words(store) == ["a"]


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


# --- in a rush, few commits for many ---


def test_a_rush_is_more_jobs_in_a_second_than_a_commit_each_is_worth() -> None:
    slow, quick = Rush(), Rush()
    assert not any(slow.goes_on(1, number / (RUSH * 0.9)) for number in range(100))
    told = [quick.goes_on(1, number / (RUSH * 1.2)) for number in range(100)]
    assert not any(told[:9])  # too few yet to tell
    assert all(told[9:])


def test_a_rush_is_over_after_a_pause_and_bigger_groups_count_for_what_they_hold() -> None:
    rush = Rush()
    assert [rush.goes_on(5, number * 0.02) for number in range(10)][-1]  # 250 a second in fifty groups
    assert not rush.goes_on(1, 5.0)


async def test_the_writer_lingers_only_in_a_rush_in_which_few_share_a_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    rushed = [False]
    monkeypatch.setattr("otn.store.writer.time.sleep", slept.append)
    monkeypatch.setattr(Rush, "goes_on", lambda _rush, _jobs, _now: rushed[0])
    writer = GroupWriter(store, linger=0.2, breath=0.1)

    async def so_many(jobs: int) -> None:
        held = Held()
        waiting = [asyncio.ensure_future(writer.run(held))]
        await held.entered()
        waiting += [asyncio.ensure_future(writer.run(lambda _tx: None)) for _ in range(jobs)]
        await asyncio.sleep(0)  # lets each of them hand in its job, behind the one that is held
        held.let_go()
        await asyncio.gather(*waiting)

    for rushed[0], jobs in ((False, 1), (True, 1), (True, SMALL_GROUP - 1), (True, SMALL_GROUP)):
        await so_many(jobs)
    await writer.close()
    no_rush, few, some, many = slept[0:2], slept[2:4], slept[4:6], slept[6:8]
    assert no_rush == [0.1, 0.1]
    assert few == some == [0.2, 0.2]
    assert many == [0.1, 0.1]  # neither while so many wait, nor after them
    store.close()
