"""Engines and transactions, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.functions import GenericFunction

from otn.errors import ConfigError, StoreUnavailable

Tx: TypeAlias = Connection
"""A transaction that is open: what every function beside this module takes first."""

_BUSY_SECONDS = 10
_SQLITE_READ_ONLY = "otn_read_only"


class Store:
    """A database, by URL. Nothing is opened before the first transaction, so it may be made before a fork."""

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url)
        except sa.exc.ArgumentError as exc:
            raise ConfigError([f"OTN_DATABASE_URL is not a database URL: {exc}"]) from exc
        self._engine: Engine | None = None

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
            reading = connection.execution_options(**{_SQLITE_READ_ONLY: True})
            with reading.begin():
                yield reading

    def close(self) -> None:
        """Give the connections back. The store opens them again on the next use."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as exc:
        raise StoreUnavailable(f"the database does not answer: {exc.__cause__ or exc}") from exc
    except sa.exc.DatabaseError as exc:
        if type(exc) is not sa.exc.DatabaseError:
            raise  # a narrower kind, which is a mistake of ours
        raise StoreUnavailable(f"the database is damaged: {exc.__cause__ or exc}") from exc


def _server_engine(url: sa.engine.URL) -> Engine:
    return sa.create_engine(url, future=True, pool_pre_ping=True, pool_size=5, max_overflow=5)


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
    cursor.execute("PRAGMA synchronous=FULL")  # `sending` must be durable before the first byte
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_SQLITE_READ_ONLY)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def insert_if_new(tx: Tx, table: sa.Table, values: Mapping[str, Any], unique: Sequence[str]) -> Any | None:
    """Insert a row unless its unique columns exist; the new row's primary key, or None if it was there."""
    on_sqlite = tx.dialect.name == "sqlite"
    statement = _insert_if_new(table, tuple(values), tuple(unique), sqlite if on_sqlite else postgresql)
    result = tx.execute(statement, values)
    if not on_sqlite:
        return result.scalar_one_or_none()
    return result.lastrowid if result.rowcount else None


def insert_all_if_new(
    tx: Tx, table: sa.Table, rows: Sequence[Mapping[str, Any]], unique: Sequence[str]
) -> None:
    """Insert rows that all have the same columns, except those whose unique columns exist."""
    if rows:
        on_sqlite = tx.dialect.name == "sqlite"
        dialect = sqlite if on_sqlite else postgresql
        tx.execute(_insert_if_new(table, tuple(rows[0]), tuple(unique), dialect, returning=False), list(rows))


@functools.cache
def _insert_if_new(
    table: sa.Table, names: tuple[str, ...], unique: tuple[str, ...], dialect: Any, *, returning: bool = True
) -> Any:
    # As text, once: SQLAlchemy 1.4 never caches an insert with ON CONFLICT, and compiling takes ten times
    # longer than running it.
    statement = dialect.insert(table).on_conflict_do_nothing(index_elements=list(unique))
    if returning and dialect is postgresql:
        statement = statement.returning(*table.primary_key)
    compiled = statement.compile(dialect=dialect.dialect(paramstyle="named"), column_keys=list(names))
    return sa.text(str(compiled)).bindparams(
        *(sa.bindparam(name, type_=table.c[name].type) for name in names)
    )


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
