"""What can be seen of a database from outside its tables."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from otn.store.engine import Store, sqlite_module

# The WAL-reset bug (sqlite.org/wal.html) came with 3.7.0 and went with 3.51.3; two older lines were mended too.
_BUG_CAME, _BUG_WENT = (3, 7, 0), (3, 51, 3)
_MENDED = {(3, 50): 7, (3, 44): 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Which software keeps the data. `journal_mode` is SQLite's, None elsewhere."""

    name: str
    version: str
    journal_mode: str | None = None

    @property
    def may_corrupt_its_log(self) -> bool:
        """Whether this is an SQLite with the WAL-reset bug: rare, with several connections, and it loses data."""
        return self.journal_mode is not None and has_wal_reset_bug(self.version)


def server(store: Store) -> Server:
    """Ask the database what it is. Raises StoreUnavailable."""
    with store.read() as tx:
        if not store.is_sqlite:
            version = tx.execute(sa.text("SHOW server_version")).scalar_one()
            return Server(name="PostgreSQL", version=str(version))
        mode = tx.execute(sa.text("PRAGMA journal_mode")).scalar_one()
        version = tx.execute(sa.text("SELECT sqlite_version()")).scalar_one()
    library = sqlite_module().__name__.partition(".")[0]
    return Server(name=f"SQLite ({library})", version=str(version), journal_mode=str(mode))


def has_wal_reset_bug(version: str) -> bool:
    """Whether an SQLite of this version has the bug."""
    numbers = tuple(int(part) for part in version.split(".")[:3])
    if not _BUG_CAME <= numbers < _BUG_WENT:
        return False
    mended = _MENDED.get((numbers[0], numbers[1]))
    return mended is None or numbers[2] < mended
