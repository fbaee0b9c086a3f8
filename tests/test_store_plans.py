"""The plans of what runs often, on tables with many rows: by an index, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from big_tables import analyze, fill_with, filling, goes_by, plan_of, walks, when, word

from otn.audience import Audience, Conditions, to_json
from otn.models import Broadcast, BroadcastState, InboxState
from otn.store import (
    Store,
    Tx,
    candidates,
    contacts,
    deliveries,
    estimates,
    figures,
    inbox,
    members,
    migrate,
    receipts,
    reports,
    requests,
    tokens,
    turns,
)
from otn.store.broadcasts import Cursor
from otn.store.candidates import Place
from otn.store.inbox import InboxRow
from otn.store.schema import delivery, inbound_event, metadata, otn_token

PEOPLE, ROWS = 20_000, 100_000
NOW = datetime(2026, 10, 1, tzinfo=timezone.utc)
AGO, LATER = NOW - timedelta(days=30), NOW + timedelta(days=300)


@pytest.fixture(scope="module")
def big_sqlite(sqlite_databases: Any) -> Iterator[Store]:
    """Without ANALYZE: nobody runs it on an SQLite file."""
    store = sqlite_databases.sqlite("big")
    fill(store)
    yield store
    store.close()


@pytest.fixture(scope="module")
def big_postgresql(postgresql_databases: Any) -> Iterator[Store]:
    store = postgresql_databases.create("big")
    migrate.upgrade(store)
    fill(store)
    analyze(store)
    yield store
    store.close()


def fill(store: Store) -> None:
    """Of a fifth of the people each has an available token among used ones; of a thousand rows a few are open."""
    topic = {"id": 1, "name": "restock", "title": "t", "kind": "k", "created_at": AGO}
    limits = {"is_family": False, "ask_while_available": False, "min_interval_seconds": 0, "weekly_cap": 5}
    with filling(store) as tx:
        tx.execute(metadata.tables["page"].insert(), {"page_id": "1", "created_at": AGO})
        tx.execute(metadata.tables["topic"].insert(), topic | limits)
        for name, row in ROW.items():
            fill_with(tx, metadata.tables[name], ROWS, row)


def person(n: Any) -> dict[str, Any]:
    return {"id": n, "page_id": "1", "psid": word("p", n), "created_at": AGO}


def token(n: Any) -> dict[str, Any]:
    fresh = n <= PEOPLE
    return {
        "id": n,
        "contact_id": n % PEOPLE + 1,
        "topic_id": 1,
        "token_hash": word("h", n),
        "ciphertext": when(fresh, b"sealed", None, otn_token.c.ciphertext),
        "opted_in_at": AGO,
        "expires_at": LATER,
        "state": when(fresh, "available", "used", otn_token.c.state),
        "created_at": AGO,
    }


def a_delivery(n: Any) -> dict[str, Any]:
    states = {0: "unknown", 1: "sending", 2: "queued"}
    return {
        "id": n,
        "dedupe_key": word("k", n),
        "contact_id": n % PEOPLE + 1,
        "topic_id": 1,
        "token_id": n,
        "origin": "cli",
        "state": sa.case(states, value=n % 1000, else_="sent"),
        "route": "token",
        "message_hash": word("m", n),
        "human_agent": False,
        "wire_id": word("w", n),
        "fence": 1,
        "attempts": 1,
        "doubtful": False,
        "window_refused": False,
        "lease_until": 0.0,
        "created_at": AGO,
        "sending_at": AGO,
        "settled_at": AGO,
        "next_attempt_at": when(n % 1000 <= 2, AGO, None, delivery.c.next_attempt_at),
    }


def event(n: Any) -> dict[str, Any]:
    return {
        "id": n,
        "page_id": "1",
        "event_key": word("k", n),
        "kind": "message",
        "contact_id": n % PEOPLE + 1,
        "event_at": AGO,
        "received_at": AGO,
        "raw": b"sealed",
        "standby": False,
        "state": when(n % 1000 == 0, "new", "done", inbound_event.c.state),
        "attempts": 0,
    }


def request_(n: Any) -> dict[str, Any]:
    return {
        "id": n,
        "dedupe_key": word("k", n),
        "contact_id": n % PEOPLE + 1,
        "topic_id": 1,
        "state": "sent",
        "wire_id": word("w", n),
        "asked_at": AGO,
    }


ROW = {
    "contact": person,
    "otn_token": token,
    "delivery": a_delivery,
    "inbound_event": event,
    "permission_request": request_,
}

PLANNED = Broadcast(
    **{
        **dict.fromkeys(Broadcast.__dataclass_fields__),
        "id": 1,
        "topic": "restock",
        "audience": to_json(Audience(exclude=Conditions(tags=("vip",), messaged_since=NOW), window_too=True)),
        "state": BroadcastState.RUNNING,
        "watermark": ROWS,
    }
)
TAKEN = InboxRow(
    id=1, page_id="1", event_key="e1", attempts=1, event_at=AGO, received_at=AGO, standby=False, sealed=b""
)
EARLIER = Place(topic=1, contact=PEOPLE // 2)
WEEK = timedelta(days=7)

HOT: dict[str, tuple[str, Callable[[Tx], Any]]] = {
    "draw a token": ("ix_otn_token_of_contact", lambda tx: tokens.reserve_soonest(tx, 10, 1, NOW)),
    "count tokens": ("ix_otn_token_of_topic", lambda tx: tokens.count(tx, 10, 1, NOW)),
    "tokens by topic": (
        "ix_otn_token_of_topic or ix_otn_token_of_contact",
        lambda tx: tokens.per_topic(tx, 10, NOW),
    ),
    "destroy lapsed secrets": ("ix_otn_token_secret", lambda tx: tokens.destroy_lapsed(tx, NOW)),
    "find what is due": ("ix_delivery_unsettled", lambda tx: deliveries.due(tx, NOW)),
    "find dead senders": ("ix_delivery_unsettled", lambda tx: deliveries.lapse_leases(tx, NOW)),
    "give up": ("ix_delivery_unsettled", lambda tx: deliveries.give_up_unconfirmed(tx, NOW)),
    "settle by echo": ("uq_delivery_wire_id", lambda tx: deliveries.sent_by_echo(tx, 11, "w10")),
    "look up a key": ("uq_delivery_dedupe_key", lambda tx: deliveries.by_key(tx, "k10")),
    "what the tracker lacks": ("ix_delivery_contact_id_state", lambda tx: deliveries.unnoted(tx, 10)),
    "what is on its way": ("ix_delivery_contact_id_state", lambda tx: deliveries.being_sent(tx, 10)),
    "a receipt": (
        "ix_delivery_contact_id_state",
        lambda tx: receipts.mark_reached(tx, 10, "read_at", NOW, NOW),
    ),
    "an answer": (
        "ix_delivery_contact_id_state",
        lambda tx: receipts.mark_answered(tx, "replied_at", [(10, NOW)]),
    ),
    "the same message elsewhere": (
        "ix_delivery_message_hash",
        lambda tx: deliveries.accepted_elsewhere(tx, "m10", 1),
    ),
    "who waits": ("ix_inbound_event_new", turns.waiting),
    "claim": ("ix_inbound_event_new", lambda tx: turns.claim(tx, 1, "me", 60, NOW)),
    "end a turn": (
        "ix_inbound_event_new",
        lambda tx: turns.take(tx, 1, "me", 60) and turns.end(tx, TAKEN, 1, "me", InboxState.DONE, NOW),
    ),
    "prune": ("ix_inbound_event_received_at", lambda tx: inbox.prune(tx, NOW - timedelta(days=90))),
    "what was asked": (
        "ix_permission_request_contact_id_asked_at",
        lambda tx: requests.history(tx, 10, 1, NOW),
    ),
    "who wants to be forgotten": ("ix_contact_erase", contacts.to_erase),
    "a person by psid": ("ix_contact_psid", lambda tx: contacts.by_psid(tx, "p10")),
    "the next members": (
        "ix_otn_token_available",
        lambda tx: members.next_by_token(tx, PLANNED, Cursor(), NOW, 500),
    ),
    "the next members with a window": (
        "pk_contact",
        lambda tx: members.next_by_window(tx, PLANNED, Cursor(contact=500), NOW, 500),
    ),
    "the next to be explained": (
        "ix_otn_token_of_topic",
        lambda tx: candidates.next_ids(tx, PLANNED, EARLIER, NOW, window_too=True, limit=300),
    ),
    "what is known of a few": (
        "ix_delivery_contact_id_state",
        lambda tx: candidates.look_at(tx, PLANNED, [10, 11, 12], NOW),
    ),
    "what lapses before a start": (
        "ix_otn_token_available",
        lambda tx: estimates.lapsing(tx, PLANNED, NOW, until=NOW + WEEK, paused=[]),
    ),
    "what lapses in one topic": (
        "ix_otn_token_available",
        lambda tx: figures.lapsing(tx, NOW, [WEEK], [1]),
    ),
    "what came of a broadcast": (
        "ix_delivery_chunk_id",
        lambda tx: reports.outcomes(tx, 1),
    ),
    "whether a reply may go out": (
        "ix_contact_psid or uq_contact_page_id_psid",
        lambda tx: contacts.with_page(tx, "1", "p10"),
    ),
    "a person on a page": (
        "ix_contact_psid or uq_contact_page_id_psid",
        lambda tx: contacts.find(tx, "1", "p10"),
    ),
}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("what", HOT)
def test_what_runs_often_goes_by_its_index(request: pytest.FixtureRequest, database: str, what: str) -> None:
    store: Store = request.getfixturevalue(f"big_{database}")
    index, work = HOT[what]
    plan = plan_of(store, work)
    assert goes_by(store, plan, index), plan
    assert not walks(plan, ROW, small={"ix_inbound_event_new"}), plan
