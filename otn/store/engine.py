"""Engines and transactions, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.functions import GenericFunction

from otn.errors import ConfigError, StoreUnavailable
from otn.store.schema import UtcDateTime

T = TypeVar("T")
Tx: TypeAlias = Connection
"""A transaction that is open: what every function beside this module takes first."""

Source: TypeAlias = Connection | Engine
"""Where something is looked up: in a transaction, or in the database as it is at the moment."""

_BUSY_SECONDS = 10
# SQLite wakes nobody: who waits for the one writer's place looks again and again, by itself ever more rarely, up to
# ten times a second. A webhook would then lose the place to a process that writes one batch after the other.
LOOK_SECONDS = 0.001
# A process that stands still in the middle of a transaction (stopped, or its machine is gone) keeps what it has
# locked, and everybody would wait for it. After so long the server ends the transaction; ours last milliseconds.
_STANDSTILL_SECONDS = 15
_SQLITE_READ_ONLY = "otn_read_only"


class Store:
    """A database, by URL. Nothing is opened before the first transaction, so it may be made before a fork."""

    def __init__(self, url: str | sa.engine.URL) -> None:
        try:
            self._url = make_url(url)
        except sa.exc.ArgumentError as exc:
            raise ConfigError([f"OTN_DATABASE_URL is not a database URL: {exc}"]) from exc
        self._engine: Engine | None = None

    @classmethod
    def over(cls, engine: Engine) -> Store:
        """The database of somebody else's engine."""
        store = cls(engine.url)
        store._engine = engine
        return store

    def __repr__(self) -> str:
        return f"Store({self._url.render_as_string(hide_password=True)})"

    @property
    def is_sqlite(self) -> bool:
        """Whether this is an SQLite file."""
        return bool(self._url.get_backend_name() == "sqlite")

    @property
    def path(self) -> Path | None:
        """The SQLite file, if it is one."""
        return Path(self._url.database) if self.is_sqlite and self._url.database else None

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, made on first use. For migrations and checks."""
        if self._engine is None:
            self._engine = _sqlite_engine(self._url) if self.is_sqlite else _server_engine(self._url)
        return self._engine

    @property
    def _reading(self) -> dict[str, Any]:
        # On a server each statement sees what is committed then, in a transaction or not: without one, whoever
        # prints in between, and waits for a pager, keeps nothing open.
        return {_SQLITE_READ_ONLY: True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """A transaction that may write; commits at the end, rolls back on any exception.

        On SQLite it takes the write lock at once (BEGIN IMMEDIATE): a deferred one that turns into a
        writer fails with "database is locked" in spite of the time-out.
        Raises StoreUnavailable if the database cannot be reached or stays locked.
        """
        with _translated(), self.engine.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that only reads. Raises StoreUnavailable like `begin`."""
        with _translated(), self.engine.connect() as connection:
            reading = connection.execution_options(**self._reading)
            with reading.begin():
                yield reading

    def look(self, fn: Callable[[Engine], T]) -> T:
        """Run a function that looks something up (`Lookup`), without a transaction. Raises StoreUnavailable."""
        with _translated():
            return fn(self.engine)

    def close(self) -> None:
        """Give the connections back. The store opens them again on the next use."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


# InternalError: a server that takes no writes for the moment, or ended a transaction that stood still.
DATABASE_TROUBLE = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.InternalError,
    sa.exc.TimeoutError,
)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DATABASE_TROUBLE as exc:
        raise StoreUnavailable(f"the database does not answer: {exc.__cause__ or exc}") from exc
    except sa.exc.DatabaseError as exc:
        if type(exc) is not sa.exc.DatabaseError:
            raise  # a narrower kind, which is a mistake of ours
        raise StoreUnavailable(f"the database is damaged: {exc.__cause__ or exc}") from exc


def is_conflict(error: Exception) -> bool:
    """Whether PostgreSQL ended a transaction for the sake of another one (deadlock, serialization failure)."""
    return getattr(getattr(error, "orig", None), "pgcode", None) in {"40P01", "40001"}


def _server_engine(url: sa.engine.URL) -> Engine:
    engine = sa.create_engine(
        url,
        future=True,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=5,
        executemany_mode="values_plus_batch",  # many updates are one journey to the server
    )
    sa.event.listen(engine, "connect", _on_server_connect)
    return engine


def _on_server_connect(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_STANDSTILL_SECONDS}s'")
    connection.commit()  # else a rollback takes it back


def _sqlite_engine(url: sa.engine.URL) -> Engine:
    """The recipe that keeps updates and waits its turn, each part measured to be needed."""
    if url.database and url.database != ":memory:":
        # What lies in it is personal: nobody else on this machine gets in.
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = sa.create_engine(
        url,
        module=sqlite_module(),
        future=True,
        poolclass=QueuePool,
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
    )
    sa.event.listen(engine, "connect", _on_sqlite_connect)
    sa.event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def sqlite_module() -> Any:
    """pysqlite3 where it is installed (Linux): the system's SQLite may have the WAL-reset bug."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        from sqlite3 import dbapi2
    return dbapi2


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
    if hasattr(connection, "set_busy_handler"):  # pysqlite3; it takes the place of the time-out
        connection.set_busy_handler(_looking_again())
    cursor.execute("PRAGMA synchronous=FULL")  # `sending` must be durable before the first byte
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _looking_again() -> Callable[[int], bool]:
    """For one connection: waits a moment, and says whether to look for the lock again after so many looks."""
    began = 0.0

    def look_again(looks: int) -> bool:
        nonlocal began
        now = time.monotonic()
        began = began if looks else now
        time.sleep(LOOK_SECONDS)
        return now < began + _BUSY_SECONDS

    return look_again


def _on_sqlite_begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_SQLITE_READ_ONLY)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def chosen(query: Any) -> Any:
    """The ids that a query with a limit and locks finds, for an IN: looked up once.

    As a plain subquery PostgreSQL may run it anew for every row of the other table, and so go beyond its limit.
    """
    return sa.select(query.cte("chosen").c.id)


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
    """An INSERT as text for the driver: SQLAlchemy 1.4 never caches one with ON CONFLICT, and compiling takes
    ten times longer than running it."""

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
    """A SELECT that every turn needs, as text for the driver: SQLAlchemy takes ten times longer than the database."""

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


class db_epoch(GenericFunction):  # type: ignore[misc]  # noqa: N801 - named like a function of SQL; untyped base
    """The database's own clock in seconds since 1970: leases never trust a host's."""

    type = sa.Float()
    inherit_cache = True


@compiles(db_epoch, "sqlite")  # type: ignore[untyped-decorator] # SQLAlchemy 1.4 has no types
def _sqlite_epoch(_element: Any, _compiler: Any, **_kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_epoch, "postgresql")  # type: ignore[untyped-decorator] # as above
def _postgresql_epoch(_element: Any, _compiler: Any, **_kw: Any) -> str:
    return "extract(epoch from clock_timestamp())"
