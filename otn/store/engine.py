"""Engines and transactions, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.functions import GenericFunction

from otn.errors import ConfigError, StoreUnavailable

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
        # `sending` must be durable before the first byte, whatever the server or the role has for others; what waits
        # for even more than the disk (remote_apply) stays.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
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
