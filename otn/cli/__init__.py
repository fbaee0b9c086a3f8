"""`otn`: one command line for operators. Data on stdout, talk on stderr; exit 0 done, 1 refused or failed, 2
configuration or a mistyped command.

A command's module imports what is heavy (SQLAlchemy, requests, Rich) inside its functions: `--help` stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from otn.cli import (
    audit,
    broadcasts,
    check,
    contacts,
    init,
    notify,
    page,
    people,
    send,
    tokens,
    topics,
    worker,
)
from otn.cli.session import commands
from otn.cli.terminal import say
from otn.errors import ConfigError, InvalidInput, MayBeSent, OtnError, StoreUnavailable

app = commands("One-Time Notifications for a Messenger bot: topics, permissions, follow-ups.")
app.command("init")(init.init)
app.command("check")(check.check)
app.add_typer(topics.app, name="topics")
app.add_typer(contacts.app, name="contacts")
contacts.app.command("tag")(people.tag)
contacts.app.command("set")(people.set_values)
contacts.app.command("import")(people.import_file)
contacts.app.command("export")(people.export)
app.add_typer(tokens.app, name="tokens")
app.command("send")(send.send)
app.add_typer(broadcasts.app, name="broadcasts")
app.command("notify")(notify.notify)
app.add_typer(page.app, name="page")
app.command("audit")(audit.audit)
app.command("worker")(worker.worker)

_INTERRUPTED = 128 + 2  # as shells count a Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return the exit code; nothing a person can cause ends in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without ✓ gets a ?
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if broken := [each for each in typed if not _is_text(each)]:
        say(f"Not UTF-8: {', '.join(map(repr, broken))}.")
        return 2
    try:
        typer.main.get_command(app)(typed, "otn")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code == _INTERRUPTED:
            say(
                "Interrupted. What was on its way to a person is settled by `otn worker`, and never sent twice."
            )
    except OtnError as problem:
        code = _explain(problem)
    except Exception as bug:  # noqa: BLE001 - a person typed this: they get a sentence, not a traceback
        code = _admit(bug)
    else:
        code = 0
    return code if _flushed() else 1


def _is_text(argument: str) -> bool:
    """Whether it can be kept and sent: Python hands us half a character for each byte that is not UTF-8."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"otn {version('rasa-messenger-otn')}")
        except PackageNotFoundError:
            print("otn (not installed)")
        raise typer.Exit


@app.callback()
def choose_project(
    context: typer.Context,
    root: Annotated[
        Path, typer.Option("--root", metavar="FOLDER", help="The project's folder, if not this one.")
    ] = Path(),
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = root


def _flushed() -> bool:
    """Whether the reader of stdout took everything; else Python, which would complain, writes elsewhere."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _explain(problem: OtnError) -> int:
    if isinstance(problem, ConfigError):
        say("The configuration is not complete:")
        _list(problem.problems)
        return 2
    if isinstance(problem, InvalidInput):
        say("That cannot be done:")
        _list(problem.problems)
    elif isinstance(problem, MayBeSent):
        say(f"{_sentence(str(problem))} Do not send it again: `otn contacts show {problem.psid}` tells more.")
    elif isinstance(problem, StoreUnavailable):
        say(f"{_sentence(str(problem))} What was not finished can be done again; `otn check` tells more.")
    else:
        say(_sentence(str(problem)))
    return 1


def _list(problems: Sequence[str]) -> None:
    for problem in problems:
        say(f"- {problem}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _admit(bug: Exception) -> int:
    if os.environ.get("OTN_DEBUG"):
        raise bug
    # Not its text: nobody checked what it holds.
    say(f"Something went wrong that should not have ({type(bug).__name__}). With OTN_DEBUG=1 you see where.")
    return 1
