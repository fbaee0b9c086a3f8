"""A broadcast from the plan to the last person, against the simulator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cli import forget_environment
from simulated import TOPIC, Project, contact_id, project

from otn import broadcasts, scheduler, worker
from otn.app import App
from otn.audience import Audience, Conditions
from otn.broadcasts import Plan, Timetable
from otn.dev.processes import free_port
from otn.errors import InvalidInput, InvalidMove
from otn.graph.sync import SyncGraph
from otn.messages import attachment, text
from otn.models import Broadcast, BroadcastState
from otn.store import broadcasts as stored
from otn.store import chunks, pages
from otn.store.schema import chunk, delivery, otn_token

DAY_AND_HOUR = timedelta(hours=25)
SAID = "It is back, {first_name|dear friend}."


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """A project on a file of its own, and one on a server."""
    forget_environment(monkeypatch)
    server = request.getfixturevalue("postgresql_store") if request.param == "postgresql" else None
    with project(tmp_path, server) as found:
        yield found


@pytest.fixture
def app(shop: Project) -> Iterator[App]:
    with shop.opened() as found:
        yield found


def plan(**more: Any) -> Plan:
    values: dict[str, Any] = {"topic": TOPIC, "message": text(SAID), "created_by": "ann"}
    return Plan(**{**values, **more})


def planned(app: App, timetable: Timetable | None = None, **more: Any) -> Broadcast:
    with app.store.begin() as tx:
        made = broadcasts.create(tx, plan(**more), app.clock())
        return broadcasts.schedule(tx, made.id, timetable or Timetable(), who="ann", now=app.clock())


def work(app: App) -> int:
    with SyncGraph() as graph:
        return worker.run_once(app, graph, threading.Event())


def standing(app: App, broadcast_id: int) -> tuple[str, dict[str, int]]:
    """State, and how many deliveries are in which."""
    with app.store.read() as tx:
        counts = chunks.progress(tx, broadcast_id)
        return stored.get(tx, broadcast_id).state.value, {key: n for key, n in counts.items() if n}


def reasons(app: App) -> dict[str, str]:
    """Why each person was left out."""
    with app.store.read() as tx:
        rows = tx.execute(sa.select(delivery.c.dedupe_key, delivery.c.reason))
        return {row.dedupe_key: row.reason for row in rows if row.reason}


def tokens_in(app: App, state: str) -> int:
    with app.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(otn_token).where(otn_token.c.state == state)
        return int(tx.execute(query).scalar_one())


def test_everyone_who_agreed_gets_it_once(shop: Project, app: App) -> None:
    for number in range(25):
        shop.person(f"70{number:02}", permissions=2 if number == 3 else 1)
    shop.person("8001")  # agreed to nothing
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 25})
    for number in range(25):
        assert shop.heard(f"70{number:02}") == ["It is back, dear friend."]
    assert shop.heard("8001") == []
    assert (tokens_in(app, "used"), tokens_in(app, "available")) == (25, 1)
    work(app)
    assert shop.heard("7003") == ["It is back, dear friend."]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Use code {{SPRING}} now.", "Use code {SPRING} now."),
        ("{first_name|You}: {{SPRING}}.", "You: {SPRING}."),
    ],
)
def test_two_braces_are_read_as_one(shop: Project, app: App, written: str, read: str) -> None:
    shop.person("7001", permissions=1)
    planned(app, message=text(written))
    work(app)
    assert shop.heard("7001") == [read]


def test_inside_the_window_the_permission_is_kept(shop: Project, app: App) -> None:
    shop.person("7001", permissions=1)
    made = planned(app)
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 1})
    assert (tokens_in(app, "used"), tokens_in(app, "available")) == (0, 1)


def test_those_whose_window_is_open_can_be_meant_too(shop: Project, app: App) -> None:
    shop.person("7001", permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    shop.person("7002")
    made = planned(app, audience=Audience(window_too=True))
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 2})
    assert shop.heard("7002") == ["It is back, dear friend."]


def test_members_are_put_into_chunks_that_nobody_has_begun(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "FREEZE", 2)
    monkeypatch.setattr(chunks, "MEMBERS_A_CHUNK", 5)
    shop.people(app, 9, first=7001)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    worker.start_broadcasts(app)

    def freeze_two() -> list[int]:
        with app.store.begin() as tx:
            running = stored.get(tx, made.id)
            before, found, after = scheduler.next_members(tx, running, app.clock())
            assert scheduler.freeze(tx, running, before, found, after, app.clock())
            return list(tx.execute(sa.select(chunk.c.size).order_by(chunk.c.id)).scalars())

    assert [freeze_two(), freeze_two(), freeze_two()] == [[2], [4], [4, 2]]
    with app.store.begin() as tx:
        for chunk_id in chunks.due(tx, app.clock(), 2):
            assert chunks.lease(tx, chunk_id, "a worker", 0.0) is not None
    assert [freeze_two(), freeze_two()] == [[4, 2, 2], [4, 2, 3]]
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 9})


def test_a_family_is_one_audience(shop: Project, app: App) -> None:
    shop.person("7001", permissions=1, topic="restock-blue")
    shop.person("7002", permissions=1, topic="restock-green")
    shop.agree("7002", "restock-blue")
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app, topic="restock-*")
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 2})
    assert tokens_in(app, "available") == 1


def test_filters_leave_out_whom_they_name(shop: Project, app: App) -> None:
    shop.people(app, 3, first=7001)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(
        app,
        audience=Audience(include=Conditions(listed=True), exclude=Conditions(listed=True)),
        included_psids=["7001", "7002"],
        excluded_psids=["7002"],
    )
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 1})
    assert shop.heard("7001") == ["It is back, dear friend."]


def test_who_cannot_be_sent_to_is_named_with_the_reason(shop: Project, app: App) -> None:
    """A token taken by a single send, and one that lapses, while the broadcast waits."""
    shop.people(app, 3, first=7001)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    with app.store.begin() as tx:
        scheduler.start_due(tx, app.clock())
    with SyncGraph() as graph:
        worker.tick(app, graph, threading.Event())  # members are frozen, nothing is sent
    with app.store.begin() as tx:
        mine = otn_token.c.contact_id
        tx.execute(
            otn_token.update()
            .where(mine == contact_id_in(tx, "7001"))
            .values(state="used", used_at=app.clock())
        )
        tx.execute(otn_token.update().where(mine == contact_id_in(tx, "7002")).values(expires_at=app.clock()))
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 1, "skipped": 2})
    assert sorted(reasons(app).values()) == ["token_expired", "token_used"]


def test_a_window_that_closes_while_it_waits_costs_the_permission(shop: Project, app: App) -> None:
    """Between the estimate and the sending; the report says by which right it went out."""
    shop.people(app, 1)
    made = planned(app)
    with SyncGraph() as graph:
        worker.tick(app, graph, threading.Event())  # members are frozen, nothing is sent
    shop.pass_time(DAY_AND_HOUR)
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 1})
    assert tokens_in(app, "used") == 1
    assert ways(app) == ["token"]


def test_a_window_that_meta_calls_closed_is_decided_about_once_more(shop: Project, app: App) -> None:
    shop.people(app, 2)
    shop.pass_time(DAY_AND_HOUR)
    with app.store.begin() as tx:
        tx.execute(sa.text("UPDATE contact SET window_until = :t"), {"t": app.clock() + timedelta(hours=1)})
    made = planned(app)
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 2})
    assert ways(app) == ["token", "token"]
    assert tokens_in(app, "used") == 2


def ways(app: App) -> list[str]:
    with app.store.read() as tx:
        return list(tx.execute(sa.select(delivery.c.route)).scalars())


def test_it_waits_as_long_as_meta_says_and_goes_on_by_itself(shop: Project, app: App) -> None:
    shop.people(app, 30)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("throttle", regain_minutes=7)
    made = planned(app)
    work(app)
    state, counts = standing(app, made.id)
    assert state == "running"
    assert counts["queued"] >= 1
    calls = len(shop.control("/journal", method="GET")["entries"])
    shop.pass_time(timedelta(minutes=6))
    work(app)
    assert len(shop.control("/journal", method="GET")["entries"]) == calls + 1, "called while it had to wait"
    shop.pass_time(timedelta(minutes=1, seconds=1))
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 30})
    assert tokens_in(app, "used") == 30


def contact_id_in(tx: Any, psid: str) -> int:
    return int(tx.execute(sa.text("SELECT id FROM contact WHERE psid = :p"), {"p": psid}).scalar_one())


def test_a_broken_picture_halts_it_and_costs_no_permission(shop: Project, app: App) -> None:
    shop.people(app, 30)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("error", code=100, subcode=2018008, count=100)
    made = planned(app, message=attachment("image", "https://shop.example/nothing.jpg"))
    work(app)
    state, counts = standing(app, made.id)
    assert state == "halted"
    assert counts.get("sent", 0) == 0
    assert tokens_in(app, "available") == 30
    with app.store.read() as tx:
        assert "The message is at fault" in str(stored.get(tx, made.id).state_reason)


def test_pausing_stops_it_and_resuming_goes_on(shop: Project, app: App) -> None:
    shop.people(app, 12)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    with app.store.begin() as tx:
        scheduler.start_due(tx, app.clock())
        broadcasts.pause(tx, made.id, who="ann", now=app.clock())
    work(app)
    assert standing(app, made.id)[0] == "paused"
    assert shop.heard("7001") == []
    with app.store.begin() as tx:
        broadcasts.resume(tx, made.id, who="ann", now=app.clock())
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 12})


def cancelled(shop: Project, app: App) -> Broadcast:
    """A broadcast to twelve people, frozen and then cancelled before any was sent."""
    shop.people(app, 12)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    tick(app)
    with app.store.begin() as tx:
        broadcasts.cancel(tx, made.id, who="ann", now=app.clock())
    return made


def tick(app: App) -> None:
    with SyncGraph() as graph:
        worker.tick(app, graph, threading.Event())


def test_cancelling_ends_it_for_good(shop: Project, app: App) -> None:
    made = cancelled(shop, app)
    work(app)
    assert standing(app, made.id) == ("cancelled", {"skipped": 12})
    assert tokens_in(app, "available") == 12
    with app.store.begin() as tx, pytest.raises(InvalidMove, match="is cancelled"):
        broadcasts.resume(tx, made.id, who="ann", now=app.clock())


def test_a_cancelled_one_is_swept_to_its_end_in_a_tick(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "SWEEP", 2)
    monkeypatch.setattr(scheduler, "CHUNKS", 2)
    monkeypatch.setattr(chunks, "MEMBERS_A_CHUNK", 2)
    made = cancelled(shop, app)
    tick(app)
    assert standing(app, made.id) == ("cancelled", {"skipped": 12})
    with app.store.read() as tx:
        assert not scheduler.anything_to_end(tx)


def test_five_equal_refusals_in_a_row_halt_it(shop: Project, app: App) -> None:
    shop.people(app, 40)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("error", code=100, count=100)
    made = planned(app)
    work(app)
    state, counts = standing(app, made.id)
    assert (state, counts.get("sent", 0)) == ("halted", 0)
    with app.store.read() as tx:
        assert "5 messages in a row" in str(stored.get(tx, made.id).state_reason)


def test_equal_refusals_with_others_between_them_do_not_halt_it(shop: Project, app: App) -> None:
    """Six people of sixty whose permission Meta does not take: what it says about each of them is the same."""
    for psid in shop.people(app, 60)[5::10]:
        shop.fault("error", code=100, match={"psid": psid})
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 54, "refused": 6})
    assert (tokens_in(app, "used"), tokens_in(app, "suspect")) == (54, 6)


def test_a_bad_access_token_halts_it_and_pauses_the_page(shop: Project, app: App) -> None:
    shop.people(app, 12)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("error", code=190, count=100)
    made = planned(app)
    work(app)
    assert standing(app, made.id)[0] == "halted"
    assert tokens_in(app, "available") == 12
    with app.store.read() as tx:
        page = pages.find(tx, shop.page_id)
    assert page is not None
    assert page.paused_reason is not None


def test_it_waits_while_graph_cannot_be_reached(
    shop: Project, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.people(app, 12)
    shop.pass_time(DAY_AND_HOUR)
    made = planned(app)
    with monkeypatch.context() as outage:
        outage.setattr(App, "graph_config", nowhere(App.graph_config))
        for _ in range(8):
            work(app)
            shop.pass_time(timedelta(minutes=10))
    assert standing(app, made.id) == ("running", {"queued": 12})
    assert tokens_in(app, "available") == 12
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 12})


def nowhere(real: Any) -> Any:
    """Calls go to a port of this machine where nobody listens."""

    def config(self: App, page_id: str | None) -> Any:
        return replace(real(self, page_id), base_url=f"http://127.0.0.1:{free_port()}")

    return config


def test_it_starts_at_its_time_once_and_not_if_too_late(shop: Project, app: App) -> None:
    shop.person("7001", permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    now = app.clock()
    made = planned(app, Timetable(start_at=now + timedelta(hours=1), skip_if_late=timedelta(minutes=30)))
    work(app)
    assert standing(app, made.id)[0] == "scheduled"
    shop.pass_time(timedelta(hours=1, minutes=31))
    work(app)
    assert standing(app, made.id)[0] == "halted"
    assert shop.heard("7001") == []
    with app.store.begin() as tx:
        assert scheduler.start_due(tx, app.clock()) == 0
        broadcasts.schedule(tx, made.id, Timetable(), who="ann", now=app.clock())
    work(app)
    assert standing(app, made.id) == ("finished", {"sent": 1})


def test_each_person_s_own_clock_can_decide(shop: Project, app: App) -> None:
    zones = {"7001": "Asia/Tokyo", "7002": "-8", "7003": None}
    for psid, zone in zones.items():
        shop.person(psid, permissions=1)
        with app.store.begin() as tx:
            tx.execute(sa.text("UPDATE contact SET timezone = :z WHERE psid = :p"), {"z": zone, "p": psid})
    shop.pass_time(DAY_AND_HOUR)
    day = (app.clock() + timedelta(days=2)).date()
    made = planned(app, Timetable(at_local=f"{day}T09:00"))
    heard = []
    for hour in range(6 * 24):
        shop.pass_time(timedelta(minutes=30))
        if hour % 4 == 0:
            work(app)
            heard.append(tuple(bool(shop.heard(psid)) for psid in zones))
    assert list(dict.fromkeys(heard)) == [
        (False, False, False),
        (True, False, False),
        (True, False, True),
        (True, True, True),
    ]
    assert standing(app, made.id) == ("finished", {"sent": 3})


def test_a_plan_is_checked_before_it_is_kept(app: App) -> None:
    wrong = plan(topic="nothing", message=text("Hello {first_name}, {"), notification_type="LOUD")
    with app.store.begin() as tx, pytest.raises(InvalidInput) as problem:
        broadcasts.create(tx, wrong, app.clock())
    assert len(problem.value.problems) == 4


def test_the_same_key_is_the_same_broadcast(app: App, shop: Project) -> None:
    shop.person("7001", permissions=1)
    with app.store.begin() as tx:
        first = broadcasts.create(tx, plan(dedupe_key="event:1"), app.clock())
        assert broadcasts.create(tx, plan(dedupe_key="event:1"), app.clock()).id == first.id
        with pytest.raises(InvalidInput, match=f"broadcast {first.id}"):
            broadcasts.create(tx, plan(dedupe_key="event:1", message=text("other")), app.clock())
    assert first.state is BroadcastState.DRAFT
    assert contact_id(app, "7001")
