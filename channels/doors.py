"""What every part of the channel works with: the database, Graph, the time. None of it blocks the loop for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any, TypeVar

from channels.debits import Debits
from otn import delivery
from otn.app import App
from otn.errors import OtnError, SendError
from otn.graph.aio import AsyncGraph
from otn.graph.protocol import Sent, build_send, build_sender_action
from otn.models import Contact
from otn.policy import Allow, Decision
from otn.store import Tx
from otn.store.writer import GroupWriter
from otn.vault import Vault

T = TypeVar("T")

# Seconds that a conversation's steps wait for each other's commits in a rush, and webhooks with them: Meta waits for
# five.
LINGER = 0.01


class NotNow(OtnError):
    """The conversation cannot go on at the moment; nothing was said, nothing is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The outside world of one Rasa process, opened in that process and its event loop."""

    app: App
    writer: GroupWriter
    graph: AsyncGraph
    debits: Debits

    @classmethod
    def open(cls, app: App) -> Doors:
        """Make them ready; nothing is connected before it is used."""
        writer = GroupWriter(app.store, linger=LINGER)
        debits = Debits(app.store, writer, app.settings.sends_per_second)
        return cls(app=app, writer=writer, graph=AsyncGraph(), debits=debits)

    async def close(self) -> None:
        """Finish what was handed in and give every connection back."""
        await self.writer.close()
        await self.graph.close()
        self.app.store.close()

    def now(self) -> datetime:
        """The time, in UTC."""
        return self.app.clock()

    @property
    def vault(self) -> Vault:
        """Seals and opens secrets."""
        return self.app.require_vault()

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """Run a function in a transaction; returned, it is durable. Raises StoreUnavailable."""
        return await self.writer.run(fn)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run a function that only reads. Raises StoreUnavailable."""
        return await self.writer.read(fn)

    async def may_say(self, person: Contact) -> Decision:
        """Whether an ordinary reply may go out to this person now. Raises StoreUnavailable."""
        store = self.app.store
        decide = partial(delivery.may_say, page_id=person.page_id, psid=person.psid, now=self.now())
        # In an SQLite file it is found sooner than a thread that could look, and nobody who writes keeps it waiting.
        return store.look(decide) if store.is_sqlite else await asyncio.to_thread(store.look, decide)

    async def show(self, person: Contact, action: str) -> None:
        """Show `typing_on` or `mark_seen` where a reply could go out as well. Raises SendError, StoreUnavailable."""
        if isinstance(await self.may_say(person), Allow):
            config = self.app.graph_config(person.page_id)
            self.debits.count(person.page_id, {})
            await self.graph.send(build_sender_action(config, person.psid, action))

    async def post(
        self, page_id: str, recipient: Mapping[str, str], message: Mapping[str, Any], **more: str | None
    ) -> Sent | SendError:
        """Send one message and return Meta's answer, a "no" and no answer included."""
        self.debits.count(page_id, message)
        request = build_send(self.app.graph_config(page_id), recipient=recipient, message=message, **more)
        try:
            return await self.graph.send(request)
        except SendError as error:
            return error


def fault(error: BaseException) -> str:
    """What went wrong and where, for the log: an exception's own words may be somebody's message."""
    frames = extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
