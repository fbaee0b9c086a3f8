"""`otn audit`: who changed what, when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from otn.cli.session import Json, Limit, opened
from otn.cli.terminal import print_json_list, print_table, say

if TYPE_CHECKING:
    from otn.app import App
    from otn.store.audit import Entry

BATCH = 100


def audit(
    context: typer.Context,
    subject: Annotated[
        str | None,
        typer.Option("--subject", metavar="WHAT", help="Only about this: 'broadcast 3', a topic, a Page."),
    ] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List who changed what, newest first: topics, permissions, Pages, broadcasts, erasures.

    \b
    Examples:
      otn audit
      otn audit --subject "broadcast 3" --json
    """
    with opened(context) as app:
        found = _every(app, subject)
        if json:
            print_json_list(asdict(entry) for entry in islice(found, limit))
            return
        entries = list(islice(found, (limit or BATCH) + 1))
    rows = [[each.at, each.who, each.action, each.subject, _in_words(each)] for each in entries]
    print_table(
        ["at", "who", "did", "to", "details"], rows[: limit or BATCH], nothing="Nothing was changed yet."
    )
    if len(rows) > (limit or BATCH):
        say(f"There are more than these {limit or BATCH}: --limit shows more of them, --json all.")


def _every(app: App, subject: str | None) -> Iterator[Entry]:
    from otn.store import audit

    before = None
    while True:
        with app.store.read() as tx:
            batch = audit.recent(tx, subject=subject, before=before, limit=BATCH)
        yield from batch
        if len(batch) < BATCH:
            return
        before = batch[-1].id


def _in_words(entry: Entry) -> str | None:
    return ", ".join(f"{name}: {value}" for name, value in (entry.details or {}).items()) or None
