"""From the inbox to the conversation: one turn at a time for each person, many people at once.

The inbox is the truth; memory holds contact ids only. A conversation is led by one process at a time, by a
lease in the database that is renewed while it lasts, so that any process may die: another one, or this one
after its restart, takes up what waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any
from uuid import uuid4

from channels import afterwards
from channels.doors import Doors, NotNow, fault
from channels.errands import Quiet
from channels.profiles import Profiles
from channels.quicken import quicken
from channels.read_marks import ReadMarks
from channels.turn import Locked, Turn
from channels.turnstile import Turnstile
from otn.errors import StoreUnavailable
from otn.models import InboxState
from otn.store import Tx, contacts, turns
from otn.store.inbox import InboxRow
from otn.store.turns import Claim

logger = logging.getLogger(__name__)

NO_WORD = "the domain has no intent for this event"
LOOKS, LOOK = 5, 0.2  # whether somebody else has Rasa's lock, and seconds between two; then the sweep looks
MAX_FAILURES = 3  # of a turn that raises, before a person has to look
MOST_WAITING = 10_000  # contact ids in memory; the sweep finds whoever did not fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many conversations at once, and how long things take; times in seconds.

    `lease`: how long the conversations of a process that died wait. `drain`: how long a process that stops
    waits for its turns.
    """

    turns_at_once: int = 32
    lease: float = 30.0
    sweep: float = 2.0
    pause_after_failure: float = 1.0
    typing_after: float = 1.0
    drain: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What to do for a person now: an event's turn, or to forget them. `sent`: as `afterwards.unnoted` tells."""

    claim: Claim
    sent: Sequence[afterwards.FollowUp] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """What became of an event."""

    row: InboxRow
    state: InboxState
    error: str | None = None


class Turns:
    """Leads the conversations that have something waiting. `agent` gives Rasa's agent, None while there is none."""

    def __init__(self, doors: Doors, agent: Callable[[], Any | None], pace: Pace) -> None:
        self._doors = doors
        self._agent = agent
        self._pace = pace
        quiet = Quiet(doors.now)
        self.profiles = Profiles(doors, quiet)
        self.read_marks = ReadMarks(doors, quiet)
        self._owner = f"rasa:{uuid4()}"
        self._turnstile = Turnstile()
        self._waiting: dict[int, None] = {}  # a set that keeps its order
        self._leaders: dict[int, asyncio.Task[None]] = {}
        self._woken: set[int] = set()  # led at the moment; something may have come since the leader looked
        self._leased: set[int] = set()
        self._failures: Counter[int] = Counter()  # by event, while it is tried here
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Look after what waits from now on; first of all what an earlier process left."""
        self._keepers = [
            asyncio.create_task(self._repeat(self.sweep, self._pace.sweep)),
            asyncio.create_task(self._repeat(self.renew, self._pace.lease / 3)),
        ]

    def wake(self, contact_id: int) -> None:
        """Say that there may be something to do for this person."""
        if contact_id in self._leaders:
            self._woken.add(contact_id)
        elif len(self._waiting) < MOST_WAITING:
            self._waiting[contact_id] = None
            self._start_leaders()

    async def stop(self) -> None:
        """Let the turns that run end, up to a time, and leave the rest to whoever comes next."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._leaders:
            _ended, late = await asyncio.wait(self._leaders.values(), timeout=self._pace.drain)
            for leader in late:
                leader.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.gather(self.profiles.errands.stop(), self.read_marks.errands.stop())
        with suppress(StoreUnavailable):
            await self._give_back(*self._leased)

    async def sweep(self) -> None:
        """Take up what nobody leads: what the dead left, what memory had no room for, who is to be erased."""
        for contact_id in await self._doors.read(_unled):
            self.wake(contact_id)
        self._start_leaders()

    async def renew(self) -> None:
        """Keep the leases of the conversations that are led here."""

        def keep(tx: Tx) -> None:
            for contact_id in mine:
                if turns.holds(tx, contact_id, self._owner):  # not given back meanwhile
                    turns.take(tx, contact_id, self._owner, self._pace.lease)

        if mine := sorted(self._leased):
            await self._doors.write(keep)

    async def finish(self) -> None:
        """Wait until nothing is being led here."""
        while self._leaders:
            await asyncio.wait(self._leaders.values())
            await asyncio.sleep(0)  # whoever ended may have woken the next

    def _start_leaders(self) -> None:
        if self._ready_agent() is None:
            return  # the sweep comes back to it
        while self._waiting and len(self._leaders) < self._pace.turns_at_once and not self._stopping:
            contact_id = next(iter(self._waiting))
            del self._waiting[contact_id]
            leader = asyncio.create_task(self._turnstile.lead(partial(self._lead, contact_id)))
            self._leaders[contact_id] = leader
            leader.add_done_callback(partial(self._led, contact_id))

    def _ready_agent(self) -> Any | None:
        agent = self._agent()
        if agent is None or not agent.is_ready():
            return None
        quicken(agent.processor)
        return agent

    def _led(self, contact_id: int, _leader: asyncio.Task[None]) -> None:
        del self._leaders[contact_id]
        if contact_id in self._woken:
            self._woken.discard(contact_id)
            self.wake(contact_id)
        self._start_leaders()

    async def _lead(self, contact_id: int) -> None:
        """Lead one person's conversation until nothing waits: the task around conversation turns."""
        try:
            await self._lead_when_free(contact_id)
        except (NotNow, StoreUnavailable) as exc:
            logger.warning("messenger: contact %s waits: %s", contact_id, exc)
        except Exception as exc:  # noqa: BLE001 - one conversation's trouble must not reach the others
            logger.error("messenger: contact %s waits: %s", contact_id, fault(exc))
        finally:
            if contact_id in self._leased and not self._stopping:
                with suppress(StoreUnavailable):
                    await self._give_back(contact_id)

    async def _lead_when_free(self, contact_id: int) -> None:
        """Look a few times whether somebody else is still in the conversation; raises Locked after the last.

        Between two looks the event is as it was: whoever dies waiting has tried nothing.
        """
        for _ in range(LOOKS - 1):
            with suppress(Locked):
                await self._lead_on(contact_id)
                return
            await asyncio.sleep(LOOK)  # no lock store tells when a ticket is gone
        await self._lead_on(contact_id)

    async def _lead_on(self, contact_id: int) -> None:
        step = await self._next(contact_id, None)
        while step is not None:
            step = await self._next(contact_id, await self._take(step))

    async def _next(self, contact_id: int, ended: _Ended | None) -> _Step | None:
        """Write down how a step ended and take the next one, in one transaction."""
        (step,) = await self._doors.writer.run_all(self._advance_all, [(contact_id, ended)])
        if isinstance(step, Exception):
            raise step
        if ended is not None:
            self._failures.pop(ended.row.id, None)
        if step is None:
            self._leased.discard(contact_id)
        else:
            self._leased.add(contact_id)
        return step

    def _advance_all(self, tx: Tx, people: list[tuple[int, _Ended | None]]) -> list[_Step | None]:
        """For all who wait for it at the moment: they share one SAVEPOINT.

        By id, as everybody locks people: else two processes could wait for each other.
        """
        in_order = sorted(people, key=itemgetter(0))
        steps = {contact_id: self._advance(tx, contact_id, ended) for contact_id, ended in in_order}
        return [steps[contact_id] for contact_id, _ended in people]

    def _advance(self, tx: Tx, contact_id: int, ended: _Ended | None) -> _Step | None:
        now, owner = self._doors.now(), self._owner
        if ended is not None and not turns.end(
            tx, ended.row, contact_id, owner, ended.state, now, ended.error
        ):
            return None
        if self._stopping:
            turns.give_back(tx, contact_id, owner)
            return None
        claim = turns.claim(tx, contact_id, owner, self._pace.lease, now)
        if claim is None:
            return None
        sent = afterwards.unnoted(tx, claim.person) if claim.row and claim.has_unnoted else ()
        return _Step(claim=claim, sent=sent)

    async def _take(self, step: _Step) -> _Ended | None:
        agent = self._ready_agent()
        if agent is None:
            raise NotNow("Rasa has no model")
        turn = Turn(
            doors=self._doors,
            agent=agent,
            person=step.claim.person,
            sender_id=step.claim.sender_id,
            typing_after=self._pace.typing_after,
            read_marks=self.read_marks,
            sent=step.sent,
        )
        if step.claim.row is not None:
            self.profiles.ask_for(step.claim.person)
            return await self._run(turn, step.claim.row)
        if not await turn.forget():
            raise NotNow("a message to them is on its way")
        return None

    async def _run(self, turn: Turn, row: InboxRow) -> _Ended | None:
        contact_id = turn.person.id
        try:
            understood = await turn.run(row)
            state = InboxState.DONE if understood else InboxState.IGNORED
            return _Ended(row=row, state=state, error=None if understood else NO_WORD)
        except (NotNow, StoreUnavailable):
            # Nothing was said, and the event is not to blame: this was no attempt.
            await self._doors.write(lambda tx: turns.put_back(tx, row, contact_id, self._owner))
            raise
        except Exception as exc:  # noqa: BLE001 - the turn's own trouble; it counts as an attempt
            return await self._failed(row, contact_id, exc)

    async def _failed(self, row: InboxRow, contact_id: int, exc: Exception) -> _Ended | None:
        self._failures[row.id] += 1
        count, reason = self._failures[row.id], fault(exc)
        logger.error(
            "messenger: event %s of contact %s, failure %s of %s: %s",
            row.id,
            contact_id,
            count,
            MAX_FAILURES,
            reason,
        )
        if count >= MAX_FAILURES:
            return _Ended(row=row, state=InboxState.FAILED, error=reason)
        await asyncio.sleep(count * self._pace.pause_after_failure)
        return None

    async def _give_back(self, *contact_ids: int) -> None:
        def give(tx: Tx) -> None:
            for contact_id in contact_ids:
                turns.give_back(tx, contact_id, self._owner)

        self._leased.difference_update(contact_ids)
        await self._doors.write(give)

    async def _repeat(self, job: Callable[[], Awaitable[None]], seconds: float) -> None:
        reachable = True
        while True:
            try:
                await job()
                reachable = True
            except StoreUnavailable as exc:
                if reachable:
                    logger.error("messenger: conversations wait: %s", exc)
                reachable = False
            except Exception as exc:  # noqa: BLE001 - who looks after conversations must not end
                logger.error("messenger: looking after conversations failed: %s", fault(exc))
            await asyncio.sleep(seconds)


def _unled(tx: Tx) -> list[int]:
    return [*turns.waiting(tx), *(person.id for person in contacts.to_erase(tx))]
