"""Times as people write them: `30d`, `2026-12-01`, `2026-12-01T09:00`, `22:00-08:00`. Pure.

Each raises ValueError with a sentence that says how to write it.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

LONGEST = timedelta(days=3650)  # so that no date is left behind on either side

_LENGTH = re.compile(r"(\d{1,6})\s*(s|m|min|h|d)")
_UNIT = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}
_HOURS = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)")


def length(text: str) -> timedelta:
    """A length of time: `24h`, `30min`, `7d`, `90s`."""
    match = _LENGTH.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError("write a number and a unit, like 24h, 30min or 7d")
    found = timedelta(**{_UNIT[match[2]]: int(match[1])})
    if found > LONGEST:
        raise ValueError(f"write at most {LONGEST.days}d")
    return found


def moment(text: str, now: datetime) -> datetime:
    """A moment in UTC, or how long ago it was: `30d`."""
    if _LENGTH.fullmatch(text.strip().lower()):
        return now - length(text)
    try:
        return instant(text)
    except ValueError as exc:
        raise ValueError(f"{exc}, or an age like 30d") from None


def instant(text: str) -> datetime:
    """A moment in UTC: a day, or a time of a day (UTC, unless it names its offset)."""
    try:
        found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))
        return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise ValueError("write a day like 2026-12-01, or a time (UTC) like 2026-12-01T09:00") from None


def local(text: str) -> str:
    """A time on everybody's own clock, `2026-12-01T09:00`, as it is kept."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None or len(text.strip()) <= len("2026-12-01"):
        raise ValueError("write a local time without a zone, like 2026-12-01T09:00")
    return f"{found:%Y-%m-%dT%H:%M}"


def quiet_hours(text: str) -> tuple[int, int]:
    """From when until when it is quiet, `22:00-08:00`, in minutes after midnight."""
    match = _HOURS.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ValueError("write quiet hours like 22:00-08:00")
    hours = [int(each) for each in match.groups()]
    quiet_from, quiet_until = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if quiet_from == quiet_until:
        raise ValueError("quiet hours end at another time than they begin")
    return quiet_from, quiet_until
