"""What the stores stand on: transactions that wait their turn, times in UTC."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from otn.errors import ConfigError, StoreUnavailable
from otn.store import Store, Tx, contacts, engine, pages
from otn.store.engine import db_epoch
from otn.store.schema import contact as contact_table
from otn.store.schema import page as page_table

# --- transactions ---


def test_a_transaction_is_all_or_nothing(store: Store, now: datetime) -> None:
    def begin_and_fail() -> None:
        with store.begin() as tx:
            pages.ensure(tx, "1001", now)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        begin_and_fail()
    with store.read() as tx:
        assert pages.every(tx) == []


def test_a_savepoint_costs_its_neighbours_nothing(store: Store, now: datetime) -> None:
    with store.begin() as tx:
        pages.ensure(tx, "1001", now)
        with pytest.raises(sa.exc.IntegrityError), tx.begin_nested():
            tx.execute(page_table.insert().values(page_id="1001", created_at=now))
        pages.ensure(tx, "2002", now)
    with store.read() as tx:
        assert [page.page_id for page in pages.every(tx)] == ["1001", "2002"]


def test_updates_of_many_threads_are_all_there(
    store: Store, make: Any, at_once: Callable[..., list[Any]]
) -> None:
    make.contact()

    def add_one(tx: Tx) -> None:
        read = tx.execute(sa.select(contact_table.c.psid).with_for_update()).scalar_one()
        tx.execute(contact_table.update().values(psid=str(int(read) + 1)))

    at_once(*[add_one] * 8)
    with store.read() as tx:
        assert tx.execute(sa.select(contact_table.c.psid)).scalar_one() == "7015"


ADDS = """
import sys
from datetime import datetime, timezone
import sqlalchemy as sa
from otn.store import Store
from otn.store.schema import contact
store = Store(sys.argv[1])
for _ in range(25):
    with store.begin() as tx:
        read = tx.execute(sa.select(contact.c.psid)).scalar_one()
        tx.execute(contact.update().values(psid=str(int(read) + 1)))
"""


def test_updates_of_two_processes_on_one_file_are_all_there(sqlite_store: Store, now: datetime) -> None:
    with sqlite_store.begin() as tx:
        pages.ensure(tx, "1001", now)
        contacts.ensure(tx, "1001", "0", now)
    command = [sys.executable, "-c", ADDS, f"sqlite:///{sqlite_store.path}"]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    with sqlite_store.read() as tx:
        assert tx.execute(sa.select(contact_table.c.psid)).scalar_one() == "50"


def test_a_reader_does_not_wait_for_a_writer(store: Store, now: datetime) -> None:
    with store.begin() as writing:
        pages.ensure(writing, "1001", now)
        with store.read() as reading:
            assert pages.every(reading) == []


def test_an_sqlite_file_is_durable_and_journals_beside_itself(sqlite_store: Store) -> None:
    with sqlite_store.read() as tx:
        pragmas = {
            name: tx.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.parametrize(("told", "kept"), [("off", "on"), ("remote_apply", "remote_apply")])
def test_a_commit_on_a_server_is_durable_whatever_the_server_has_for_others(
    postgresql_store: Store, told: str, kept: str
) -> None:
    url = postgresql_store.engine.url.update_query_dict({"options": f"-c synchronous_commit={told}"})
    store = Store(url)
    for _ in range(2):  # a connection that comes back to the pool keeps it
        with store.begin() as tx:
            assert tx.execute(sa.text("SHOW synchronous_commit")).scalar_one() == kept
    store.close()


def test_who_waits_for_the_writer_s_place_gets_it_when_it_is_free_and_gives_up_after_a_while(
    sqlite_store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pysqlite3", reason="the system's SQLite module waits as it likes")
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            holder.commit()

    with sqlite_store.engine.connect() as holder:
        holder.begin()
        with monkeypatch.context() as patch:
            patch.setattr("time.sleep", look)
            with sqlite_store.begin() as tx:
                pages.ensure(tx, "1001", now)
        assert looks == [engine.LOOK_SECONDS] * 3
        holder.begin()
        monkeypatch.setattr(engine, "_BUSY_SECONDS", 0.05)
        with pytest.raises(StoreUnavailable, match="locked"), sqlite_store.begin():
            pass


def test_a_server_that_takes_no_writes_for_a_while_is_unavailable(
    postgresql_store: Store, now: datetime
) -> None:
    """As after a failover: what is said then must not be taken for a mistake of the event's or of ours."""

    def write() -> None:
        with postgresql_store.begin() as tx:
            tx.execute(sa.text("SET TRANSACTION READ ONLY"))
            pages.ensure(tx, "1001", now)

    with pytest.raises(StoreUnavailable, match="read-only"):
        write()


def test_a_database_that_cannot_be_reached_says_so_without_its_password(tmp_path: Path) -> None:
    gone = Store("postgresql+psycopg2://otn:hush@127.0.0.1:1/otn?connect_timeout=2")
    folder = Store(f"sqlite:///{tmp_path}")
    for store in (gone, folder):
        for door in (store.begin, store.read):
            with pytest.raises(StoreUnavailable) as caught, door():
                pass
            assert "hush" not in f"{caught.value} {store!r}"
    with pytest.raises(ConfigError, match="OTN_DATABASE_URL"):
        Store("not a url")


# --- times ---


def test_times_come_back_aware_and_in_utc_and_naive_ones_are_refused(store: Store, make: Any) -> None:
    contact = make.contact()
    elsewhere = datetime(2026, 10, 1, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    with store.begin() as tx:
        contacts.mark_read(tx, contact.id, elsewhere)
        found = tx.execute(sa.select(contact_table.c.read_at)).scalar_one()
    assert found == elsewhere
    assert found.utcoffset() == timedelta(0)
    with pytest.raises(sa.exc.StatementError, match="aware"), store.begin() as tx:
        contacts.mark_read(tx, contact.id, datetime(2026, 10, 1))  # noqa: DTZ001 - that is the point


def test_the_database_s_clock_is_the_time(store: Store) -> None:
    with store.read() as tx:
        told = tx.execute(sa.select(db_epoch())).scalar_one()
    assert abs(told - datetime.now(timezone.utc).timestamp()) < 2
