"""When the event loop last looked at its sockets: what is read after a standstill may have come at any time since."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

BEAT = 0.005  # seconds
STANDSTILL = 4 * BEAT  # from where on it matters


class Pulse:
    """Beats while the loop moves. Not started, it says that the loop never stands still."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._beats: deque[float] = deque(maxlen=3)
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Beat from now on."""
        self._beats.append(self._monotonic())
        self._next = asyncio.get_running_loop().call_later(BEAT, self.start)

    def stop(self) -> None:
        """Beat no more."""
        if self._next is not None:
            self._next.cancel()

    def came(self, now: float) -> float:
        """When a call that is read now came, at the earliest."""
        looked = self._beats[0] if self._beats else now
        return looked if now - looked > STANDSTILL else now
