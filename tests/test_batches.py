"""A broadcast's chunks and small batches on both databases, one step at a time: what lies between two of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from campaign import HOUR, Campaign, try_again
from conftest import PAGE_ID, Make

from otn import batches, broadcasts, privacy, scheduler
from otn.batches import Job
from otn.broadcasts import Plan, Timetable
from otn.delivery import settle_as_sent
from otn.errors import Kept, OutcomeUnknown, Refusal, Refused, SendError, StoreUnavailable, Unreachable
from otn.graph.protocol import Sent
from otn.messages import text
from otn.models import DeliveryState
from otn.store import Store, Tx, chunks, contacts, deliveries, engine, pages
from otn.store import broadcasts as stored
from otn.store.schema import chunk, delivery
from otn.vault import Vault

YES = Sent(message_id="m_1", recipient_id=None)
LOST = OutcomeUnknown("no answer")
KEPT = Kept("its moment had passed")


def test_an_answer_that_comes_when_all_is_over_leaves_nobody_queued_for_ever(make: Make) -> None:
    """A worker stands still past its lease; meanwhile the chunk and the broadcast end without that message."""
    playing = Campaign(make, "7001", in_window=True)
    job = playing.take()
    (attempt,) = playing.begin(job)
    playing.leases_run_out()
    playing.release(playing.take())
    playing.end()
    assert playing.planned.state.value == "finished"
    playing.settle([(attempt, Unreachable("stood still; nothing was sent"))])
    assert playing.counts() == {"refused": 1}
    with playing.store.begin() as tx:
        assert try_again(tx, playing.id, ["unreachable"], playing.now) == 1
    playing.send(YES)
    playing.end()
    assert (playing.planned.state.value, playing.counts()) == ("finished", {"sent": 1})


def test_what_did_not_leave_is_due_as_it_was(make: Make) -> None:
    playing = Campaign(make, "7001", "7002")
    job = playing.take()
    first, second = playing.begin(job)
    playing.settle([(first, KEPT), (second, KEPT)])
    assert (playing.counts(), playing.tokens()) == ({"queued": 2}, ["available", "available"])
    first, second = playing.begin(job)
    playing.settle([(first, LOST), (second, YES)])
    playing.now += HOUR
    (again,) = playing.begin(job)
    playing.settle([(again, KEPT)])
    assert (playing.counts(), playing.tokens()) == ({"sent": 1, "unknown": 1}, ["reserved", "used"])
    with playing.store.read() as tx:
        asked = deliveries.get(tx, again.delivery_id)
    assert (asked.attempts, asked.reason) == (1, "outcome_unknown")
    (again,) = playing.begin(job)
    playing.settle([(again, YES)])
    assert (playing.counts(), playing.tokens()) == ({"sent": 2}, ["used", "used"])


def test_a_cancelled_broadcast_asks_nobody_again_and_keeps_the_permission(make: Make) -> None:
    playing = Campaign(make, "7001", "7002")
    job = playing.take()
    first, second = playing.begin(job)
    playing.settle([(first, YES), (second, LOST)])
    playing.release(job)
    with playing.store.begin() as tx:
        broadcasts.cancel(tx, playing.id, who="ann", now=playing.now)
    playing.end()
    assert playing.counts() == {"sent": 1, "unconfirmed": 1}
    assert playing.tokens() == ["used", "suspect"]
    with playing.store.read() as tx:
        assert not chunks.of_cancelled(tx)
    make.echoes(second.wire_id, psid="7002")
    assert playing.counts() == {"sent": 2}
    assert playing.tokens() == ["used", "used"]


def test_what_was_on_its_way_when_it_was_cancelled_is_settled_too(make: Make) -> None:
    playing = Campaign(make, "7001", "7002")
    job = playing.take()
    playing.begin(job, limit=1)
    with playing.store.begin() as tx:
        broadcasts.cancel(tx, playing.id, who="ann", now=playing.now)
    playing.end()
    assert playing.counts() == {"skipped": 1, "sending": 1}
    playing.leases_run_out()
    playing.end()
    assert playing.counts() == {"skipped": 1, "unconfirmed": 1}
    assert sorted(playing.tokens()) == ["available", "suspect"]


def test_the_parts_of_a_cancelled_broadcast_end_a_few_a_transaction(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million people there are 2,000 parts, and a webhook waits for each transaction."""
    monkeypatch.setattr(chunks, "MEMBERS_A_CHUNK", 1)
    with monkeypatch.context() as one_by_one:
        one_by_one.setattr(scheduler, "FREEZE", 1)
        playing = Campaign(make, *(f"70{number:02}" for number in range(5)))
    monkeypatch.setattr(scheduler, "CHUNKS", 2)
    job = playing.take()
    playing.begin(job, limit=1)  # by somebody who stands still: this part cannot end
    playing.release(job)
    with playing.store.begin() as tx:
        broadcasts.cancel(tx, playing.id, who="ann", now=playing.now)
        scheduler.sweep_cancelled(tx, playing.now)
        assert [scheduler.close_cancelled(tx, playing.now) for _ in range(3)] == [2, 2, 0]
        assert chunks.of_cancelled(tx) == [playing.id]
    playing.leases_run_out()
    playing.end()
    with playing.store.read() as tx:
        assert chunks.of_cancelled(tx) == []
    assert playing.counts() == {"skipped": 4, "unconfirmed": 1}


def test_in_quiet_hours_nobody_is_asked_again_either(make: Make) -> None:
    """The permission may not have been used by the first attempt: then asking sends."""
    at = make.now.hour * 60
    playing = Campaign(make, "7001", quiet_from=at + 60, quiet_until=at + 120)
    job = playing.take()
    playing.settle([(each, LOST) for each in playing.begin(job)])
    playing.release(job)
    playing.now += HOUR
    assert not playing.begin(playing.take())
    playing.leases_run_out()
    playing.now += HOUR
    assert playing.begin(playing.take())


def test_the_sums_are_right_when_somebody_is_forgotten_before_the_turn_comes(make: Make) -> None:
    playing = Campaign(make, "7001", "7002")
    with playing.store.begin() as tx:
        person = contacts.find(tx, PAGE_ID, "7001")
        assert person is not None
        privacy.request_erasure(tx, person, who="ann", now=playing.now)
        assert privacy.erase(tx, person.id, playing.now)
    assert playing.counts() == {"queued": 1, "skipped": 1}
    playing.send(YES)
    assert playing.counts() == {"sent": 1, "skipped": 1}


def test_who_is_forgotten_while_a_message_is_under_way_gets_no_other(make: Make) -> None:
    """The mark bars what is queued at once; the erasure waits for what is being sent."""
    playing = Campaign(make, "7001", "7002")
    job = playing.take()
    first = playing.begin(job, limit=1)
    with playing.store.begin() as tx:
        people = [contacts.find(tx, PAGE_ID, psid) for psid in ("7001", "7002")]
        for person in people:
            assert person is not None
            privacy.request_erasure(tx, person, who="ann", now=playing.now)
    assert not playing.begin(job)
    playing.settle([(each, LOST) for each in first])
    with playing.store.begin() as tx:
        assert all(person and privacy.erase(tx, person.id, playing.now) for person in people)
    playing.release(job)
    assert not playing.is_due()
    playing.end()
    assert (playing.planned.state.value, playing.counts()) == ("finished", {"skipped": 1, "unconfirmed": 1})
    assert playing.tokens() == ["invalid", "invalid"]


def test_an_end_waits_for_whoever_queues_somebody_again(make: Make) -> None:
    """Else the broadcast would be called finished, and its new chunk never be sent."""
    playing = Campaign(make, "7001", "7002")
    job = playing.take()
    first, second = playing.begin(job)
    refusal = Refused(Refusal.CANNOT_RECEIVE_NOW, code=10, subcode=2018108, detail="not now")
    playing.settle([(first, YES), (second, refusal)])
    playing.release(job)
    ending = threading.Thread(target=playing.end)
    with playing.store.begin() as tx:
        assert try_again(tx, playing.id, ["cannot_receive_now"], playing.now) == 1
        ending.start()
        ending.join(0.2)  # it waits, or it has looked too early
    ending.join(10)
    assert playing.planned.state.value == "running"
    playing.send(YES)
    playing.end()
    assert (playing.planned.state.value, playing.counts()) == ("finished", {"sent": 2})


def test_who_is_tried_again_does_not_get_a_chunk_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    playing = Campaign(make, "7001", "7002", "7003")
    playing.send(Refused(Refusal.CANNOT_RECEIVE_NOW, code=10, subcode=2018108, detail="not now"))
    monkeypatch.setattr(broadcasts, "ROWS", 1)
    for _ in range(3):
        with playing.store.begin() as tx:
            assert try_again(tx, playing.id, ["cannot_receive_now"], playing.now) == 1
    with playing.store.read() as tx:
        assert list(tx.execute(sa.select(chunk.c.size).order_by(chunk.c.id)).scalars()) == [3, 3]
    playing.send(YES)
    playing.end()
    assert (playing.planned.state.value, playing.counts()) == ("finished", {"sent": 3})


def test_nobody_in_a_later_part_is_forgotten_when_they_are_tried_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts in which all got their message are passed by; who is refused once more is not queued a second time."""
    monkeypatch.setattr(chunks, "MEMBERS_A_CHUNK", 1)
    monkeypatch.setattr(chunks, "CHUNKS_A_LOOK", 2)
    monkeypatch.setattr(scheduler, "FREEZE", 1)
    playing = Campaign(make, *(str(7001 + n) for n in range(6)))
    refusal = Refused(Refusal.CANNOT_RECEIVE_NOW, code=10, subcode=2018108, detail="not now")
    for answer in (YES, refusal, YES, YES, refusal, refusal):
        playing.send(answer)
    playing.end()
    with playing.store.begin() as tx:
        parts = broadcasts.parts_to_retry(tx, playing.id)
        assert [len(each) for each in parts] == [2, 1]
        assert try_again(tx, playing.id, ["cannot_receive_now"], playing.now) == 3
    for answer in (YES, refusal):  # two of them, and the third
        playing.send(answer)
    playing.end()
    assert (playing.planned.state.value, playing.counts()) == ("finished", {"sent": 5, "refused": 1})
    with playing.store.begin() as tx:
        assert try_again(tx, playing.id, ["cannot_receive_now"], playing.now - HOUR) == 0


def test_a_broadcast_tries_nobody_of_another_again(make: Make) -> None:
    playing = Campaign(make, "7001")
    playing.send(Refused(Refusal.CANNOT_RECEIVE_NOW, code=10, subcode=2018108, detail="not now"))
    playing.end()
    other = Campaign(make, "7002", topic="news")
    with playing.store.begin() as tx:
        (parts,) = broadcasts.parts_to_retry(tx, playing.id)
        retry = partial(broadcasts.retry, tx, reasons=["cannot_receive_now"], who="ann", now=playing.now)
        assert retry(other.id, parts) == 0
        assert retry(playing.id, parts) == 1


def two_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> tuple[Campaign, Campaign]:
    """A broadcast of three parts, and one of two that came later."""
    monkeypatch.setattr(scheduler, "FREEZE", 1)
    monkeypatch.setattr(chunks, "MEMBERS_A_CHUNK", 1)
    first = Campaign(make, "7001", "7002", "7003")
    second = Campaign(replace(make, now=make.now + HOUR), "8001", "8002", topic="news")
    first.now = second.now
    return first, second


def whose(job: Job) -> int:
    return job.broadcast.id


def test_what_nobody_sends_comes_before_what_somebody_sends(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else five people would wait for a million, on whatever Page."""
    first, second = two_at_once(make, monkeypatch)
    held = [first.take() for _ in range(5)]
    assert [whose(job) for job in held] == [first.id, second.id, first.id, second.id, first.id]


def test_broadcasts_take_turns_also_if_one_sender_does_all(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_at_once(make, monkeypatch)
    turns = []
    for _ in range(5):
        job = first.take()
        first.settle([(attempt, YES) for attempt in first.begin(job)])
        first.release(job)
        first.now += timedelta(seconds=1)
        turns.append(whose(job))
    assert turns == [first.id, second.id, first.id, second.id, first.id]


def test_hints_name_a_part_of_each_broadcast_first(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two_at_once(make, monkeypatch)
    with make.store.read() as tx:
        hints = chunks.due(tx, second.now, 4)
        found = dict(tx.execute(sa.select(chunk.c.id, chunk.c.broadcast_id)).all())
    assert [found[each] for each in hints] == [first.id, second.id, first.id, second.id]


def test_a_pause_lets_at_most_the_batch_go_that_was_begun(make: Make) -> None:
    playing = Campaign(make, *(f"70{number:02}" for number in range(10)))
    job = playing.take()
    begun = playing.begin(job, limit=3)
    with playing.store.begin() as tx:
        broadcasts.pause(tx, playing.id, who="ann", now=playing.now)
    assert not playing.begin(job)
    playing.settle([(each, YES) for each in begun])
    playing.release(job)
    assert not playing.is_due()
    assert playing.counts() == {"sent": 3, "queued": 7}


def test_of_two_that_start_and_freeze_at_once_one_does(make: Make, at_once: Any) -> None:
    playing = Campaign(make, "7001", "7002")
    with playing.store.begin() as tx:
        plan = Plan(topic="restock", message=text("Still here."), created_by="ann")
        made = broadcasts.create(tx, plan, playing.now)
        broadcasts.schedule(tx, made.id, Timetable(), who="ann", now=playing.now)
    assert sum(at_once(*[lambda tx: scheduler.start_due(tx, playing.now)] * 4)) == 1
    with playing.store.read() as tx:
        planned = stored.get(tx, made.id)
        before, found, after = scheduler.next_members(tx, planned, playing.now)

    def freeze(tx: Any) -> bool:
        return scheduler.freeze(tx, planned, before, found, after, playing.now)

    assert sum(at_once(*[freeze] * 4)) == 1
    with playing.store.read() as tx:
        assert chunks.progress(tx, made.id)["queued"] == 2


def test_who_is_frozen_twice_gets_it_once(make: Make) -> None:
    """Several permissions of a topic or a family are several looks at the same person."""
    person = make.out_of_window("7001")
    for name in ("offers-a", "offers-b"):
        topic = make.topic(name)
        make.token(person, topic)
        make.token(person, topic)
    playing = Campaign(make, topic="offers-*")
    assert playing.counts() == {"queued": 1}
    playing.send(YES)
    playing.end()
    assert (playing.planned.state.value, playing.counts()) == ("finished", {"sent": 1})
    assert sorted(playing.tokens()) == ["available"] * 3 + ["used"]


def test_a_chunk_whose_lease_ran_out_is_nobody_s_to_send_from(make: Make) -> None:
    playing = Campaign(make, "7001", "7002")
    lost = playing.take()
    playing.leases_run_out()
    assert not playing.begin(lost)
    held = playing.take()
    assert not playing.begin(lost)
    assert playing.begin(held)


def test_a_paused_page_lets_nothing_go_and_goes_on_by_itself(make: Make) -> None:
    playing = Campaign(make, "7001")
    with playing.store.begin() as tx:
        pages.pause(tx, PAGE_ID, "Meta limits our calls (4)", playing.now + HOUR)
    assert not playing.is_due()
    playing.now += HOUR
    playing.send(YES)
    assert playing.counts() == {"sent": 1}


def settled(store: Store) -> list[DeliveryState]:
    with store.read() as tx:
        return [DeliveryState(state) for state in tx.execute(sa.select(delivery.c.state)).scalars()]


@pytest.mark.parametrize("late", [YES, LOST, Unreachable("nothing was sent")])
def test_a_late_answer_never_undoes_what_another_worker_found_out(make: Make, late: Sent | SendError) -> None:
    """Its lease ran out, somebody else asked again with the same token, and was told yes."""
    playing = Campaign(make, "7001")
    (slow,) = playing.begin(playing.take())
    playing.leases_run_out()
    (again,) = playing.begin(playing.take())
    assert again.recipient == slow.recipient
    playing.settle([(again, YES)])
    playing.settle([(slow, late)])
    assert settled(playing.store) == [DeliveryState.SENT]
    assert playing.tokens() == ["used"]


# --- on a server, where everybody writes at once: nobody who holds a row waits for another ---


def at_the_same_time(work: Callable[[], Any]) -> Any:
    """Do it in another thread while this one holds what it holds; fails if it waits for that."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result(5)
    finally:
        pool.shutdown(wait=False)


@pytest.fixture
def server(postgresql_store: Store, vault: Vault, now: datetime) -> Make:
    return Make(postgresql_store, vault, now)


def test_recording_answers_waits_for_no_echo(server: Make) -> None:
    """Echoes are recorded several at a time and in any order: each might wait for the other."""
    playing = Campaign(server, "7001", "7002")
    first, second = playing.begin(playing.take())
    with playing.store.begin() as tx:
        assert deliveries.sent_by_echo(tx, person(tx, "7002"), second.wire_id)
        settle_as_sent(tx, second.delivery_id, "m_2", playing.now)

        def settle_them() -> dict[int, DeliveryState]:
            with playing.store.begin() as other:
                return batches.settle_together(other, [(first, YES), (second, YES)], playing.now)

        assert at_the_same_time(settle_them) == {first.delivery_id: DeliveryState.SENT}
    playing.settle([(second, YES)])
    assert playing.counts() == {"sent": 2}
    assert playing.tokens() == ["used", "used"]


def person(tx: Tx, psid: str) -> int:
    found = contacts.find(tx, PAGE_ID, psid)
    assert found is not None
    return contacts.lock(tx, found.id).id


def test_finding_dead_senders_waits_for_nobody(server: Make) -> None:
    """What is being settled at this moment is not dead."""
    playing = Campaign(server, "7001", "7002")
    first, _ = playing.begin(playing.take())
    with playing.store.begin() as tx:
        tx.execute(delivery.update().values(lease_until=1.0))
    with playing.store.begin() as tx:
        settle_as_sent(tx, first.delivery_id, "m_1", playing.now)

        def lapse() -> int:
            with playing.store.begin() as other:
                return deliveries.lapse_leases(other, playing.now)

        assert at_the_same_time(lapse) == 1
    assert playing.counts() == {"sent": 1, "unknown": 1}


def test_freezing_waits_for_no_conversation(server: Make) -> None:
    """Webhooks of several people are recorded together, each with the person locked."""
    server.token(server.out_of_window("7001"), server.topic())
    with server.store.begin() as tx:
        person(tx, "7001")
        playing = at_the_same_time(lambda: Campaign(server, topic="restock"))
    assert playing.counts() == {"queued": 1}


def test_a_person_whose_webhook_is_recorded_is_sent_to_a_moment_later(server: Make) -> None:
    playing = Campaign(server, "7001", "7002")
    job = playing.take()
    with playing.store.begin() as tx:
        person(tx, "7001")
        (other,) = at_the_same_time(lambda: playing.begin(job))
    (one,) = playing.begin(job)
    assert one.delivery_id != other.delivery_id


def test_who_stands_still_in_the_middle_of_a_transaction_stops_nobody_for_long(
    server: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process, or one whose machine is gone: the server ends its transaction and frees what it locked."""
    monkeypatch.setattr(engine, "_STANDSTILL_SECONDS", 1)
    playing = Campaign(server, "7001", "7002")
    stopped = Store(str(server.store.engine.url))

    def pause() -> None:
        with playing.store.begin() as tx:
            broadcasts.pause(tx, playing.id, who="ann", now=playing.now)

    def stand_still() -> None:
        with stopped.begin() as tx:
            stored.lock(tx, playing.id)
            at_the_same_time(pause)

    with pytest.raises(StoreUnavailable):
        stand_still()
    stopped.close()
    assert playing.planned.state.value == "paused"
