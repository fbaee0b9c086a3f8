"""`otn page …`: how each Page stands, and whether anything may leave it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otn.cli.session import Json, commands, opened, parse_duration, root, user
from otn.cli.terminal import in_words, print_json, print_line, print_table, say

if TYPE_CHECKING:
    from datetime import datetime

    from otn import models
    from otn.app import App
    from otn.page_status import PageStatus, Subscription

app = commands("How each Page stands, and whether anything may leave it.")

PageId = Annotated[str, typer.Argument(metavar="PAGE", help="The Page's id.")]
PageIdOrAll = Annotated[
    str | None,
    typer.Argument(metavar="[PAGE]", help="The Page's id.  [default: every Page]", show_default=False),
]

PageIdOrOnly = Annotated[
    str | None,
    typer.Argument(metavar="[PAGE]", help="The Page's id, where several are configured.", show_default=False),
]


@app.command("list")
def list_pages(context: typer.Context, json: Json = False) -> None:
    """List the Pages, and why one is paused.

    \b
    Example:
      otn page list
    """
    from otn.policy import pause_of
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
            page.time_zone,
            _state(page, now),
            *(pause_of(page, now) or (None, None))[:2],
            page.otn_denied_reason,
        ]
        for page in found
    ]
    headings = ["page", "name", "time zone", "state", "reason", "until", "requests denied"]
    print_table(headings, rows, nothing="No Page is known yet: its first webhook makes it known.")


@app.command("set")
def set_page(
    context: typer.Context,
    page: PageId,
    time_zone: Annotated[
        str,
        typer.Option("--time-zone", metavar="ZONE", help="Europe/Berlin, or hours from UTC; '' for UTC."),
    ],
) -> None:
    """Set the time zone of a Page: the clock of those who told us none, for quiet hours and local times.

    \b
    Example:
      otn page set 101 --time-zone Europe/Berlin
    """
    from otn.local_time import zone
    from otn.store import audit, pages

    if time_zone and zone(time_zone) is None:
        raise typer.BadParameter("write a zone like Europe/Berlin, or hours from UTC like 2 or -3.5")
    with opened(context) as app, app.store.begin() as tx:
        _known(pages.find(tx, page), page)
        pages.set_time_zone(tx, page, time_zone or None)
        details = {"time_zone": time_zone or None}
        audit.record(tx, who=user(), action="page.set", subject=page, now=app.clock(), details=details)
    say(f"The clock of page {page} is that of {time_zone or 'UTC'}.")


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
    if wait is not None and not wait:
        raise typer.BadParameter("not for 0 seconds; leave it out to pause until somebody resumes it")
    with opened(context) as app:
        now = app.clock()
        with app.store.begin() as tx:
            before = _known(pages.find(tx, page), page)
            if before.paused_reason is not None and before.paused_until is None:
                say(f"It was paused already: {before.paused_reason}.")
                return
            if not pages.pause(tx, page, reason, now + wait if wait else None):
                say(f"It is paused for longer already: {before.paused_reason}.")
                return
            audit.record(
                tx, who=user(), action="page.pause", subject=page, now=now, details={"reason": reason}
            )
    say(f"Nothing leaves page {page}{f' for {length}' if length else f' until `otn page resume {page}`'}.")


@app.command()
def resume(
    context: typer.Context,
    page: PageId,
    force: Annotated[
        bool, typer.Option("--force", help="Even if Meta blocks the Page or the token.")
    ] = False,
) -> None:
    """Let messages leave a Page again, once Meta has accepted its access token (GET /me).

    Meta's own block of a Page stays until Meta unblocks it; --force if Meta has, and we missed its word.

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
            pages.resume(tx, page, unblock=force)
            left = _known(pages.find(tx, page), page)
            audit.record(
                tx, who=user(), action="page.resume", subject=page, now=now, details={"forced": force}
            )
    _require_unblocked(left)
    say(f"Messages leave page {page} again.")


@app.command()
def status(context: typer.Context, page: PageIdOrAll = None, json: Json = False) -> None:
    """Show how each Page stands: access token, subscription, pauses, people, messages. Changes nothing.

    Exit code 0: all is well. 1: something needs you, and what to do about it.

    \b
    Examples:
      otn page status
      otn page status 101 --json
    """
    from otn import page_status
    from otn.graph.sync import SyncGraph

    with opened(context, to_send=True) as app, SyncGraph() as graph:
        found = page_status.survey(app, graph, page)
    if json:
        print_json([_for_programs(each) for each in found])
    else:
        for each in found:
            _print_status(each)
    if any(each.concerns for each in found):
        raise typer.Exit(1)


@app.command()
def subscribe(context: typer.Context, page: PageIdOrAll = None, json: Json = False) -> None:
    """Have Meta send us the Page's events, and show what changed. Again changes nothing.

    Meta takes an app off a Page whose webhook failed for an hour. What is subscribed already stays.

    \b
    Examples:
      otn page subscribe
      otn page subscribe 101
    """
    from otn import page_status
    from otn.errors import NotFound
    from otn.graph.sync import SyncGraph

    with opened(context, to_send=True) as app, SyncGraph() as graph:
        asked = page_status.accounts(app, graph, page)
        mine = [each for each in asked if page is None or each.page_id in (None, page)]
        if not mine:
            raise NotFound(f"no access token is configured for page {page} (credentials.yml: pages)")
        done = [page_status.subscribe(app, graph, each, who=user()) for each in mine]
    for each in done:
        _tell(each)
    if json:
        print_json([asdict(each) for each in done])
    if any(each.problem for each in done):
        raise typer.Exit(1)


@app.command()
def profile(
    context: typer.Context,
    page: PageIdOrOnly = None,
    greeting: Annotated[
        str | None, typer.Option("--greeting", metavar="TEXT", help="Shown before the first message.")
    ] = None,
    get_started: Annotated[
        str | None,
        typer.Option("--get-started", metavar="PAYLOAD", help="What the Get Started button says: /greet."),
    ] = None,
    menu: Annotated[
        list[str] | None,
        typer.Option("--menu", metavar="TITLE=PAYLOAD", help="An item of the menu, or TITLE=https://…"),
    ] = None,
    json: Json = False,
) -> None:
    """Show what people see of a Page before they write, or set it: greeting, Get Started, menu.

    Without options it changes nothing. What is not named stays; the items given are the whole menu.

    \b
    Examples:
      otn page profile
      otn page profile --get-started /greet --menu "My sign-ups=/ask_signed_up" --menu "Forget me=/forget_me"
    """
    from otn import page_profile, project
    from otn.graph.sync import SyncGraph

    items = [_menu_item(each) for each in menu or []]
    wish = page_profile.profile_of(greeting=greeting, get_started=get_started, menu=items)
    page_profile.require_known_intents(wish, project.domain(root(context), "intents"))
    with opened(context, to_send=True) as app, SyncGraph() as graph:
        if wish:
            page_profile.change(app, graph, page, wish, who=user())
            say(f"Set {', '.join(wish)}.")
        found = page_profile.show(app, graph, page)
    if json:
        print_json(found)
    else:
        _print_profile(found)


def _menu_item(text: str) -> tuple[str, str]:
    title, _, target = (part.strip() for part in text.partition("="))
    if not title or not target:
        raise typer.BadParameter("write TITLE=PAYLOAD or TITLE=https://…", param_hint="--menu")
    return title, target


def _print_profile(found: dict[str, Any]) -> None:
    from otn.page_profile import GET_STARTED, GREETING, MENU

    for greeting in found.get(GREETING, [{"text": "none"}]):
        print_line(f"greeting     {greeting.get('text')}")
    print_line(f"get started  {found.get(GET_STARTED, {}).get('payload', 'no button')}")
    items = [item for menu in found.get(MENU, []) for item in menu.get("call_to_actions", [])]
    for item in items:
        print_line(f"menu         {item.get('title')} -> {item.get('payload') or item.get('url')}")
    if not items:
        print_line("menu         none")


def _tell(done: Subscription) -> None:
    page = done.page_id or "unknown"
    if done.problem is not None:
        say(f"Page {page} is not subscribed to everything: {done.problem}.")
    else:
        say(f"Page {page} is subscribed; {_news(done)}.")


def _news(done: Subscription) -> str:
    return f"new: {', '.join(done.added)}" if done.added else "nothing was missing"


def _for_programs(status: PageStatus) -> dict[str, Any]:
    account, figures = status.account, status.figures
    return {
        "page_id": status.page_id,
        "name": status.name,
        "configured": account is not None,
        "token_valid": account is not None and account.problem is None,
        "token_problem": account.problem if account else None,
        "subscribed_fields": sorted(account.fields) if account and account.fields is not None else None,
        "missing_fields": list(status.missing_fields),
        "paused": _pause_for_programs(status),
        "otn_denied_reason": status.otn_denied_reason,
        "contacts": figures.contacts,
        "open_windows": figures.open_windows,
        "available_tokens": figures.available_tokens,
        "deliveries_24h": figures.deliveries,
        "last_webhook_at": figures.last_webhook_at,
        "attention": [asdict(concern) for concern in status.concerns],
    }


def _pause_for_programs(status: PageStatus) -> dict[str, Any] | None:
    pause = status.paused
    return pause and {"reason": pause.reason, "until": pause.until, "who": status.paused_by}


def _print_status(status: PageStatus) -> None:
    figures = status.figures
    lately = ", ".join(f"{number} {state}" for state, number in figures.deliveries.items() if number)
    print_line(f"Page {status.page_id or 'unknown'}: {status.name or 'name not known'}")
    print_line(f"  access token   {_token_in_words(status)}")
    print_line(f"  subscription   {_subscription_in_words(status)}")
    print_line(f"  messages       {_pause_in_words(status)}")
    print_line(f"  requests       {status.otn_denied_reason or 'allowed'}")
    people = f"{figures.contacts} contacts, {figures.open_windows} open windows"
    print_line(f"  people         {people}, {figures.available_tokens} unused permissions")
    print_line(f"  last 24 hours  {lately or 'nothing was to be sent'}")
    print_line(f"  last webhook   {in_words(figures.last_webhook_at)}")
    for concern in status.concerns:
        print_line(f"  ! {concern.found}")
        print_line(f"    -> {concern.todo}")


def _token_in_words(status: PageStatus) -> str:
    if status.account is None:
        return "none is configured"
    return status.account.problem or "accepted by Meta"


def _subscription_in_words(status: PageStatus) -> str:
    if status.account is None or status.account.fields is None:
        return "not known"
    if status.missing_fields:
        return f"lacks {', '.join(status.missing_fields)}"
    return f"{len(status.account.fields)} fields, and all that are needed"


def _pause_in_words(status: PageStatus) -> str:
    if status.paused is None:
        return "leave the page"
    until = f"until {in_words(status.paused.until)}" if status.paused.until else status.paused.end
    return f"paused {until}, by {status.paused_by or 'somebody'}: {status.paused.reason}"


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


def _require_unblocked(page: models.Page) -> None:
    from otn.errors import InvalidMove

    if page.blocked_reason is not None:
        raise InvalidMove(
            f"no pause of ours keeps page {page.page_id} any more, but {page.blocked_reason}: it goes on once Meta "
            f"unblocks it; if Meta has, and we missed its word: `otn page resume {page.page_id} --force`"
        )


def _state(page: models.Page, now: datetime) -> str:
    from otn.policy import pause_of

    pause = pause_of(page, now)
    if pause is None:
        return "sends"
    return f"paused until {in_words(pause.until)}" if pause.until else "paused"
