"""The time, in UTC. Everything takes `now` as an argument; entry points read it here."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

Clock = Callable[[], datetime]

_FARTHEST = timedelta(days=1000 * 366)  # beyond this, or at "nan", it is a mistake, as for the simulator


def system_now() -> datetime:
    """The real time, aware, in UTC."""
    return datetime.now(timezone.utc)


def clock(offset_file: Path | None) -> Clock:
    """The clock to use: the real one, or one shifted by the seconds that a file holds.

    Settings hand a file in only while the Graph URL is loopback, so nobody shifts a live bot's time.
    A file that is missing or holds no number counts as no shift.
    """
    if offset_file is None:
        return system_now

    path = os.fspath(offset_file)

    def shifted_now() -> datetime:
        # Asked several times in a turn: to look for a file takes a tenth of the time that opening one does.
        return system_now() + timedelta(seconds=_offset(offset_file) if os.access(path, os.F_OK) else 0.0)

    return shifted_now


def _offset(path: Path) -> float:
    try:
        seconds = float(path.read_text().strip() or 0)
    except (OSError, ValueError):
        return 0.0
    return seconds if abs(seconds) <= _FARTHEST.total_seconds() else 0.0
