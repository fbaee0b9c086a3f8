"""`otn broadcasts list | show | estimate | explain`: what is planned, and what it would come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otn.cli.session import LARGEST_ID, Csv, Json, Limit, opened
from otn.cli.terminal import (
    duration,
    in_words,
    print_csv,
    print_json,
    print_json_list,
    print_line,
    print_table,
    say,
)

if TYPE_CHECKING:
    from otn.app import App
    from otn.estimates import Estimate, Explained
    from otn.models import Broadcast
    from otn.store import Tx

Id = Annotated[
    int,
    typer.Argument(
        max=LARGEST_ID, metavar="ID", help="The broadcast's number, as `otn broadcasts list` has it."
    ),
]

BATCH = 100


def list_broadcasts(context: typer.Context, limit: Limit = None, json: Json = False) -> None:
    """List the broadcasts, newest first.

    \b
    Examples:
      otn broadcasts list
      otn broadcasts list --json | jq -r '.[] | select(.state == "running") | .id'
    """
    with opened(context) as app:
        found = _every(app)
        if json:
            print_json_list(islice((for_programs(planned) for planned in found), limit))
            return
        shown = list(islice(found, (limit or BATCH) + 1))
    rows = [
        [each.id, each.name, each.topic, each.state, each.start_at, each.finished_at, each.state_reason]
        for each in shown
    ]
    headings = ["id", "name", "topic", "state", "start", "end", "reason"]
    print_table(headings, rows[: limit or BATCH], nothing="No broadcast was planned yet.")
    if len(rows) > (limit or BATCH):
        say(f"There are more than these {limit or BATCH}: --limit shows more of them, --json all.")


def show(context: typer.Context, broadcast_id: Id, json: Json = False) -> None:
    """Show a broadcast and where it stands.

    What is said to whom and when, and how many there are by state and reason.

    \b
    Examples:
      otn broadcasts show 3
      otn broadcasts show 3 --json | jq .counts.sent
    """
    with opened(context) as app, app.store.read() as tx:
        shown = standing(tx, broadcast_id)
    if json:
        print_json(shown)
    else:
        _print(shown)


def estimate(context: typer.Context, broadcast_id: Id, json: Json = False) -> None:
    """Count who would get it now, and who not.

    By the sender's own rules, as everything stands at this moment. Changes nothing.

    \b
    Examples:
      otn broadcasts estimate 3
      otn broadcasts estimate 3 --json
    """
    from otn import estimates
    from otn.store import broadcasts

    with opened(context) as app, app.store.read() as tx:
        found = estimates.estimate(tx, broadcasts.get(tx, broadcast_id), app.clock())
    if json:
        print_json({"id": broadcast_id, **asdict(found)})
    else:
        tell(found, print_line)


def explain(context: typer.Context, broadcast_id: Id, csv: Csv = False, json: Json = False) -> None:
    """Say of each person what would happen now.

    And by which rule: it asks what the sender asks. Changes nothing. A line for each person as soon as it is
    known, however many there are.

    \b
    Examples:
      otn broadcasts explain 3 | less
      otn broadcasts explain 3 --csv > who.csv
      otn broadcasts explain 3 --json | jq '.[] | select(.reason == "token_expired")'
    """
    from otn import estimates
    from otn.store import broadcasts

    with opened(context) as app:
        now = app.clock()
        with app.store.read() as tx:
            planned = broadcasts.get(tx, broadcast_id)
        found = estimates.explain(app.store, planned, now)
        if json:
            print_json_list(asdict(each) for each in found)
        elif csv:
            headings = ["psid", "page", "would", "reason", "sentence"]
            print_csv(headings, ([each.psid, each.page_id, *_verdict(each), each.sentence] for each in found))
        else:
            for each in found:
                would, reason = _verdict(each)
                print_line(f"{each.psid} on page {each.page_id}: {reason or would}. {each.sentence}")


def foresee(app: App, planned: Broadcast, start_at: datetime | None = None) -> Estimate:
    """Count what it would come to, and say so."""
    from otn import estimates

    with app.store.read() as tx:
        found = estimates.estimate(tx, planned, app.clock(), start_at=start_at)
    tell(found, say)
    return found


def tell(found: Estimate, out: Callable[[str], None]) -> None:
    """An estimate in words."""
    sent = found.would_send_by_token + found.would_send_by_window
    out(f"It would go to {people(sent)} of {found.total}:")
    out(f"  {found.would_send_by_token:>9}  by a permission, which it spends")
    out(f"  {found.would_send_by_window:>9}  by an open messaging window; the permission stays")
    for reason, number in found.left_out.items():
        waiting = found.waiting.get(reason)
        over = f" ({waiting} of them are tried all the same: it may be over by then)" if waiting else ""
        out(f"  {number:>9}  not: {reason}{over}")
    lapsing = found.expiring_before_start
    if lapsing.tokens:
        out(
            f"{lapsing.tokens} permissions lapse before it starts, and {people(lapsing.people)} then have none."
        )


def people(number: int) -> str:
    """So many people."""
    return "1 person" if number == 1 else f"{number} people"


def standing(tx: Tx, broadcast_id: int) -> dict[str, Any]:
    """A broadcast as JSON has it, with its sums."""
    from otn.store import broadcasts, chunks, reports

    planned = broadcasts.get(tx, broadcast_id)
    return {
        **for_programs(planned),
        "counts": chunks.progress(tx, broadcast_id),
        "reasons": reports.reasons(tx, broadcast_id),
    }


def for_programs(planned: Broadcast) -> dict[str, Any]:
    """A broadcast as JSON has it, without sums."""
    names = (
        "id name topic state start_at at_local quiet_from quiet_until skip_if_late message response "
        "notification_type audience estimate frozen_at created_by created_at started_at finished_at"
    )
    values = {name: getattr(planned, name) for name in names.split()}
    values["reason"] = planned.state_reason
    values["skip_if_late_seconds"] = values.pop("skip_if_late")
    for name in ("quiet_from", "quiet_until"):
        values[name] = clock_time(values[name])
    return values


def clock_time(minutes: int | None) -> str | None:
    """Minutes after midnight as a clock shows them."""
    return None if minutes is None else f"{minutes // 60:02}:{minutes % 60:02}"


def _verdict(each: Explained) -> list[str]:
    """What would happen, and why not."""
    if each.would is not None:
        return [f"by {each.would.value}", ""]
    return ["no", each.reason.value if each.reason else ""]


def _every(app: App) -> Iterator[Broadcast]:
    from otn.store import broadcasts

    before = None
    while True:
        with app.store.read() as tx:
            batch = broadcasts.every(tx, before=before, limit=BATCH)
        yield from batch
        if len(batch) < BATCH:
            return
        before = batch[-1].id


def _print(shown: dict[str, Any]) -> None:
    print_line(f"Broadcast  {shown['id']}: {shown['name']}")
    print_line(f"Topic      {shown['topic']}")
    print_line(f"State      {in_words(shown['state'])}{': ' + shown['reason'] if shown['reason'] else ''}")
    print_line(f"Start      {_start(shown)}")
    print_line(f"Planned    by {shown['created_by']}, {in_words(shown['created_at'])}")
    print_line(f"Message    {_words_of(shown['message'])}")
    if shown["response"]:
        print_line(f"           as {shown['response']} was then")
    print_line(f"People     {_audience(shown['audience'])}")
    print_line("")
    print_counts(shown)


def print_counts(shown: dict[str, Any]) -> None:
    """How many are in which state, and for which reasons."""
    for state, number in shown["counts"].items():
        print_line(f"{number:>9}  {state}")
        for reason, many in shown["reasons"].get(state, {}).items():
            print_line(f"{many:>13}  {reason}")


def _start(shown: dict[str, Any]) -> str:
    at = f"{shown['at_local']} on everybody's clock" if shown["at_local"] else in_words(shown["start_at"])
    quiet = f", quiet from {shown['quiet_from']} to {shown['quiet_until']}" if shown["quiet_from"] else ""
    late = shown["skip_if_late_seconds"]
    return f"{at}{quiet}{f', not if it is late by {duration(late)}' if late is not None else ''}"


def _words_of(message: dict[str, Any]) -> str:
    """What is read of a message, as far as it fits a line."""
    payload = message.get("attachment", {}).get("payload", {})
    words = message.get("text") or payload.get("text") or payload.get("url") or str(payload)
    return words if len(words) <= 200 else f"{words[:200]}…"


def _audience(audience: dict[str, Any]) -> str:
    """The conditions as they are kept, in a line."""
    parts = [
        f"{opening} {name.replace('_', ' ')} {_listed(value)}"
        for opening, kept in (("only", audience["include"]), ("not", audience["exclude"]))
        for name, value in kept.items()
    ]
    who = "everybody with a permission" + (" or an open window" if audience["window_too"] else "")
    return "; ".join([who, *parts])


def _listed(value: Any) -> str:
    if value is True:  # the list that came with it
        return "by psid"
    several = value if isinstance(value, list) else [value]
    return ", ".join("=".join(each) if isinstance(each, list) else str(each) for each in several)
