"""What the clock on a person's wall says."""

from __future__ import annotations

from datetime import timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from otn.local_time import last_instant, zone, zone_of


@pytest.mark.parametrize("name", ["Europe/Berlin", "UTC"])
def test_a_zone_has_a_name(name: str) -> None:
    assert zone(name) == ZoneInfo(name)


@pytest.mark.parametrize(("hours", "offset"), [("2", 2.0), ("-3.5", -3.5), ("+14", 14.0)])
def test_or_hours_from_utc(hours: str, offset: float) -> None:
    assert zone(hours) == timezone(timedelta(hours=offset))


@pytest.mark.parametrize("name", ["Mars/Olympus", "Europe", "15", "../etc/passwd", "a\0b", "", None])
def test_what_is_no_zone_counts_for_nothing(name: str | None) -> None:
    assert zone(name) is None
    assert zone_of(name, "Mars/Olympus") is timezone.utc


def test_a_local_time_is_reached_everywhere_twelve_hours_after_utc() -> None:
    assert last_instant("2026-12-01T09:00").isoformat() == "2026-12-01T21:00:00+00:00"
