"""The turnstile: one step of all that can go on, in every few rounds of the event loop; otherwise as `await`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from channels.turnstile import ROUNDS, Turnstile


async def test_of_many_that_can_go_on_one_does_in_every_few_rounds_of_the_loop() -> None:
    rounds, turnstile = 0, Turnstile()
    steps: list[tuple[int, int]] = []

    async def turn(number: int) -> None:
        for _ in range(5):
            steps.append((rounds, number))
            await asyncio.sleep(0)

    turns = [asyncio.create_task(turnstile.lead(partial(turn, number))) for number in range(32)]
    while not all(each.done() for each in turns):  # somebody else in the same loop
        await asyncio.sleep(0)
        rounds += 1
    assert len(steps) == 5 * 32
    moments = [at for at, _ in steps]
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert min(gaps) >= ROUNDS, "no time was left for others between two steps"
    assert [number for _, number in steps] == 5 * list(range(32)), "somebody was overtaken"


async def test_who_is_alone_waits_for_no_round() -> None:
    async def nothing() -> str:
        return "done"

    task = asyncio.create_task(Turnstile().lead(nothing))
    await asyncio.sleep(0)
    assert task.done()
    assert task.result() == "done"


async def test_results_and_errors_come_through_both_ways() -> None:
    turnstile = Turnstile()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("mine")

    async def outer() -> str:
        with pytest.raises(ValueError, match="mine"):
            await asyncio.create_task(fail())
        with pytest.raises(ValueError, match="mine"):
            await fail()
        return await asyncio.to_thread(lambda: "from a thread")

    assert await turnstile.lead(outer) == "from a thread"
    with pytest.raises(ValueError, match="mine"):
        await turnstile.lead(fail)


async def test_time_limits_inside_work() -> None:
    async def patient() -> str:
        try:
            await asyncio.wait_for(asyncio.Event().wait(), timeout=0.001)
        except asyncio.TimeoutError:
            return "enough"
        return "never"

    assert await Turnstile().lead(patient) == "enough"


async def hold(turnstile: Turnstile, until: asyncio.Event, seen: list[str]) -> None:
    async def hold() -> None:
        try:
            await until.wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    await turnstile.lead(hold)


async def in_its_wait(_turnstile: Turnstile) -> None:
    """Let it come to what it waits for."""
    for _ in range(4):
        await asyncio.sleep(0)


async def at_the_turnstile(turnstile: Turnstile) -> None:
    """Let it come to the turnstile, and not through."""
    await in_its_wait(turnstile)
    assert turnstile._queue


async def just_admitted(turnstile: Turnstile) -> None:
    """Let it be admitted, and not go on yet."""
    await at_the_turnstile(turnstile)
    while turnstile._queue:
        turnstile._admit()


@pytest.mark.parametrize("moment", [in_its_wait, at_the_turnstile, just_admitted])
async def test_a_cancelled_turn_keeps_nobody_back(moment: Callable[[Turnstile], Awaitable[None]]) -> None:
    turnstile, until = Turnstile(), asyncio.Event()
    seen: list[str] = []
    if moment is not in_its_wait:
        turnstile._free = False  # somebody is on the way through
    cancelled = asyncio.create_task(hold(turnstile, until, seen))
    await moment(turnstile)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert seen == (["cancelled"] if moment is in_its_wait else [])
    turnstile._admit()
    until.set()
    await asyncio.wait_for(hold(turnstile, until, seen), timeout=5)
    assert not turnstile._queue
