"""Which Pages are ours: events of any other are kept, and nothing more."""

from __future__ import annotations

import asyncio
import logging

from channels.doors import Doors
from otn.errors import SendError, StoreUnavailable
from otn.graph.protocol import build_me
from otn.store import pages

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class OwnPages:
    """The ids of our Pages. With an access token only, Graph says whose it is.

    Until it has, the Pages that this database already knows count: only our own ever got there. Any other may be
    ours too (this may be a new access token), so what comes for it has to come again (`is_undecided`): an event
    that is taken for a stranger's is answered, and a permission in it lost.
    """

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        configured = [page.page_id for page in doors.app.settings.pages]
        self.ids = frozenset(page_id for page_id in configured if page_id is not None)
        self._asking = None in configured

    @property
    def known(self) -> bool:
        """Whether we can tell our own Pages from others."""
        return bool(self.ids)

    def is_undecided(self, page_id: str) -> bool:
        """Whether nobody can say yet if this Page is ours."""
        return self._asking and page_id not in self.ids

    async def recall(self) -> None:
        """Begin with the Pages of the database, if Graph has to be asked."""
        if self._asking:
            try:
                found = await self._doors.read(pages.every)
            except StoreUnavailable:
                return  # the webhooks will say so
            self.ids = frozenset(page.page_id for page in found)

    async def learn(self) -> None:
        """Ask Graph until it answers; says in the log what keeps it from answering."""
        pause = FIRST_PAUSE
        while self._asking:
            try:
                await self._ask()
            except (SendError, StoreUnavailable) as error:
                logger.warning("messenger: whose access token this is, is not known yet: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _ask(self) -> None:
        answer = await self._doors.graph.get_json(build_me(self._doors.app.graph_config(None)))
        page_id, name = str(answer.get("id") or ""), answer.get("name")
        if not page_id:
            raise StoreUnavailable("Graph named no Page for the access token (GET /me)")
        title = name if isinstance(name, str) else None
        await self._doors.write(lambda tx: pages.ensure(tx, page_id, self._doors.now(), title))
        self.ids = frozenset({page_id})
        self._asking = False
        logger.info("messenger: speaking for page %s", page_id)
