"""How every Page stands: what Meta says about its access token and subscription, and what we know ourselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from otn.app import App
from otn.errors import NotFound, SendError
from otn.graph.protocol import (
    SUBSCRIBED_FIELDS,
    HttpRequest,
    build_me,
    build_subscribe,
    build_subscribed_apps,
    subscribed_fields,
)
from otn.models import Page
from otn.policy import Pause, pauses_of
from otn.settings import is_loopback
from otn.store import Tx, audit, figures, pages
from otn.store.figures import PageFigures

# The simulator has no events for these, so a Page there does without them.
FROM_META_ONLY = ("messaging_policy_enforcement", "messaging_handovers", "standby")


class Graph(Protocol):
    """The way to Meta: a JSON object, or a SendError."""

    def get_json(self, request: HttpRequest) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What Meta says about one configured access token. `page_id` is None if not even that could be learnt.

    A `problem` means that the token is of no use; `fields` is None where Meta did not tell them, and
    `fields_problem` says why.
    """

    page_id: str | None
    name: str | None = None
    problem: str | None = None
    fields: frozenset[str] | None = None
    fields_problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """Something that needs a person, and what that person should do."""

    found: str
    todo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageStatus:
    """One Page. `account` is None where no access token is configured for it (any more)."""

    page_id: str | None
    name: str | None
    account: Account | None
    missing_fields: tuple[str, ...]
    pauses: tuple[Pause, ...]
    paused_by: str | None  # the first of them, as far as it is on record
    otn_denied_reason: str | None
    figures: PageFigures

    @property
    def paused(self) -> Pause | None:
        """What keeps everything, before whatever else does."""
        return next(iter(self.pauses), None)

    @property
    def concerns(self) -> list[Concern]:
        """What needs a person; a pause that ends by itself does not."""
        return [*_about_meta(self), *_about_us(self)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What subscribing to one Page came to; without a `problem` all its events reach us."""

    page_id: str | None
    fields: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    problem: str | None = None


def survey(app: App, graph: Graph, page_id: str | None = None) -> list[PageStatus]:
    """Every Page, configured or known to the database, or only the one named. Changes nothing. Raises NotFound."""
    found = _with_the_stored(app, accounts(app, graph, page_id))
    if page_id is not None:
        found = [(each, account) for each, account in found if each == page_id]
    if page_id is not None and not found:
        raise NotFound(f"there is no page {page_id}; see `otn page list`")
    return [_status(app, each, account) for each, account in found]


def accounts(app: App, graph: Graph, page_id: str | None = None) -> list[Account]:
    """Ask Meta about every configured access token, or only about those that may be the named Page's."""
    wanted = [
        each.page_id for each in app.settings.pages if page_id in (None, each.page_id) or not each.page_id
    ]
    return [_ask(app, graph, each) for each in wanted]


def subscribe(app: App, graph: Graph, account: Account, *, who: str) -> Subscription:
    """Subscribe our app to all the events of this Page that we understand. Asking again changes nothing (HOOKS).

    What was subscribed beside them stays. One Page's "no" is part of the answer, so that others are still asked.
    """
    before = account.fields or frozenset()
    if account.problem is not None:
        return Subscription(page_id=account.page_id, problem=account.problem)
    config = app.graph_config(account.page_id)
    try:
        graph.get_json(build_subscribe(config, sorted({*SUBSCRIBED_FIELDS, *before})))
        after = subscribed_fields(graph.get_json(build_subscribed_apps(config)))
    except SendError as error:
        return Subscription(page_id=account.page_id, problem=str(error))
    added, missing = tuple(sorted(after - before)), missing_fields(app, after)
    if added:
        _record(app, account.page_id, added, who)
    problem = f"Meta said yes, but these are still missing: {', '.join(missing)}" if missing else None
    return Subscription(page_id=account.page_id, fields=tuple(sorted(after)), added=added, problem=problem)


def missing_fields(app: App, fields: frozenset[str]) -> tuple[str, ...]:
    """The fields without which something would not reach us."""
    simulated = is_loopback(app.settings.graph_url)
    needed = [name for name in SUBSCRIBED_FIELDS if not (simulated and name in FROM_META_ONLY)]
    return tuple(name for name in needed if name not in fields)


def _record(app: App, page_id: str | None, added: tuple[str, ...], who: str) -> None:
    with app.store.begin() as tx:
        audit.record(
            tx,
            who=who,
            action="page.subscribe",
            subject=page_id or "",
            now=app.clock(),
            details={"added": list(added)},
        )


def _ask(app: App, graph: Graph, page_id: str | None) -> Account:
    config = app.graph_config(page_id)
    try:
        me = graph.get_json(build_me(config))
    except SendError as error:
        return Account(page_id=page_id, problem=str(error))
    told = str(me.get("id") or "")
    if not told or page_id not in (None, told):
        return Account(page_id=page_id, problem=f"the access token belongs to page {told or 'unknown'}")
    name = str(me["name"]) if me.get("name") else None
    try:
        answer = graph.get_json(build_subscribed_apps(config))
    except SendError as error:
        return Account(page_id=told, name=name, fields_problem=str(error))
    return Account(page_id=told, name=name, fields=subscribed_fields(answer))


def _with_the_stored(app: App, asked: list[Account]) -> list[tuple[str | None, Account | None]]:
    """The configured Pages, then those that only the database knows."""
    with app.store.read() as tx:
        stored = [page.page_id for page in pages.every(tx)]
    if len(stored) == 1 and [account.page_id for account in asked] == [None]:
        # Meta would not say whose the one token is: the Page that we know must be meant.
        return [(stored[0], asked[0])]
    configured = [account.page_id for account in asked]
    others = [page_id for page_id in stored if page_id not in configured]
    return [*((account.page_id, account) for account in asked), *((page_id, None) for page_id in others)]


def _status(app: App, page_id: str | None, account: Account | None) -> PageStatus:
    now = app.clock()
    with app.store.read() as tx:
        page = (pages.find(tx, page_id) if page_id else None) or Page(page_id=page_id or "")
        pauses = pauses_of(page, now)
        paused_by = _who_paused(tx, page, pauses[0]) if pauses else None
        counted = figures.of_page(tx, page.page_id, now)
    fields = account.fields if account else None
    return PageStatus(
        page_id=page_id,
        name=(account.name if account else None) or page.name,
        account=account,
        missing_fields=missing_fields(app, fields) if fields is not None else (),
        pauses=tuple(pauses),
        paused_by=paused_by,
        otn_denied_reason=page.otn_denied_reason,
        figures=counted,
    )


def _who_paused(tx: Tx, page: Page, pause: Pause) -> str | None:
    return "meta" if pause.by_webhook else audit.who_paused(tx, page.page_id, pause.reason)


def _about_meta(status: PageStatus) -> Iterator[Concern]:
    account, page = status.account, status.page_id or "PAGE"
    if account is None:
        # A Page that was given up is nobody's concern, unless people still wait for something from it.
        if unused := status.figures.available_tokens:
            found = f"no access token is configured, and {unused} unused permissions cannot be spent"
            yield Concern(found=found, todo=f"give page {page} a token in credentials.yml: pages")
    elif account.problem is not None:
        yield Concern(
            found=f"the access token does not work: {account.problem}",
            todo=f"put a new one into credentials.yml or .env, restart, then `otn page resume {page}`",
        )
    elif account.fields_problem is not None:
        yield Concern(
            found=f"Meta does not say what is subscribed: {account.fields_problem}",
            todo="give the access token the permission pages_manage_metadata",
        )
    elif status.missing_fields:
        yield Concern(
            found=f"not subscribed: {', '.join(status.missing_fields)}", todo=f"otn page subscribe {page}"
        )


def _about_us(status: PageStatus) -> Iterator[Concern]:
    page = status.page_id or "PAGE"
    for pause in status.pauses:
        if pause.until is None:
            yield Concern(found=f"paused {pause.end}: {pause.reason}", todo=pause.todo(page))
    if status.otn_denied_reason is not None:
        yield Concern(
            found=f"no permission requests: {status.otn_denied_reason}",
            todo=f"allow One-Time Notification in the Page's settings, then `otn page resume {status.page_id}`",
        )
