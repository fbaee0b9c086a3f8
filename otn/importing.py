"""People from a CSV file: tags, attributes and profile, a few hundred rows a transaction.

The columns: `psid`, `page` (needed only where several Pages know a psid), `tags` (with blanks between them),
`first_name`, `last_name`, `locale`, `timezone`; any other is an attribute. An empty cell says nothing.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, islice
from pathlib import Path

from otn.clock import Clock
from otn.errors import InvalidInput
from otn.events import clean
from otn.models import Contact
from otn.people import FORGOTTEN, Wish, change_all, is_forgotten, name_problem, read
from otn.store import Store, Tx, contacts

ROWS = 500  # a transaction: more would make the webhook wait
PAUSE_SECONDS = 0.02  # after each, so that the webhook gets its turn
_OURS = ("psid", "page", "tags")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line that can be read: who, and what is to be known of them."""

    line: int
    psid: str
    page_id: str | None
    wish: Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A line that changes nothing, and why."""

    line: int
    why: str


@dataclass(slots=True, kw_only=True)
class Result:
    """How far it is: rows done, people changed, and the lines that were not."""

    rows: int = 0
    changed: int = 0
    problems: list[Problem] = field(default_factory=list)


def run(
    store: Store,
    path: Path,
    *,
    who: str,
    clock: Clock,
    dry_run: bool = False,
    told: Callable[[Result], object] = lambda _result: None,
) -> Result:
    """Import a file; `told` hears how far it is after each transaction.

    A line with a problem changes nothing and is reported; all others are carried out. Doing it again does no harm.
    Raises InvalidInput if the columns make no sense.
    """
    result, waiting = Result(), list[Row]()
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = rows(file)
        while taken := [*waiting, *islice(lines, ROWS - len(waiting))]:
            result.problems += [each for each in taken if isinstance(each, Problem)]
            batch = [each for each in taken if isinstance(each, Row)]
            with store.read() if dry_run else store.begin() as tx:
                waiting = _carry_out(tx, batch, result, who=who, now=clock(), dry_run=dry_run)
            result.rows += len(taken) - len(waiting)
            told(result)
            time.sleep(PAUSE_SECONDS)
    return result


def rows(lines: Iterable[str]) -> Iterator[Row | Problem]:
    """What the lines of a file say, one by one. Raises InvalidInput if the first line names no usable columns."""
    lines = (line.replace("\0", "") for line in lines)
    first = next(lines, "")
    # Some spreadsheets write what is the comma where they were made.
    reader = csv.reader(chain([first], lines), delimiter=max(",;\t", key=first.count))
    columns = _columns(next(reader, []))
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            yield Problem(line=reader.line_num, why=f"It can't be read: {exc}.")
            continue
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield _row(reader.line_num, columns, cells)


def _columns(cells: Sequence[str]) -> list[str]:
    names = [clean(cell).strip() for cell in cells]
    problems = [
        f"The column {found}" for name in names if name not in _OURS and (found := name_problem(name))
    ]
    problems += [
        f"The column '{name}' is there twice." for name in sorted(set(names)) if names.count(name) > 1
    ]
    if "psid" not in names:
        problems.append("There is no column psid: the first line of the file names the columns.")
    if problems:
        raise InvalidInput(problems)
    return names


def _row(line: int, columns: Sequence[str], cells: Sequence[str]) -> Row | Problem:
    if len(cells) != len(columns):
        return Problem(line=line, why=f"It has {len(cells)} cells where the first line has {len(columns)}.")
    values = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if cell.strip()}
    if any(clean(cell) != cell for cell in values.values()):
        return Problem(line=line, why="It is not written in UTF-8.")
    psid, page_id = values.pop("psid", None), values.pop("page", None)
    if psid is None:
        return Problem(line=line, why="It names no psid.")
    wish, problems = read(values, values.pop("tags", "").split())
    if problems:
        return Problem(line=line, why=" ".join(problems))
    return Row(line=line, psid=psid, page_id=page_id, wish=wish)


def _carry_out(
    tx: Tx, batch: Sequence[Row], result: Result, *, who: str, now: datetime, dry_run: bool
) -> list[Row]:
    """Change whom the rows name; the rows of people whom somebody else holds at this moment are left."""
    found = dict(_found(tx, batch, result))
    free = found if dry_run else _free(tx, found)
    wishes = []
    for row in batch:
        person = free.get(row.line)
        if person is not None and is_forgotten(person):
            result.problems.append(Problem(line=row.line, why=FORGOTTEN.format(row.psid)))
        elif person is not None:
            wishes.append((person, row.wish))
    if not dry_run:
        change_all(tx, wishes, who=who, now=now)
    result.changed += len(wishes)
    return [row for row in batch if row.line in found and row.line not in free]


def _found(tx: Tx, batch: Sequence[Row], result: Result) -> Iterator[tuple[int, Contact]]:
    """By line, the person whom it names."""
    known: dict[str, list[Contact]] = {}
    for person in contacts.with_psids(tx, {row.psid for row in batch}):
        known.setdefault(person.psid, []).append(person)
    for row in batch:
        meant = [one for one in known.get(row.psid, ()) if row.page_id in (None, one.page_id)]
        if len(meant) == 1:
            yield row.line, meant[0]
        elif meant:
            why = f"Several Pages know {row.psid}: a column 'page' has to say which."
            result.problems.append(Problem(line=row.line, why=why))
        else:
            where = f"page {row.page_id}" if row.page_id else "us"
            why = f"Nobody with the psid {row.psid} has written to {where}."
            result.problems.append(Problem(line=row.line, why=why))


def _free(tx: Tx, found: Mapping[int, Contact]) -> dict[int, Contact]:
    free = {one.id: one for one in contacts.lock_free(tx, {person.id for person in found.values()})}
    return {line: free[person.id] for line, person in found.items() if person.id in free}
