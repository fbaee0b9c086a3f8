"""`otn check`: is everything as it must be?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from otn.cli.session import Json, root
from otn.cli.terminal import print_json, print_line

if TYPE_CHECKING:
    from otn.checkup import Finding


def check(
    context: typer.Context,
    offline: Annotated[bool, typer.Option("--offline", help="Leave Meta out of it.")] = False,
    json: Json = False,
) -> None:
    """Test configuration, files, database, keys, clock and Meta, and say what to do. Changes nothing.

    Exit code 0: all is well, warnings aside. 1: something failed. 2: the configuration is wrong.

    \b
    Examples:
      otn check
      otn check --offline --json
    """
    from otn.checkup import Verdict, examine

    findings = []
    for finding in examine(root(context), offline=offline):
        findings.append(finding)
        if not json:
            _print(finding)
    verdicts = {finding.verdict for finding in findings}
    code = 2 if Verdict.CONFIGURATION in verdicts else 1 if Verdict.FAILED in verdicts else 0
    if json:
        print_json({"ok": code == 0, "checks": [asdict(finding) for finding in findings]})
    raise typer.Exit(code)


_MARKS = {"ok": "✓", "warning": "!", "failed": "✗", "configuration": "✗", "not_tested": "-"}


def _print(finding: Finding) -> None:
    print_line(f"{_MARKS[finding.verdict.value]} {finding.name:<14} {finding.found}")
    if finding.todo:
        print_line(f"{'':<16} -> {finding.todo}")
