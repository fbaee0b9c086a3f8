"""The plans of what a broadcast runs again and again, while most of what the tables hold waits to be sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from big_tables import analyze, fill_with, filling, goes_by, plan_of, seconds_after, walks, when, word

from otn.models import BroadcastState, DeliveryState, TokenState
from otn.store import Store, Tx, batches, broadcasts, chunks, deliveries, members, migrate, tokens
from otn.store.broadcasts import Cursor
from otn.store.schema import broadcast, chunk, contact, delivery, otn_token, page, topic

PEOPLE, CHUNKS = 100_000, 10_000
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
    analyze(store)
    yield store
    store.close()


def fill(store: Store) -> None:
    with filling(store) as tx:
        tx.execute(page.insert(), {"page_id": "1", "created_at": AGO})
        tx.execute(topic.insert(), TOPIC)
        tx.execute(broadcast.insert(), [BROADCAST | {"id": n, "dedupe_key": f"b{n}"} for n in (1, 2)])
        tx.execute(broadcast.update().where(broadcast.c.id == 2).values(state=BroadcastState.FINISHED.value))
        fill_with(tx, chunk, len(DONE), a_done_chunk)
        fill_with(tx, chunk, CHUNKS - len(DONE), a_chunk, first=len(DONE) + 1)
        fill_with(tx, chunk, 9 * CHUNKS, lambda n: a_done_chunk(n) | {"broadcast_id": 2}, first=CHUNKS + 1)
        fill_with(tx, contact, PEOPLE, a_person)
        fill_with(tx, otn_token, PEOPLE, lambda n: a_token(store, n))
        fill_with(tx, delivery, PEOPLE, a_delivery)


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


def a_chunk(n: Any) -> dict[str, Any]:
    under_way = n <= UNDER_WAY[-1]
    return {
        "id": n,
        "broadcast_id": 1,
        "page_id": "1",
        "due_at": AGO,
        "size": A_CHUNK,
        "fence": when(under_way, 1, 0, chunk.c.fence),
        "lease_until": when(under_way, 4e9, None, chunk.c.lease_until),
    }


def a_done_chunk(n: Any) -> dict[str, Any]:
    return a_chunk(n) | {"fence": 1, "lease_until": None, "done_at": AGO, "counts": {"sent": A_CHUNK}}


def a_person(n: Any) -> dict[str, Any]:
    return {"id": n, "page_id": "1", "psid": word("p", n), "created_at": AGO}


def a_token(store: Store, n: Any) -> dict[str, Any]:
    used = n <= len(DONE) * A_CHUNK
    return {
        "id": n,
        "contact_id": n,
        "topic_id": 1,
        "token_hash": word("h", n),
        "ciphertext": when(used, None, b"sealed", otn_token.c.ciphertext),
        "opted_in_at": AGO,
        "expires_at": seconds_after(store, LATER, n),
        "state": when(used, TokenState.USED.value, TokenState.AVAILABLE.value, otn_token.c.state),
        "created_at": AGO,
    }


def a_delivery(n: Any) -> dict[str, Any]:
    sending, unknown = n % 1000 == 0, n % 1000 == 1
    done = n <= len(DONE) * A_CHUNK
    begun = sending | unknown | done
    refused = done & (n % 50 == 2)
    state = sa.case(
        (refused, DeliveryState.REFUSED.value),
        (sending, DeliveryState.SENDING.value),
        (unknown, DeliveryState.UNKNOWN.value),
        (begun, DeliveryState.SENT.value),
        else_=DeliveryState.QUEUED.value,
    )
    return {
        "id": n,
        "dedupe_key": word("broadcast:1:", n),
        "contact_id": n,
        "topic_id": 1,
        "token_id": sa.case((begun, n)),
        "broadcast_id": 1,
        "chunk_id": (n + (A_CHUNK - 1)) / A_CHUNK,
        "origin": "broadcast",
        "state": state,
        "reason": when(refused, "no_token", None, delivery.c.reason),
        "settled_at": when(done, AGO, None, delivery.c.settled_at),
        "route": when(begun, "token", None, delivery.c.route),
        "message_hash": word("m", n),
        "human_agent": False,
        "wire_id": word("w", n),
        "fence": when(begun, 1, 0, delivery.c.fence),
        "attempts": when(begun, 1, 0, delivery.c.attempts),
        "doubtful": False,
        "window_refused": False,
        "lease_until": when(begun, 0.0, None, delivery.c.lease_until),
        "created_at": AGO,
        "sending_at": when(begun, AGO, None, delivery.c.sending_at),
        "next_attempt_at": when(unknown, AGO, None, delivery.c.next_attempt_at),
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
    "chunks that are due": ("ix_chunk_broadcast_id", lambda tx: chunks.due(tx, NOW, 20)),
    "chunks that are due of some Pages": (
        "ix_chunk_broadcast_id",
        lambda tx: chunks.due(tx, NOW, 20, ["1", "2"]),
    ),
    "Pages that wait in vain": ("ix_chunk_broadcast_id", lambda tx: chunks.waiting_pages(tx, ["2"])),
    "the next moment": ("ix_chunk_broadcast_id", chunks.next_due),
    "whether anything is left": ("ix_chunk_broadcast_id", lambda tx: chunks.unfinished(tx, 1)),
    "what is in a chunk": ("ix_delivery_chunk_id", lambda tx: chunks.count(tx, 30)),
    "the sums": ("ix_delivery_chunk_id", lambda tx: chunks.progress(tx, 1)),
    "a chunk given back": ("ix_delivery_chunk_id", lambda tx: chunks.release(tx, 30, 0, NOW, timedelta(0))),
    "claim a batch": ("ix_delivery_chunk_id", lambda tx: batches.claim(tx, 30, NOW, 10)),
    "start a batch": ("pk_delivery", lambda tx: batches.start_all(tx, [START], 60, NOW)),
    "tokens of a batch": ("ix_otn_token_of_topic", lambda tx: tokens.of_contacts(tx, [7_000, 8_000], [1])),
    "reserve a batch": ("pk_otn_token", lambda tx: tokens.reserve_all(tx, [7_000, 8_000])),
    "what nobody holds": ("pk_delivery", lambda tx: batches.lock_free(tx, [7_000, 8_000])),
    "record a yes": ("pk_delivery", lambda tx: batches.settle_all_sent(tx, [(9_000, "m")], NOW)),
    "spend a token": ("pk_otn_token", lambda tx: tokens.use_up_all(tx, [9_000], NOW)),
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
    "single deliveries that are due": (
        "ix_delivery_unsettled or ix_delivery_chunk_id",
        lambda tx: deliveries.due(tx, NOW),
    ),
    "skip what was cancelled": (
        "ix_delivery_chunk_id",
        lambda tx: chunks.cancel(tx, 1, NOW, "cancelled", 20),
    ),
    "the parts of a cancelled one": (
        "ix_delivery_chunk_id",
        lambda tx: chunks.close_settled(tx, 1, NOW, 100),
    ),
    "what a cancelled one leaves in doubt": (
        "ix_delivery_chunk_id or ix_delivery_unsettled",
        lambda tx: chunks.in_doubt(tx, 1, 500),
    ),
    "whom to try again": (
        "ix_delivery_chunk_id",
        lambda tx: batches.to_retry(tx, 1, range(1, 11), ["no_token"], NOW, 200),
    ),
}
BIG = ("contact", "otn_token", "delivery", "chunk")


@pytest.mark.parametrize("what", HOT)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_what_a_broadcast_runs_goes_by_its_index(
    request: pytest.FixtureRequest, database: str, what: str
) -> None:
    index, work = HOT[what]
    store: Store = request.getfixturevalue(f"big_{database}")
    plan = plan_of(store, work)
    assert goes_by(store, plan, index), plan
    assert not walks(plan, BIG), plan


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_batch_is_claimed_without_sorting(request: pytest.FixtureRequest, database: str) -> None:
    """Else each batch of ten would read the whole chunk first."""
    plan = plan_of(request.getfixturevalue(f"big_{database}"), lambda tx: batches.claim(tx, 30, NOW, 10))
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan
