"""What became of a broadcast's messages, read back on both databases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from conftest import Make

from otn import broadcasts, messages
from otn.broadcasts import Plan
from otn.models import DeliveryState, Route, TokenState
from otn.store import Store, audit, chunks, deliveries, reports, topics


@pytest.fixture
def sent_to(store: Store, make: Make, now: datetime) -> Any:
    """Makes a broadcast whose deliveries ended like this, one person each; gives its id."""

    def run(*ended: dict[str, Any]) -> int:
        make.topic()
        people = [make.out_of_window(str(7000 + number)) for number in range(len(ended))]
        with store.begin() as tx:
            plan = Plan(topic="restock", message=messages.text("It is back."), created_by="ada")
            broadcast_id = broadcasts.create(tx, plan, now).id
            chunk_id = chunks.add(tx, broadcast_id=broadcast_id, page_id="1001", due_at=now, size=len(ended))
            topic_id = topics.get(tx, "restock").id
            for person, values in zip(people, ended, strict=True):
                common = {
                    "dedupe_key": f"broadcast:{broadcast_id}:{person.id}",
                    "contact_id": person.id,
                    "topic_id": topic_id,
                    "broadcast_id": broadcast_id,
                    "chunk_id": chunk_id,
                    "origin": "broadcast",
                    "message_hash": "h",
                    "wire_id": f"otn:{person.id}",
                    "created_at": now,
                }
                deliveries.add(tx, {**common, **values})
        return broadcast_id

    return run


def test_reasons_are_counted_by_state_the_most_frequent_first(store: Store, sent_to: Any) -> None:
    skipped = {"state": "skipped", "reason": "token_used"}
    broadcast_id = sent_to(
        {"state": "sent"},
        {"state": "skipped", "reason": "page_paused"},
        skipped,
        skipped,
        {"state": "refused", "reason": "bad_media"},
        {"state": "unconfirmed"},
    )
    with store.read() as tx:
        found = reports.reasons(tx, broadcast_id)
        assert reports.reasons(tx, broadcast_id + 1) == {}
    assert found == {
        "skipped": {"token_used": 2, "page_paused": 1},
        "refused": {"bad_media": 1},
        "unconfirmed": {"no_reason": 1},
    }
    assert list(found["skipped"]) == ["token_used", "page_paused"]


def test_doubts_are_what_is_open_and_what_left_a_permission_suspect(
    store: Store, make: Make, sent_to: Any
) -> None:
    make.topic("other")
    suspect = make.token(make.contact("1"), None, state=TokenState.SUSPECT)
    fine = make.token(make.contact("2"), None)
    broadcast_id = sent_to(
        {"state": "refused", "reason": "bad_request", "route": "token", "token_id": suspect},
        {"state": "refused", "reason": "cannot_receive_now", "route": "token", "token_id": fine},
        {"state": "unknown", "reason": "outcome_unknown", "route": "window"},
        {"state": "unconfirmed", "route": "window"},
        {"state": "sent", "route": "token", "token_id": suspect},
    )
    with store.read() as tx:
        found = reports.doubts(tx, broadcast_id, 10)
        assert len(reports.doubts(tx, broadcast_id, 2)) == 2
    assert [(each.psid, each.state, each.route, each.token_state) for each in found] == [
        ("7000", DeliveryState.REFUSED, Route.TOKEN, TokenState.SUSPECT),
        ("7002", DeliveryState.UNKNOWN, Route.WINDOW, None),
        ("7003", DeliveryState.UNCONFIRMED, Route.WINDOW, None),
    ]


def test_everybody_is_read_part_by_part(store: Store, sent_to: Any, now: datetime) -> None:
    broadcast_id = sent_to(
        {"state": "sent", "route": "token", "rule": "A permission pays.", "attempts": 2, "tapped_at": now},
        {"state": "skipped", "reason": "token_used", "error": "It is used."},
    )
    with store.read() as tx:
        [part] = reports.chunk_ids(tx, broadcast_id)
        first, second = reports.people(tx, part)
    assert (first.psid, first.page_id, first.topic, first.state) == (
        "7000",
        "1001",
        "restock",
        DeliveryState.SENT,
    )
    assert (first.rule, first.attempts, first.tapped_at) == ("A permission pays.", 2, now)
    assert (second.route, second.reason, second.error) == (None, "token_used", "It is used.")


def test_the_audit_is_read_newest_first_a_page_at_a_time(store: Store, now: datetime) -> None:
    with store.begin() as tx:
        for number in range(3):
            audit.record(
                tx, who="ada", action="topic.edit", subject=f"t{number}", now=now, details={"n": number}
            )
    with store.read() as tx:
        newest, middle = audit.recent(tx, limit=2)
        [oldest] = audit.recent(tx, before=middle.id)
        [only] = audit.recent(tx, subject="t1")
    assert [newest.subject, middle.subject, oldest.subject] == ["t2", "t1", "t0"]
    assert (only.who, only.action, only.details, only.at) == ("ada", "topic.edit", {"n": 1}, now)
