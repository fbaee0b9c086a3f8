"""When messages leave: whoever stands still for however long, no second has more than Meta allows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from otn import pacing
from otn.pacing import FORGET, LEAST_LEAD, LONGEST_LEAD, OURS, DatabaseClock, Lead, Permits, Rate, spread
from otn.policy import MEDIA_PER_SECOND, MOST_MEDIA_PER_SECOND, MOST_SENDS_PER_SECOND, SENDS_PER_SECOND
from otn.store import Store, rates

STEP = 0.001
LANES, BATCH = 40, 10


class Clock:
    """Time that passes in steps; a sleeper may be held until long after it wanted to wake."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held: Callable[[], float]) -> None:
        self.now = 100.0
        self._held = held
        self._yield = asyncio.sleep
        monkeypatch.setattr(pacing, "elapsed", lambda: self.now)
        monkeypatch.setattr(pacing.asyncio, "sleep", self._sleep)

    async def run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.now += STEP
            for _ in range(3):
                await self._yield(0)

    async def _sleep(self, seconds: float) -> None:
        """In place of asyncio's: by this clock, and longer if the sleeper is held."""
        until = self.now + seconds + self._held()
        while self.now < until:
            await self._yield(0)


class Page:
    """One Page's permits, as the database gives them to everybody."""

    def __init__(self, clock: Clock, per_second: float, limit: float) -> None:
        self._clock = clock
        self._late = OURS * (limit / per_second - 1)
        self._per_second = per_second
        self._free_at = 0.0

    def reserve(self, number: int) -> Permits:
        first = max(self._clock.now + LEAST_LEAD, self._free_at)
        self._free_at = first + number / self._per_second
        return Permits(number=number, first=first, gap=1 / self._per_second, late=self._late, end=0.0)


@pytest.mark.parametrize(
    ("per_second", "limit", "messages"),
    [
        (SENDS_PER_SECOND, MOST_SENDS_PER_SECOND, 1200),
        (MEDIA_PER_SECOND, MOST_MEDIA_PER_SECOND, 60),
    ],
)
@pytest.mark.parametrize("seed", range(3))
async def test_no_second_has_more_than_meta_allows_although_many_stand_still(
    per_second: float, limit: float, messages: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)  # noqa: S311 - chance, not secrets
    clock = Clock(monkeypatch, lambda: chance.choice([0.0] * 28 + [0.02, 0.5 * chance.random()]))
    page, left = Page(clock, per_second, limit), list[float]()

    async def lane() -> None:
        while len(left) < messages:
            await spread(page.reserve(BATCH), BATCH, lambda: left.append(clock.now))

    lanes = [asyncio.create_task(lane()) for _ in range(LANES)]
    await clock.run_until(lambda: len(left) >= messages)
    for each in lanes:
        each.cancel()
    left.sort()
    spans = [last - first for first, last in zip(left, left[int(limit) :], strict=False)]
    assert min(spans) > 1.0, "more than the limit in a second"
    assert len(left) / (left[-1] - left[0]) > 0.5 * per_second, "they hardly send at all"


async def test_what_missed_its_moment_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda: 0.0)
    permits = Permits(number=3, first=clock.now - 0.05, gap=0.05, late=0.01, end=0.0)
    left = list[float]()
    spreading = asyncio.create_task(spread(permits, 3, lambda: left.append(clock.now)))
    await clock.run_until(spreading.done)
    assert len(left) == 2


def test_what_takes_longer_is_recorded_earlier() -> None:
    lead = Lead()
    for took, settles_at in ((0.3, 0.6), (9.0, LONGEST_LEAD), (0.001, LEAST_LEAD)):
        for _ in range(50):
            lead.learn(took)
        assert lead.seconds == pytest.approx(settles_at, abs=0.01)


def test_an_answer_that_is_read_late_does_not_move_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    read_at = iter([100.001, 100.301, 100.502, 101.0 + FORGET])
    monkeypatch.setattr(pacing, "elapsed", lambda: next(read_at))
    clock = DatabaseClock()
    moments = [clock.here(5001.0, now) for now in (5000.0, 5000.2, 5000.5)]
    assert moments == pytest.approx([101.001] * 3)
    assert clock.here(4001.0, 4000.0) == pytest.approx(102.0 + FORGET), "somebody set it back"


def test_permits_of_one_page_follow_each_other_and_leave_time_to_record(store: Store) -> None:
    rate = Rate(page_id="1", kind=rates.MESSAGES, per_second=1.0, clock=DatabaseClock())
    before = pacing.elapsed()
    given = []
    for _ in range(3):
        with store.begin() as tx:
            given.append(rate.reserve(tx, 10, 0.5))
    assert given[0].first >= before + 0.5
    for one, next_one in pairwise(given):
        assert next_one.first - one.first == pytest.approx(10.0, abs=0.5)
    with store.begin() as tx:
        rate.give_back(tx, given[1], 10)
        rate.give_back(tx, given[2], 10)
        again = rate.reserve(tx, 1, 0.5)
    assert again.first == pytest.approx(given[2].first, abs=0.5), "only the last ones can be given back"
