"""Statements as text for the driver: those that every turn or webhook needs, and INSERTs of what may be there already.

SQLAlchemy takes five to ten times longer for one than the database, so each is compiled once for each kind of database.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from otn.store.engine import Source, Tx
from otn.store.schema import UtcDateTime

T = TypeVar("T")

_ROWS_AT_ONCE = 100  # in one INSERT; an old SQLite takes 999 values


def insert_if_new(tx: Tx, table: sa.Table, values: Mapping[str, Any], unique: Sequence[str]) -> Any | None:
    """Insert a row unless its unique columns exist; the new row's primary key, or None if it was there."""
    new = insert_new(tx, table, tuple(values), [tuple(values.values())], unique)
    return next(iter(new.values()), None)


def insert_new(
    tx: Tx, table: sa.Table, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]], unique: Sequence[str]
) -> dict[tuple[Any, ...], Any]:
    """Insert rows with these columns in one statement, but none whose unique columns exist.

    Returns the primary keys of the new ones by their unique columns' values. Of several rows with the same
    values the first is inserted. At most a few hundred rows.
    """
    if not rows:
        return {}
    insert = _insert_new(table, names, tuple(unique), tx.dialect.name)
    return {tuple(row[1:]): row[0] for row in tx.exec_driver_sql(*insert.of(rows))}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Insert:
    """An INSERT of any number of rows. SQLAlchemy 1.4 never caches one with ON CONFLICT, and compiling takes ten
    times longer than running it."""

    head: str
    row: str
    tail: str
    columns: tuple[tuple[int, _Convert | None], ...]  # where the row has it, and how it is stored

    def of(self, rows: Sequence[tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]]:
        """The statement for so many rows, and its parameters."""
        given = list(zip(*rows, strict=True))
        stored = [map(convert, given[place]) if convert else given[place] for place, convert in self.columns]
        values = tuple(chain.from_iterable(zip(*stored, strict=True)))
        return f"{self.head}{', '.join([self.row] * len(rows))}{self.tail}", values


_Convert = Callable[[Any], Any]
_DIALECTS = {
    "sqlite": sqlite.dialect(paramstyle="qmark"),
    "postgresql": postgresql.dialect(paramstyle="format"),
}


@functools.cache
def _insert_new(
    table: sa.Table, names: tuple[str, ...], unique: tuple[str, ...], dialect_name: str
) -> _Insert:
    door, mark = (sqlite, "?") if dialect_name == "sqlite" else (postgresql, "%s")
    # Inline: without what a dialect adds for the key of a single row.
    statement = door.insert(table).inline().on_conflict_do_nothing(index_elements=list(unique))
    compiled = statement.compile(dialect=_DIALECTS[dialect_name], column_keys=list(names))
    row = f"({', '.join([mark] * len(names))})"
    head, tail = str(compiled).split(row)
    key, *_ = table.primary_key
    return _Insert(
        head=head,
        row=row,
        tail=f"{tail} RETURNING {', '.join([key.name, *unique])}",
        columns=tuple(
            (names.index(name), _convert(table.c[name].type, dialect_name)) for name in compiled.positiontup
        ),
    )


def _convert(column_type: sa.types.TypeEngine[Any], dialect_name: str) -> _Convert | None:
    if isinstance(column_type, UtcDateTime):
        return _stored_time(dialect_name)
    dialect = _DIALECTS[dialect_name]
    convert: _Convert | None = column_type.dialect_impl(dialect).bind_processor(dialect)
    return convert


@functools.cache
def _stored_time(dialect_name: str) -> _Convert:
    """One for all columns, because most rows that come together share their times."""
    dialect = _DIALECTS[dialect_name]
    convert = UtcDateTime().dialect_impl(dialect).bind_processor(dialect)
    return functools.lru_cache(maxsize=1000)(lambda at: None if at is None else str(convert(at)))


class Lookup:
    """A SELECT that every turn needs, as text for the driver."""

    def __init__(self, query: Any) -> None:
        self._query = query
        self._prepared: dict[str, _Select] = {}

    def rows(self, where: Source, **values: Any) -> list[tuple[Any, ...]]:
        """Its rows, in a transaction or by a connection of its own. Raises what a statement of SQLAlchemy's raises."""
        select = self._prepare(where.dialect)
        connection = where.connection if isinstance(where, Connection) else where.raw_connection()
        try:
            return select.rows(connection, values)
        except where.dialect.dbapi.Error as exc:
            if where.dialect.is_disconnect(exc, connection, None):
                _forget_connections(where, connection, exc)
            raise sa.exc.DBAPIError.instance(
                select.text, None, exc, where.dialect.dbapi.Error, hide_parameters=True, dialect=where.dialect
            ) from exc
        finally:
            if isinstance(where, Engine):
                connection.close()

    def _prepare(self, dialect: Any) -> _Select:
        if dialect.name not in self._prepared:
            self._prepared[dialect.name] = _Select(self._query, _DIALECTS.get(dialect.name, dialect))
        return self._prepared[dialect.name]


def made_of(kind: type[T], row: Sequence[Any]) -> T:
    """A dataclass from a Lookup's row: the values of its fields, in their order."""
    return kind(**dict(zip(vars(kind)["__dataclass_fields__"], row, strict=True)))


class Append:
    """An INSERT of few and narrow rows that need no conversion, as text for the driver."""

    def __init__(self, table: Any, names: Sequence[str]) -> None:
        self._insert = table.insert().inline()
        self._names = names
        self._prepared: dict[str, _Insert] = {}

    def rows(self, tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert them, in this order."""
        insert = self._prepare(tx.dialect)
        given = [tuple(row[name] for name in self._names) for row in rows]
        for start in range(0, len(given), _ROWS_AT_ONCE):
            tx.exec_driver_sql(*insert.of(given[start : start + _ROWS_AT_ONCE]))

    def _prepare(self, dialect: Any) -> _Insert:
        if dialect.name not in self._prepared:
            kind = _DIALECTS.get(dialect.name, dialect)
            compiled = self._insert.compile(dialect=kind, column_keys=self._names)
            head, values, row = str(compiled).rpartition(" VALUES ")
            columns = tuple((self._names.index(name), None) for name in compiled.positiontup)
            self._prepared[dialect.name] = _Insert(head=head + values, row=row, tail="", columns=columns)
        return self._prepared[dialect.name]


def _forget_connections(where: Source, connection: Any, why: Exception) -> None:
    """The server is gone, or was: what else lies in the pool is as old, as SQLAlchemy takes it."""
    if isinstance(where, Connection):
        where.invalidate(why)
    else:
        connection.invalidate(why)
        where.dispose()


class _Select:
    """A SELECT as the driver takes it, and how values are stored and read."""

    def __init__(self, query: Any, dialect: Any) -> None:
        compiled = query.compile(dialect=dialect)
        kinds = {name: bind.type.dialect_impl(dialect) for name, bind in compiled.binds.items()}
        self.text = str(compiled)
        self._parameters: list[tuple[str, Any, _Convert | None]] = [
            (name, compiled.params[name], kinds[name].bind_processor(dialect))
            for name in compiled.positiontup
        ]
        self._names = {name for name, bind in compiled.binds.items() if bind.required}
        self._columns = list(query.selected_columns)
        self._dialect = dialect
        # How each column is read: the driver says with the first rows what it hands out.
        self._reads: list[_Convert | None] | None = None

    def rows(self, connection: Any, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        cursor = connection.cursor()
        cursor.execute(self.text, self.stored(values))
        found: list[tuple[Any, ...]] = cursor.fetchall()
        if self._reads is None:
            self._reads = [
                column.type.dialect_impl(self._dialect).result_processor(self._dialect, told[1])
                for column, told in zip(self._columns, cursor.description, strict=True)
            ]
        reads = self._reads
        cursor.close()
        return [
            tuple(read(value) if read else value for read, value in zip(reads, row, strict=True))
            for row in found
        ]

    def stored(self, values: Mapping[str, Any]) -> list[Any]:
        """The parameters as the driver takes them."""
        if values.keys() != self._names:
            raise TypeError(f"parameters {sorted(values)} instead of {sorted(self._names)}")
        given = ((values.get(name, default), convert) for name, default, convert in self._parameters)
        return [convert(value) if convert else value for value, convert in given]
