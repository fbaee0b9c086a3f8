"""The quick tracker store against Rasa's own: same table, same conversations, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rasa.core.tracker_store import SQLTrackerStore
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import ActionExecuted, BotUttered, SessionStarted, SlotSet, UserUttered

from channels.quick_tracker import QuickTracker
from channels.tracker import Conversation
from channels.tracker_store import QuickSQLTrackerStore
from otn.errors import StoreUnavailable
from otn.store import Store

DOMAIN = Domain.from_yaml("""
version: "3.1"
intents: [greet]
slots: {colour: {type: text, mappings: [{type: custom}]}}
""")
Made = Callable[[type[SQLTrackerStore]], Any]


Open = Callable[[type[SQLTrackerStore]], AbstractContextManager[Any]]


@pytest.fixture
def opened(store: Store) -> Iterator[Open]:
    """Opens a tracker store over the test's database. One at a time: they use different SQLite libraries."""

    @contextmanager
    def open_one(kind: type[SQLTrackerStore]) -> Iterator[Any]:
        where = {"db": str(store.path)} if store.is_sqlite else {"host": str(store.engine.url)}
        found = kind(DOMAIN, **where)
        yield found
        found.engine.dispose()

    store.close()
    yield open_one
    with open_one(QuickSQLTrackerStore) as found:
        SQLTrackerStore.Base.metadata.drop_all(found.engine)


def turn(tracker: Any, number: int) -> None:
    """A whole turn; of a later session if it begins one."""
    tracker.update_with_events(
        [
            UserUttered(f"number {number}", {"name": "greet", "confidence": 1.0}, message_id=f"m_{number}"),
            SlotSet("colour", f"blå {number}"),
            ActionExecuted("action_greet"),
            BotUttered("hi 👋", metadata={"number": number}),
            ActionExecuted("action_listen"),
        ],
        DOMAIN,
    )


def told(tracker: Any) -> list[Any]:
    return [each.as_dict() for each in tracker.events]


def table(store: Any) -> list[Any]:
    with store.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text("SELECT * FROM events ORDER BY id"))]


async def say(store: Any, number: int) -> None:
    """A turn; the one with number 3 begins a new session."""
    tracker = await store.get_or_create_tracker("7007")
    if number == 3:
        tracker.update_with_events([ActionExecuted("action_session_start"), SessionStarted()], DOMAIN)
    turn(tracker, number)
    await store.save(tracker)


async def test_either_goes_on_where_the_other_ended(opened: Open) -> None:
    kinds = [QuickSQLTrackerStore, SQLTrackerStore]
    for number in range(6):
        with opened(kinds[number % 2]) as store:
            await say(store, number)
    for read in ("retrieve", "retrieve_full_tracker"):
        with opened(QuickSQLTrackerStore) as store:
            ours = await getattr(store, read)("7007")
        with opened(SQLTrackerStore) as store:
            theirs = await getattr(store, read)("7007")
        assert told(ours) == told(theirs)
        assert ours.current_slot_values() == theirs.current_slot_values()
    ids = [each.message_id for each in ours.events if isinstance(each, UserUttered)]
    assert ids == [f"m_{number}" for number in range(6)]


async def test_the_conversations_it_begins_and_those_it_finds_copy_quickly(opened: Open) -> None:
    with opened(QuickSQLTrackerStore) as store:
        for number in (1, 2):
            assert type(await store.get_or_create_tracker("7007")) is QuickTracker
            await say(store, number)
        assert type(await store.retrieve_full_tracker("7007")) is QuickTracker


async def test_it_keeps_the_very_rows_that_rasa_s_own_keeps(opened: Open) -> None:
    tables = []
    for kind in (QuickSQLTrackerStore, SQLTrackerStore):
        with opened(kind) as store:
            if not tables:
                tracker = store.init_tracker("7007")
                tracker.update_with_events([ActionExecuted("action_session_start"), SessionStarted()], DOMAIN)
                turn(tracker, 1)
            await store.save(tracker)
            tables.append([row[1:] for row in table(store)])
            with store.engine.begin() as connection:
                connection.execute(sa.text("DELETE FROM events"))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 7


async def test_who_never_spoke_has_no_tracker_and_a_save_of_nothing_new_adds_nothing(opened: Open) -> None:
    with opened(QuickSQLTrackerStore) as store:
        assert await store.retrieve("7007") is None
        tracker = await store.get_or_create_tracker("7007")
        before = table(store)
        await store.save(tracker)
        assert table(store) == before
        assert await store.retrieve("8008") is None
        assert list(await store.keys()) == ["7007"]


async def test_a_save_is_whole_or_raises(opened: Open) -> None:
    with opened(QuickSQLTrackerStore) as store:
        tracker = await store.get_or_create_tracker("7007")
        turn(tracker, 1)
        with store.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE events RENAME TO elsewhere"))
        with pytest.raises((sa.exc.DBAPIError, StoreUnavailable)):
            await store.save(tracker)
        with store.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO events"))
        await store.save(tracker)
        assert told(await store.retrieve("7007")) == told(tracker)


async def test_what_was_saved_is_there_for_another_process_at_once(opened: Open, store: Store) -> None:
    if not store.is_sqlite:
        pytest.skip("asked of the file")
    with opened(QuickSQLTrackerStore) as here:
        await say(here, 1)
        count = "sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM events').fetchone()[0]"
        asked = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"import sqlite3, sys; print({count})",
            str(store.path),
            stdout=asyncio.subprocess.PIPE,
        )
        assert (await asked.communicate())[0].strip() == b"6"


@pytest.mark.parametrize("kind", [QuickSQLTrackerStore, SQLTrackerStore])
async def test_the_channel_finds_turns_slots_and_deliveries_in_either(
    opened: Open, kind: type[SQLTrackerStore]
) -> None:
    with opened(kind) as store:
        for number in range(12):
            await say(store, number)
        conversation = Conversation(store, "7007")
        lately = await conversation.lately("m_11", ("colour",))
        assert (lately.had_turn, lately.slots) == (True, {"colour": "blå 11"})
        assert not (await conversation.lately("m_0")).had_turn  # long ago: that is asked below
        assert await conversation.had_turn("m_0")
        assert not await conversation.had_turn("m_")
        assert not await conversation.tells_of("otn:1")
        assert await conversation.forget()
        assert await store.retrieve("7007") is None


async def test_a_store_in_memory_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = QuickSQLTrackerStore(DOMAIN, db=":memory:")
    await say(store, 1)
    assert len(told(await store.retrieve("7007"))) == 6
    assert os.listdir(tmp_path) == []
