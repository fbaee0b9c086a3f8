"""What a benchmark found: a table for the terminal, and the same in docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import machine

DOCUMENT: Final = Path("docs") / "performance.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One benchmark's table. `says`: the sentences to read below it, with each target and whether it is met."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    says: Sequence[str]


def met(what: str, good: bool) -> str:
    """A target and its verdict, in words."""
    return f"{what}: {'met' if good else 'MISSED'}."


def show(finding: Finding) -> None:
    """Print it."""
    table = Table(title=finding.name, title_justify="left")
    for number, column in enumerate(finding.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in finding.rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for sentence in finding.says:
        console.print(f"  {sentence}", highlight=False)


def write(finding: Finding, load_before: float) -> None:
    """Put it between its markers in docs/performance.md; the prose around stays."""
    text = DOCUMENT.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {finding.name} -->", f"<!-- end {finding.name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{DOCUMENT} has no place for it: it lacks the lines\n{begin}\n{end}")
    block = f"{begin}\n{_markdown(finding, load_before)}\n{end}"
    DOCUMENT.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")


def _markdown(finding: Finding, load_before: float) -> str:
    lines = [
        f"`python -m benchmarks {finding.name}`, {machine.description()}; load before the run {load_before:.1f}.",
        "",
        _row(finding.columns),
        "|" + "|".join(["---"] + ["---:"] * (len(finding.columns) - 1)) + "|",
        *map(_row, finding.rows),
        "",
        *(f"- {sentence}" for sentence in finding.says),
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
