"""`otn tokens`, `otn contacts` and `otn page`: what is known, and what an operator may decide."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

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
