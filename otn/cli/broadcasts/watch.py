"""`otn broadcasts watch`: how a broadcast goes, until it has gone."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from otn.cli.broadcasts.plans import Id
from otn.cli.session import Json, opened
from otn.cli.terminal import duration, in_words, print_json_line, print_line, say

if TYPE_CHECKING:
    from otn.app import App
    from otn.models import Broadcast

LOOK = 1.0  # seconds between looks
RATE_OVER = timedelta(seconds=20)  # what came to an end in this long makes the rate

_SETTLED = ("sent", "refused", "skipped", "unconfirmed")
_ENDS = {"finished": 0, "cancelled": 1, "halted": 1}  # state: exit code


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is. `total` is what was estimated until everybody is counted. `rate`: messages a second."""

    at: datetime
    state: str
    reason: str | None
    counts: dict[str, int]
    done: int
    total: int | None
    rate: float | None
    remaining_seconds: int | None


def watch(context: typer.Context, broadcast_id: Id, json: Json = False) -> None:
    """Show how a broadcast goes, until it ends.

    A bar on a terminal, else a line for each change. Exit code 0: it finished. 1: it was cancelled or halted,
    and why. Ctrl-C ends the watching, not the broadcast.

    \b
    Examples:
      otn broadcasts watch 3
      otn broadcasts watch 3 --json | jq .rate
    """
    with opened(context) as app, _shown(json) as show:
        for progress in _progress(app, broadcast_id):
            show(progress)
    _say_end(broadcast_id, progress)
    raise typer.Exit(_ENDS.get(progress.state, 1))


def _progress(app: App, broadcast_id: int) -> Iterator[Progress]:
    """Look again and again, until nothing changes by itself any more."""
    from otn.models import BroadcastState
    from otn.store import broadcasts, chunks

    looks: deque[tuple[datetime, int]] = deque()
    while True:
        with app.store.read() as tx:
            planned = broadcasts.get(tx, broadcast_id)
            counts = chunks.progress(tx, broadcast_id)
        yield _measured(planned, counts, app.clock(), looks)
        if planned.state is BroadcastState.DRAFT or planned.state.value in _ENDS:
            return
        _wait()


def _measured(
    planned: Broadcast, counts: dict[str, int], now: datetime, looks: deque[tuple[datetime, int]]
) -> Progress:
    done = sum(counts[state] for state in _SETTLED)
    looks.append((now, done))
    while now - looks[0][0] > RATE_OVER:
        looks.popleft()
    seconds = (now - looks[0][0]).total_seconds()
    rate = max(done - looks[0][1], 0) / seconds if seconds > 0 else None
    total = _total(planned, counts)
    left = max(total - done, 0) if total is not None else None
    return Progress(
        at=now,
        state=planned.state.value,
        reason=planned.state_reason,
        counts=counts,
        done=done,
        total=total,
        rate=round(rate, 1) if rate is not None else None,
        remaining_seconds=round(left / rate) if rate and left is not None else None,
    )


def _total(planned: Broadcast, counts: dict[str, int]) -> int | None:
    counted = sum(counts.values())
    if planned.frozen_at is not None:
        return counted
    if planned.estimate is None:
        return None
    foreseen = planned.estimate["would_send_by_token"] + planned.estimate["would_send_by_window"]
    return max(counted, int(foreseen))


def _wait() -> None:
    threading.Event().wait(LOOK)


@contextmanager
def _shown(json: bool) -> Iterator[Callable[[Progress], None]]:
    """How it is shown: to a program, to a person at a terminal, or in a log."""
    if json:
        yield _only_changes(lambda progress: print_json_line(asdict(progress)))
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _only_changes(lambda progress: print_line(_line(progress)))


def _only_changes(show: Callable[[Progress], None]) -> Callable[[Progress], None]:
    last: Any = None

    def show_if_new(progress: Progress) -> None:
        nonlocal last
        if last != (last := (progress.state, progress.counts)):
            show(progress)

    return show_if_new


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich import progress as parts
    from rich.console import Console

    columns = (
        parts.TextColumn("{task.description:<9}"),
        parts.BarColumn(),
        parts.TextColumn("{task.fields[told]}"),
    )
    with parts.Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=None, told="")

        def show(progress: Progress) -> None:
            bar.update(
                task,
                description=progress.state,
                total=progress.total,
                completed=progress.done,
                told=_told(progress),
                refresh=True,
            )

        yield show


def _line(progress: Progress) -> str:
    return f"{in_words(progress.at)}  {progress.state}  {_told(progress)}"


def _told(progress: Progress) -> str:
    """How far, how fast, how long still, and how many of each state."""
    parts = [f"{progress.done} of {'?' if progress.total is None else progress.total}"]
    if progress.rate:
        parts.append(f"{progress.rate:.0f}/s")
    if progress.remaining_seconds:
        parts.append(f"{duration(timedelta(seconds=progress.remaining_seconds))} left")
    states = ", ".join(f"{number} {state}" for state, number in progress.counts.items() if number)
    return " · ".join([*parts, states] if states else parts)


def _say_end(broadcast_id: int, last: Progress) -> None:
    if last.state == "draft":
        say(f"Broadcast {broadcast_id} is a draft: `otn broadcasts schedule {broadcast_id}` sends it.")
        return
    why = f": {last.reason}" if last.reason else ""
    say(f"Broadcast {broadcast_id} is {last.state}{why}. `otn broadcasts report {broadcast_id}` tells more.")
