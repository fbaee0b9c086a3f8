"""`otn broadcasts report | export`: what became of a broadcast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otn.cli.broadcasts.plans import Id, print_counts, standing
from otn.cli.session import MOST_LINES, Csv, Json, opened
from otn.cli.terminal import in_words, print_csv, print_json, print_json_list, print_line, print_table, say

if TYPE_CHECKING:
    from otn.app import App
    from otn.store.reports import Doubt, Person

SHOWN_DOUBTS = 100


def report(
    context: typer.Context,
    broadcast_id: Id,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MOST_LINES, metavar="N", help="List so many doubts.  [100]")
    ] = SHOWN_DOUBTS,
    json: Json = False,
) -> None:
    """Say what became of a broadcast.

    Who got it, who did not and why, how that differs from the estimate, and what is in doubt. In doubt are
    messages of which nobody knows whether they arrived, and permissions that Meta refused in a way that may
    mean the permission or the message; with each, what will settle it, or what you can.

    \b
    Examples:
      otn broadcasts report 3
      otn broadcasts report 3 --json | jq .drift
    """
    from otn import estimates
    from otn.store import broadcasts, reports

    with opened(context) as app, app.store.read() as tx:
        shown = standing(tx, broadcast_id)
        shown["drift"] = [asdict(line) for line in estimates.drift(tx, broadcasts.get(tx, broadcast_id))]
        doubts = reports.doubts(tx, broadcast_id, limit)
    if json:
        print_json(
            {**shown, "doubts": [{**asdict(each), "settled_by": _settled_by(each, shown)} for each in doubts]}
        )
        return
    _print(shown, doubts)
    if len(doubts) == limit:
        say(f"There may be more than these {limit} doubts: --limit shows more of them.")


def export(context: typer.Context, broadcast_id: Id, csv: Csv = False, json: Json = False) -> None:
    """Print what became of each person's message.

    State, reason, rule, message id, times sent, when it was delivered and read, and what the person did. No
    cell of the CSV is taken for a formula: where one would be, an apostrophe stands before it.

    \b
    Examples:
      otn broadcasts export 3 --csv > spring.csv
      otn broadcasts export 3 --json | jq '.[] | select(.tapped_at) | .psid'
    """
    from otn.store import broadcasts

    if csv == json:
        raise typer.BadParameter("choose one of --csv and --json")
    with opened(context) as app:
        with app.store.read() as tx:
            broadcasts.get(tx, broadcast_id)
        rows = (_for_programs(person) for person in _everybody(app, broadcast_id))
        if json:
            print_json_list(rows)
        else:
            print_csv(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows))


_COLUMNS = (
    *("psid", "page_id", "topic", "state", "reason", "sentence", "route", "rule", "message_id", "attempts"),
    *("sent_at", "delivered_at", "read_at", "replied_at", "tapped_at"),
)


def _for_programs(person: Person) -> dict[str, Any]:
    values = asdict(person)
    values["sentence"] = values.pop("error")
    values["sent_at"] = values.pop("sending_at")
    return {name: values[name] for name in _COLUMNS}


def _everybody(app: App, broadcast_id: int) -> Iterator[Person]:
    from otn.store import reports

    with app.store.read() as tx:
        parts = reports.chunk_ids(tx, broadcast_id)
    for part in parts:
        with app.store.read() as tx:
            people = reports.people(tx, part)
        yield from people


def _settled_by(doubt: Doubt, shown: dict[str, Any]) -> str:
    """What will settle a doubt, or who can."""
    if doubt.token_state is not None and doubt.token_state.value == "suspect":
        token = doubt.token_id
        return f"you: `otn tokens release {token}` if it may pay again, `otn tokens void {token}` if not"
    if doubt.state.value == "unconfirmed":
        return "nothing, unless its echo still comes; it is not sent again"
    if doubt.route is not None and doubt.route.value == "token":
        once, again = "", f" at {in_words(doubt.next_attempt_at)}," if doubt.next_attempt_at else ""
        if shown["state"].value in ("paused", "halted"):
            once, again = f", once you type `otn broadcasts resume {shown['id']}`", ""
        return (
            f"`otn worker`{once}: it asks again{again} with the same permission, which cannot send it twice"
        )
    return "its echo; without one it is unconfirmed after 24 h"


def _print(shown: dict[str, Any], doubts: list[Doubt]) -> None:
    why = f": {shown['reason']}" if shown["reason"] else ""
    print_line(f"Broadcast {shown['id']}, {shown['name']}: {in_words(shown['state'])}{why}")
    print_line(f"{in_words(shown['started_at'])} to {in_words(shown['finished_at'])}")
    print_line("")
    print_counts(shown)
    if shown["drift"]:
        print_line("")
        headings = ["what", "estimated", "came to"]
        print_table(headings, (list(line.values()) for line in shown["drift"]), nothing="")
    if doubts:
        print_line("")
        print_line("In doubt:")
        headings = ["psid", "page", "state", "reason", "token", "settled by"]
        rows = [
            [each.psid, each.page_id, each.state, each.reason, each.token_state, _settled_by(each, shown)]
            for each in doubts
        ]
        print_table(headings, rows, nothing="")
