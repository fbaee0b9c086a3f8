"""`otn tokens`, `otn contacts` and `otn page`: what is known, and what an operator may decide."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cli import CommandLine, forget_environment
from simulated import TOPIC, Project, project

from otn.cli.session import user
from otn.models import TokenState
from otn.store import contacts, pages, tokens
from otn.store.schema import audit, otn_token

DAY_AND_HOUR = timedelta(hours=25)


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


def send(otn_: CommandLine, psid: str = "7007") -> int:
    return otn_("send", psid, "--topic", TOPIC, "--text", "It is back.").code


def states(otn_: CommandLine, *more: str) -> list[str]:
    return [token["state"] for token in otn_("tokens", "list", "--json", *more).json()]


def audited(shop: Project, action: str) -> int:
    with shop.opened() as app, app.store.read() as tx:
        query = sa.select(sa.func.count()).where(audit.c.action == action, audit.c.who == user())
        return int(tx.execute(query).scalar_one())


def suspect(shop: Project, token_id: int = 1) -> None:
    """What Meta leaves behind that refuses a token send without a clear reason."""
    with shop.opened() as app, app.store.begin() as tx:
        tokens.move(tx, token_id, TokenState.AVAILABLE, TokenState.SUSPECT, "Meta leaves it in doubt")


# --- tokens


def test_tokens_are_listed_by_person_topic_and_state(shop: Project, otn_: CommandLine) -> None:
    shop.person("7007", permissions=2)
    shop.person("7008", permissions=1, topic="restock-red")
    shop.pass_time(DAY_AND_HOUR)
    assert send(otn_) == 0
    assert states(otn_) == ["used", "available", "available"]
    assert states(otn_, "--psid", "7008") == ["available"]
    assert states(otn_, "--topic", TOPIC) == ["used", "available"]
    assert states(otn_, "--topic", TOPIC, "--state", "used") == ["used"]
    assert states(otn_, "--limit", "1") == ["used"]
    assert states(otn_, "--topic", "nonsense") == []
    shop.pass_time(timedelta(days=365))
    assert states(otn_, "--state", "expired") == ["expired", "expired"]


def test_a_token_as_json_tells_everything_but_its_secret(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    (token,) = otn_("tokens", "list", "--json").json()
    assert set(token) == {
        "id", "page_id", "psid", "topic", "state", "opted_in_at", "expires_at", "permission_request_id",
        "payload", "used_at", "state_reason",
    }  # fmt: skip
    assert token["payload"] == f"otn:{TOPIC}"


def test_a_table_says_when_there_is_more(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=3)
    shown = otn_("tokens", "list", "--limit", "2")
    assert len(shown.out.splitlines()) == 3
    assert "more than these 2" in shown.err
    assert "TokenState" not in shown.out
    assert otn_("tokens", "list", "--psid", "1").err == "There are no such permissions.\n"


def test_lists_longer_than_one_look_are_complete(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otn.cli.tokens.BATCH", 2)
    monkeypatch.setattr("otn.cli.contacts.BATCH", 1)
    shop.person("7007", permissions=5)
    shop.person("7008")
    assert [token["id"] for token in otn_("tokens", "list", "--json").json()] == [1, 2, 3, 4, 5]
    assert [contact["psid"] for contact in otn_("contacts", "list", "--json").json()] == ["7007", "7008"]


def test_a_permission_without_a_topic_is_given_one_once(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    with shop.opened() as app, app.store.begin() as tx:
        tx.execute(otn_token.update().values(topic_id=None, payload="not ours"))
    assert otn_("tokens", "assign", "1", "nonsense").code == 1
    assert otn_("tokens", "assign", "99", TOPIC).code == 1
    assert otn_("tokens", "assign", "1", "restock-green").code == 0
    assert states(otn_, "--topic", "restock-green") == ["available"]
    again = otn_("tokens", "assign", "1", TOPIC)
    assert again.code == 1
    assert "'restock-green'" in again.err
    assert audited(shop, "token.assign") == 1


def test_a_suspect_permission_is_released_by_an_operator(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    suspect(shop)
    assert send(otn_) == 1
    answer = otn_("tokens", "release", "1", "--yes")
    assert answer.code == 0
    assert "Warning" in answer.err
    assert send(otn_) == 0
    assert audited(shop, "token.release") == 1


def test_a_suspect_permission_is_given_up_with_its_secret(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    suspect(shop)
    assert otn_("tokens", "void", "1", "--yes").code == 0
    assert states(otn_) == ["invalid"]
    with shop.opened() as app, app.store.read() as tx:
        assert tokens.sealed(tx, 1)[0] is None
    assert audited(shop, "token.void") == 1


@pytest.mark.parametrize("decision", ["release", "void"])
def test_only_a_suspect_permission_wants_a_decision(shop: Project, otn_: CommandLine, decision: str) -> None:
    shop.person(permissions=1)
    answer = otn_("tokens", decision, "1", "--yes")
    assert answer.code == 1
    assert "is available" in answer.err
    assert otn_("tokens", decision, "99", "--yes").code == 1


def test_without_a_yes_nothing_changes(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.person(permissions=1)
    suspect(shop)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    for command in (["tokens", "void", "1"], ["tokens", "release", "1"], ["contacts", "erase", "7007"]):
        answer = otn_(*command)
        assert answer.code == 1
        assert "Nothing was changed" in answer.err
    assert states(otn_) == ["suspect"]
    assert otn_("contacts", "list", "--json").json()[0]["erase_requested_at"] is None


# --- contacts


def test_a_person_is_shown_with_window_permissions_deliveries_and_what_may_be_sent(
    shop: Project, otn_: CommandLine
) -> None:
    shop.person(permissions=2)
    shop.agree("7007", "restock-red")
    first = otn_("contacts", "show", "7007", "--json").json()
    assert first["window_open"] is True
    assert first["window"].startswith("open until 20")
    assert {each["topic"]: each["route"] for each in first["sends"]} == {
        TOPIC: "window",
        "restock-red": "window",
        None: "window",
    }
    shop.pass_time(DAY_AND_HOUR)
    assert send(otn_) == 0
    assert send(otn_) == 0
    assert send(otn_) == 1
    shown = otn_("contacts", "show", "7007", "--json").json()
    assert shown["window"].startswith("closed since")
    assert [token["state"] for token in shown["tokens"]] == ["used", "used", "available"]
    assert [each["state"] for each in shown["deliveries"]] == ["skipped", "sent", "sent"]
    assert {each["topic"]: (each["allowed"], each["reason"]) for each in shown["sends"]} == {
        TOPIC: (False, "token_used"),
        "restock-red": (True, None),
        None: (False, "no_token"),
    }
    words = otn_("contacts", "show", "7007")
    assert words.code == 0
    for part in (
        "closed since",
        "about any other topic: no",
        "about restock-red: yes",
        "one permission, one message",
    ):
        assert part in words.out


def test_nobody_is_shown_who_never_wrote(shop: Project, otn_: CommandLine) -> None:
    for command in (["show", "1"], ["erase", "1", "--yes"]):
        answer = otn_("contacts", *command)
        assert answer.code == 1
        assert "otn contacts list" in answer.err
    assert otn_("contacts", "list").err == "Nobody has written yet.\n"


def test_a_psid_on_two_pages_wants_a_page(shop: Project, otn_: CommandLine) -> None:
    shop.person()
    with shop.opened() as app, app.store.begin() as tx:
        pages.ensure(tx, "2002", app.clock())
        contacts.ensure(tx, "2002", "7007", app.clock())
    answer = otn_("contacts", "show", "7007")
    assert answer.code == 1
    assert "--page" in answer.err
    assert otn_("contacts", "show", "7007", "--page", "2002").code == 0
    assert [each["psid"] for each in otn_("contacts", "list", "--page", "2002", "--json").json()] == ["7007"]


def test_an_erasure_is_marked_and_bars_every_send(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    answer = otn_("contacts", "erase", "7007", "--yes")
    assert answer.code == 0
    assert "`rasa run` carries it out" in answer.err
    refused = otn_("send", "7007", "--topic", TOPIC, "--text", "It is back.", "--json")
    assert (refused.code, refused.json()["reason"]) == (1, "erased")
    assert "is being forgotten" in otn_("contacts", "list").out
    assert audited(shop, "contact.erase") == 1
    assert shop.heard() == []


# --- what is known of people


def test_tags_and_attributes_are_set_shown_and_taken_away(shop: Project, otn_: CommandLine) -> None:
    shop.person("7007")
    shop.person("7008")
    assert otn_("contacts", "tag", "7007", "vip", "new").code == 0
    assert otn_("contacts", "set", "7007", "shoe_size=42", "colour=red=ish", "locale=de_DE").code == 0
    assert otn_("contacts", "tag", "7007", "new", "--remove").code == 0
    shown = otn_("contacts", "show", "7007")
    assert "Tags        vip\n" in shown.out
    assert "Attribute   colour = red=ish\n" in shown.out
    assert otn_("contacts", "set", "7007", "colour=").code == 0
    found = {each["psid"]: each for each in otn_("contacts", "list", "--json").json()}
    assert (found["7007"]["tags"], found["7007"]["attributes"]) == (["vip"], {"shoe_size": "42"})
    assert (found["7007"]["locale"], found["7008"]["tags"]) == ("de_DE", [])
    assert " vip " in otn_("contacts", "list").out
    assert audited(shop, "contact.change") == 4


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["tag", "7007", "a,b"], "can't be a tag"),
        (["set", "7007", "shoe size=42"], "can't be an attribute"),
        (["set", "7007", "timezone=Mars"], "no time zone"),
        (["set", "7007", "shoe_size"], "NAME=VALUE"),
        (["set", "7007", "=42"], "NAME=VALUE"),
        (["tag", "1", "vip"], "otn contacts list"),
    ],
)
def test_a_wish_that_makes_no_sense_changes_nothing(
    shop: Project, otn_: CommandLine, command: list[str], says: str
) -> None:
    shop.person("7007")
    answer = otn_("contacts", *command)
    assert answer.code
    assert says in answer.err
    assert audited(shop, "contact.change") == 0


def test_people_are_imported_from_a_file(
    shop: Project, otn_: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.person("7007")
    file = tmp_path / "people.csv"
    file.write_text("psid,tags,shoe_size\n7007,vip,42\n1234,vip,43\n")
    dry = otn_("contacts", "import", str(file), "--dry-run")
    assert (dry.code, dry.out.splitlines()[1:]) == (1, ["3     Nobody with the psid 1234 has written to us."])
    assert "2 rows: 1 would change somebody, 1 have a problem" in dry.err
    assert otn_("contacts", "list", "--json").json()[0]["tags"] == []
    monkeypatch.setattr("otn.cli.people.SHOWN_PROBLEMS", 0)
    assert "--json shows all" in otn_("contacts", "import", str(file)).err
    found = otn_("contacts", "import", str(file), "--json").json()
    assert (found["rows"], found["changed"], [each["line"] for each in found["problems"]]) == (2, 1, [3])
    assert otn_("contacts", "list", "--json").json()[0]["attributes"] == {"shoe_size": "42"}
    file.write_text("psid,tags\n7007,vip\n")
    assert otn_("contacts", "import", str(file)).code == 0
    file.write_text("name,tags\n7007,vip\n")
    assert "no column psid" in otn_("contacts", "import", str(file)).err


def test_everything_that_is_kept_on_a_person_is_handed_out(shop: Project, otn_: CommandLine) -> None:
    shop.person("7007", permissions=2)
    otn_("contacts", "tag", "7007", "vip")
    shop.pass_time(DAY_AND_HOUR)
    assert send(otn_) == 0
    found = otn_("contacts", "export", "7007").json()
    assert found["person"]["psid"] == "7007"
    assert found["tags"] == ["vip"]
    assert [each["state"] for each in found["permissions"]] == ["used", "available"]
    assert [each["message"] for each in found["deliveries"]] == [{"text": "It is back."}]
    assert found["events"][0]["event"]["message"]["text"] == "hello"
    assert otn_("contacts", "export", "1").code == 1


def test_a_forecast_tells_what_lapses_when(shop: Project, otn_: CommandLine) -> None:
    shop.person("7007", permissions=2)
    shop.agree("7007", "restock-red")
    shop.pass_time(timedelta(days=365 - 20))
    shop.control("/people/7007/message", {"text": "hello again"})
    shop.agree("7007", "restock-red")
    (blue, red) = otn_("topics", "forecast", "--json").json()
    assert blue == {
        "topic": TOPIC,
        "available": 2,
        "within_7_days": 0,
        "within_30_days": 2,
        "within_90_days": 2,
    }
    assert (red["topic"], red["available"], red["within_90_days"]) == ("restock-red", 2, 1)
    assert otn_("topics", "forecast", TOPIC).out.splitlines()[1].split() == [TOPIC, "2", "0", "2", "2"]
    assert len(otn_("topics", "forecast", "restock-*", "--json").json()) == 2
    assert "Nobody has agreed" in otn_("topics", "forecast", "restock-green").err
    assert otn_("topics", "forecast", "nonsense").code == 1


# --- page


def test_a_page_is_paused_and_resumed_on_record(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    assert otn_("page", "list", "--json").json()[0]["state"] == "sends"
    assert otn_("page", "pause", shop.page_id, "--reason", "Wrong price").code == 0
    refused = otn_("send", "7007", "--topic", TOPIC, "--text", "It is back.", "--json").json()
    assert (refused["reason"], "Wrong price" in refused["sentence"]) == ("page_paused", True)
    assert "Wrong price" in otn_("page", "list").out
    assert "paused already" in otn_("page", "pause", shop.page_id, "--reason", "Another").err
    answer = otn_("page", "resume", shop.page_id)
    assert answer.code == 0
    assert "Meta accepts the access token" in answer.err
    assert send(otn_) == 0
    assert (audited(shop, "page.pause"), audited(shop, "page.resume")) == (1, 1)


def test_a_pause_may_end_by_itself(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    never = otn_("page", "pause", shop.page_id, "--reason", "Night", "--for", "0s")
    assert (never.code, "not for 0 seconds" in never.err) == (2, True)
    assert otn_("page", "pause", shop.page_id, "--reason", "Night", "--for", "8h").code == 0
    assert send(otn_) == 1
    shop.pass_time(timedelta(hours=8))
    assert send(otn_) == 0


def test_a_page_whose_token_does_not_work_stays_paused(shop: Project, otn_: CommandLine) -> None:
    shop.person()
    otn_("page", "pause", shop.page_id, "--reason", "Token expired")
    shop.control("/faults", {"kind": "access_token", "match": {"call": "any"}})
    answer = otn_("page", "resume", shop.page_id)
    assert answer.code == 1
    assert "stays paused" in answer.err
    assert "190" in answer.err
    assert otn_("page", "list", "--json").json()[0]["state"] == "paused"
    assert otn_("page", "resume", shop.page_id, "--force").code == 0
    assert otn_("page", "list", "--json").json()[0]["state"] == "sends"


def test_a_page_that_meta_blocked_is_resumed_by_meta_or_by_force(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    with shop.opened() as app, app.store.begin() as tx:
        pages.block(tx, shop.page_id, "Meta blocked the page: spam")
    assert otn_("page", "pause", shop.page_id, "--reason", "Wrong price").code == 0
    assert "Meta blocked the page: spam" in otn_("page", "list").out
    status = otn_("page", "status", shop.page_id, "--json").json()[0]
    assert status["paused"] == {"reason": "Meta blocked the page: spam", "until": None, "who": "meta"}
    assert [each["found"] for each in status["attention"]] == [
        "paused until Meta unblocks it: Meta blocked the page: spam",
        "paused until it is resumed: Wrong price",
    ]
    refused = otn_("send", "7007", "--topic", TOPIC, "--text", "It is back.", "--json").json()
    assert "until Meta unblocks it" in refused["sentence"]
    answer = otn_("page", "resume", shop.page_id)
    assert (answer.code, "--force" in answer.err) == (1, True)
    (status,) = otn_("page", "status", shop.page_id, "--json").json()
    assert [each["found"] for each in status["attention"]] == [
        "paused until Meta unblocks it: Meta blocked the page: spam"
    ]
    assert send(otn_) == 1
    assert otn_("page", "resume", shop.page_id, "--force").code == 0
    assert send(otn_) == 0


def test_a_block_that_comes_while_a_page_is_resumed_stays(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def block(app: Any, page: str) -> None:
        with app.store.begin() as tx:
            pages.block(tx, page, "Meta blocked the page: spam")

    shop.person(permissions=1)
    otn_("page", "pause", shop.page_id, "--reason", "Wrong price")
    monkeypatch.setattr("otn.cli.page._probe", block)
    answer = otn_("page", "resume", shop.page_id)
    assert (answer.code, "--force" in answer.err) == (1, True)
    assert send(otn_) == 1


def test_the_token_of_another_page_resumes_nothing(shop: Project, otn_: CommandLine) -> None:
    with shop.opened() as app, app.store.begin() as tx:
        pages.ensure(tx, "2002", app.clock())
    otn_("page", "pause", "2002", "--reason", "Test")
    answer = otn_("page", "resume", "2002")
    assert answer.code == 1
    assert f"belongs to page {shop.page_id}" in answer.err


def test_an_unknown_page_is_neither_paused_nor_resumed(shop: Project, otn_: CommandLine) -> None:
    assert otn_("page", "pause", "1", "--reason", "Test").code == 1
    assert otn_("page", "resume", "1").code == 1
    assert "No Page is known yet" in otn_("page", "list").err
