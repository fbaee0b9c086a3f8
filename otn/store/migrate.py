"""Bringing a database to this version's tables, with Alembic.

Whether there is something to bring is found out without it: importing Alembic takes longer than most commands.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from otn.errors import ConfigError
from otn.store.engine import Store, Tx

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS = Path(__file__).parent / "migrations"
_UPGRADING = 0x07E  # the key of PostgreSQL's advisory lock: any number that is ours alone
_REVISION = sa.table("alembic_version", sa.column("version_num"))

# It tells of its plugins at every start, and of nothing that we do not say ourselves.
logging.getLogger("alembic").setLevel(logging.WARNING)


def upgrade(store: Store) -> bool:
    """Create or upgrade the tables; True if there was something to do.

    The whole upgrade is one transaction, so two processes that start together do not meet half-way.
    Raises ConfigError if a newer version has been here.
    """
    if current(store) == newest():
        return False
    set_journal_mode(store)
    from alembic import command

    with store.begin() as tx:
        if not store.is_sqlite:  # where the transaction itself keeps others out
            tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADING)))
        found = _revision(tx)
        if found == newest():
            return False
        if found is not None and found not in _known():
            raise ConfigError([_too_new(found)])
        command.upgrade(_config(tx), "head")
    return True


def downgrade(store: Store, revision: str) -> None:
    """Go back to an older revision ("base": no tables at all)."""
    from alembic import command

    with store.begin() as tx:
        command.downgrade(_config(tx), revision)


def set_journal_mode(store: Store) -> bool:
    """WAL, kept in an SQLite file: readers and the one writer do not block each other. True if it was another.

    A restored backup may come back without it.
    """
    if not store.is_sqlite:
        return False
    raw = store.engine.raw_connection()
    try:
        cursor = raw.cursor()
        before = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        if before != "wal":
            cursor.execute("PRAGMA journal_mode=WAL")
        return str(before) != "wal"
    finally:
        raw.close()


def require_current(store: Store) -> None:
    """Raise ConfigError unless the tables are this version's."""
    found = current(store)
    if found is not None and found not in _known():
        raise ConfigError([_too_new(found)])
    if found != newest():
        raise ConfigError(
            [f"the database is at revision {found or 'none'}, this version needs {newest()}: run `otn init`"]
        )


def current(store: Store) -> str | None:
    """The revision the database is at, None if it is empty."""
    with store.read() as tx:
        return _revision(tx)


def newest() -> str:
    """The revision of this version's tables: the highest number that a migration's file begins with."""
    return max(_known())


def _known() -> set[str]:
    return {path.name.partition("_")[0] for path in (_SCRIPTS / "versions").glob("[0-9]*_*.py")}


def _too_new(revision: str) -> str:
    return (
        f"the database is at revision {revision}, this version knows {newest()} at most: "
        "a newer version was here; install it again, or restore a backup"
    )


def _revision(tx: Tx) -> str | None:
    if not sa.inspect(tx).has_table(_REVISION.name):
        return None
    revision: str | None = tx.execute(sa.select(_REVISION.c.version_num)).scalar_one_or_none()
    return revision


def _config(tx: Tx) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = tx
    return config
