"""Profiles: asked for once, beside the conversation, and never in its way."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from on_air import PAGE, OnAir, message, on_air

from channels.profiles import ASK_AGAIN, AT_ONCE
from otn import privacy
from otn.store import contacts, pages

ADA = {"first_name": "Ada", "last_name": "King", "locale": "en_GB", "timezone": 1}


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[OnAir]:
    async with on_air(tmp_path) as air:
        air.person()
        air.simulated.world.people[PAGE, "7007"].profile = dict(ADA)
        air.bot.say("hi")
        yield air


async def speaks(air: OnAir, psid: str = "7007") -> None:
    await air.deliver(message(psid, "hello"))
    await air.quiet()


def known(air: OnAir) -> Any:
    (row,) = air.rows("contact", "first_name", "last_name", "locale", "timezone")
    return row


async def test_who_writes_for_the_first_time_is_asked_for_once(air: OnAir) -> None:
    await speaks(air)
    assert known(air) == ("Ada", "King", "en_GB", "1")
    air.simulated.world.people[PAGE, "7007"].profile["first_name"] = "Augusta"
    await speaks(air)
    assert known(air)[0] == "Ada"
    ago = ASK_AGAIN + timedelta(seconds=1)
    with air.app.store.begin() as tx:
        contacts.keep_profile(tx, 1, {}, air.app.clock() - ago)
    await speaks(air)
    assert known(air)[0] == "Augusta"
    assert air.heard("7007") == ["hi"] * 3


async def test_what_graph_does_not_tell_stays_unknown(air: OnAir, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="channels")
    air.simulated.world.people[PAGE, "7007"].profile = {"first_name": "Ada"}
    await speaks(air)
    assert known(air) == ("Ada", None, None, None)
    await speaks(air, "nobody whom Graph knows")
    assert air.rows("contact", "first_name") == ["Ada", None]
    assert None not in air.rows("contact", "profile_asked_at"), "a refusal is an answer"
    assert caplog.text.count("is not ours to know") == 1


async def test_a_call_that_fails_costs_a_line_and_comes_again_at_the_next_turn(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="channels")
    air.simulated.world.faults.add({"kind": "html", "match": {"call": "profile"}})
    await speaks(air)
    assert air.heard("7007") == ["hi"]
    assert known(air) == (None, None, None, None)
    assert caplog.text.count("the profile of contact 1 failed") == 1
    await speaks(air)
    assert known(air)[0] == "Ada"


async def test_when_graph_limits_us_nobody_is_asked_for(air: OnAir) -> None:
    air.simulated.world.faults.add({"kind": "throttle", "match": {"call": "profile"}})
    await speaks(air)
    await speaks(air)
    assert known(air)[0] is None
    air.line.turns.profiles.errands._quiet._until -= timedelta(hours=25)
    await speaks(air)
    assert known(air)[0] == "Ada"


async def test_a_paused_page_asks_for_nobody(air: OnAir) -> None:
    await speaks(air, "7008")
    with air.app.store.begin() as tx:
        pages.pause(tx, PAGE, "the access token expired", None)
    await speaks(air)
    assert air.rows("contact", "first_name")[-1] is None


async def test_no_turn_waits_for_a_profile(air: OnAir) -> None:
    air.simulated.world.faults.add({"kind": "no_answer", "match": {"call": "profile"}, "count": None})
    await air.deliver(message("7007", "hello"))
    await air.line.turns.finish()
    assert air.heard("7007") == ["hi"]
    assert known(air)[0] is None


async def test_who_wants_to_be_forgotten_meanwhile_leaves_no_name(
    air: OnAir, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = air.line.doors.graph
    get_json = graph.get_json

    async def forgotten_while_asking(request: Any) -> Any:
        with air.app.store.begin() as tx:
            person = contacts.get(tx, 1)
            privacy.request_erasure(tx, person, who="operator", now=air.app.clock())
            assert privacy.erase(tx, 1, air.app.clock())
        return await get_json(request)

    monkeypatch.setattr(type(graph), "get_json", lambda _graph, request: forgotten_while_asking(request))
    await speaks(air)
    assert known(air) == (None, None, None, None)


async def test_who_was_forgotten_before_the_call_began_leaves_no_name(air: OnAir) -> None:
    async with AsyncExitStack() as others:
        for _ in range(AT_ONCE):
            await others.enter_async_context(air.line.turns.profiles.errands._room)
        await air.deliver(message("7007", "hello"))
        await air.line.turns.finish()
        with air.app.store.begin() as tx:
            person = contacts.get(tx, 1)
            privacy.request_erasure(tx, person, who="operator", now=air.app.clock())
            assert privacy.erase(tx, 1, air.app.clock())
    await air.line.turns.profiles.errands.finish()
    assert known(air) == (None, None, None, None)
