"""Conversations debit the Page's rate: a broadcast waits for them, and they wait for nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from on_air import PAGE, message, on_air

from channels.debits import Debits
from otn import messages
from otn.policy import MEDIA_PER_SECOND
from otn.store import Store, rates
from otn.store.writer import GroupWriter

TEXT = messages.text("hello")


def wait(store: Store, kind: str = rates.MESSAGES, per_second: float = 1.0, page_id: str = PAGE) -> float:
    """Seconds that a broadcast would have to wait before its next message."""
    with store.begin() as tx:
        slot = rates.reserve(tx, page_id, kind, 1, per_second)
        rates.give_back(tx, page_id, kind, 1, per_second, slot.end)
        return max(0.0, slot.first - slot.now)


async def test_a_broadcast_waits_for_what_a_conversation_says(tmp_path: Path) -> None:
    async with on_air(tmp_path, sends_per_second=1.0) as air:
        air.person()
        air.topic()
        air.bot.say("one", {"text": "two", "otn_request": {"topic": "restock-blue"}})
        await air.deliver(message("7007", "hello"))
        await air.quiet()
        await air.line.doors.debits.flush()
        assert 2 < wait(air.app.store) <= 3, "two texts and a request, at one a second"


async def test_what_is_left_when_it_stops_is_debited_too(tmp_path: Path) -> None:
    async with on_air(tmp_path, sends_per_second=1.0) as air:
        await air.line.drain()
        air.line.doors.debits.count(PAGE, TEXT)
        store: Store = air.app.store
    assert 0 < wait(store) <= 1
    store.close()


async def debit(store: Store, *sent: messages.Message, page_id: str = PAGE, per_second: float = 290) -> None:
    writer = GroupWriter(store)
    debits = Debits(store, writer, per_second)
    for each in sent:
        debits.count(page_id, each)
    await debits.flush()
    await writer.close()


async def test_audio_and_video_have_a_limit_of_their_own(store: Store) -> None:
    sound, film = (messages.attachment(kind, "https://cdn.example/1") for kind in ("audio", "video"))
    await debit(store, *[sound, film] * 20, messages.attachment("image", "https://cdn.example/1.jpg"))
    assert 3 < wait(store, rates.MEDIA) <= 40 / MEDIA_PER_SECOND
    assert wait(store) < 1
    assert wait(store, page_id="another page") == 0


async def test_a_lower_limit_holds_for_audio_and_video_too(store: Store) -> None:
    await debit(store, *[messages.attachment("audio", "https://cdn.example/1.mp3")] * 10, per_second=2.0)
    assert 4 < wait(store, rates.MEDIA) <= 5


async def test_it_debits_on_its_own_as_soon_as_something_is_sent(store: Store) -> None:
    writer = GroupWriter(store)
    debits = Debits(store, writer, 1.0)
    debits.start()
    debits.count(PAGE, TEXT)

    async def seen() -> None:
        while not await asyncio.to_thread(wait, store):
            pass

    await asyncio.wait_for(seen(), 10)
    await debits.stop()
    await writer.close()


async def test_a_database_that_is_gone_costs_a_conversation_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="channels")
    (tmp_path / "otn.db").mkdir()
    await debit(Store(f"sqlite:///{tmp_path}/otn.db"), TEXT)
    assert "a debit of 1 was not taken: StoreUnavailable" in caplog.text
