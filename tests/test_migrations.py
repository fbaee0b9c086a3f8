"""Migrations: they make what the code describes, and can be taken back."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from campaign import Campaign
from conftest import Make

from otn.errors import ConfigError
from otn.store import Store, contacts, migrate
from otn.store.schema import metadata, page
from otn.vault import Vault


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A database without tables."""
    if request.param == "sqlite":
        store = Store(f"sqlite:///{tmp_path}/new/otn.db")
    else:
        store = request.getfixturevalue("postgresql_databases").create(f"m{secrets.token_hex(6)}")
    yield store
    store.close()


def tables(store: Store) -> set[str]:
    with store.read() as tx:
        return set(sa.inspect(tx).get_table_names())


def differences(store: Store) -> list[Any]:
    with store.read() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def test_the_migrations_make_what_the_code_describes(empty: Store) -> None:
    assert migrate.current(empty) is None
    with pytest.raises(ConfigError, match="otn init"):
        migrate.require_current(empty)
    assert migrate.upgrade(empty)
    assert not migrate.upgrade(empty)
    migrate.require_current(empty)
    assert tables(empty) == {*metadata.tables, "alembic_version"}
    assert differences(empty) == []


def test_the_database_has_the_constraints_that_keep_the_promises(empty: Store) -> None:
    migrate.upgrade(empty)
    with empty.read() as tx:
        inspector = sa.inspect(tx)
        for table in metadata.sorted_tables:
            checks = {one["name"] for one in inspector.get_check_constraints(table.name)}
            named = {one.name for one in table.constraints if isinstance(one, sa.CheckConstraint)}
            assert checks >= named
            uniques = {tuple(one["column_names"]) for one in inspector.get_unique_constraints(table.name)}
            described = {
                tuple(column.name for column in one.columns)
                for one in table.constraints
                if isinstance(one, sa.UniqueConstraint)
            }
            assert uniques >= described
        live = {one["name"]: one for one in inspector.get_indexes("delivery")}["uq_delivery_live_token"]
    assert live["unique"]


def test_down_and_up_again_ends_where_it_began(empty: Store) -> None:
    migrate.upgrade(empty)
    migrate.downgrade(empty, "base")
    assert tables(empty) == {"alembic_version"}
    assert migrate.current(empty) is None
    assert migrate.upgrade(empty)
    assert differences(empty) == []


def test_people_and_permissions_are_kept_on_the_way_back(empty: Store, vault: Vault, now: datetime) -> None:
    """On SQLite a table that others refer to cannot be made anew."""
    migrate.upgrade(empty)
    Campaign(Make(empty, vault, now), "7001")
    for revision in ("0003", "0002", "0001"):
        migrate.downgrade(empty, revision)
        assert counts(empty, "page", "contact", "topic", "otn_token", "delivery") == [1] * 5
    assert migrate.upgrade(empty)
    assert differences(empty) == []
    assert counts(empty, "page", "contact", "topic", "otn_token", "delivery") == [1] * 5
    migrate.downgrade(empty, "base")
    assert tables(empty) == {"alembic_version"}


def counts(store: Store, *names: str) -> list[int]:
    with store.read() as tx:
        return [
            tx.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one() for name in names
        ]


def test_a_block_by_meta_gets_a_place_of_its_own_and_its_old_one_back(empty: Store) -> None:
    def standing() -> dict[str, tuple[Any, ...]]:
        with empty.read() as tx:
            return {row.page_id: (row.paused_reason, row.paused_until) for row in tx.execute(sa.select(page))}

    migrate.upgrade(empty)
    migrate.downgrade(empty, "0003")
    insert = "INSERT INTO page (page_id, paused_reason, created_at) VALUES (:id, :why, '2026-11-01 00:00:00.000000')"
    with empty.begin() as tx:
        for page_id, why in (("1", "Meta blocked the page: spam"), ("2", "Wrong price"), ("3", None)):
            tx.execute(sa.text(insert), {"id": page_id, "why": why})
    migrate.upgrade(empty)
    assert standing() == {"1": (None, None), "2": ("Wrong price", None), "3": (None, None)}
    with empty.begin() as tx:
        assert list(
            tx.execute(sa.select(page.c.page_id).where(page.c.blocked_reason.isnot(None))).scalars()
        ) == ["1"]
        contacts.ensure(tx, "1", "7007", datetime(2026, 11, 1, tzinfo=timezone.utc))
        # Blocked while an operator's pause runs: in one place, the longer one stays.
        tx.execute(
            page.update().values(
                paused_reason="Night", paused_until=datetime(2030, 1, 1, tzinfo=timezone.utc)
            )
        )
    migrate.downgrade(empty, "0003")
    with empty.read() as tx:
        kept = tx.execute(sa.text("SELECT paused_reason, paused_until FROM page ORDER BY page_id")).all()
    assert tuple(kept[0]) == ("Meta blocked the page: spam", None)
    assert [row.paused_reason for row in kept[1:]] == ["Night", "Night"]


def test_tables_that_are_updated_again_and_again_have_room_for_it(
    request: pytest.FixtureRequest,
) -> None:
    databases = request.getfixturevalue("postgresql_databases")
    store = databases.create(f"m{secrets.token_hex(6)}")
    options = sa.text(
        "SELECT relname, reloptions FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )

    def roomy() -> set[str]:
        with store.read() as tx:
            return {row.relname for row in tx.execute(options) if "fillfactor=80" in (row.reloptions or [])}

    migrate.upgrade(store)
    assert roomy() == {"contact", "otn_token", "delivery", "chunk", "rate_bucket", "inbound_event"}
    migrate.downgrade(store, "0003")
    assert roomy() == set()
    store.close()


def test_a_migration_that_fails_leaves_nothing_behind(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import command

    whole: Callable[..., Any] = command.upgrade

    def dies(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", dies)
        with pytest.raises(KeyboardInterrupt):
            migrate.upgrade(empty)
    assert tables(empty) == set()
    assert migrate.upgrade(empty)


def test_a_database_of_a_newer_version_is_left_alone(empty: Store) -> None:
    migrate.upgrade(empty)
    with empty.begin() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (migrate.upgrade, migrate.require_current):
        with pytest.raises(ConfigError, match="9999"):
            use(empty)
    assert differences(empty) == []


UPGRADE = "import sys; from otn.store import Store, contacts, migrate; migrate.upgrade(Store(sys.argv[1]))"


def test_processes_that_start_together_make_one_set_of_tables(empty: Store) -> None:
    url = empty.engine.url.render_as_string(hide_password=False)
    running = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, url], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[1] for process in running] == [""] * 2
    assert differences(empty) == []
