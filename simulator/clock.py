"""Simulated time: the machine's clock plus an offset that lives in a file, shared with the bot."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Far enough for every rule (the longest is a year) and near enough for four-digit years.
LARGEST_OFFSET_SECONDS = 1000 * 366 * 86400.0

Stamp = tuple[int, int, int]


class Clock:
    """Tells simulated time. The offset (seconds, a number as text) is re-read whenever the file changes."""

    def __init__(self, path: Path | None = None, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall
        self._stamp: Stamp | None = None
        self._offset = 0.0

    def now(self) -> float:
        """Simulated seconds since the epoch."""
        return self._wall() + self.offset()

    def now_ms(self) -> int:
        """Simulated milliseconds since the epoch, the unit of every webhook timestamp (HOOKS)."""
        return int(self.now() * 1000)

    def offset(self) -> float:
        """Seconds between simulated and real time. An unreadable file leaves the last good value."""
        if self._path is not None:
            self._look_at(self._path)
        return self._offset

    def move_to(self, offset: float) -> None:
        """Set the offset, and write it to the file in one step so that no reader sees half a number.

        Raises ValueError for an offset that is no time anybody can mean.
        """
        if not math.isfinite(offset) or abs(offset) > LARGEST_OFFSET_SECONDS:
            raise ValueError(f"an offset of {offset} seconds is out of range")
        if self._path is not None:
            _replace(self._path, repr(offset))
        self._offset = offset

    def _look_at(self, path: Path) -> None:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            self._offset, self._stamp = (0.0, None) if self._stamp else (self._offset, None)
            return
        # The inode too: two replacements may fall into one tick of the file system's clock.
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            self._stamp = stamp
            self._offset = _number(path, self._offset)


def _number(path: Path, otherwise: float) -> float:
    try:
        value = float(path.read_text("ascii").strip() or "0")
    except (OSError, ValueError):
        return otherwise
    return value if math.isfinite(value) and abs(value) <= LARGEST_OFFSET_SECONDS else otherwise


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
