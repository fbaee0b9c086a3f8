"""Read marks: only where they are wanted, once for what somebody wrote, and never in the conversation's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from on_air import PAGE, OnAir, message, on_air, opt_in

from channels.doors import NotNow
from channels.read_marks import AT_ONCE
from otn.store import pages


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[OnAir]:
    """Where marks are wanted."""
    async with on_air(tmp_path, mark_seen=True) as air:
        air.person()
        air.bot.say("hi")
        yield air


async def writes(air: OnAir, text: str = "hello") -> None:
    await air.deliver(message("7007", text))
    await air.quiet()


def marks(air: OnAir) -> int:
    """How many Graph has taken."""
    calls = [call.get("sender_action") for call in air.simulated.world.journal.entries()]
    return calls.count("mark_seen")


def fault(air: OnAir, **more: Any) -> None:
    air.simulated.world.faults.add({"match": {"call": "action"}, **more})


async def test_what_people_write_is_marked_as_read(air: OnAir) -> None:
    await writes(air)
    assert (marks(air), air.heard("7007")) == (1, ["hi"])
    await writes(air, "and again")
    assert (marks(air), air.heard("7007")) == (2, ["hi", "hi"])


async def test_nothing_is_marked_unless_that_is_wanted(tmp_path: Path) -> None:
    async with on_air(tmp_path) as air:
        air.person()
        await writes(air)
        assert marks(air) == 0


async def test_a_tap_on_notify_me_is_nothing_to_be_read(air: OnAir) -> None:
    air.topic()
    await air.deliver(opt_in("7007", "a token"))
    await air.quiet()
    assert marks(air) == 0


async def test_several_messages_in_a_row_are_marked_each(air: OnAir) -> None:
    fault(air, kind="slow", seconds=0.2)
    await air.deliver(message("7007", "one"))
    await air.deliver(message("7007", "two"))
    await air.quiet()
    assert marks(air) == 2


async def test_a_message_that_waits_for_the_conversation_is_marked_once(air: OnAir) -> None:
    async with air.agent.lock_store.lock("7007"):
        await air.deliver(message("7007", "hello"))
        await air.line.turns.finish()
        await air.sweep()
        assert marks(air) == 0, "it is not read yet"
    await air.sweep()
    assert (marks(air), air.heard("7007")) == (1, ["hi"])


async def test_a_turn_that_is_tried_again_marks_once(air: OnAir) -> None:
    air.bot.failure = ValueError("this time")
    await writes(air)
    assert marks(air) == 1


async def test_no_turn_waits_for_a_mark(air: OnAir) -> None:
    fault(air, kind="slow", seconds=60)
    await air.deliver(message("7007", "hello"))
    await asyncio.wait_for(air.line.turns.finish(), 10)
    assert air.heard("7007") == ["hi"]
    assert air.line.turns.read_marks.errands._under_way, "it waits for Graph still"


async def test_marks_leave_connections_to_messages(air: OnAir) -> None:
    fault(air, kind="slow", seconds=60, count=None)
    for number in range(AT_ONCE + 5):
        await air.deliver(message("7007", str(number)))
    await asyncio.wait_for(air.line.turns.finish(), 20)
    assert air.heard("7007") == ["hi"] * (AT_ONCE + 5)
    assert air.line.turns.read_marks.errands._room.locked(), "five wait for those that are under way"


async def test_a_turn_that_cannot_begin_marks_nothing(air: OnAir, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cannot(*_args: Any) -> None:
        raise NotNow("the tracker store did not keep a follow-up")

    with monkeypatch.context() as patch:
        patch.setattr("channels.afterwards.prepare", cannot)
        await writes(air)
        await air.sweep()
        assert marks(air) == 0
    await air.sweep()
    assert marks(air) == 1


async def test_a_mark_that_fails_costs_nothing(air: OnAir) -> None:
    fault(air, kind="reset")
    await writes(air)
    assert air.heard("7007") == ["hi"]
    assert air.rows("page", "paused_reason") == [None]


async def test_when_graph_limits_us_nothing_is_marked(air: OnAir) -> None:
    fault(air, kind="throttle")
    await writes(air)
    await writes(air, "again")
    assert marks(air) == 0, "the first was refused, the second not tried"
    air.line.turns.read_marks.errands._quiet._until -= timedelta(hours=25)
    await writes(air, "and again")
    assert marks(air) == 1


async def test_a_paused_page_marks_nothing(air: OnAir) -> None:
    await writes(air)
    with air.app.store.begin() as tx:
        pages.pause(tx, PAGE, "the access token expired", None)
    await writes(air, "again")
    assert marks(air) == 1


async def test_marks_are_taken_off_the_page_s_rate(air: OnAir) -> None:
    debits = air.line.doors.debits
    await debits.stop()  # from now on it only counts
    await writes(air)
    assert sum(debits._sent.values()) == 2, "the mark and the answer"
