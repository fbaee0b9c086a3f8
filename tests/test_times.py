"""Times as people write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from conftest import NOW

from otn import times


@pytest.mark.parametrize(
    ("written", "length"),
    [("24h", timedelta(hours=24)), ("30 min", timedelta(minutes=30)), ("7D", timedelta(days=7))],
)
def test_a_length_is_a_number_and_a_unit(written: str, length: timedelta) -> None:
    assert times.length(written) == length


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-12-01", datetime(2026, 12, 1, tzinfo=timezone.utc)),
        ("2026-12-01T09:00", datetime(2026, 12, 1, 9, tzinfo=timezone.utc)),
        ("2026-12-01 09:00", datetime(2026, 12, 1, 9, tzinfo=timezone.utc)),
        ("2026-12-01T09:00Z", datetime(2026, 12, 1, 9, tzinfo=timezone.utc)),
        ("2026-12-01T09:00+02:00", datetime(2026, 12, 1, 7, tzinfo=timezone.utc)),
        ("30d", NOW - timedelta(days=30)),
    ],
)
def test_a_moment_is_a_day_a_time_or_an_age(written: str, moment: datetime) -> None:
    assert times.moment(written, NOW) == moment


def test_a_local_time_has_no_zone() -> None:
    assert times.local("2026-12-01T09:00") == times.local("2026-12-01 09:00:30") == "2026-12-01T09:00"


@pytest.mark.parametrize(("written", "minutes"), [("22:00-08:00", (1320, 480)), ("0:00 - 6:30", (0, 390))])
def test_quiet_hours_are_minutes_after_midnight(written: str, minutes: tuple[int, int]) -> None:
    assert times.quiet_hours(written) == minutes


@pytest.mark.parametrize(
    ("read", "written"),
    [
        (times.length, "soon"),
        (times.length, "-1d"),
        (times.length, "3651d"),
        (lambda text: times.moment(text, NOW), "999999d"),
        (lambda text: times.moment(text, NOW), "tomorrow"),
        (lambda text: times.moment(text, NOW), "2026-13-01"),
        (lambda text: times.moment(text, NOW), "0001-01-01T00:00+14:00"),
        (times.local, "2026-12-01"),
        (times.local, "2026-12-01T09:00+02:00"),
        (times.local, "nine"),
        (times.quiet_hours, "22-8"),
        (times.quiet_hours, "24:00-08:00"),
        (times.quiet_hours, "08:00-08:00"),
    ],
)
def test_anything_else_is_answered_with_how_to_write_it(read: Callable[[str], object], written: str) -> None:
    with pytest.raises(ValueError, match=r"write|end at another time"):
        read(written)
