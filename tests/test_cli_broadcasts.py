"""What an operator types around a broadcast, and what comes back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cli import Answer, CommandLine, forget_environment
from simulated import TOPIC, Project, project
from test_broadcasts import work

from otn.broadcasts import RETRIABLE
from otn.models import BroadcastState
from otn.store import broadcasts
from otn.store.schema import broadcast, delivery

DAY_AND_HOUR = timedelta(hours=25)
TEXT = "It is back."


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def otn_(shop: Project, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    """Types commands, and at the end looks through all that they printed."""
    found = CommandLine(shop.root, capsys)
    yield found
    for secret in shop.secrets():
        assert secret not in found.printed


def create(otn_: CommandLine, *more: str, text: str = TEXT) -> Answer:
    return otn_("broadcasts", "create", "--topic", TOPIC, "--text", text, *more)


def people(shop: Project, number: int, *, out_of_window: bool = True) -> list[str]:
    """So many people with a permission each."""
    found = [shop.person(f"70{each:02}", permissions=1) for each in range(number)]
    if out_of_window:
        shop.pass_time(DAY_AND_HOUR)
    return found


def sent(otn_: CommandLine, shop: Project, number: int) -> list[str]:
    """A broadcast to so many people that has gone out."""
    found = people(shop, number)
    create(otn_)
    assert otn_("broadcasts", "schedule", "1", "--yes").code == 0
    assert otn_("worker", "--once").code == 0
    return found


def shown(otn_: CommandLine, broadcast_id: int = 1) -> dict[str, Any]:
    answer: dict[str, Any] = otn_("broadcasts", "show", str(broadcast_id), "--json").json()
    return answer


def change(shop: Project, statement: Any) -> None:
    with shop.opened() as app, app.store.begin() as tx:
        tx.execute(statement)


# --- planning


def test_from_a_plan_to_everybody_s_chat(shop: Project, otn_: CommandLine) -> None:
    mine = people(shop, 3)
    shop.person("8000")
    made = create(otn_, "--name", "Blue")
    assert (made.code, made.out) == (0, "1\n")
    assert "It would go to 3 people of 3" in made.err
    assert otn_("broadcasts", "schedule", "1", "--yes").code == 0
    assert shown(otn_)["state"] == "scheduled"
    assert shop.heard(mine[0]) == []
    assert otn_("worker", "--once").code == 0
    assert [shop.heard(psid) for psid in (*mine, "8000")] == [[TEXT]] * 3 + [[]]
    found = shown(otn_)
    assert (found["name"], found["topic"], found["state"], found["reason"]) == (
        "Blue",
        TOPIC,
        "finished",
        None,
    )
    assert found["counts"] == {
        "queued": 0,
        "sending": 0,
        "sent": 3,
        "refused": 0,
        "skipped": 0,
        "unknown": 0,
        "unconfirmed": 0,
    }
    assert found["reasons"] == {}
    assert "3  sent" in otn_("broadcasts", "show", "1").out


def test_json_gives_the_id_and_the_same_id_is_one_broadcast(shop: Project, otn_: CommandLine) -> None:
    first, again = (create(otn_, "--id", "spring", "--json") for _ in range(2))
    assert first.json() == again.json() == {"id": 1}
    other = create(otn_, "--id", "spring", text="Another.")
    assert other.code == 1
    assert "topic or message is another" in other.err
    assert "under this id" not in first.err
    assert "Broadcast 1 was made under this id at 20" in again.err
    assert "it is draft now" in again.err
    assert otn_("broadcasts", "cancel", "1", "--yes").code == 0
    gone = create(otn_, "--id", "spring")
    assert (gone.code, gone.out) == (0, "1\n")
    assert "it is cancelled now" in gone.err
    assert "otn broadcasts schedule 1" not in gone.err


def test_every_problem_of_a_plan_is_said_at_once(shop: Project, otn_: CommandLine) -> None:
    wrong = otn_(
        *("broadcasts", "create", "--topic", "nonsense", "--text", "Hi {first_name}"),
        *("--active-since", "yesterday", "--exclude-attribute", "city"),
    )
    assert (wrong.code, wrong.out) == (1, "")
    assert len([line for line in wrong.err.splitlines() if line.startswith("- ")]) == 4
    assert otn_("broadcasts", "list", "--json").json() == []


def test_a_plan_may_be_a_file_and_what_is_typed_counts_more(shop: Project, otn_: CommandLine) -> None:
    people(shop, 3)
    (shop.root / "plan.yml").write_text(f"topic: {TOPIC}\nresponse: utter_no\nname: Blue\npsids: list.txt\n")
    (shop.root / "list.txt").write_text("7000\n7001\n")
    plan = str(shop.root / "plan.yml")
    assert otn_("broadcasts", "create", "--file", plan).code == 1
    made = otn_("broadcasts", "create", "--file", plan, "--text", TEXT, "--exclude-psids", _one(shop, "7001"))
    assert made.code == 0, made.err
    assert "It would go to 1 person of 3" in made.err
    assert shown(otn_)["name"] == "Blue"


def _one(shop: Project, psid: str) -> str:
    path = shop.root / "one.txt"
    path.write_text(psid)
    return str(path)


def test_the_estimate_and_the_explanation_say_the_same(shop: Project, otn_: CommandLine) -> None:
    people(shop, 2)
    shop.person("8000", permissions=1)
    shop.control("/people/7001/message", {"text": "hello"})
    create(otn_, "--exclude-page", "1", "--exclude-psids", _one(shop, "8000"))
    estimate = otn_("broadcasts", "estimate", "1", "--json").json()
    assert (estimate["would_send_by_token"], estimate["would_send_by_window"]) == (1, 1)
    assert estimate["left_out"] == {"filtered": 1}
    explained = otn_("broadcasts", "explain", "1", "--json").json()
    assert [(each["psid"], each["would"], each["reason"]) for each in explained] == [
        ("7000", "token", None),
        ("7001", "window", None),
        ("8000", None, "filtered"),
    ]
    rows = list(csv.reader(io.StringIO(otn_("broadcasts", "explain", "1", "--csv").out)))
    assert rows[0] == ["psid", "page", "would", "reason", "sentence"]
    assert rows[3][:4] == ["8000", shop.page_id, "no", "filtered"]
    assert len(otn_("broadcasts", "explain", "1").out.splitlines()) == 3
    assert "1  not: filtered" in otn_("broadcasts", "estimate", "1").out


def test_broadcasts_are_listed_newest_first(shop: Project, otn_: CommandLine) -> None:
    for _ in range(3):
        create(otn_)
    listed = otn_("broadcasts", "list", "--json").json()
    assert [(each["id"], each["state"]) for each in listed] == [(3, "draft"), (2, "draft"), (1, "draft")]
    answer = otn_("broadcasts", "list", "--limit", "2")
    assert len(answer.out.splitlines()) == 3
    assert "There are more than these 2" in answer.err


@pytest.mark.parametrize("command", ["show", "estimate", "explain", "schedule", "pause", "watch", "report"])
def test_a_number_that_nobody_gave_is_answered_with_the_list(otn_: CommandLine, command: str) -> None:
    answer = otn_("broadcasts", command, "99")
    assert (answer.code, answer.out) == (1, "")
    assert "otn broadcasts list" in answer.err


# --- when


def test_scheduling_asks_with_the_number_of_people(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(shop, 2)
    create(otn_)
    asked = []
    monkeypatch.setattr("typer.confirm", lambda question, **_: asked.append(question))
    assert otn_("broadcasts", "schedule", "1").code == 1
    assert asked == ["Send broadcast 1 to 2 people now?"]
    assert shown(otn_)["state"] == "draft"


def test_a_timetable_is_kept_with_the_estimate(shop: Project, otn_: CommandLine) -> None:
    people(shop, 2)
    create(otn_)
    year = shop.now().year + 1
    words = ["--at-local", f"{year}-12-01T09:00", "--quiet", "22:00-08:00", "--skip-if-late", "30m", "--yes"]
    assert otn_("broadcasts", "schedule", "1", *words).code == 0
    found = shown(otn_)
    assert (found["at_local"], found["quiet_from"], found["quiet_until"]) == (
        f"{year}-12-01T09:00",
        "22:00",
        "08:00",
    )
    assert (found["skip_if_late_seconds"], found["estimate"]["would_send_by_token"]) == (1800, 2)
    assert "on everybody's clock, quiet from 22:00 to 08:00" in otn_("broadcasts", "show", "1").out
    again = otn_("broadcasts", "schedule", "1", "--at", f"{year}-12-01T09:00+02:00", "--yes")
    assert again.code == 0
    assert shown(otn_)["start_at"] == f"{year}-12-01T07:00:00+00:00"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--now", "--at", "2099-01-01"], 2, "choose one of"),
        (["--at", "soon"], 2, "write a day like"),
        (["--at-local", "2099-01-01"], 2, "write a local time"),
        (["--quiet", "night"], 2, "write quiet hours like"),
        (["--skip-if-late", "soon"], 2, "write a number and a unit"),
        (["--at", "2020-01-01"], 1, "is over"),
        (["--at-local", "2020-01-01T09:00"], 1, "is over everywhere"),
        (["--at-local", "9999-12-31T13:00"], 1, "looks like 2026"),
    ],
)
def test_a_time_that_makes_no_sense_is_refused(
    shop: Project, otn_: CommandLine, words: list[str], code: int, says: str
) -> None:
    create(otn_)
    answer = otn_("broadcasts", "schedule", "1", *words)
    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err


@pytest.mark.parametrize(
    ("late", "told", "became"),
    [
        ([], "at once if that is less than 24 h ago", {"sent": 1, "queued": 1}),
        (["--skip-if-late", "30m"], "at once if that is less than 30 min ago", {"skipped": 1, "queued": 1}),
    ],
)
def test_a_local_time_that_is_over_in_some_places_is_told_before_it_leaves_there(
    shop: Project, otn_: CommandLine, late: list[str], told: str, became: dict[str, int]
) -> None:
    here, elsewhere = people(shop, 2)
    assert otn_("contacts", "set", here, "timezone=0").code == 0
    assert otn_("contacts", "set", elsewhere, "timezone=-10").code == 0
    create(otn_)
    an_hour_ago = f"{shop.now() - timedelta(hours=1):%Y-%m-%dT%H:%M}"
    scheduled = otn_("broadcasts", "schedule", "1", "--at-local", an_hour_ago, *late, "--yes")
    assert f"Where the clock is past {an_hour_ago} already, it leaves {told}" in scheduled.err
    otn_("worker", "--once")
    assert {state: number for state, number in shown(otn_)["counts"].items() if number} == became


def test_a_local_time_that_is_still_to_come_everywhere_needs_no_warning(
    shop: Project, otn_: CommandLine
) -> None:
    create(otn_)
    in_two_days = f"{shop.now() + timedelta(days=2):%Y-%m-%dT%H:%M}"
    scheduled = otn_("broadcasts", "schedule", "1", "--at-local", in_two_days, "--yes")
    assert scheduled.code == 0
    assert "already" not in scheduled.err


# --- while it runs


def test_a_broadcast_can_be_stopped_and_go_on(shop: Project, otn_: CommandLine) -> None:
    mine = people(shop, 2)
    create(otn_)
    early = otn_("broadcasts", "pause", "1")
    assert early.code == 1
    assert "is draft; only one that is running" in early.err
    otn_("broadcasts", "schedule", "1", "--yes")
    with shop.opened() as app, app.store.begin() as tx:
        broadcasts.move(
            tx, 1, (BroadcastState.SCHEDULED,), BroadcastState.RUNNING, started_at=app.clock(), watermark=99
        )
    assert otn_("broadcasts", "pause", "1").code == 0
    assert shown(otn_)["reason"].startswith("paused by ")
    otn_("worker", "--once")
    assert shop.heard(mine[0]) == []
    assert otn_("broadcasts", "resume", "1").code == 0
    otn_("worker", "--once")
    assert shop.heard(mine[0]) == [TEXT]
    assert otn_("broadcasts", "schedule", "1", "--yes").code == 1


def test_cancelling_asks_and_ends_it_for_good(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = people(shop, 2)
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert otn_("broadcasts", "cancel", "1").code == 1
    assert shown(otn_)["state"] == "scheduled"
    assert otn_("broadcasts", "cancel", "1", "--yes").code == 0
    otn_("worker", "--once")
    assert shop.heard(mine[0]) == []
    assert shown(otn_)["state"] == "cancelled"
    assert otn_("broadcasts", "watch", "1").code == 1


def test_watching_ends_with_the_broadcast(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker does its work while the watcher waits for the next look."""
    people(shop, 2)
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    monkeypatch.setattr("otn.cli.broadcasts.watch._wait", lambda: otn_("worker", "--once"))
    watched = otn_("broadcasts", "watch", "1", "--json")
    assert watched.code == 0
    last = json.loads(watched.out.splitlines()[-1])
    assert (last["state"], last["done"], last["total"], last["counts"]["sent"]) == ("finished", 2, 2, 2)
    assert "is finished" in watched.err
    assert "2 of 2" in otn_("broadcasts", "watch", "1").out


def test_a_person_at_a_terminal_watches_a_bar(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(otn_, shop, 2)
    monkeypatch.setattr("otn.cli.broadcasts.watch.sys.stderr.isatty", lambda: True, raising=False)
    watched = otn_("broadcasts", "watch", "1")
    assert (watched.code, watched.out) == (0, "")
    assert "2 of 2 · 2 sent" in watched.err


def test_watching_a_draft_says_what_to_type(shop: Project, otn_: CommandLine) -> None:
    create(otn_)
    watched = otn_("broadcasts", "watch", "1")
    assert watched.code == 1
    assert "otn broadcasts schedule 1" in watched.err


# --- afterwards


def test_a_report_holds_the_result_against_the_estimate(shop: Project, otn_: CommandLine) -> None:
    people(shop, 3)
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    shop.control("/people/7001/message", {"text": "hello"})
    otn_("worker", "--once")
    drift = otn_("broadcasts", "report", "1", "--json").json()["drift"]
    assert {line["what"]: (line["estimated"], line["result"]) for line in drift} == {
        "token": (3, 2),
        "window": (0, 1),
    }
    answer = otn_("broadcasts", "report", "1")
    assert answer.code == 0
    assert "ESTIMATED" in answer.out


def test_doubts_are_listed_apart_with_what_settles_them(shop: Project, otn_: CommandLine) -> None:
    mine = people(shop, 3)
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    shop.fault("error", code=100, count=1)
    otn_("worker", "--once")
    report = otn_("broadcasts", "report", "1", "--json").json()
    [doubt] = report["doubts"]
    assert (doubt["psid"] in mine, doubt["state"], doubt["token_state"]) == (True, "refused", "suspect")
    assert f"`otn tokens release {doubt['token_id']}`" in doubt["settled_by"]
    assert report["reasons"] == {"refused": {"bad_request": 1}}
    assert "In doubt:" in otn_("broadcasts", "report", "1").out


@pytest.mark.parametrize("state", ["paused", "halted"])
def test_nobody_is_asked_again_before_a_stopped_broadcast_goes_on(
    shop: Project, otn_: CommandLine, state: str
) -> None:
    people(shop, 1)
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    shop.fault("lost_answer", count=1)
    otn_("worker", "--once")

    def settled_by() -> str:
        [doubt] = otn_("broadcasts", "report", "1", "--json").json()["doubts"]
        return str(doubt["settled_by"])

    assert settled_by().startswith("`otn worker`: it asks again at ")
    change(shop, broadcast.update().values(state=state))
    assert settled_by().startswith(
        "`otn worker`, once you type `otn broadcasts resume 1`: it asks again with"
    )


def test_who_was_out_of_reach_is_tried_again(shop: Project, otn_: CommandLine) -> None:
    mine = people(shop, 3)
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    shop.fault("error", code=10, subcode=2018108, count=1)
    otn_("worker", "--once")
    assert shown(otn_)["reasons"] == {"refused": {"cannot_receive_now": 1}}
    assert otn_("broadcasts", "retry", "1", "--reason", "page_paused", "--json").json() == {
        "id": 1,
        "queued": 0,
    }
    assert otn_("broadcasts", "retry", "1", "--json").json() == {"id": 1, "queued": 1}
    otn_("worker", "--once")
    assert [shop.heard(psid) for psid in mine] == [[TEXT]] * 3
    assert shown(otn_)["counts"]["sent"] == 3
    unknown = otn_("broadcasts", "retry", "1", "--reason", "nonsense")
    assert unknown.code == 2
    assert RETRIABLE[0] in unknown.err


def test_who_is_refused_again_meanwhile_is_not_tried_a_third_time(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And others may write after each part: a webhook does not wait for the whole."""
    people(shop, 2)
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    shop.fault("error", code=10, subcode=2018108, count=8)
    otn_("worker", "--once")
    monkeypatch.setattr("otn.broadcasts.ROWS", 1)
    calls: list[int] = []

    def send_meanwhile() -> None:
        with shop.opened() as app:
            calls.append(work(app))

    monkeypatch.setattr("otn.cli.broadcasts.moves.breathe", send_meanwhile)
    assert otn_("broadcasts", "retry", "1", "--json").json() == {"id": 1, "queued": 2}
    assert [sent for sent in calls if sent] == [1, 1]


@pytest.mark.parametrize(
    ("number", "state", "told"),
    [
        (1, "finished", "1 person is tried again, wherever `otn worker` runs."),
        (2, "finished", "2 people are tried again, wherever `otn worker` runs."),
        (2, "paused", "2 people are tried again as soon as you type `otn broadcasts resume 1`."),
        (1, "halted", "1 person is tried again as soon as you type `otn broadcasts resume 1`."),
    ],
)
def test_it_is_said_what_the_next_try_waits_for(
    shop: Project, otn_: CommandLine, number: int, state: str, told: str
) -> None:
    people(shop, number)
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    shop.fault("error", code=10, subcode=2018108, count=number)
    otn_("worker", "--once")
    change(shop, broadcast.update().values(state=state))
    assert told in otn_("broadcasts", "retry", "1").err


def test_everybody_is_exported_and_no_cell_is_a_formula(shop: Project, otn_: CommandLine) -> None:
    mine = sent(otn_, shop, 2)
    change(
        shop,
        delivery.update()
        .where(delivery.c.id == sa.select(sa.func.min(delivery.c.id)).scalar_subquery())
        .values(tapped_at=shop.now(), error='=HYPERLINK("http://evil.example")'),
    )
    exported = otn_("broadcasts", "export", "1", "--json").json()
    assert [each["psid"] for each in exported] == mine
    first = exported[0]
    assert (first["state"], first["route"], first["attempts"]) == ("sent", "token", 1)
    assert first["message_id"].startswith("m_")
    assert first["sent_at"]
    assert first["tapped_at"]
    assert exported[1]["tapped_at"] is None
    rows = list(csv.DictReader(io.StringIO(otn_("broadcasts", "export", "1", "--csv").out)))
    assert [row["psid"] for row in rows] == mine
    assert rows[0]["sentence"] == '\'=HYPERLINK("http://evil.example")'
    assert rows[1]["tapped_at"] == ""
    assert otn_("broadcasts", "export", "1").code == 2


def test_every_change_is_on_record(shop: Project, otn_: CommandLine) -> None:
    create(otn_)
    otn_("broadcasts", "schedule", "1", "--yes")
    otn_("broadcasts", "cancel", "1", "--yes")
    found = otn_("audit", "--subject", "broadcast 1", "--json").json()
    assert [each["action"] for each in found] == [
        "broadcast.cancel",
        "broadcast.schedule",
        "broadcast.create",
    ]
