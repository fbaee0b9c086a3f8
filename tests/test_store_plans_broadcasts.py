"""The plans of what a broadcast runs again and again, while most of what the tables hold waits to be sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from test_store_plans import plan_of

from otn.models import BroadcastState, DeliveryState, TokenState
from otn.store import Store, Tx, batches, broadcasts, chunks, deliveries, members, migrate, tokens
from otn.store.broadcasts import Cursor
from otn.store.schema import broadcast, chunk, contact, delivery, otn_token, page, topic

PEOPLE, CHUNKS = 20_000, 2_000
A_CHUNK = PEOPLE // CHUNKS
NOW = datetime(2026, 10, 1, tzinfo=timezone.utc)
AGO, LATER = NOW - timedelta(days=30), NOW + timedelta(days=300)
# Some chunks are done, a few are under way, all others wait; one in a thousand is being sent or in doubt.
DONE, UNDER_WAY = range(1, 101), range(101, 105)


@pytest.fixture(scope="module")
def big_sqlite(sqlite_databases: Any) -> Iterator[Store]:
    """Without ANALYZE: nobody runs it on an SQLite file."""
    store = sqlite_databases.sqlite("big_broadcasts")
    fill(store)
    yield store
    store.close()


@pytest.fixture(scope="module")
def big_postgresql(postgresql_databases: Any) -> Iterator[Store]:
    store = postgresql_databases.create("big_broadcasts")
    migrate.upgrade(store)
    fill(store)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    yield store
    store.close()


def fill(store: Store) -> None:
    numbers = range(1, PEOPLE + 1)
    with store.begin() as tx:
        tx.execute(page.insert(), {"page_id": "1", "created_at": AGO})
        tx.execute(topic.insert(), TOPIC)
        tx.execute(broadcast.insert(), [BROADCAST | {"id": n, "dedupe_key": f"b{n}"} for n in (1, 2)])
        tx.execute(chunk.insert(), [a_chunk(n) for n in range(1, CHUNKS + 1)])
        earlier = {"broadcast_id": 2, "done_at": AGO, "lease_until": None}
        tx.execute(chunk.insert(), [a_chunk(1) | earlier | {"id": n} for n in range(CHUNKS + 1, 20 * CHUNKS)])
        tx.execute(broadcast.update().where(broadcast.c.id == 2).values(state=BroadcastState.FINISHED.value))
        people = [{"id": n, "page_id": "1", "psid": f"p{n}", "created_at": AGO} for n in numbers]
        tx.execute(contact.insert(), people)
        tx.execute(otn_token.insert(), [a_token(n) for n in numbers])
        tx.execute(delivery.insert(), [a_delivery(n) for n in numbers])


TOPIC = {
    "id": 1,
    "name": "restock",
    "title": "t",
    "kind": "k",
    "created_at": AGO,
    "is_family": False,
    "ask_while_available": False,
    "min_interval_seconds": 0,
    "weekly_cap": 5,
}
BROADCAST: dict[str, Any] = {
    "name": "b",
    "topic": "restock",
    "message": {"text": "It is back."},
    "message_hash": "m",
    "audience": {},
    "state": BroadcastState.RUNNING.value,
    "start_at": AGO,
    "watermark": PEOPLE,
    "frozen_at": AGO,
    "equal_refusals": 0,
    "created_by": "ann",
    "created_at": AGO,
    "started_at": AGO,
}


def a_chunk(n: int) -> dict[str, Any]:
    return {
        "id": n,
        "broadcast_id": 1,
        "page_id": "1",
        "due_at": AGO,
        "size": A_CHUNK,
        "fence": 1 if n <= UNDER_WAY[-1] else 0,
        "lease_until": 4e9 if n in UNDER_WAY else None,
        "done_at": AGO if n in DONE else None,
        "counts": {"sent": A_CHUNK} if n in DONE else None,
    }


def a_token(n: int) -> dict[str, Any]:
    used = n <= len(DONE) * A_CHUNK
    return {
        "id": n,
        "contact_id": n,
        "topic_id": 1,
        "token_hash": f"h{n}",
        "ciphertext": None if used else b"sealed",
        "opted_in_at": AGO,
        "expires_at": LATER + timedelta(seconds=n),
        "state": (TokenState.USED if used else TokenState.AVAILABLE).value,
        "created_at": AGO,
    }


def a_delivery(n: int) -> dict[str, Any]:
    state = DeliveryState.SENT if n <= len(DONE) * A_CHUNK else DeliveryState.QUEUED
    state = {0: DeliveryState.SENDING, 1: DeliveryState.UNKNOWN}.get(n % 1000, state)
    begun = state is not DeliveryState.QUEUED
    return {
        "id": n,
        "dedupe_key": f"broadcast:1:{n}",
        "contact_id": n,
        "topic_id": 1,
        "token_id": n if begun else None,
        "broadcast_id": 1,
        "chunk_id": (n - 1) // A_CHUNK + 1,
        "origin": "broadcast",
        "state": state.value,
        "route": "token" if begun else None,
        "message_hash": f"m{n}",
        "human_agent": False,
        "wire_id": f"w{n}",
        "fence": int(begun),
        "attempts": int(begun),
        "doubtful": False,
        "window_refused": False,
        "lease_until": 0.0 if begun else None,
        "created_at": AGO,
        "sending_at": AGO if begun else None,
        "next_attempt_at": AGO if state is DeliveryState.UNKNOWN else None,
    }


def _planned(tx: Tx) -> Any:
    return broadcasts.get(tx, 1)


AFTER_SOME = Cursor(topic=1, expires_at=LATER + timedelta(seconds=5_000), token=5_000)
START = {
    "delivery": 9_000,
    "way": "token",
    "allowed_by": "r",
    "token": 9_000,
    "about": 1,
    "said": {"text": "x"},
}

HOT: dict[str, tuple[str, Callable[[Tx], Any]]] = {
    "chunks that are due": ("ix_chunk_", lambda tx: chunks.due(tx, NOW, 20)),
    "chunks that are due of some Pages": ("ix_chunk_", lambda tx: chunks.due(tx, NOW, 20, ["1", "2"])),
    "Pages that wait in vain": ("ix_chunk_", lambda tx: chunks.waiting_pages(tx, ["2"])),
    "the next moment": ("ix_chunk_", chunks.next_due),
    "whether anything is left": ("ix_chunk_broadcast_id", lambda tx: chunks.unfinished(tx, 1)),
    "what is in a chunk": ("ix_delivery_chunk_id", lambda tx: chunks.count(tx, 30)),
    "the sums": ("ix_delivery_chunk_id", lambda tx: chunks.progress(tx, 1)),
    "a chunk given back": ("ix_delivery_chunk_id", lambda tx: chunks.release(tx, 30, 0, NOW, timedelta(0))),
    "claim a batch": ("ix_delivery_chunk_id", lambda tx: batches.claim(tx, 30, NOW, 10)),
    "start a batch": ("delivery", lambda tx: batches.start_all(tx, [START], 60, NOW)),
    "tokens of a batch": ("ix_otn_token_of_", lambda tx: tokens.of_contacts(tx, [7_000, 8_000], [1])),
    "reserve a batch": ("otn_token", lambda tx: tokens.reserve_all(tx, [7_000, 8_000])),
    "what nobody holds": ("delivery", lambda tx: batches.lock_free(tx, [7_000, 8_000])),
    "record a yes": ("delivery", lambda tx: batches.settle_all_sent(tx, [(9_000, "m")], NOW)),
    "spend a token": ("otn_token", lambda tx: tokens.use_up_all(tx, [9_000], NOW)),
    "the first members": (
        "ix_otn_token_available",
        lambda tx: members.next_by_token(tx, _planned(tx), Cursor(), NOW, 500),
    ),
    "the next members": (
        "ix_otn_token_available",
        lambda tx: members.next_by_token(tx, _planned(tx), AFTER_SOME, NOW, 500),
    ),
    "dead senders": ("ix_delivery_unsettled", lambda tx: deliveries.lapse_leases(tx, NOW)),
    "given up": ("ix_delivery_unsettled", lambda tx: deliveries.give_up_unconfirmed(tx, NOW)),
    "single deliveries that are due": ("ix_delivery_", lambda tx: deliveries.due(tx, NOW)),
    "skip what was cancelled": (
        "ix_delivery_chunk_id",
        lambda tx: chunks.cancel(tx, 1, NOW, "cancelled", 20),
    ),
    "the parts of a cancelled one": (
        "ix_delivery_chunk_id",
        lambda tx: chunks.close_settled(tx, 1, NOW, 100),
    ),
    "what a cancelled one leaves in doubt": ("ix_delivery_", lambda tx: chunks.in_doubt(tx, 1, 500)),
    "whom to try again": ("ix_delivery_", lambda tx: batches.to_retry(tx, 1, ["no_token"], NOW, 500)),
}
WHOLE = (
    "SCAN delivery",
    "SCAN otn_token",
    "SCAN contact",
    "Seq Scan on delivery",
    "Seq Scan on otn_token",
    "Seq Scan on contact",
    "SCAN chunk",
    "Seq Scan on chunk",
)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("what", HOT)
def test_what_a_broadcast_runs_goes_by_its_index(
    request: pytest.FixtureRequest, database: str, what: str
) -> None:
    index, work = HOT[what]
    plan = plan_of(request.getfixturevalue(f"big_{database}"), work)
    assert index in plan, plan
    assert not any(walk in plan for walk in WHOLE), plan


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_batch_is_claimed_without_sorting(request: pytest.FixtureRequest, database: str) -> None:
    """Else each batch of ten would read the whole chunk first."""
    plan = plan_of(request.getfixturevalue(f"big_{database}"), lambda tx: batches.claim(tx, 30, NOW, 10))
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan
