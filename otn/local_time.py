"""What the clock on a person's wall says: zones, quiet hours, a local time for everybody. Pure.

Meta gives a person's zone as hours from UTC (`timezone`, User Profile API), an import may give an IANA name;
without either the Page's zone counts, and without that UTC.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

FIRST_ZONE = timedelta(hours=14)  # nobody's clock is further ahead of UTC
LAST_ZONE = timedelta(hours=-12)  # nor further behind
DAY_MINUTES = 24 * 60

_OFFSET = re.compile(r"[+-]?\d{1,2}(?:\.\d{1,2})?")


@lru_cache(maxsize=1024)
def zone(name: str | None) -> tzinfo | None:
    """The zone of an IANA name or of hours from UTC (`2`, `-3.5`); None if it is neither."""
    if not name:
        return None
    if _OFFSET.fullmatch(name):
        hours = float(name)
        return timezone(timedelta(hours=hours)) if abs(hours) <= FIRST_ZONE / timedelta(hours=1) else None
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # no such zone, or no name of one
        return None


def zone_of(person: str | None, page: str | None) -> tzinfo:
    """The zone that counts for a person."""
    return zone(person) or zone(page) or timezone.utc


def instant(at_local: str, where: tzinfo) -> datetime:
    """When a local time (`2026-12-01T09:00`) is reached in a zone, in UTC. Raises ValueError."""
    return datetime.fromisoformat(at_local).replace(tzinfo=where).astimezone(timezone.utc)


def first_instant(at_local: str) -> datetime:
    """When a local time is reached anywhere first, in UTC. Raises ValueError."""
    return datetime.fromisoformat(at_local).replace(tzinfo=timezone(FIRST_ZONE)).astimezone(timezone.utc)


def last_instant(at_local: str) -> datetime:
    """When a local time is reached everywhere, in UTC. Raises ValueError."""
    return datetime.fromisoformat(at_local).replace(tzinfo=timezone(LAST_ZONE)).astimezone(timezone.utc)


def quiet_ends_at(
    now: datetime, where: tzinfo, quiet_from: int | None, quiet_until: int | None
) -> datetime | None:
    """When the quiet hours that a person is in end (UTC); None if it is not quiet there now.

    Both are minutes after midnight on the person's clock; `22:00` to `08:00` goes over midnight.
    """
    if quiet_from is None or quiet_until is None or quiet_from == quiet_until:
        return None
    local = now.astimezone(where)
    minute = local.hour * 60 + local.minute
    since = (minute - quiet_from) % DAY_MINUTES
    length = (quiet_until - quiet_from) % DAY_MINUTES
    if since >= length:
        return None
    end = local.replace(hour=quiet_until // 60, minute=quiet_until % 60, second=0, microsecond=0, fold=0)
    if quiet_until <= minute:
        end = (end + timedelta(days=1)).replace(fold=0)
    # A clock that is set back can make the end lie behind us: it is quiet for no longer then.
    return max(end.astimezone(timezone.utc), now + timedelta(seconds=1))
