"""Conversations come first: what they send is taken off the Page's rate, so that a broadcast yields to them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from otn.store import Store, Tx, rates
from otn.store.writer import GroupWriter

logger = logging.getLogger(__name__)

PERIOD = 0.2  # seconds between two debits, at least: a busy channel writes five times a second and no more


class Debits:
    """Counts what is sent, and debits the Pages' rates a moment later. Nothing ever waits for it.

    A debit that the database does not take is forgotten: it would be of no use later.
    """

    def __init__(self, store: Store, writer: GroupWriter, per_second: float) -> None:
        self._store = store
        self._writer = writer
        self._per_second = per_second
        self._sent: Counter[tuple[str, str]] = Counter()
        self._something = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def count(self, page_id: str, message: Mapping[str, Any]) -> None:
        """A message is being sent; an empty one stands for another call of the Send API."""
        self._sent[page_id, rates.kind_of(message)] += 1
        self._something.set()

    def start(self) -> None:
        """Debit from now on."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Debit what is left, and no more."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self.flush()

    async def flush(self) -> None:
        """Debit what was sent since the last time."""
        sent, self._sent = self._sent, Counter()
        self._something.clear()
        if not sent:
            return
        try:
            await self._debit(sent)
        except Exception as exc:  # noqa: BLE001 - no trouble with it may end it, or reach a conversation
            logger.debug("messenger: a debit of %s was not taken: %s", sum(sent.values()), type(exc).__name__)

    async def _keep(self) -> None:
        while True:
            await self._something.wait()
            await self.flush()
            await asyncio.sleep(PERIOD)

    async def _debit(self, sent: Counter[tuple[str, str]]) -> None:
        def take(tx: Tx) -> None:
            for (page_id, kind), number in sorted(sent.items()):
                rates.take(tx, page_id, kind, number, rates.aim(kind, self._per_second))

        def take_alone() -> None:
            with self._store.begin() as tx:
                take(tx)

        # On PostgreSQL in a transaction of its own: who holds the Page's row makes every sender wait. SQLite lets
        # one writer in at a time, whatever it writes, so there it shares a commit.
        await (self._writer.run(take) if self._store.is_sqlite else asyncio.to_thread(take_alone))
