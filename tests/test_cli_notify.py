"""`otn notify`, `otn audit` and the clock of a Page."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import CommandLine, forget_environment

from otn.app import READING, open_app
from otn.models import BroadcastState
from otn.store import broadcasts, pages


@pytest.fixture
def otn_(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A project with a Page, a topic and two responses."""
    forget_environment(monkeypatch)
    (tmp_path / "domain.yml").write_text(
        "responses: {utter_back: [{text: Back}], utter_two: [{text: One}, {text: Two}]}"
    )
    typed = CommandLine(tmp_path, capsys)
    typed("init")
    typed("topics", "add", "restock-*", "--title", "Back in stock")
    app = open_app(tmp_path, {}, need=READING)
    with app.store.begin() as tx:
        pages.ensure(tx, "101", app.clock(), "Shop")
    app.store.close()
    return typed


def words(*more: str, event: str = "e1") -> list[str]:
    return ["notify", "restock-blue", "--event-id", event, *(more or ("--text", "It is back."))]


def test_an_event_is_told_once_and_answers_the_same(otn_: CommandLine) -> None:
    first, again = otn_(*words()), otn_(*words())
    assert (first.code, first.out) == (again.code, again.out) == (0, "1\n")
    assert "`otn broadcasts watch 1`" in first.err
    assert otn_(*words("--text", "It is back.", "--json")).json() == {"id": 1, "state": "scheduled"}
    assert otn_(*words(event="e2")).out == "2\n"
    app = open_app(otn_.root, {}, need=READING)
    with app.store.read() as tx:
        assert [each.state for each in broadcasts.every(tx)] == [BroadcastState.SCHEDULED] * 2
    app.store.close()


def test_a_response_can_be_told_and_its_variation_is_said(otn_: CommandLine) -> None:
    assert otn_(*words("--response", "utter_back")).code == 0
    told = otn_(*words("--response", "utter_two", event="e2"))
    assert told.code == 0
    assert "2 variations" in told.err
    assert "variations" not in otn_(*words("--response", "utter_two", "--variation", "2", event="e3")).err


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--text", "Another."], 1, "topic or message is another"),
        (["--text", "Hi {first_name}"], 1, "write {first_name|there}"),
        (["--response", "utter_no"], 1, "no response 'utter_no'"),
        (["--text", "a", "--response", "utter_back"], 2, "--text or --response"),
    ],
)
def test_what_cannot_be_told_is_answered_in_words(
    otn_: CommandLine, more: list[str], code: int, says: str
) -> None:
    otn_(*words())
    answer = otn_(*words(*more))
    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err


def test_who_changed_what_is_read_from_the_audit(otn_: CommandLine) -> None:
    otn_(*words())
    newest, before, *_ = found = otn_("audit", "--json").json()
    assert (newest["action"], newest["subject"]) == ("broadcast.schedule", "broadcast 1")
    assert (before["action"], before["details"]) == ("broadcast.create", {"topic": "restock-blue"})
    assert found[-1]["action"] == "topic.add"
    assert newest["who"]
    assert len(otn_("audit", "--subject", "broadcast 1", "--json").json()) == 2
    shown = otn_("audit", "--limit", "1")
    assert "broadcast.schedule" in shown.out
    assert "There are more than these 1" in shown.err


def test_a_page_has_a_clock(otn_: CommandLine) -> None:
    assert otn_("page", "set", "101", "--time-zone", "Europe/Berlin").code == 0
    [page] = otn_("page", "list", "--json").json()
    assert page["time_zone"] == "Europe/Berlin"
    assert "Europe/Berlin" in otn_("page", "list").out
    assert otn_("audit", "--json").json()[0]["details"] == {"time_zone": "Europe/Berlin"}
    assert otn_("page", "set", "101", "--time-zone", "").code == 0
    assert otn_("page", "list", "--json").json()[0]["time_zone"] is None
    assert otn_("page", "set", "101", "--time-zone", "Mars/Olympus").code == 2
    assert otn_("page", "set", "102", "--time-zone", "UTC").code == 1
