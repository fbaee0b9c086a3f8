"""`otn page …`: whether anything may leave a Page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from otn.cli.session import Json, commands, opened, parse_duration, user
from otn.cli.terminal import in_words, print_json, print_table, say

if TYPE_CHECKING:
    from datetime import datetime

    from otn import models
    from otn.app import App

app = commands("Whether anything may leave a Page.")

PageId = Annotated[str, typer.Argument(metavar="PAGE", help="The Page's id.")]


@app.command("list")
def list_pages(context: typer.Context, json: Json = False) -> None:
    """List the Pages, and why one is paused.

    \b
    Example:
      otn page list
    """
    from otn.store import pages

    with opened(context) as app:
        now = app.clock()
        with app.store.read() as tx:
            found = pages.every(tx)
    if json:
        print_json([{**asdict(page), "state": _state(page, now)} for page in found])
        return
    rows = [
        [
            page.page_id,
            page.name,
            _state(page, now),
            page.paused_reason,
            page.paused_until,
            page.otn_denied_reason,
        ]
        for page in found
    ]
    headings = ["page", "name", "state", "reason", "until", "requests denied"]
    print_table(headings, rows, nothing="No Page is known yet: its first webhook makes it known.")


@app.command()
def pause(
    context: typer.Context,
    page: PageId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Shown with every refused send.")],
    length: Annotated[
        str | None, typer.Option("--for", metavar="2h", help="Resume by itself after this long.")
    ] = None,
) -> None:
    """Let nothing leave a Page, replies of conversations included.

    \b
    Examples:
      otn page pause 101 --reason "Wrong price in the spring campaign"
      otn page pause 101 --reason "Night" --for 8h
    """
    from otn.store import audit, pages

    wait = parse_duration(length) if length else None
    with opened(context) as app:
        now = app.clock()
        with app.store.begin() as tx:
            before = _known(pages.find(tx, page), page)
            if before.paused_reason is not None and before.paused_until is None:
                say(f"It was paused already: {before.paused_reason}.")
                return
            pages.pause(tx, page, reason, now + wait if wait else None)
            audit.record(
                tx, who=user(), action="page.pause", subject=page, now=now, details={"reason": reason}
            )
    say(f"Nothing leaves page {page}{f' for {length}' if length else f' until `otn page resume {page}`'}.")


@app.command()
def resume(
    context: typer.Context,
    page: PageId,
    force: Annotated[bool, typer.Option("--force", help="Even if Meta does not accept the token.")] = False,
) -> None:
    """Let messages leave a Page again, once Meta has accepted its access token (GET /me).

    \b
    Example:
      otn page resume 101
    """
    from otn.store import audit, pages

    with opened(context, to_send=True) as app:
        with app.store.read() as tx:
            _known(pages.find(tx, page), page)
        if not force:
            _probe(app, page)
        now = app.clock()
        with app.store.begin() as tx:
            pages.resume(tx, page)
            audit.record(
                tx, who=user(), action="page.resume", subject=page, now=now, details={"forced": force}
            )
    say(f"Messages leave page {page} again.")


def _probe(app: App, page: str) -> None:
    """Ask Meta whose access token this is. Raises InvalidMove unless it is this Page's."""
    from otn.errors import InvalidMove, SendError
    from otn.graph.protocol import build_me
    from otn.graph.sync import SyncGraph

    try:
        with SyncGraph() as graph:
            me = graph.get_json(build_me(app.graph_config(page)))
    except SendError as problem:
        raise InvalidMove(
            f"the page stays paused, because its access token does not work: {problem}; put a new one into .env "
            "or credentials.yml, or resume it all the same with --force"
        ) from problem
    if str(me.get("id")) != page:
        raise InvalidMove(
            f"the page stays paused, because the access token belongs to page {me.get('id')}; correct .env or "
            "credentials.yml, or resume it all the same with --force"
        )
    say(f"Meta accepts the access token of page {page} ({me.get('name') or 'no name'}).")


def _known(found: models.Page | None, page: str) -> models.Page:
    from otn.errors import NotFound

    if found is None:
        raise NotFound(f"there is no page {page}; see `otn page list`")
    return found


def _state(page: models.Page, now: datetime) -> str:
    from otn.policy import page_is_paused

    if not page_is_paused(page, now):
        return "sends"
    return f"paused until {in_words(page.paused_until)}" if page.paused_until else "paused"
