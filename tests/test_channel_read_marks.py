"""Read marks: only where they are wanted, beside the conversation, and never in its way."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from on_air import PAGE, OnAir, message, on_air

from otn.store import pages


def marks(air: OnAir) -> int:
    calls = [call.get("sender_action") for call in air.simulated.world.journal.entries()]
    return calls.count("mark_seen")


async def test_what_people_write_is_marked_as_read_where_that_is_wanted(tmp_path: Path) -> None:
    async with on_air(tmp_path, mark_seen=True) as air:
        air.person()
        air.bot.say("hi")
        await air.deliver(message("7007", "hello"))
        await air.quiet()
        assert (marks(air), air.heard("7007")) == (1, ["hi"])
        await air.deliver(message("7007", "and again"))
        await air.quiet()
        assert (marks(air), air.heard("7007")) == (2, ["hi", "hi"])


async def test_nothing_is_marked_unless_it_is_wanted(tmp_path: Path) -> None:
    async with on_air(tmp_path) as air:
        air.person()
        await air.deliver(message("7007", "hello"))
        await air.quiet()
        assert marks(air) == 0


async def test_no_turn_waits_for_a_mark(tmp_path: Path) -> None:
    async with on_air(tmp_path, mark_seen=True) as air:
        air.person()
        air.bot.say("hi")
        air.simulated.world.faults.add({"kind": "slow", "seconds": 60, "match": {"call": "action"}})
        await air.deliver(message("7007", "hello"))
        await air.line.turns.finish()
        assert (marks(air), air.heard("7007")) == (0, ["hi"])


async def test_a_mark_that_fails_costs_nothing(tmp_path: Path) -> None:
    async with on_air(tmp_path, mark_seen=True) as air:
        air.person()
        air.bot.say("hi")
        air.simulated.world.faults.add({"kind": "reset", "match": {"call": "action"}})
        await air.deliver(message("7007", "hello"))
        await air.quiet()
        assert air.heard("7007") == ["hi"]
        assert air.rows("page", "paused_reason") == [None]


async def test_when_graph_limits_us_nothing_is_marked(tmp_path: Path) -> None:
    async with on_air(tmp_path, mark_seen=True) as air:
        air.person()
        air.simulated.world.faults.add({"kind": "throttle", "match": {"call": "action"}})
        for words in ("hello", "again"):
            await air.deliver(message("7007", words))
            await air.quiet()
        assert marks(air) == 0, "the first was refused, the second not tried"
        air.line.turns.errands._quiet_until -= timedelta(hours=25)
        await air.deliver(message("7007", "and again"))
        await air.quiet()
        assert marks(air) == 1


async def test_a_paused_page_marks_nothing(tmp_path: Path) -> None:
    async with on_air(tmp_path, mark_seen=True) as air:
        air.person()
        await air.deliver(message("7007", "hello"))
        await air.quiet()
        with air.app.store.begin() as tx:
            pages.pause(tx, PAGE, "the access token expired", None)
        await air.deliver(message("7007", "again"))
        await air.quiet()
        assert marks(air) == 1
