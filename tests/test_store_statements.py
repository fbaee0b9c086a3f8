"""Statements that go to the driver as text do what SQLAlchemy's do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from otn.errors import StoreUnavailable
from otn.store import Store, contacts, pages
from otn.store.schema import contact as contact_table
from otn.store.schema import page as page_table
from otn.store.schema import setting
from otn.store.statements import Append, Lookup, insert_if_new


def test_a_row_is_inserted_once_and_its_key_comes_back(store: Store, make: Any, now: datetime) -> None:
    make.contact()
    values = {"page_id": "1001", "psid": "1", "created_at": now}
    with store.begin() as tx:
        key = insert_if_new(tx, contact_table, values, ["page_id", "psid"])
        assert contacts.get(tx, key or 0).psid == "1"
        assert insert_if_new(tx, contact_table, values, ["page_id", "psid"]) is None


PERSON = Lookup(
    sa.select(contact_table, page_table)
    .join(page_table, page_table.c.page_id == contact_table.c.page_id)
    .where(contact_table.c.psid == sa.bindparam("psid"))
)


def test_a_lookup_finds_what_a_statement_of_sqlalchemy_s_finds(
    store: Store, make: Any, now: datetime
) -> None:
    person = make.contact()
    with store.begin() as tx:
        pages.pause(tx, person.page_id, "spam", now)
        slow = [tuple(row) for row in tx.execute(PERSON._query, {"psid": person.psid})]
        assert PERSON.rows(tx, psid=person.psid) == slow
    assert store.look(lambda source: PERSON.rows(source, psid=person.psid)) == slow
    assert now in slow[0]  # times too, aware and in UTC
    assert store.look(lambda source: PERSON.rows(source, psid="nobody")) == []


def test_a_lookup_in_a_transaction_sees_what_is_not_committed_and_beside_it_what_is(
    store: Store, make: Any, now: datetime
) -> None:
    person = make.contact()
    with store.begin() as tx:
        contacts.request_erasure(tx, person.id, now)
        assert contacts.with_page(tx, person.page_id, person.psid)[0].erase_requested_at == now
        beside = store.look(lambda source: contacts.with_page(source, person.page_id, person.psid))
        assert beside[0].erase_requested_at is None


def test_a_lookup_wants_its_parameters_by_their_names_and_no_others(store: Store) -> None:
    for wrong in ({}, {"person": "7007"}, {"psid": "7007", "page": "1001"}):
        with pytest.raises(TypeError, match="psid"):
            store.look(lambda source, wrong=wrong: PERSON.rows(source, **wrong))
    assert store.engine.pool.checkedout() == 0


def test_after_a_lookup_found_the_server_gone_the_next_one_works(postgresql_store: Store) -> None:
    store = postgresql_store
    ask = Lookup(sa.select(sa.func.pg_backend_pid(type_=sa.Integer)))
    eager = Store.over(sa.create_engine(store.engine.url, future=True, pool_size=3))  # asks nobody beforehand
    held = [eager.engine.connect() for _ in range(3)]
    pids = [ask.rows(each)[0][0] for each in held]
    for each in held:
        each.close()
    with store.begin() as tx:
        for pid in pids:
            tx.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with pytest.raises(StoreUnavailable):
        eager.look(ask.rows)
    assert eager.look(ask.rows)[0][0] not in pids
    eager.close()


def test_what_a_lookup_meets_is_what_a_statement_meets_and_its_connection_goes_back(store: Store) -> None:
    nowhere = Lookup(sa.select(sa.column("id")).select_from(sa.table("nowhere")))
    meets = sa.exc.OperationalError if store.is_sqlite else sa.exc.ProgrammingError
    with store.engine.connect() as connection, pytest.raises(meets):
        nowhere.rows(connection)
    with pytest.raises(StoreUnavailable if store.is_sqlite else meets):
        store.look(nowhere.rows)
    assert store.engine.pool.checkedout() == 0
    with pytest.raises(StoreUnavailable):
        Store("postgresql://nobody@127.0.0.1:9/nothing").look(nowhere.rows)


ROWS = Append(setting, ["name", "value"])


def test_many_rows_are_appended_in_their_order(store: Store) -> None:
    with store.begin() as tx:
        tx.execute(sa.text("CREATE TABLE told (id INTEGER PRIMARY KEY, value TEXT)"))
        if not store.is_sqlite:
            tx.execute(sa.text("CREATE SEQUENCE told_id"))
            tx.execute(sa.text("ALTER TABLE told ALTER id SET DEFAULT nextval('told_id')"))
    table = sa.table("told", sa.column("id"), sa.column("value"))
    values = [str(number) for number in range(1201)]
    append = Append(table, ["value"])
    try:
        with store.begin() as tx:
            append.rows(tx, [])
            append.rows(tx, [{"value": value, "more": "than asked"} for value in values])
        with store.read() as tx:
            assert list(tx.execute(sa.select(table.c.value).order_by(table.c.id)).scalars()) == values
    finally:
        with store.begin() as tx:
            tx.execute(sa.text("DROP TABLE told"))
            if not store.is_sqlite:
                tx.execute(sa.text("DROP SEQUENCE told_id"))


def test_what_an_append_meets_is_what_a_statement_meets(store: Store) -> None:
    with pytest.raises(sa.exc.IntegrityError), store.begin() as tx:
        ROWS.rows(tx, [{"name": "twice", "value": "1"}, {"name": "twice", "value": "2"}])
    with store.read() as tx:
        assert not tx.execute(sa.select(setting.c.name).where(setting.c.name == "twice")).all()
