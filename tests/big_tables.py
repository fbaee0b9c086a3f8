"""Tables with many rows, filled by SQL alone, and the plans that a database makes over them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from otn.store import Store, Tx, statements
from otn.store.schema import metadata


@contextmanager
def filling(store: Store) -> Iterator[Tx]:
    """A transaction for many rows: PostgreSQL does not look up what each of them refers to."""
    with store.begin() as tx:
        if not store.is_sqlite:
            tx.execute(sa.text("SET LOCAL session_replication_role = replica"))
        yield tx


def fill_with(
    tx: Tx, table: sa.Table, rows: int, row: Callable[[Any], dict[str, Any]], first: int = 1
) -> None:
    """Rows numbered from `first`; `row` says for such a number, an SQL expression, what is in the columns."""
    start = sa.select(sa.literal(first).label("n")).cte("numbers", recursive=True)
    numbers = start.union_all(sa.select(start.c.n + 1).where(start.c.n < first + rows - 1))
    values = {name: _as_sql(table.c[name], value) for name, value in row(numbers.c.n).items()}
    tx.execute(table.insert().from_select(list(values), sa.select(*values.values())))


def _as_sql(column: Any, value: Any) -> Any:
    if value is None:
        return sa.null()
    return value if isinstance(value, sa.sql.ClauseElement) else sa.literal(value, column.type)


def word(prefix: str, n: Any) -> Any:
    """A text that is another one for each number."""
    return sa.literal(prefix, sa.String) + sa.cast(n, sa.String)


def when(condition: Any, yes: Any, no: Any, of: Any) -> Any:
    """One of two values of a column."""
    return sa.case((condition, _as_sql(of, yes)), else_=_as_sql(of, no))


def seconds_after(store: Store, moment: datetime, n: Any) -> Any:
    """A moment so many seconds later, as the database keeps it."""
    if store.is_sqlite:
        at = sa.literal(int(moment.timestamp())) + n
        return sa.func.strftime("%Y-%m-%d %H:%M:%S.000000", at, "unixepoch")
    return sa.func.to_timestamp(sa.literal(int(moment.timestamp())) + n)


def analyze(store: Store) -> None:
    """What autovacuum does on PostgreSQL. Not for SQLite: nobody runs it on a file."""
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))


def plan_of(store: Store, work: Callable[[Tx], Any]) -> str:
    """The plans of every statement that the work runs, as the database makes them."""
    explain = "EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN "
    plans: list[str] = []

    def look(_c: Any, cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if not statement.startswith(("BEGIN", explain)):
            cursor.execute(explain + statement, parameters)
            plans.extend(str(row[-1]) for row in cursor.fetchall())

    def look_up(select: Any, connection: Any, values: Any) -> Any:
        look(None, connection.cursor(), select.text, select.stored(values), None, False)
        return rows(select, connection, values)

    rows = statements._Select.rows
    patch = pytest.MonkeyPatch()  # what a Lookup runs is told to no listener
    patch.setattr(statements._Select, "rows", look_up)
    sa.event.listen(store.engine, "before_cursor_execute", look)
    try:
        with store.engine.connect() as connection, connection.begin() as transaction:
            work(connection)
            transaction.rollback()
    finally:
        sa.event.remove(store.engine, "before_cursor_execute", look)
        patch.undo()
    return "\n".join(plans)


def goes_by(store: Store, plan: str, wanted: str) -> bool:
    """Whether a plan looks something up in an index of the schema, a key's one included ("this or that")."""
    return any(_finds(store, plan, name) for name in wanted.split(" or "))


def _finds(store: Store, plan: str, name: str) -> bool:
    table, columns, first = _INDEXES[name]
    if not store.is_sqlite:
        node = rf"Index (Only )?Scan( Backward)? (using|on) {name}\b.*"
        by = rf"\n +Index Cond: .*\b{first}\b" if first else ""
        return re.search(node + by, plan) is not None
    if columns is None:
        return re.search(rf"(SEARCH|SCAN) \w+ USING (COVERING )?INDEX {name}\b", plan) is not None
    if columns == ["id"]:  # the rows themselves are in its order
        return re.search(rf"SEARCH {table.name} USING INTEGER PRIMARY KEY \(", plan) is not None
    own = _sqlite_name(store, table.name, columns)
    return re.search(rf"SEARCH \w+ USING (COVERING )?INDEX {own} \(", plan) is not None


def _indexes() -> Iterator[tuple[str, tuple[Any, list[str] | None, str | None]]]:
    """By name: the table of each index; the columns of those that SQLite calls by a name of its own; and the column
    by which it must be entered, lest all of it be read. A partial one may be: few rows are in it, or all are wanted.
    """
    for table in metadata.tables.values():
        for index in table.indexes:
            partial = index.dialect_options["postgresql"]["where"] is not None
            yield index.name, (table, None, None if partial else next(iter(index.columns)).name)
        for key in table.constraints:
            if isinstance(key, (sa.PrimaryKeyConstraint, sa.UniqueConstraint)):
                columns = [column.name for column in key.columns]
                yield str(key.name), (table, columns, columns[0])


_INDEXES = dict(_indexes())


def _sqlite_name(store: Store, table: str, columns: list[str]) -> str:
    """SQLite's name for the index of a key."""
    with store.engine.connect() as connection:
        for found in connection.execute(sa.text(f"PRAGMA index_list({table})")).all():
            parts = connection.execute(sa.text(f"PRAGMA index_info({found.name})")).all()
            if found.origin in {"u", "pk"} and [part.name for part in parts] == columns:
                return str(found.name)
    raise LookupError(f"{table} has no key of {columns}")


_WALK = re.compile(r"(?:SCAN|Seq Scan on) (\w+?)(?:_\d+)?(?= |$)(?: USING (?:COVERING )?INDEX (\w+))?")


def walks(plan: str, big: Collection[str], small: Collection[str] = ()) -> list[str]:
    """The lines of a plan that read the whole of a big table or of its index; not of a partial, small one."""
    found = [(line, _WALK.search(line)) for line in plan.split("\n")]
    return [line for line, walk in found if walk and walk[1] in big and walk[2] not in small]
