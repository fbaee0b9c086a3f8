"""The door for tests and people: people, threads, journal, settings, time, and who may not come in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simulator import journal as journal_module
from simulator.clock import Clock
from simulator.config import Page
from simulator.journal import Filter, Journal, Kind
from simulator.people import KEPT_MESSAGES
from simulator.testing import Hands, Stage, made_up_config, on_stage

HELLO = {"text": "hello"}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with on_stage() as stage:
        yield stage


async def test_health_names_the_pages(stage: Stage) -> None:
    answer = await stage.call("GET", "/simulator/health")

    assert answer.body["status"] == "ok"
    assert answer.body["pages"] == [{"page_id": "100000000000001", "name": "Demo Shop"}]


async def test_people_are_made_listed_shown_and_changed(stage: Stage) -> None:
    wish = {"psid": "123", "first_name": "Ann", "locale": "en_GB"}
    made = await stage.call("POST", "/simulator/people", json=wish)
    assert (made.status, made.body["psid"], made.body["page_id"]) == (201, "123", "100000000000001")
    assert len(await stage.person()) == 17

    changed = await stage.call("PATCH", "/simulator/people/123", json={"first_name": None, "blocked": True})
    assert (changed.body.get("first_name"), changed.body["locale"], changed.body["blocked"]) == (
        None,
        "en_GB",
        True,
    )
    assert (await stage.call("GET", "/simulator/people/123")).body == changed.body
    assert len((await stage.call("GET", "/simulator/people")).body) == 2


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"psid": "123"}, 409),
        ({"psid": "a/b"}, 400),
        ({"psid": ""}, 400),
        ({"psid": 5}, 400),
        ({"page_id": "9"}, 404),
        ({"psid": "6", "tokens": ["taken"]}, 400),
        ({"psid": "6", "tokens": "text"}, 400),
        ({"psid": "6", "wrote": "yes"}, 400),
        ("Ann", 400),
    ],
)
async def test_people_who_cannot_be(stage: Stage, wish: Any, status: int) -> None:
    await stage.person(psid="123", tokens=["taken"])

    answer = await stage.call("POST", "/simulator/people", json=wish)

    assert (answer.status, bool(answer.body["error"])) == (status, True)


async def test_people_come_with_what_they_have_done_before(stage: Stage) -> None:
    wish = [{"psid": "1", "wrote": True, "tokens": ["first", "second"]}, {"psid": "2", "tokens": ["third"]}]
    made = (await stage.call("POST", "/simulator/people", json=wish)).body
    assert [(one["window_open"], one["permissions"]) for one in made] == [(True, 2), (False, 1)]
    answer = await stage.send({"one_time_notif_token": "third"}, {"text": "It is back."})
    assert (answer.status, answer.body["recipient_id"]) == (200, "2")
    assert (await stage.send({"one_time_notif_token": "third"}, {"text": "It is back."})).status == 400
    assert "third" not in str(stage.world.journal.entries())
    assert not stage.bot.received or all("optin" not in str(one.body) for one in stage.bot.received)


async def test_many_people_are_made_at_once(stage: Stage) -> None:
    answer = await stage.call(
        "POST", "/simulator/people", json=[{"psid": str(number)} for number in range(500)]
    )

    assert [person["psid"] for person in answer.body] == [str(number) for number in range(500)]


async def test_whoever_wants_to_be_the_first_finds_who_is(stage: Stage) -> None:
    wish = {"first_name": "Ada", "only_first": True}
    made = await stage.call("POST", "/simulator/people", json=wish)
    found = await stage.call("POST", "/simulator/people", json=wish)
    assert (made.status, found.status) == (201, 200)
    assert found.body == made.body
    assert len(stage.world.people) == 1


async def test_one_psid_on_two_pages_is_two_people() -> None:
    pages = (*made_up_config().pages, Page(id="2", name="Other", token="other"))
    async with on_stage(pages=pages) as stage:
        for page_id in ("100000000000001", "2"):
            await stage.person(psid="7", page_id=page_id)

        assert (await stage.do("7", "message", text="hi")).status == 409
        assert (await stage.call("POST", "/simulator/people/7/message?page_id=2", json=HELLO)).status == 200
        [event] = stage.bot.events()
        assert event["recipient"] == {"id": "2"}


async def test_who_blocked_the_page_does_nothing_there(stage: Stage) -> None:
    psid = await stage.person()
    await stage.call("PATCH", f"/simulator/people/{psid}", json={"blocked": True})

    assert (await stage.do(psid, "message", text="hi")).status == 409
    assert stage.bot.received == []


@pytest.mark.parametrize(
    ("act", "wish", "status"),
    [
        ("message", {}, 400),
        ("message", {"text": ""}, 400),
        ("message", {"text": 5}, 400),
        ("message", {"attachments": {}}, 400),
        ("message", {"text": "hi", "timestamp": 1_800_000_000_001}, 400),
        ("message", {"text": "hi", "timestamp": "now"}, 400),
        ("postback", {}, 400),
        ("notify-me", {}, 404),
        ("dance", {}, 404),
    ],
)
async def test_acts_that_make_no_sense(stage: Stage, act: str, wish: dict[str, Any], status: int) -> None:
    assert (await stage.do(await stage.person(), act, **wish)).status == status
    assert (await stage.do("nobody", act, **wish)).status == 404


@pytest.mark.parametrize("changes", [{"blocked": 1}, {"thread_owner": "me"}, {"psid": "9"}, {"age": 9}])
async def test_changes_of_people_that_make_no_sense(stage: Stage, changes: dict[str, Any]) -> None:
    path = f"/simulator/people/{await stage.person()}"

    assert (await stage.call("PATCH", path, json=changes)).status == 400


async def test_the_thread_tells_the_conversation_in_order_and_what_was_tapped(stage: Stage) -> None:
    psid = await stage.friend()
    mids = [(await stage.ask(psid)).body["message_id"] for _ in range(2)]
    await stage.do(psid, "notify-me", mid=mids[1])
    await stage.do(psid, "reaction", mid=mids[0], emoji="\u2764")
    await stage.send({"id": psid}, HELLO)

    thread = (await stage.call("GET", f"/simulator/people/{psid}/thread")).body

    assert [message["direction"] for message in thread] == ["in", "out", "out", "out"]
    assert [message.get("tapped") for message in thread] == [None, False, True, None]
    assert (thread[1]["mid"], thread[1]["reactions"]) == (mids[0], ["\u2764"])
    assert thread[3]["content"] == HELLO


async def test_a_thread_forgets_its_oldest_messages(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.settings(calls_per_second=0, echoes=False, deliveries=False)
    person = stage.world.person(psid)
    oldest = next(iter(person.thread.values()))
    for number in range(KEPT_MESSAGES - 1):
        person.thread[str(number)] = oldest

    await stage.send({"id": psid}, HELLO)

    assert len(person.thread) == KEPT_MESSAGES
    assert oldest.mid not in person.thread


async def test_the_journal_can_be_filtered_and_continued(stage: Stage) -> None:
    ann, bob = await stage.friend(), await stage.friend()
    for psid in (ann, bob, ann):
        await stage.send({"id": psid}, HELLO)

    async def read(**query: Any) -> dict[str, Any]:
        answer = await stage.call("GET", "/simulator/journal", params=query)
        return dict(answer.body)

    assert [entry["psid"] for entry in (await read(kind="delivered"))["entries"]] == [ann, bob, ann]
    assert {entry["psid"] for entry in (await read(psid=bob))["entries"]} == {bob}
    assert {entry["kind"] for entry in (await read(kind="delivered,person"))["entries"]} == {
        "delivered",
        "person",
    }
    first = await read(kind="delivered", limit=1)
    rest = await read(kind="delivered", after=first["last"])
    assert [entry["psid"] for entry in first["entries"] + rest["entries"]] == [ann, bob, ann]
    seqs = [entry["seq"] for entry in (await read())["entries"]]
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.parametrize("query", [{"kind": "gossip"}, {"after": "x"}, {"limit": "-1"}, {"wait": "nan"}])
async def test_questions_the_journal_cannot_answer(stage: Stage, query: dict[str, str]) -> None:
    assert (await stage.call("GET", "/simulator/journal", params=query)).status == 400


async def test_a_reader_can_wait_for_an_entry(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.settings(echoes=False, deliveries=False)
    waiting = asyncio.ensure_future(
        stage.call("GET", "/simulator/journal", params={"wait": 30, "kind": "refused", "psid": "4711"})
    )
    await stage.send({"id": psid}, HELLO)
    assert not waiting.done()

    await stage.send({"id": "4711"}, HELLO)

    assert [entry["kind"] for entry in (await waiting).body["entries"]] == ["refused"]


async def test_waiting_ends_without_an_entry_when_the_time_is_over(stage: Stage) -> None:
    answer = await stage.call("GET", "/simulator/journal", params={"wait": 0.01, "after": 10**6})

    assert answer.body == {"entries": [], "last": 10**6}


async def test_the_journal_is_bounded_and_keeps_at_least_200_000(monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal_module.KEPT_ENTRIES >= 200_000
    monkeypatch.setattr(journal_module, "KEPT_ENTRIES", 10)
    monkeypatch.setattr(journal_module, "TRIMMED_ABOVE", 15)
    journal = Journal(lambda: 0.0)
    for number in range(16):
        journal.add(Kind.GRAPH, number=number)

    assert [entry["number"] for entry in journal.entries()] == list(range(6, 16))
    assert [entry["number"] for entry in journal.entries(after=14)] == [14, 15]
    assert journal.read(Filter(after=99)) == ([], 99)


async def test_settings_change_together_or_not_at_all(stage: Stage) -> None:
    good = await stage.settings(notify_me_opens_window=True, retry_delays=[1, 2], batch_wait=1)
    assert (good.body["notify_me_opens_window"], good.body["retry_delays"]) == (True, [1, 2])

    bad = await stage.settings(
        echoes=False,
        batch_size=0,
        used_token_error="no",
        calls_per_second=1.5,
        retry_delays=1,
        batch_wait=-1,
        colour=1,
    )

    assert bad.status == 400
    for name in (
        "batch_size",
        "used_token_error",
        "calls_per_second",
        "retry_delays",
        "batch_wait",
        "colour",
    ):
        assert name in bad.body["error"]
    assert (await stage.call("GET", "/simulator/settings")).body["echoes"] is True


async def test_time_is_moved_through_the_file_and_read_from_it(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "clock"
    async with on_stage(clock_file=file) as stage:
        psid = await stage.friend()
        moved = await stage.call("POST", "/simulator/clock", json={"advance": 90000})
        assert moved.body == {"offset": 90000.0, "now": stage.wall() + 90000}
        assert float(file.read_text()) == 90000.0
        assert (await stage.send({"id": psid}, HELLO)).error == "10/2018278"

        file.write_text("3600")
        assert (await stage.call("GET", "/simulator/clock")).body["offset"] == 3600
        assert (await stage.send({"id": psid}, HELLO)).status == 200
        assert (await stage.call("POST", "/simulator/clock", json={"offset": 0})).body["offset"] == 0
        assert [entry["offset"] for entry in stage.world.journal.entries(Kind.CLOCK)] == [90000.0, 0.0]
        assert os.listdir(file.parent) == ["clock"], "no half-written file is left behind"


@pytest.mark.parametrize(
    "wish",
    [{}, {"advance": "1"}, {"advance": 1, "offset": 1}, {"offset": 1e300}, {"offset": True}, {"skip": 1}],
)
async def test_times_that_make_no_sense(stage: Stage, wish: dict[str, Any]) -> None:
    assert (await stage.call("POST", "/simulator/clock", json=wish)).status == 400


def test_a_clock_file_that_is_nonsense_or_gone_changes_nothing_bad(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    clock = Clock(file, Hands(100.0))
    assert clock.now() == 100.0
    file.write_text("5")
    assert clock.now() == 105.0
    file.write_text("soon")
    assert clock.now() == 105.0
    file.write_text("")
    assert clock.now() == 100.0
    file.write_text("7")
    assert clock.now() == 107.0
    file.unlink()
    assert clock.now() == 100.0


async def test_reset_forgets_everything_but_the_time(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.token(psid)
    await stage.settings(echoes=False)
    await stage.fault("reset")
    await stage.call("POST", "/simulator/clock", json={"advance": 60})

    await stage.call("POST", "/simulator/reset")

    stats = (await stage.call("GET", "/simulator/stats")).body
    assert (stats["people"], stats["tokens_issued"], stats["delivered"]) == (0, 0, 0)
    settings = (await stage.call("GET", "/simulator/settings")).body
    assert settings["echoes"] is True
    assert settings == (await stage.call("GET", "/simulator/settings/defaults")).body
    assert (await stage.call("GET", "/simulator/faults")).body == []
    assert (await stage.call("GET", "/simulator/clock")).body["offset"] == 60
    assert (await stage.call("GET", "/simulator/journal")).body["entries"] == []


async def test_stats_count_what_matters(stage: Stage) -> None:
    psid, other = await stage.friend(), await stage.friend()
    token = await stage.token(psid)
    await stage.send({"one_time_notif_token": token}, HELLO)
    await stage.send({"one_time_notif_token": token}, HELLO)
    await stage.send({"id": other}, HELLO)

    stats = (await stage.call("GET", "/simulator/stats")).body

    expected = {
        "delivered": 3,
        "delivered_by_token": 1,
        "refused": 1,
        "permission_requests": 1,
        "delivered_max_per_psid": 2,
        "delivered_by_token_max_per_psid": 1,
        "requests_max_per_psid": 1,
        "tokens_issued": 1,
        "tokens_used": 1,
    }
    assert expected.items() <= stats.items()


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}, {"Host": "["}],
)
async def test_foreign_web_pages_stay_outside(stage: Stage, headers: dict[str, str]) -> None:
    assert (await stage.call("POST", "/simulator/reset", headers=headers)).status == 403
    here = {"Origin": "http://localhost:5080"}
    assert (await stage.call("POST", "/simulator/reset", headers=here)).status == 200


async def test_bodies_that_are_not_json_are_explained(stage: Stage) -> None:
    assert (await stage.call("POST", "/simulator/people", data="{")).status == 400
    assert (await stage.call("PATCH", "/simulator/settings", json=[])).status == 400
