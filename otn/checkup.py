"""Is everything as it must be? Looks at configuration, files, database, keys and Meta; changes nothing."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from otn import project
from otn.app import App
from otn.clock import clock, system_now
from otn.errors import ConfigError, SendError, StoreUnavailable
from otn.graph.protocol import GraphConfig, build_me, build_subscribed_apps, subscribed_fields
from otn.graph.sync import SyncGraph
from otn.policy import Reason, pauses_of
from otn.settings import ACTION_SERVER, EVERYTHING, Settings, is_loopback, load_settings
from otn.store import Store, chunks, health, keys, migrate, pages, topics
from otn.vault import Vault

# HOOKS. Without the first three no conversation and no permission reaches us; without the others windows stay
# closed (referrals, reactions), doubts open (echoes), and Meta's warnings unheard.
NEEDED_FIELDS = ("messages", "messaging_postbacks", "messaging_optins")
USEFUL_FIELDS = (
    "message_echoes",
    "messaging_referrals",
    "message_reactions",
    "message_reads",
    "message_deliveries",
)
WISHED_FROM_META = ("messaging_policy_enforcement", "messaging_handovers")

SLOTS = ("otn_topic", "otn_kind", "otn_request_decision", "otn_follow_up_decision")
ACTIONS = ("action_request_otn", "action_send_otn_follow_up", "action_otn_status", "action_forget_me")
INTENTS = ("otn_opted_in", "EXTERNAL_otn_follow_up")
RESPONSES = ("utter_otn_request", "utter_otn_follow_up")
DECISIONS = ("asked", *(reason.value for reason in list(Reason)[:6]))

# Windows are counted on this host's clock: a minute off is a minute of forbidden or missed messages.
CLOCK_TOLERANCE = timedelta(seconds=5)
CLOCK_LIMIT = timedelta(seconds=60)


class Verdict(str, Enum):
    """How a test ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    CONFIGURATION = "configuration"
    NOT_TESTED = "not_tested"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was tested, what was found, and what to do about it."""

    name: str
    verdict: Verdict
    found: str
    todo: str | None = None


def examine(root: Path, *, offline: bool, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Test everything that can be tested, from the configuration to Meta (unless `offline`)."""
    settings, complete = yield from _configuration(root, environ)
    yield from _rasa_files(root)
    if settings is None:
        return
    app = App(
        settings=settings, store=Store(settings.database_url), clock=clock(settings.clock_file), vault=None
    )
    yield from _database(app, complete=complete)
    yield from _simulated_time(settings)
    if not complete:
        return
    if offline:
        yield Finding(name="Graph", verdict=Verdict.NOT_TESTED, found="--offline was asked for")
        return
    yield from _graph(app)


# --- configuration


def _configuration(
    root: Path, environ: Mapping[str, str]
) -> Generator[Finding, None, tuple[Settings | None, bool]]:
    try:
        settings = load_settings(root, environ, need=EVERYTHING)
    except ConfigError as problem:
        yield from _wrong("configuration", problem)
        return _as_far_as_possible(root, environ), False
    numbers = f"{len(settings.pages)} Page(s), {len(settings.app_secrets)} app secret(s)"
    yield _good("configuration", f"complete: Graph {settings.api_version} at {settings.graph_url}, {numbers}")
    yield from _secrets_file(root / ".env")
    return settings, True


def _as_far_as_possible(root: Path, environ: Mapping[str, str]) -> Settings | None:
    try:
        return load_settings(root, environ, need=ACTION_SERVER)
    except ConfigError:
        return None


def _secrets_file(path: Path) -> Iterator[Finding]:
    if path.exists() and path.stat().st_mode & 0o077:
        todo = f"chmod 600 {path}"
        yield _doubtful(".env", "other users of this machine can read its secrets", todo)


# --- files of the Rasa project


def _rasa_files(root: Path) -> Iterator[Finding]:
    for name, test in (
        ("policies", _policies),
        ("domain", _domain),
        ("tracker store", _tracker_store),
    ):
        try:
            yield from test(root)
        except ConfigError as problem:
            yield from _wrong(name, problem)


def _policies(root: Path) -> Iterator[Finding]:
    names = [name.rpartition(".")[2] for name in project.policies(root) or ["MemoizationPolicy"]]
    if "AugmentedMemoizationPolicy" not in names:
        yield _bad(
            "policies",
            "config.yml has no AugmentedMemoizationPolicy: stories that begin with a follow-up never match",
            "add `- name: AugmentedMemoizationPolicy` under `policies:`, then `rasa train`",
        )
    elif "MemoizationPolicy" in names:
        yield _bad(
            "policies",
            "config.yml also has the plain MemoizationPolicy, which the augmented one replaces",
            "take `MemoizationPolicy` out of config.yml, then `rasa train`",
        )
    else:
        yield _good("policies", "AugmentedMemoizationPolicy is there")


def _domain(root: Path) -> Iterator[Finding]:
    if not project.has_domain(root):
        yield _bad("domain", "there is no domain.yml here", "run this in the project's folder, or use --root")
        return
    slots, found = project.domain(root, "slots"), True
    missing = [f"slot {name}" for name in SLOTS if name not in slots]
    actions = project.domain(root, "actions")
    missing += [f"action {name}" for name in ACTIONS if name not in actions]
    decision = slots.get("otn_request_decision")
    values = decision.get("values") if isinstance(decision, dict) else None
    if "otn_request_decision" in slots:
        lacking = [word for word in DECISIONS if word not in (values or [])]
        missing += [f"value {word} of slot otn_request_decision" for word in lacking]
    if missing:
        found = False
        yield _bad("domain", f"it lacks {', '.join(missing)}", "copy them from the shipped domain.yml")
    intents, responses = project.domain(root, "intents"), project.domain(root, "responses")
    wanted = [f"intent {name}" for name in INTENTS if name not in intents]
    wanted += [f"response {name}" for name in RESPONSES if name not in responses]
    if wanted:
        found = False
        without = f"it lacks {', '.join(wanted)}"
        yield _doubtful("domain", without, "copy them from the shipped domain.yml and data/otn.yml")
    if found:
        yield _good("domain", "slots, actions, intents and responses for One-Time Notifications are there")


def _tracker_store(root: Path) -> Iterator[Finding]:
    found = project.tracker_store(root)
    kind = str((found or {}).get("type", "memory"))
    if kind.lower() in ("memory", "inmemory", "in_memory"):
        yield _bad(
            "tracker store",
            "endpoints.yml names none: every conversation is forgotten when Rasa stops",
            "take `tracker_store:` from the shipped endpoints.yml",
        )
    elif kind.lower() == "sql" or kind == project.QUICK_TRACKER_STORE:
        yield _good("tracker store", f"SQL ({(found or {}).get('dialect', 'sqlite')})")
    else:
        yield _doubtful(
            "tracker store",
            f"{kind}: it remembers, but nobody can be erased from it automatically",
            f"use `type: {project.QUICK_TRACKER_STORE}`, or erase conversations by hand",
        )


# --- database


def _database(app: App, *, complete: bool) -> Iterator[Finding]:
    path = app.store.path
    if path is not None and not path.exists():
        yield _bad("database", f"there is no file {path}", "otn init")
        return
    try:
        yield from _server(app.store)
        yield from _content(app, complete=complete)
    except StoreUnavailable as problem:
        yield _bad("database", str(problem), "see that it runs, and that OTN_DATABASE_URL is right")
    finally:
        app.store.close()


def _server(store: Store) -> Iterator[Finding]:
    found = health.server(store)
    name = f"{found.name} {found.version}"
    if found.may_corrupt_its_log:
        yield _doubtful(
            "database",
            f"{name} has the WAL-reset bug (3.7.0 to 3.51.2): rarely, with several processes, data is lost",
            "pip install pysqlite3 (Linux), or a Python with SQLite 3.51.3, 3.50.7 or 3.44.6",
        )
    else:
        yield _good("database", f"{name} answers: {store.path or repr(store)}")
    if found.journal_mode not in (None, "wal"):
        yield _doubtful(
            "journal mode", f"{found.journal_mode}: readers and writers wait for each other", "otn init"
        )
    elif found.journal_mode:
        yield _good("journal mode", found.journal_mode.upper())


def _content(app: App, *, complete: bool) -> Iterator[Finding]:
    current, newest = migrate.current(app.store), migrate.newest()
    if current != newest:
        yield _bad(
            "migrations", f"the database is at {current or 'none'}, this version needs {newest}", "otn init"
        )
        return
    yield _good("migrations", f"current, revision {newest}")
    if complete:
        yield from _keys(app)
        yield from _pages_without_token(app)
    yield from _kinds(app)
    yield from _paused_pages(app)


def _keys(app: App) -> Iterator[Finding]:
    settings = app.settings
    try:
        vault = Vault([key.reveal() for key in settings.encryption_keys], settings.hash_key.reveal())
    except ConfigError as problem:
        yield from _wrong("keys", problem)
        return
    with app.store.read() as tx:
        problems, in_use = keys.problems(tx, vault), keys.in_use(tx)
    first = vault.key_fingerprints[0]
    if problems:
        yield from _wrong("keys", ConfigError(problems))
    elif others := [each for each in in_use if each != first]:
        found = f"{first} seals, but {', '.join(others)} may still be needed"
        yield _doubtful("keys", found, "restart everything that runs, then `otn tokens rotate`")
    else:
        yield _good("keys", f"encryption key {first}, hash key {vault.hash_key_fingerprint}")


def _kinds(app: App) -> Iterator[Finding]:
    try:
        known = project.kinds(app.settings.root)
    except ConfigError:
        known = None  # said already, where the domain was looked at
    with app.store.read() as tx:
        found = topics.every(tx)
    strange = [f"{topic.name} ({topic.kind})" for topic in found if known and topic.kind not in known]
    if not found:
        yield _doubtful("topics", "there is none yet", "otn topics add NAME --title TEXT")
    elif strange:
        yield _doubtful(
            "topics",
            f"no story tells these kinds apart: {', '.join(strange)}",
            "add them to slot otn_kind in domain.yml, or `otn topics edit NAME --kind KIND`",
        )
    else:
        yield _good("topics", f"{len(found)}, and the domain knows their kinds")


def _paused_pages(app: App) -> Iterator[Finding]:
    now = app.clock()
    with app.store.read() as tx:
        found = pages.every(tx)
    for page in found:
        for pause in pauses_of(page, now):
            if pause.until is None:
                yield _bad("page", f"{page.page_id} is paused: {pause.reason}", pause.todo(page.page_id))
            else:
                found_out = f"{page.page_id} is paused for a while: {pause.reason}"
                yield _doubtful("page", found_out, "nothing; it goes on by itself")
        if page.otn_denied_reason is not None:
            yield _doubtful(
                "page",
                f"Meta refused a permission request of {page.page_id}: {page.otn_denied_reason}",
                f"allow One-Time Notification in the Page's settings, then `otn page resume {page.page_id}`",
            )


def _pages_without_token(app: App) -> Iterator[Finding]:
    with app.store.read() as tx:
        silent = chunks.waiting_pages(tx, app.pages_with_token)
    for page_id in silent:
        yield _bad(
            "page",
            f"broadcasts wait for page {page_id}, which has no access token",
            f"give page {page_id} a token in credentials.yml: pages, or `otn broadcasts cancel` what waits for it",
        )


# --- time and Meta


def _simulated_time(settings: Settings) -> Iterator[Finding]:
    if settings.clock_file is None:
        return
    ahead = (clock(settings.clock_file)() - system_now()).total_seconds()
    shift = f"{ahead / 3600:+.1f} h" if abs(ahead) > 1 else "not shifted"
    yield _good("clock", f"simulated by {settings.clock_file}: {shift}")


def _graph(app: App) -> Iterator[Finding]:
    with SyncGraph() as graph:
        for number, page in enumerate(app.settings.pages):
            config = app.graph_config(page.page_id)
            try:
                me, date = graph.get_dated_json(build_me(config))
            except SendError as problem:
                yield _no_answer(page.page_id, problem)
                continue
            if number == 0:
                yield from _host_clock(date)
            yield from _page_token(page.page_id, me)
            yield from _subscription(graph, config, is_real=not is_loopback(app.settings.graph_url))


def _no_answer(page_id: str | None, problem: SendError) -> Finding:
    key = "MESSENGER_PAGE_ACCESS_TOKEN" if page_id is None else f"credentials.yml: pages.{page_id}"
    todo = f"see that Graph can be reached from here, and that {key} is a valid access token of the Page"
    return _bad("page token", f"{page_id or 'GET /me'}: {problem}", todo)


def _page_token(page_id: str | None, me: Mapping[str, object]) -> Iterator[Finding]:
    if page_id is not None and str(me.get("id")) != page_id:
        found = f"the token for page {page_id} belongs to {me.get('id')}"
        yield Finding(
            name="page token",
            verdict=Verdict.CONFIGURATION,
            found=found,
            todo="correct credentials.yml: pages",
        )
        return
    yield _good("page token", f"Meta accepts it: {me.get('name') or 'no name'} ({me.get('id')})")


def _subscription(graph: SyncGraph, config: GraphConfig, *, is_real: bool) -> Iterator[Finding]:
    """Meta takes an app off a Page whose webhook failed for an hour (HOOKS)."""
    try:
        answer = graph.get_json(build_subscribed_apps(config))
    except SendError as problem:
        yield _bad("subscription", str(problem), "give the access token the permission pages_manage_metadata")
        return
    fields = subscribed_fields(answer)
    todo = "otn page subscribe"
    missing = [name for name in NEEDED_FIELDS if name not in fields]
    useful = [*USEFUL_FIELDS, *(WISHED_FROM_META if is_real else ())]
    wanted = [name for name in useful if name not in fields]
    if missing:
        yield _bad("subscription", f"the Page's events do not reach us: {', '.join(missing)}", todo)
    elif wanted:
        yield _doubtful("subscription", f"these fields would help: {', '.join(wanted)}", todo)
    else:
        yield _good("subscription", f"{len(fields)} fields, and all that are needed")


def _host_clock(date: datetime | None) -> Iterator[Finding]:
    if date is None:
        yield Finding(name="host clock", verdict=Verdict.NOT_TESTED, found="Graph's answer has no date")
        return
    off = abs(system_now() - date)
    found = f"{off.total_seconds():.0f} s from Meta's"
    todo = "let NTP set this machine's clock: windows and permissions are counted by it"
    if off > CLOCK_LIMIT:
        yield _bad("host clock", found, todo)
    elif off > CLOCK_TOLERANCE:
        yield _doubtful("host clock", found, todo)
    else:
        yield _good("host clock", f"within {CLOCK_TOLERANCE.seconds} s of Meta's")


def _good(name: str, found: str) -> Finding:
    return Finding(name=name, verdict=Verdict.OK, found=found)


def _doubtful(name: str, found: str, todo: str) -> Finding:
    return Finding(name=name, verdict=Verdict.WARNING, found=found, todo=todo)


def _bad(name: str, found: str, todo: str) -> Finding:
    return Finding(name=name, verdict=Verdict.FAILED, found=found, todo=todo)


def _wrong(name: str, problem: ConfigError) -> Iterator[Finding]:
    """Each problem says itself what to do."""
    for each in problem.problems:
        yield Finding(name=name, verdict=Verdict.CONFIGURATION, found=each)
