"""The table of rules in README.md is that of the code: every constant of the law, with its value and its source."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otn import policy

ROOT = Path(__file__).parents[1]
PAGES = {"OTN", "FAQ", "SEND", "HOOKS", "ERR", "RATE", "POLICY", "ECHO"}
OURS = "ours"  # a promise of this project, which Meta does not ask for


class Rule(NamedTuple):
    """A line of the table."""

    text: str
    sources: set[str]
    places: list[str]


def rules() -> list[Rule]:
    table = (ROOT / "README.md").read_text().partition("| rule | source | where |\n|---|---|---|\n")[2]
    lines = table.partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        Rule(text, set(sources.split(", ")), re.findall("`(.+?)`", where)) for text, sources, where in cells
    ]


def found(place: str) -> Any:
    """What a place names: in the law, if nothing else is said."""
    module, _, name = place.rpartition(".")
    return getattr(import_module(module or "otn.policy"), name)


def in_words(value: timedelta | float) -> str:
    """A constant as the table says it."""
    if not isinstance(value, timedelta):
        return f"{value:g}"
    if value.days >= 2:
        return f"{value.days} days"
    hours, seconds = divmod(value.total_seconds(), 3600)
    return f"{seconds:g} seconds" if seconds else f"{hours:g} hour{'s' if hours > 1 else ''}"


def cited(constant: str) -> set[str]:
    """The pages that the comment beside a constant of the law names."""
    law = (ROOT / "otn" / "policy.py").read_text()
    (line,) = re.findall(rf"^{constant} = .*$", law, re.M)
    return PAGES & set(re.findall(r"\b[A-Z]+\b", line.partition("#")[2]))


CONSTANTS = [
    name
    for name, value in vars(policy).items()
    if name.isupper() and isinstance(value, timedelta | int | float)
]


def test_the_law_has_constants() -> None:
    assert "STANDARD_WINDOW" in CONSTANTS


@pytest.mark.parametrize("constant", CONSTANTS)
def test_every_constant_of_the_law_is_in_the_table_with_its_source(constant: str) -> None:
    mentioned = [rule for rule in rules() if constant in rule.places]
    assert mentioned, f"add a row for {constant} to the table in README.md"
    for rule in mentioned:
        assert cited(constant) <= rule.sources, f"{constant}: its comment names another page than the table"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.places[0])
def test_every_row_names_what_is_there_and_its_values(rule: Rule) -> None:
    assert rule.sources <= PAGES | {OURS}
    for place in rule.places:
        value = found(place)
        if not callable(value):
            assert re.search(rf"\b{in_words(value)}\b", rule.text), f"{place} is {in_words(value)}"
