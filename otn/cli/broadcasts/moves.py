"""`otn broadcasts schedule | pause | resume | cancel | retry`: what changes where a broadcast stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from otn.cli.broadcasts.plans import Id, foresee, people
from otn.cli.session import Json, Yes, breathe, confirm, opened, parse_duration, user
from otn.cli.terminal import duration, in_words, print_json, progress, say

if TYPE_CHECKING:
    from datetime import datetime

    from otn.app import App
    from otn.broadcasts import Timetable

T = TypeVar("T")


def schedule(
    context: typer.Context,
    broadcast_id: Id,
    now_: Annotated[bool, typer.Option("--now", help="At once.  [default]")] = False,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="WHEN", help="At a time in UTC: 2026-12-01T09:00, or …+01:00."),
    ] = None,
    at_local: Annotated[
        str | None,
        typer.Option("--at-local", metavar="WHEN", help="When everybody's own clock says 2026-12-01T09:00."),
    ] = None,
    quiet: Annotated[
        str | None, typer.Option("--quiet", metavar="22:00-08:00", help="Nothing then, on everybody's clock.")
    ] = None,
    skip_if_late: Annotated[
        str | None,
        typer.Option("--skip-if-late", metavar="30m", help="Not at all, if nothing ran for so long.  [24h]"),
    ] = None,
    yes: Yes = False,
) -> None:
    """Send a draft, now or later.

    Later is at a time, or at a time on everybody's own clock. Asks first, with the number of people. `otn
    worker` does the sending; without one, nothing leaves. Until it has begun it may be scheduled anew, quiet
    hours and all. A person's clock is that of their time zone, else the Page's (`otn page set`), else UTC.
    The estimate is kept: `otn broadcasts report` holds the result against it.

    \b
    Examples:
      otn broadcasts schedule 3
      otn broadcasts schedule 3 --at 2026-12-01T09:00 --skip-if-late 30m
      otn broadcasts schedule 3 --at-local 2026-12-01T09:00 --quiet 22:00-08:00 --yes
    """
    from otn import broadcasts, estimates
    from otn.store import broadcasts as kept

    if [now_, at is not None, at_local is not None].count(True) > 1:
        raise typer.BadParameter("choose one of --now, --at and --at-local")
    with opened(context) as app:
        now = app.clock()
        timetable = _timetable(at, at_local, quiet, skip_if_late)
        with app.store.read() as tx:
            planned = kept.get(tx, broadcast_id)
        broadcasts.require_schedulable(planned, timetable, now)
        found = foresee(app, planned, broadcasts.start_of(timetable, now))
        number = found.would_send_by_token + found.would_send_by_window
        if limit := broadcasts.leaves_late(timetable, now):
            say(
                f"Where the clock is past {timetable.at_local} already, it leaves at once if that is less than "
                f"{duration(limit)} ago, else not at all; --skip-if-late 30m draws the line elsewhere."
            )
        confirm(f"Send broadcast {broadcast_id} to {people(number)}{_when(timetable)}?", yes)
        with app.store.begin() as tx:
            broadcasts.schedule(
                tx, broadcast_id, timetable, who=user(), now=app.clock(), estimate=estimates.to_json(found)
            )
    say(
        f"Broadcast {broadcast_id} starts{_when(timetable)}, wherever `otn worker` runs; "
        f"`otn broadcasts watch {broadcast_id}` shows how it goes."
    )


def pause(context: typer.Context, broadcast_id: Id) -> None:
    """Stop a broadcast for a while.

    Within a small batch nothing more leaves; what is on its way arrives.

    \b
    Example:
      otn broadcasts pause 3
    """
    from otn import broadcasts

    with opened(context) as app, app.store.begin() as tx:
        broadcasts.pause(tx, broadcast_id, who=user(), now=app.clock())
    say(f"Broadcast {broadcast_id} is paused. `otn broadcasts resume {broadcast_id}` goes on with it.")


def resume(context: typer.Context, broadcast_id: Id) -> None:
    """Go on with one that was paused or halted.

    Who halted it, Meta or a rule, is the reason in `otn broadcasts show`: see to that first.

    \b
    Example:
      otn broadcasts resume 3
    """
    from otn import broadcasts

    with opened(context) as app, app.store.begin() as tx:
        broadcasts.resume(tx, broadcast_id, who=user(), now=app.clock())
    say(f"Broadcast {broadcast_id} goes on.")


def cancel(context: typer.Context, broadcast_id: Id, yes: Yes = False) -> None:
    """End a broadcast for good.

    Who did not get it yet will not get it.

    \b
    Example:
      otn broadcasts cancel 3
    """
    from otn import broadcasts
    from otn.store import broadcasts as kept
    from otn.store import chunks

    with opened(context) as app:
        with app.store.read() as tx:
            planned = kept.get(tx, broadcast_id)
            sent = chunks.progress(tx, broadcast_id)["sent"]
        say(f"Broadcast {broadcast_id} is {planned.state.value}; {people(sent)} got it.")
        confirm("Cancel it for good?", yes)
        with app.store.begin() as tx:
            broadcasts.cancel(tx, broadcast_id, who=user(), now=app.clock())
    say(f"Broadcast {broadcast_id} is cancelled. What was on its way arrives.")


def retry(
    context: typer.Context,
    broadcast_id: Id,
    reasons: Annotated[
        list[str] | None,
        typer.Option("--reason", metavar="REASON", help="Only these.  [default: those that pass]"),
    ] = None,
    json: Json = False,
) -> None:
    """Try those again who may be reachable now.

    That is whoever did not get it for a reason that passes, or for one that you name. Whoever got it, or may
    have got it, is never among them. `otn broadcasts show` names the reasons.

    \b
    Examples:
      otn broadcasts retry 3
      otn broadcasts retry 3 --reason cannot_receive_now --reason page_paused
    """
    from otn import broadcasts
    from otn.store import broadcasts as kept

    wanted = reasons or list(broadcasts.PASSING)
    if strange := [each for each in wanted if each not in broadcasts.RETRIABLE]:
        raise typer.BadParameter(
            f"{', '.join(strange)}: nobody is tried again for that. Reasons are {', '.join(broadcasts.RETRIABLE)}"
        )
    with opened(context) as app:
        queued = _retry_all(app, broadcast_id, wanted)
        with app.store.read() as tx:
            waits = kept.get(tx, broadcast_id).state.value in ("paused", "halted")
    if json:
        print_json({"id": broadcast_id, "queued": queued})
    are = "is" if queued == 1 else "are"
    when = (
        f" as soon as you type `otn broadcasts resume {broadcast_id}`"
        if waits
        else ", wherever `otn worker` runs"
    )
    say(f"{people(queued)} {are} tried again{when}." if queued else "There is nobody to try again.")


def _retry_all(app: App, broadcast_id: int, reasons: list[str]) -> int:
    from otn import broadcasts

    queued, began = 0, app.clock()
    with app.store.read() as tx:
        parts = broadcasts.parts_to_retry(tx, broadcast_id)
    with progress("Looking for them", len(parts)) as advance:
        for some in parts:
            while number := _retry_some(app, broadcast_id, some, reasons, began):
                queued += number
                breathe()
            advance(1)
            breathe()
    return queued


def _retry_some(app: App, broadcast_id: int, parts: list[int], reasons: list[str], began: datetime) -> int:
    from otn import broadcasts

    with app.store.begin() as tx:
        return broadcasts.retry(tx, broadcast_id, parts, reasons, who=user(), now=began)


def _timetable(
    at: str | None, at_local: str | None, quiet: str | None, skip_if_late: str | None
) -> Timetable:
    from otn import times
    from otn.broadcasts import Timetable

    quiet_from, quiet_until = _read(times.quiet_hours, quiet, "--quiet") or (None, None)
    return Timetable(
        start_at=_read(times.instant, at, "--at"),
        at_local=_read(times.local, at_local, "--at-local"),
        quiet_from=quiet_from,
        quiet_until=quiet_until,
        skip_if_late=parse_duration(skip_if_late) if skip_if_late else None,
    )


def _read(read: Callable[[str], T], text: str | None, option: str) -> T | None:
    if text is None:
        return None
    try:
        return read(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint=option) from exc


def _when(timetable: Timetable) -> str:
    if timetable.at_local:
        return f" at {timetable.at_local} on everybody's clock"
    return f" at {in_words(timetable.start_at)}" if timetable.start_at else " now"
