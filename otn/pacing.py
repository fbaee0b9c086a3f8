"""When the messages of a broadcast may leave: at the moments the Page's rate permits, and at no other.

The rate is one row that all workers share. A permit is a moment, not a right to catch up: what leaves later would leave
beside the messages of those whose moment it is, and a second would have more than Meta allows. So whoever is late
(a slow database, a process that stood still) does not send, and asks for another moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf

from otn.store import Tx, rates

# Seconds before its moment at which a message is recorded: twice as long as that took lately, and no longer, since a
# kill in between leaves it in doubt.
LEAST_LEAD, LONGEST_LEAD = 0.05, 5.0
# Seconds after which an answer says nothing more of the database's clock: somebody may have set it.
FORGET = 10.0
# Seconds after its moment that a message may leave: a third of the time that lies between the rate and Meta's limit,
# 11 ms of 34 at 290 a second. The rest is for the way to Meta.
OURS, LEAST_LATE, LATEST = 1 / 3, 0.005, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Permits:
    """So many moments on `elapsed`'s clock, `gap` seconds apart, each of which holds until `late` seconds after it.

    `end`: by which they can be given back.
    """

    number: int
    first: float
    gap: float
    late: float
    end: float

    def moments(self) -> Iterator[float]:
        return (self.first + number * self.gap for number in range(self.number))


AT_ONCE = Permits(number=10**9, first=0.0, gap=0.0, late=inf, end=0.0)


class DatabaseClock:
    """What the database's clock says, on `elapsed`'s.

    An answer may be read late, by a thread that waits for its turn; the quickest of the last ones was not.
    """

    def __init__(self) -> None:
        self._ahead: deque[tuple[float, float]] = deque(maxlen=50)

    def here(self, moment: float, now: float) -> float:
        """A moment of the database's, which has just said `now`."""
        read_at = elapsed()
        self._ahead.append((read_at - now, read_at))
        return moment + min(ahead for ahead, since in tuple(self._ahead) if since > read_at - FORGET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a Page may send a second, of messages or of audio and video. Both functions want a transaction of their
    own: who holds the Page's row makes every other sender wait."""

    page_id: str
    kind: str
    per_second: float
    clock: DatabaseClock

    def reserve(self, tx: Tx, number: int, lead: float) -> Permits:
        """Permit so many messages, the first in `lead` seconds at the soonest."""
        slot = rates.reserve(tx, self.page_id, self.kind, number, self.per_second, lead)
        return Permits(
            number=number,
            first=self.clock.here(slot.first, slot.now),
            gap=1 / self.per_second,
            late=min(LATEST, max(LEAST_LATE, OURS * rates.slack(self.kind, self.per_second))),
            end=slot.end,
        )

    def give_back(self, tx: Tx, permits: Permits, number: int) -> None:
        """Take back so many that nobody needs, if nobody has asked for others since."""
        rates.give_back(tx, self.page_id, self.kind, number, self.per_second, permits.end)


class Lead:
    """How long before its moment a message is to be recorded, in seconds."""

    def __init__(self) -> None:
        self.seconds = LEAST_LEAD

    def learn(self, took: float) -> None:
        """From how long recording a batch took."""
        wanted = min(LONGEST_LEAD, max(LEAST_LEAD, 2 * took))
        self.seconds += (wanted - self.seconds) / (2 if wanted > self.seconds else 8)


async def spread(permits: Permits, number: int, go: Callable[[], object]) -> None:
    """Call `go` at the first so many permitted moments, but for those that are missed."""
    for moment in islice(permits.moments(), number):
        await asyncio.sleep(max(0.0, moment - elapsed()))  # the moment itself, which nobody announces
        if elapsed() <= moment + permits.late:
            go()


def elapsed() -> float:
    """Seconds on a clock that nobody sets, and that goes on where the system has one while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
