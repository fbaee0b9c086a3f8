"""One turn: an event from the inbox becomes what Rasa handles, once, and is then in the tracker."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rasa.core.channels.channel import UserMessage
from rasa.core.lock_store import LockError

from channels import afterwards
from channels.doors import Doors, NotNow
from channels.output import NAME, MessengerOutput
from channels.read_marks import ReadMarks
from channels.tracker import Conversation, Lately
from channels.tracker_store import kept_turns
from channels.understanding import Sign, Words, metadata_of, understand
from otn import asking
from otn.errors import OtnError
from otn.events import Event, EventKind
from otn.intake import INBOX_KEPT, reread
from otn.models import Contact, Topic
from otn.store import topics
from otn.store.inbox import InboxRow

# An event can't be younger than the clocks allow, nor come back later than this without a replay.
_SURELY_NEW = INBOX_KEPT - timedelta(hours=1)


class Locked(NotNow):
    """Somebody else is in the conversation: `trigger_intent`, the HTTP API, or a ticket that a dead process left."""


class NotSaved(OtnError):
    """A turn ran, but the tracker store did not keep it: it has to run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A person's turn, to be run by an agent of Rasa's that is ready. `sender_id` names the conversation there.

    `sent`: what went out beside the conversation, as `afterwards.unnoted` tells.
    """

    doors: Doors
    agent: Any
    person: Contact
    sender_id: str
    typing_after: float
    read_marks: ReadMarks
    sent: Sequence[afterwards.FollowUp] = ()

    async def run(self, row: InboxRow) -> bool:
        """Run the turn unless it ran before; False if this bot has no word for the event.

        Raises NotNow or StoreUnavailable while nothing was said yet; whatever else it raises is the turn's
        own trouble, after which it may run again.
        """
        event = reread(self.doors.vault, row)
        said = understand(event, self.agent.domain, await self._agreed(event))
        if said is None:
            return False
        async with self._lock():
            lately = await self._conversation.lately(row.event_key, afterwards.DECISION_SLOTS)
            if not await self._had_turn(row, event, lately):
                async with self._typing():
                    await self._handle(row, event, said, lately)
        return True

    async def forget(self) -> bool:
        """Forget the person, who is marked; False if it has to be tried again later."""
        async with self._lock():
            return await afterwards.forget(self.doors, self._conversation, self.person)

    @property
    def _conversation(self) -> Conversation:
        return Conversation(self.agent.tracker_store, self.sender_id)

    async def _agreed(self, event: Event) -> Topic | None:
        """What an opt-in agrees to; None for anything else, and where the payload is not ours."""
        named = asking.topic_in(event.payload) if event.kind is EventKind.OPTIN_OTN else None
        if named is None:
            return None
        return await self.doors.read(lambda tx: topics.resolve(tx, named[0]))

    async def _had_turn(self, row: InboxRow, event: Event, lately: Lately) -> bool:
        # Whoever tried it before may have died between the tracker and the inbox; and after a week, when
        # the inbox has forgotten it, an event can come again: only then is it worth searching everything.
        if row.attempts or event.at < self.doors.now() - _SURELY_NEW:
            return await self._conversation.had_turn(row.event_key)
        return lately.had_turn

    async def _handle(self, row: InboxRow, event: Event, said: Words | Sign, lately: Lately) -> None:
        key = row.event_key
        output = MessengerOutput(
            self.doors,
            person=self.person,
            turn_key=hashlib.sha256(f"{self.person.page_id}:{key}".encode()).hexdigest(),
            turn_at=event.at,
        )
        message = UserMessage(
            text=said.text if isinstance(said, Words) else None,
            output_channel=output,
            sender_id=self.sender_id,
            parse_data=await self._parse_data(said),
            input_channel=NAME,
            message_id=key,
            metadata=metadata_of(event),
        )
        await afterwards.prepare(self.doors, self.agent, self.sent, message, lately)
        self.read_marks.set_for(self.person, row, event)  # from here on it counts as an attempt
        turns: set[str | None] = set()
        told = kept_turns.set(turns)
        try:
            await self.agent.processor.handle_message(message)
        finally:
            kept_turns.reset(told)
        if key not in turns:  # another tracker store, which tells nothing, or one that failed
            await self._ensure_saved(key)

    async def _parse_data(self, said: Words | Sign) -> dict[str, Any] | None:
        """What the NLU is not asked for (None: ask it): signs, and words that it would take for an intent."""
        if isinstance(said, Sign):
            return said.parse_data
        if not said.needs_disarming:
            return None
        parsed = await self.agent.processor.parse_message(UserMessage(said.disarmed))
        return {**parsed, "text": said.text}

    async def _ensure_saved(self, key: str) -> None:
        try:
            kept = (await self._conversation.lately(key)).had_turn
        except NotNow as exc:
            raise NotSaved("nobody can tell whether the tracker store kept the turn") from exc
        if not kept:
            raise NotSaved("the tracker store did not keep the turn")

    @asynccontextmanager
    async def _lock(self) -> AsyncIterator[None]:
        """Rasa's own lock on the conversation: `trigger_intent` and the HTTP API take it too.

        In a Redis lock store the ticket of a process that died stays for a minute. Whoever waits behind it, and dies
        as well, leaves another one: so this waits outside, in the inbox. Raises Locked.
        """
        if self._is_locked():
            raise Locked("the conversation is locked")
        try:
            async with self.agent.lock_store.lock(self.sender_id):
                yield
        except LockError as exc:
            raise Locked("the conversation is locked") from exc

    def _is_locked(self) -> bool:
        try:
            lock = self.agent.lock_store.get_lock(self.sender_id)
        except Exception as exc:  # Redis' errors, or those of whatever store is named: nothing was said yet
            raise NotNow(f"the lock store cannot be read: {type(exc).__name__}") from exc
        if lock is None:
            return False
        lock.remove_expired_tickets()
        return bool(lock.is_someone_waiting())

    @asynccontextmanager
    async def _typing(self) -> AsyncIterator[None]:
        """Show that we are typing if it takes long; once, and only if it can be shown."""
        task = asyncio.create_task(self._type_later())
        try:
            yield
        finally:
            task.cancel()

    async def _type_later(self) -> None:
        await asyncio.sleep(self.typing_after)
        with suppress(OtnError):
            await self.doors.show(self.person, "typing_on")
