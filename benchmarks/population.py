"""A Page with as many people as one wants, each with one permission, made by the database itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from benchmarks.graph import PAGE_ID
from otn.app import App
from otn.models import Topic
from otn.store import pages, topics
from otn.store.engine import Store
from otn.store.schema import UtcDateTime, metadata

TOPIC: Final = "spring-collection"
ROWS_AT_ONCE: Final = 50_000

_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT",
    "postgresql": "WITH n(i) AS (SELECT generate_series(:first, :last)) SELECT",
}
_CONTACTS = (
    "INSERT INTO contact (id, page_id, psid, created_at, window_opened_at, window_until) {numbers} "
    "i, :page, '8' || i, :ago, :ago, :closed FROM n"
)
_TOKENS = (
    "INSERT INTO otn_token (contact_id, topic_id, token_hash, ciphertext, opted_in_at, expires_at, state, created_at) "
    "{numbers} i, :topic, 'h' || i, :sealed, :ago, :later, 'available', :ago FROM n"
)


def settle(app: App, people: int) -> None:
    """Fill an empty database. Everybody's window is closed, and everybody's token is the same one."""
    now = app.clock()
    with app.store.begin() as tx:
        pages.ensure(tx, PAGE_ID, now)
        topics.add(tx, Topic(id=0, name=TOPIC, title="Spring collection", kind="collection"), now)
        topic_id = topics.get(tx, TOPIC).id
    values = {
        "page": PAGE_ID,
        "topic": topic_id,
        "sealed": app.require_vault().seal(b"a-token-that-nobody-checks"),
        "ago": now - timedelta(days=30),
        "closed": now - timedelta(days=29),
        "later": now + timedelta(days=300),
    }
    for first in range(1, people + 1, ROWS_AT_ONCE):
        span = {"first": first, "last": min(first + ROWS_AT_ONCE - 1, people)}
        with app.store.begin() as tx:
            for statement in (_CONTACTS, _TOKENS):
                sql = statement.format(numbers=_NUMBERS[tx.dialect.name])
                tx.execute(
                    _typed(sql, values | span), {k: v for k, v in (values | span).items() if f":{k}" in sql}
                )
    _analyze(app.store)


def empty(app: App) -> None:
    """Delete everything that a round before this one left."""
    with app.store.begin() as tx:
        for table in reversed(metadata.sorted_tables):
            if table.name not in ("setting", "encryption_key"):
                tx.execute(table.delete())


def _typed(sql: str, values: dict[str, object]) -> sa.sql.elements.TextClause:
    moments = [name for name in ("ago", "closed", "later") if f":{name}" in sql and name in values]
    return sa.text(sql).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in moments))


def _analyze(store: Store) -> None:
    if not store.is_sqlite:
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
