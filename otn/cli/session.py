"""What every command shares: the project's folder, its parts, who types, the options that recur."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otn import times
from otn.cli.terminal import say

if TYPE_CHECKING:
    from otn.app import App

LARGEST_ID = 10**18  # no database counts further
MOST_LINES = 10**9

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, max=MOST_LINES, metavar="N", help="Show so many.  [default: 100; all with --json]"
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Page = Annotated[
    str | None, typer.Option("--page", metavar="PAGE", help="The Page, where several know the person.")
]
Psid = Annotated[str, typer.Argument(metavar="PSID", help="The person's page-scoped id.")]
BREATH = 0.02  # seconds after each few hundred rows, so that no webhook waits for a long command


def commands(sentence: str) -> typer.Typer:
    """A group of commands, or the root of all."""
    return typer.Typer(
        help=sentence,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: Rich would double the time of `--help`
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def root(context: typer.Context) -> Path:
    """The project's folder: `--root`, or where the command was typed."""
    found: Path = context.find_root().obj
    return found


@contextmanager
def opened(context: typer.Context, *, to_send: bool = False, to_seal: bool = False) -> Iterator[App]:
    """The project's parts, with the secrets that a command needs and no others. Raises ConfigError."""
    from otn.app import READING, SENDING, Need, open_app

    need = SENDING if to_send else READING | {Need.ENCRYPTION_KEYS} if to_seal else READING
    app = open_app(root(context), need=need)
    try:
        yield app
    finally:
        app.store.close()


def user() -> str:
    """Who types: the name that the operating system knows, for the audit."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else os.environ.get("USERNAME", "unknown")


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be undone; exit code 1 for a no."""
    if not yes and not typer.confirm(question, err=True):
        say("Nothing was changed.")
        raise typer.Exit(1)


def breathe() -> None:
    """Let others write, after each part of something long."""
    threading.Event().wait(BREATH)


def parse_duration(text: str) -> timedelta:
    """Read `24h`, `30min`, `7d`, `90s`."""
    try:
        return times.length(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
