"""When the messages of a broadcast may leave: at the moments the Page's rate permits, and at no other.

The rate is one row that all workers share. A permit is a moment, not a right to catch up: what leaves later would leave
beside the messages of those whose moment it is, and a second would have more than Meta allows. So whoever was kept
(by a slow database, by a process that stood still) asks for other moments.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf

from otn.store import Tx, rates

LEAD = 0.1  # seconds before its moment at which a message is recorded, so that it is in time
LATE = 0.01  # seconds after its moment that a message may leave; at 290 a second, 34 ms lie between us and Meta's 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Permits:
    """So many moments on `elapsed`'s clock, `gap` seconds apart. `end`: by which they can be given back."""

    number: int
    first: float
    gap: float
    late: float = LATE
    end: float

    @property
    def last(self) -> float:
        return self.first + (self.number - 1) * self.gap

    def moments(self) -> Iterator[float]:
        return (self.first + number * self.gap for number in range(self.number))


AT_ONCE = Permits(number=10**9, first=0.0, gap=0.0, late=inf, end=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a Page may send a second, of messages or of audio and video. Both functions want a transaction of their
    own: who holds the Page's row makes every other sender wait."""

    page_id: str
    kind: str
    per_second: float

    def reserve(self, tx: Tx, number: int) -> Permits:
        """Permit so many messages."""
        slot = rates.reserve(tx, self.page_id, self.kind, number, self.per_second, LEAD)
        return Permits(
            number=number,
            first=elapsed() + slot.wait,
            gap=1 / self.per_second,
            end=slot.end,
        )

    def give_back(self, tx: Tx, permits: Permits, number: int) -> None:
        """Take back so many that nobody needs, if nobody has asked for others since."""
        rates.give_back(tx, self.page_id, self.kind, number, self.per_second, permits.end)


async def spread(
    permits: Permits,
    number: int,
    go: Callable[[], object],
    again: Callable[[int], Awaitable[Permits | None]],
) -> None:
    """Call `go` so many times, each at a permitted moment; `again(n)` permits n more for those that were missed.

    Ends early if that gives None. With every round a message may leave twice as late as before: a machine that is
    always late sends fewer than it may anyway.
    """
    found: Permits | None = permits
    allowance = 1
    while found is not None:
        for moment in islice(found.moments(), number):
            await asyncio.sleep(max(0.0, moment - elapsed()))
            if elapsed() <= moment + allowance * found.late:
                number -= 1
                go()
        if not number:
            return
        found = await again(number)
        allowance *= 2


def elapsed() -> float:
    """Seconds on a clock that nobody sets, and that goes on where the system has one while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
