"""`otn check` finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cli import CommandLine, forget_environment
from cryptography.fernet import Fernet
from simulated import Project, project

from otn.graph.protocol import date_of
from otn.store import pages
from otn.store.health import Server, has_wal_reset_bug

SHIPPED = Path(__file__).parents[1]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    for name in ("config.yml", "domain.yml", "endpoints.yml", "credentials.yml"):
        shutil.copy(SHIPPED / name, tmp_path)
    shutil.copytree(SHIPPED / "data", tmp_path / "data")
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def otn_(shop: Project, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    """Types commands, and at the end looks through all that they printed."""
    found = CommandLine(shop.root, capsys)
    yield found
    for secret in shop.secrets():
        assert secret not in found.printed


def found(otn_: CommandLine, *more: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit code, and what was found, by name."""
    answer = otn_("check", "--json", *more)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for check in answer.json()["checks"]:
        by_name.setdefault(check["name"], []).append(check)
    assert answer.json()["ok"] is (answer.code == 0)
    return answer.code, by_name


def verdict(checks: dict[str, list[dict[str, Any]]], name: str) -> str:
    (check,) = checks[name]
    return str(check["verdict"])


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_shipped_project_is_well(shop: Project, otn_: CommandLine) -> None:
    code, checks = found(otn_)
    assert code == 0
    assert {check["verdict"] for same in checks.values() for check in same} == {"ok"}
    assert set(checks) == {
        "configuration", "policies", "domain", "tracker store", "database", "journal mode", "migrations",
        "keys", "topics", "clock", "host clock", "page token", "subscription",
    }  # fmt: skip
    shown = otn_("check")
    assert shown.code == 0
    assert all(line.startswith("✓") for line in shown.out.splitlines())


def test_offline_leaves_meta_out(shop: Project, otn_: CommandLine) -> None:
    change(shop.root / ".env", shop.url, "http://127.0.0.1:9")
    code, checks = found(otn_, "--offline")
    assert code == 0
    assert verdict(checks, "Graph") == "not_tested"


def test_graph_out_of_reach_fails(shop: Project, otn_: CommandLine) -> None:
    change(shop.root / ".env", shop.url, "http://127.0.0.1:9")
    code, checks = found(otn_)
    assert code == 1
    assert "cannot be reached" in checks["page token"][0]["found"]
    shown = otn_("check")
    assert "✗ page token" in shown.out
    assert "-> " in shown.out


def test_missing_configuration_ends_with_2_and_the_rest_is_tested_all_the_same(
    shop: Project, otn_: CommandLine
) -> None:
    env = shop.root / ".env"
    env.write_text("\n".join(line for line in env.read_text().splitlines() if "APP_SECRET" not in line))
    code, checks = found(otn_)
    assert code == 2
    assert "MESSENGER_APP_SECRET is missing" in checks["configuration"][0]["found"]
    assert verdict(checks, "migrations") == "ok"
    assert "page token" not in checks


def test_a_database_that_is_not_there_is_not_made(shop: Project, otn_: CommandLine) -> None:
    change(shop.root / ".env", "OTN_HASH_KEY", "OTN_DATABASE_URL=sqlite:///elsewhere.db\nOTN_HASH_KEY")
    code, checks = found(otn_)
    assert code == 1
    assert checks["database"][0]["todo"] == "otn init"
    assert not (shop.root / "elsewhere.db").exists()


def test_a_database_of_another_version_wants_init(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otn.store.migrate.newest", lambda: "9999")
    code, checks = found(otn_)
    assert code == 1
    assert "needs 9999" in checks["migrations"][0]["found"]


def test_a_server_that_does_not_answer_fails(shop: Project, otn_: CommandLine) -> None:
    url = "postgresql+psycopg2://nobody:a-password@127.0.0.1:9/none"
    change(shop.root / ".env", "OTN_HASH_KEY", f"OTN_DATABASE_URL={url}\nOTN_HASH_KEY")
    code, checks = found(otn_)
    assert code == 1
    assert verdict(checks, "database") == "failed"
    assert "a-password" not in otn_.printed


def test_keys_that_do_not_fit_the_database_are_a_matter_of_configuration(
    shop: Project, otn_: CommandLine
) -> None:
    env = shop.root / ".env"
    kept = [line for line in env.read_text().splitlines() if not line.startswith("OTN_ENCRYPTION_KEYS")]
    new = Fernet.generate_key().decode()
    env.write_text("\n".join([*kept, f"OTN_ENCRYPTION_KEYS={new}"]))
    code, checks = found(otn_)
    assert code == 2
    assert "lacks the key(s)" in checks["keys"][0]["found"]
    old = next(line for line in shop.secrets() if line.endswith("=") and line != new)
    env.write_text("\n".join([*kept, f"OTN_ENCRYPTION_KEYS={new},{old}"]))
    code, checks = found(otn_)
    assert (code, verdict(checks, "keys")) == (0, "warning")
    assert "otn tokens rotate" in checks["keys"][0]["todo"]


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("config.yml", "AugmentedMemoizationPolicy", "TEDPolicy", "has no AugmentedMemoizationPolicy"),
        (
            "config.yml",
            "  - name: RulePolicy",
            "  - name: MemoizationPolicy\n  - name: RulePolicy",
            "plain MemoizationPolicy",
        ),
        ("domain.yml", "  - action_forget_me", "  - action_remember_me", "action action_forget_me"),
        ("domain.yml", "  otn_topic:\n", "  other_topic:\n", "slot otn_topic"),
        ("domain.yml", "too_soon, unknown_topic", "unknown_topic", "value too_soon"),
        ("endpoints.yml", "tracker_store:", "another_store:", "forgotten when Rasa stops"),
    ],
)
def test_what_the_project_s_files_lack_fails(
    shop: Project, otn_: CommandLine, name: str, old: str, new: str, says: str
) -> None:
    change(shop.root / name, old, new)
    answer = otn_("check", "--offline")
    assert answer.code == 1
    assert says in answer.out


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (
            "endpoints.yml",
            "type: channels.tracker_store.QuickSQLTrackerStore",
            "type: mongod",
            "nobody can be erased",
        ),
        ("domain.yml", "  - otn_opted_in:", "  - opted_in:", "intent otn_opted_in"),
        ("domain.yml", "[restock, ", "[", "no story tells these kinds apart: restock-* (restock)"),
    ],
)
def test_what_the_project_could_do_better_is_a_warning(
    shop: Project, otn_: CommandLine, name: str, old: str, new: str, says: str
) -> None:
    change(shop.root / name, old, new)
    answer = otn_("check", "--offline")
    assert answer.code == 0
    assert says in answer.out


def test_a_domain_in_several_files_is_read_as_a_whole(shop: Project, otn_: CommandLine) -> None:
    text = (shop.root / "domain.yml").read_text()
    (shop.root / "domain").mkdir()
    head, tail = text.split("\nslots:")
    (shop.root / "domain" / "a.yml").write_text(head)
    (shop.root / "domain" / "b.yml").write_text("slots:" + tail)
    (shop.root / "domain.yml").unlink()
    assert verdict(found(otn_, "--offline")[1], "domain") == "ok"


def test_responses_may_stand_in_the_training_data_and_nowhere_is_a_warning(
    shop: Project, otn_: CommandLine
) -> None:
    assert verdict(found(otn_, "--offline")[1], "domain") == "ok"
    change(shop.root / "data" / "otn.yml", "  utter_otn_request:", "  utter_request:")
    (check,) = found(otn_, "--offline")[1]["domain"]
    assert (check["verdict"], check["found"]) == ("warning", "it lacks response utter_otn_request")


def test_a_file_that_cannot_be_read_is_named_with_its_line_and_without_its_text(
    shop: Project, otn_: CommandLine
) -> None:
    (shop.root / "config.yml").write_text("policies:\n  - name: [secret\n")
    code, checks = found(otn_, "--offline")
    assert code == 2
    assert "config.yml cannot be read (line" in checks["policies"][0]["found"]
    assert "secret" not in checks["policies"][0]["found"]


def test_a_domain_that_cannot_be_read_is_said_once(shop: Project, otn_: CommandLine) -> None:
    (shop.root / "domain.yml").write_text("slots: [")
    code, checks = found(otn_, "--offline")
    assert (code, verdict(checks, "domain")) == (2, "configuration")


def test_a_damaged_database_fails(shop: Project, otn_: CommandLine) -> None:
    change(shop.root / ".env", "OTN_HASH_KEY", "OTN_DATABASE_URL=sqlite:///damaged.db\nOTN_HASH_KEY")
    (shop.root / "damaged.db").write_bytes(b"no database at all " * 500)
    code, checks = found(otn_, "--offline")
    assert code == 1
    assert "damaged" in checks["database"][0]["found"]
    assert otn_("topics", "list").code == 1


def test_a_subscription_that_meta_has_taken_away_fails(shop: Project, otn_: CommandLine) -> None:
    shop.world.unsubscribe(shop.page_id)
    code, checks = found(otn_)
    assert code == 1
    assert "messaging_optins" in checks["subscription"][0]["found"]
    shop.world.pages[shop.page_id].fields = frozenset({"messages", "messaging_postbacks", "messaging_optins"})
    code, checks = found(otn_)
    assert (code, verdict(checks, "subscription")) == (0, "warning")
    assert "message_echoes" in checks["subscription"][0]["found"]


def test_a_bad_access_token_is_told_without_the_token(shop: Project, otn_: CommandLine) -> None:
    shop.control("/faults", {"kind": "access_token", "match": {"call": "any"}})
    code, checks = found(otn_)
    assert code == 1
    assert "190" in checks["page token"][0]["found"]


def test_a_token_of_another_page_is_a_matter_of_configuration(shop: Project, otn_: CommandLine) -> None:
    env = shop.root / ".env"
    env.write_text("\n".join(line for line in env.read_text().splitlines() if "ACCESS_TOKEN" not in line))
    (shop.root / "credentials.yml").write_text(
        'channels.messenger.MessengerInput:\n  pages:\n    2002: "page-access-token"\n'
    )
    code, checks = found(otn_)
    assert code == 2
    assert f"belongs to {shop.page_id}" in checks["page token"][0]["found"]


def test_a_paused_page_fails_and_a_short_pause_warns(shop: Project, otn_: CommandLine) -> None:
    shop.person()
    with shop.opened() as app, app.store.begin() as tx:
        pages.pause(tx, shop.page_id, "Meta limits our calls", app.clock() + timedelta(minutes=1))
        pages.deny_otn(tx, shop.page_id, "Meta refused (permission_missing, error 10)")
    code, checks = found(otn_, "--offline")
    assert (code, [check["verdict"] for check in checks["page"]]) == (0, ["warning", "warning"])
    with shop.opened() as app, app.store.begin() as tx:
        pages.pause(tx, shop.page_id, "the access token is not valid any more", None)
    code, checks = found(otn_, "--offline")
    assert (code, checks["page"][0]["verdict"]) == (1, "failed")
    assert f"otn page resume {shop.page_id}" in checks["page"][0]["todo"]
    with shop.opened() as app, app.store.begin() as tx:
        pages.block(tx, shop.page_id, "Meta blocked the page: spam")
    code, checks = found(otn_, "--offline")
    assert (code, checks["page"][0]["verdict"]) == (1, "failed")
    assert "ends by itself" in checks["page"][0]["todo"]
    assert "not valid any more" in checks["page"][1]["found"]


@pytest.mark.parametrize(("seconds", "code", "word"), [(3, 0, "ok"), (30, 0, "warning"), (300, 1, "failed")])
def test_this_machine_s_clock_is_held_against_meta_s(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch, seconds: int, code: int, word: str
) -> None:
    shifted = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    monkeypatch.setattr("otn.checkup.system_now", lambda: shifted)
    ended, checks = found(otn_)
    assert (ended, verdict(checks, "host clock")) == (code, word)


def test_secrets_that_others_can_read_are_a_warning(shop: Project, otn_: CommandLine) -> None:
    (shop.root / ".env").chmod(0o644)
    _, checks = found(otn_, "--offline")
    assert checks[".env"][0]["todo"].startswith("chmod 600")


def test_checking_changes_nothing(shop: Project, otn_: CommandLine) -> None:
    before = {path: path.read_bytes() for path in shop.root.glob("*") if path.is_file()}
    otn_("check")
    assert before == {path: path.read_bytes() for path in shop.root.glob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.45.0", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.53.4", False),
    ],
)
def test_versions_of_sqlite_with_the_wal_reset_bug(version: str, has_it: bool) -> None:
    assert has_wal_reset_bug(version) is has_it
    assert Server(name="SQLite", version=version, journal_mode="wal").may_corrupt_its_log is has_it
    assert not Server(name="PostgreSQL", version=version).may_corrupt_its_log


def test_an_old_sqlite_is_a_warning(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Server(name="SQLite (sqlite3)", version="3.40.1", journal_mode="delete")
    monkeypatch.setattr("otn.store.health.server", lambda _store: old)
    code, checks = found(otn_, "--offline")
    assert (code, verdict(checks, "database"), verdict(checks, "journal mode")) == (0, "warning", "warning")
    assert "pysqlite3" in checks["database"][0]["todo"]


@pytest.mark.parametrize(
    ("headers", "date"),
    [
        ({"date": "Sun, 22 Nov 2026 10:00:00 GMT"}, datetime(2026, 11, 22, 10, tzinfo=timezone.utc)),
        ({"Date": "yesterday"}, None),
        ({"Date": "Sun, 22 Nov 2026 10:00:00"}, None),
        ({}, None),
    ],
)
def test_the_date_of_an_answer(headers: dict[str, str], date: datetime | None) -> None:
    assert date_of(headers) == date
