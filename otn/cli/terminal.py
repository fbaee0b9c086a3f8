"""Data goes to stdout, talk to stderr; what people wrote never steers the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from unicodedata import category

# Controls, line breaks, halves of characters. Not "unprintable": emoji are made of that.
_STEERING = ("Cc", "Cs", "Zl", "Zp")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def say(text: str = "") -> None:
    """Say something to the person at the keyboard; no program reads this."""
    with suppress(BrokenPipeError):
        print(harmless(text), file=sys.stderr, flush=True)


def print_line(text: str) -> None:
    """Print a line of the answer."""
    print(harmless(text))


def print_json(value: object) -> None:
    """Print the answer for programs: times as ISO 8601 in UTC, durations in seconds."""
    print(json.dumps(value, default=_plain, ensure_ascii=False, indent=2))


def print_json_list(values: Iterable[object]) -> None:
    """Print a list that may be too long to hold in memory, an item at a time."""
    separator = "["
    for value in values:
        print(separator, json.dumps(value, default=_plain, ensure_ascii=False), sep="\n", end="")
        separator = ","
    print("[]" if separator == "[" else "\n]")


def print_json_line(value: object) -> None:
    """Print one of many answers, on a line of its own and at once: for programs that follow what happens."""
    print(json.dumps(value, default=_plain, ensure_ascii=False), flush=True)


def print_csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for spreadsheets, a row at a time; no cell is taken for a formula there."""
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([_cell(value) for value in row] for row in rows)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, nothing: str) -> None:
    """Print a table, or say that there is `nothing`: with Rich on a terminal, plain columns elsewhere."""
    table = [[harmless(in_words(cell)) for cell in row] for row in rows]
    if not table:
        say(nothing)
    elif sys.stdout.isatty():
        _print_rich(headings, table)
    else:
        _print_plain(headings, table)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar for a person; nothing for a log. What is given takes how many more are done."""
    if not sys.stderr.isatty():
        yield lambda _more: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


def in_words(value: object) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M UTC")
    if isinstance(value, timedelta):
        return duration(value)
    return str(value.value if isinstance(value, Enum) else value)


def duration(length: timedelta) -> str:
    """A length of time in its largest fitting unit: `7 d`, `24 h`, `90 min`, `5 s`."""
    seconds = int(length.total_seconds())
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds > unit and seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def harmless(text: str) -> str:
    """The text on one line, without anything that could steer a terminal or turn its order around."""
    return "".join(" " if category(letter) in _STEERING or letter in _TURNING else letter for letter in text)


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is not for programs")


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value.isoformat() if isinstance(value, datetime) else in_words(value)
    return harmless(f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text)


def _print_plain(headings: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    rows = [[heading.upper() for heading in headings], *table]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(headings: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in table:
        shown.add_row(*(Text(cell) for cell in row))
    Console().print(shown)
