"""The clock, and the one that may be shifted on a developer's machine."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from otn.clock import clock, system_now


def shift_of(path: Path) -> timedelta:
    before = datetime.now(timezone.utc)
    shifted = clock(path)()
    assert shifted.utcoffset() == timedelta(0)
    return shifted - before


def test_the_time_is_aware_and_in_utc() -> None:
    assert system_now().utcoffset() == timedelta(0)
    assert clock(None) is system_now


@pytest.mark.parametrize("seconds", [0, 90_000, -60, 1.5])
def test_a_file_shifts_the_clock_by_its_seconds(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "clock"
    path.write_text(f"{seconds}\n")
    assert abs(shift_of(path) - timedelta(seconds=seconds)) < timedelta(seconds=2)


def test_a_shift_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "clock"
    now = clock(path)
    first = now()
    path.write_text("3600")
    assert now() - first > timedelta(minutes=59)


@pytest.mark.parametrize("content", [b"", b"soon", b"nan", b"inf", b"-inf", b"1e300", b"-9e11", b"\xff\xfe"])
def test_what_is_no_usable_number_shifts_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clock"
    path.write_bytes(content)
    assert abs(shift_of(path)) < timedelta(seconds=2)
    assert abs(shift_of(tmp_path / "missing")) < timedelta(seconds=2)
