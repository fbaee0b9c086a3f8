"""`otn tokens …`: the permissions that people gave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otn.cli.session import LARGEST_ID, Json, Limit, Yes, commands, confirm, opened, user
from otn.cli.terminal import print_json, print_json_list, print_table, progress, say

if TYPE_CHECKING:
    from otn.app import App
    from otn.models import OtnToken

app = commands("The permissions that people gave: one token, one message.")

BATCH = 500

TokenId = Annotated[
    int, typer.Argument(max=LARGEST_ID, metavar="ID", help="The token's number, as `otn tokens list` has it.")
]


class State(str, Enum):
    """The states of a token, and the one that time makes of an available one."""

    AVAILABLE = "available"
    RESERVED = "reserved"
    USED = "used"
    SUSPECT = "suspect"
    INVALID = "invalid"
    EXPIRED = "expired"


@app.command("list")
def list_tokens(
    context: typer.Context,
    psid: Annotated[str | None, typer.Option("--psid", metavar="P", help="Of this person only.")] = None,
    page: Annotated[str | None, typer.Option("--page", metavar="PAGE", help="Of this Page only.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="T", help="Of this topic only.")] = None,
    state: Annotated[State | None, typer.Option("--state", help="In this state only.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List permissions, never the secrets themselves.

    \b
    Examples:
      otn tokens list --topic restock-blue --state available
      otn tokens list --psid 7007 --json
      otn tokens list --psid 7007 --page 101
    """
    with opened(context) as app:
        now = app.clock()
        if psid is not None:
            _require_one_person(app, psid, page)
        found = (
            shown
            for token in _every(app, psid, page, topic)
            if (shown := for_programs(token, now)) and state in (None, shown["state"])
        )
        if json:
            print_json_list(islice(found, limit))
            return
        rows = list(islice(found, (limit or 100) + 1))
    _print(rows, limit or 100)


@app.command()
def rotate(context: typer.Context, json: Json = False) -> None:
    """Seal everything anew with the first key of OTN_ENCRYPTION_KEYS. Safe while everything else runs.

    \b
    How to change the key:
      1. make one: python -c "from cryptography.fernet import Fernet as F; print(F.generate_key().decode())"
      2. put it in front: OTN_ENCRYPTION_KEYS=new,old
      3. restart `rasa run` and `otn worker`
      4. otn tokens rotate
      5. take the old one out; keep it as long as you keep backups that were made with it

    \b
    Example:
      otn tokens rotate
    """
    from otn import rotation

    with opened(context, to_seal=True) as app:
        with progress("Sealing anew", rotation.rows_to_look_at(app)) as advance:
            done = rotation.rotate(app, who=user(), pause=_pause, advance=advance)
        keys = len(app.settings.encryption_keys)
    say(
        f"All {done.rows} sealed rows are under key {done.fingerprint}; {done.resealed} of them were sealed anew."
    )
    if keys > 1:
        say("Once everything that runs was restarted, take the old keys out of OTN_ENCRYPTION_KEYS.")
    if json:
        print_json(asdict(done))


@app.command()
def assign(
    context: typer.Context,
    token_id: TokenId,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="What the person agreed to.")],
) -> None:
    """Give a permission its topic that was kept without one, because its request was not ours.

    \b
    Example:
      otn tokens assign 12 restock-blue
    """
    from otn.errors import InvalidMove, NotFound
    from otn.store import audit, tokens, topics

    with opened(context) as app, app.store.begin() as tx:
        now = app.clock()
        token, found = tokens.get(tx, token_id), topics.use(tx, topic, now)
        if found is None:
            raise NotFound(f"there is no topic '{topic}'; see `otn topics list`")
        if not tokens.assign(tx, token_id, found.id):
            raise InvalidMove(f"token {token_id} was given for '{token.topic}', and that cannot be changed")
        audit.record(
            tx,
            who=user(),
            action="token.assign",
            subject=f"token {token_id}",
            now=now,
            details={"topic": topic},
        )
    say(f"Token {token_id} is a permission for '{topic}' now.")


@app.command()
def release(context: typer.Context, token_id: TokenId, yes: Yes = False) -> None:
    """Let a suspect permission be used again.

    A token is suspect when Meta refused it in a way that may mean the token or the message. If it was spent after
    all, Meta refuses the next message too, and the person gets nothing twice.

    \b
    Example:
      otn tokens release 12
    """
    from otn.models import TokenState
    from otn.store import tokens

    def change(tx: Any) -> bool:
        return tokens.move(tx, token_id, TokenState.SUSPECT, TokenState.AVAILABLE)

    with opened(context) as app:
        _require_suspect(app, token_id)
        say(
            "Warning: if the doubtful message did arrive, Meta refuses the next one that this token pays for."
        )
        confirm(f"Release token {token_id}?", yes)
        _decide(app, token_id, "token.release", change)
    say(f"Token {token_id} is available again.")


@app.command()
def void(context: typer.Context, token_id: TokenId, yes: Yes = False) -> None:
    """Give up a suspect permission for good.

    \b
    Example:
      otn tokens void 12
    """
    from otn.store import tokens

    with opened(context) as app:
        _require_suspect(app, token_id)
        say("Warning: nothing brings a permission back; only the person can give a new one.")
        confirm(f"Give up token {token_id} for good?", yes)
        _decide(app, token_id, "token.void", lambda tx: tokens.void(tx, token_id, "given up by an operator"))
    say(f"Token {token_id} is given up.")


def _require_suspect(app: App, token_id: int) -> None:
    from otn.errors import InvalidMove
    from otn.models import TokenState
    from otn.store import tokens

    with app.store.read() as tx:
        state = tokens.get(tx, token_id).state
    if state is not TokenState.SUSPECT:
        raise InvalidMove(f"token {token_id} is {state.value}; only a suspect one wants a decision")


def _decide(app: App, token_id: int, action: str, change: Callable[[Any], bool]) -> None:
    from otn.errors import InvalidMove
    from otn.store import audit

    with app.store.begin() as tx:
        if not change(tx):
            raise InvalidMove(f"token {token_id} changed meanwhile; look at it again")
        audit.record(tx, who=user(), action=action, subject=f"token {token_id}", now=app.clock())


def _require_one_person(app: App, psid: str, page: str | None) -> None:
    """Raises NotFound if several Pages know this psid and none was named: they need not be one person."""
    from otn.store import contacts

    with app.store.read() as tx:
        contacts.by_psid(tx, psid, page)


def _every(app: App, psid: str | None, page: str | None, topic: str | None) -> Iterator[OtnToken]:
    from otn.store import tokens

    after = 0
    while True:
        with app.store.read() as tx:
            batch = tokens.every(tx, psid=psid, page_id=page, topic_name=topic, after=after, limit=BATCH)
        yield from batch
        if len(batch) < BATCH:
            return
        after = batch[-1].id


def for_programs(token: OtnToken, now: datetime) -> dict[str, Any]:
    """A token as JSON has it; one that lapsed unused is `expired`."""
    values = asdict(token)
    if token.state == State.AVAILABLE.value and token.expires_at <= now:
        values["state"] = State.EXPIRED.value
    del values["contact_id"]
    return values


def _print(rows: list[dict[str, Any]], limit: int) -> None:
    headings = ["id", "page", "psid", "topic", "state", "given", "lapses", "used", "note"]
    columns = [
        "id",
        "page_id",
        "psid",
        "topic",
        "state",
        "opted_in_at",
        "expires_at",
        "used_at",
        "state_reason",
    ]
    table = [[row[column] for column in columns] for row in rows[:limit]]
    print_table(headings, table, nothing="There are no such permissions.")
    if len(rows) > limit:
        say(f"There are more than these {limit}: --limit shows more of them, --json all.")


def _pause(length: timedelta) -> None:
    threading.Event().wait(length.total_seconds())
