"""Configuration is read from four places, checked as a whole, and never shows a secret."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from otn.env_file import write_env
from otn.errors import ConfigError
from otn.project import remembered_slots
from otn.settings import (
    ACTION_SERVER,
    CHANNEL,
    EVERYTHING,
    READING,
    SENDING,
    Need,
    Secret,
    is_loopback,
    load_settings,
    settings_from_channel,
    sqlite_file,
)

KEY = Fernet.generate_key().decode()
ENVIRON: Mapping[str, str] = {
    "MESSENGER_VERIFY_TOKEN": "verify-from-environment",
    "MESSENGER_APP_SECRET": "app-secret-from-environment",
    "MESSENGER_PAGE_ACCESS_TOKEN": "page-token-from-environment",
    "OTN_ENCRYPTION_KEYS": KEY,
    "OTN_HASH_KEY": "h" * 43,
    "OTN_NOTIFY_KEY": "n" * 43,
}


def credentials(root: Path, *lines: str) -> None:
    text = "".join(f"  {line}\n" for line in lines)
    (root / "credentials.yml").write_text(f"{CHANNEL}:\n{text}", encoding="utf-8")


def problems_of(root: Path, environ: Mapping[str, str], need: frozenset[Need] = EVERYTHING) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(root, environ, need=need)
    return list(caught.value.problems)


def test_defaults_are_facebook_and_sqlite_files_of_the_project(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, ENVIRON, need=EVERYTHING)
    assert settings.graph_url == "https://graph.facebook.com"
    assert settings.api_version == "v26.0"
    assert settings.database_url == f"sqlite:///{tmp_path}/.otn/otn.db"
    assert settings.queue_url == f"sqlite:///{tmp_path}/.otn/queue.db"
    assert settings.clock_file is None
    assert [page.page_id for page in settings.pages] == [None]


def test_a_yaml_value_wins_over_the_environment_and_that_over_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MESSENGER_VERIFY_TOKEN=v-env-file\nMESSENGER_API_VERSION=v24.0\n")
    credentials(tmp_path, "verify: v-yaml")
    settings = load_settings(tmp_path, ENVIRON, need=EVERYTHING)
    assert settings.verify_token.reveal() == "v-yaml"
    assert settings.app_secrets[0].reveal() == "app-secret-from-environment"
    assert settings.api_version == "v24.0"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MESSENGER_VERIFY_TOKEN=from-file\n")
    settings = load_settings(tmp_path, {**ENVIRON, "MESSENGER_VERIFY_TOKEN": " "}, need=EVERYTHING)
    assert settings.verify_token.reveal() == "from-file"


def test_every_problem_is_listed_at_once_with_the_key_and_what_to_do(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, {"MESSENGER_API_VERSION": "26", "OTN_DATABASE_URL": "mysql://host/db"})
    for key in set(ENVIRON) - {"OTN_NOTIFY_KEY"} | {"MESSENGER_API_VERSION", "OTN_DATABASE_URL"}:
        assert sum(key in problem for problem in problems) == 1, key
    assert all(":" in problem for problem in problems)


def test_a_process_is_given_only_what_it_needs_and_asked_for_nothing_else(tmp_path: Path) -> None:
    actions = load_settings(tmp_path, {}, need=ACTION_SERVER)
    assert actions.database_url
    everything_there = load_settings(tmp_path, ENVIRON, need=ACTION_SERVER)
    assert everything_there == actions
    assert problems_of(tmp_path, {}, READING) == [p for p in problems_of(tmp_path, {}) if "HASH_KEY" in p]
    sending = load_settings(tmp_path, ENVIRON, need=SENDING)
    assert sending.encryption_keys
    assert not sending.verify_token


def test_the_notify_key_is_optional(tmp_path: Path) -> None:
    environ = {key: value for key, value in ENVIRON.items() if key != "OTN_NOTIFY_KEY"}
    assert not load_settings(tmp_path, environ, need=EVERYTHING).notify_key


@pytest.mark.parametrize("line", ["mark-seen: true", 'mark-seen: "true"', "mark-seen: ${SEEN}"])
def test_read_marks_are_a_matter_of_taste(tmp_path: Path, line: str) -> None:
    assert not load_settings(tmp_path, {}, need=ACTION_SERVER).mark_seen
    assert load_settings(tmp_path, {"MESSENGER_MARK_SEEN": "true"}, need=ACTION_SERVER).mark_seen
    credentials(tmp_path, line)
    assert load_settings(tmp_path, {"SEEN": "true"}, need=ACTION_SERVER).mark_seen
    assert settings_from_channel({"mark-seen": True}, ENVIRON, tmp_path).mark_seen
    credentials(tmp_path, "mark-seen: false")
    assert not load_settings(tmp_path, {"MESSENGER_MARK_SEEN": "true"}, need=ACTION_SERVER).mark_seen


def test_a_truth_value_is_only_for_what_is_true_or_false(tmp_path: Path) -> None:
    credentials(tmp_path, "mark-seen: 1", "verify: true")
    mark, verify = problems_of(tmp_path, {**ENVIRON, "MESSENGER_MARK_SEEN": "true"})
    assert "verify must be a text" in verify + mark
    assert "mark-seen is neither true nor false" in verify + mark
    (problem,) = problems_of(tmp_path / "elsewhere", {**ENVIRON, "MESSENGER_MARK_SEEN": "yes"})
    assert "MESSENGER_MARK_SEEN in the environment is neither true nor false" in problem


@pytest.mark.parametrize("number", ["1", "12.5", "300"])
def test_how_many_messages_leave_a_page_in_a_second_can_be_lowered(tmp_path: Path, number: str) -> None:
    assert load_settings(tmp_path, {}, need=ACTION_SERVER).sends_per_second == 290
    environ = {"OTN_SENDS_PER_SECOND": number}
    assert load_settings(tmp_path, environ, need=ACTION_SERVER).sends_per_second == float(number)


@pytest.mark.parametrize("number", ["0", "0.5", "301", "-1", "nan", "inf", "1e2", "many", "\u0663"])
def test_no_more_messages_a_second_than_meta_allows(tmp_path: Path, number: str) -> None:
    (problem,) = problems_of(tmp_path, {"OTN_SENDS_PER_SECOND": number}, ACTION_SERVER)
    assert problem.startswith("OTN_SENDS_PER_SECOND in the environment")
    assert "1 to 300" in problem


def test_the_public_address_is_optional(tmp_path: Path) -> None:
    assert load_settings(tmp_path, ENVIRON, need=EVERYTHING).public_url is None
    environ = {**ENVIRON, "MESSENGER_PUBLIC_URL": "http://127.0.0.1:5005"}
    assert load_settings(tmp_path, environ, need=EVERYTHING).public_url == "http://127.0.0.1:5005"
    credentials(tmp_path, "public-url: https://bot.example/rasa/")
    assert load_settings(tmp_path, environ, need=EVERYTHING).public_url == "https://bot.example/rasa"


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("hush")
    assert "hush" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "hush"
    assert secret == Secret("hush") != Secret("other")
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_secret_that_was_not_loaded_cannot_be_used_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="name its Need"):
        load_settings(tmp_path, ENVIRON, need=READING).verify_token.reveal()


def test_no_secret_is_in_the_settings_text(tmp_path: Path) -> None:
    environ = {**ENVIRON, "OTN_DATABASE_URL": "postgresql://otn:db-password@127.0.0.1/otn"}
    text = repr(load_settings(tmp_path, environ, need=EVERYTHING))
    assert not [value for value in [*ENVIRON.values(), "db-password"] if value in text]


def test_no_secret_is_in_a_problem(tmp_path: Path) -> None:
    environ = {
        **ENVIRON,
        "OTN_ENCRYPTION_KEYS": "not-a-key",
        "OTN_HASH_KEY": "too-short",
        "OTN_DATABASE_URL": "mysql://otn:db-password@host/db",
    }
    credentials(tmp_path, "secret: {a: s3cret-in-yaml}", "verify: [unclosed")
    text = "\n".join(problems_of(tmp_path, environ))
    assert "credentials.yml cannot be read (line " in text
    for value in ("not-a-key", "too-short", "db-password", "s3cret", "unclosed"):
        assert value not in text


def test_several_app_secrets_from_the_environment_and_from_yaml(tmp_path: Path) -> None:
    environ = {**ENVIRON, "MESSENGER_APP_SECRET": "one, two"}
    assert [s.reveal() for s in load_settings(tmp_path, environ, need=EVERYTHING).app_secrets] == [
        "one",
        "two",
    ]
    credentials(tmp_path, "secret: [three, four]")
    assert [s.reveal() for s in load_settings(tmp_path, environ, need=EVERYTHING).app_secrets] == [
        "three",
        "four",
    ]


def test_pages_of_credentials_yml_replace_the_single_token(tmp_path: Path) -> None:
    credentials(tmp_path, "pages:", "  1234567: token-a", "  '7654321': token-b")
    pages = load_settings(tmp_path, ENVIRON, need=EVERYTHING).pages
    assert [(page.page_id, page.access_token.reveal()) for page in pages] == [
        ("1234567", "token-a"),
        ("7654321", "token-b"),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("page_access_token: x", "page_access_token is not a key"),
        ("verify: 12345", "put the value in quotes"),
        ("secret: [a, 0123]", "put the value in quotes"),
        ("pages: {}", "names no Page"),
        ("pages: {shop: token}", "only digits"),
        ("pages: {1: token}\n  page-access-token: x", "keep one"),
        ("pages: {1: token, 2: token another}", "credentials.yml: pages.2 is not one access token"),
        (
            'page-access-token: "token\\tanother"',
            "credentials.yml: page-access-token is not one access token",
        ),
        ("page-access-token: tokèn", "letters beyond ASCII"),
        ("graph-url: graph.facebook.com", "not an http(s) address"),
        ("graph-url: https://graph.facebook.com/v26.0", "contains a version"),
        ("graph-url: http://example.com", "in the clear"),
        ("graph-url: 'http://[::1'", "not an http(s) address"),
        ("public-url: http://bot.example", "not an https address"),
        ("public-url: bot.example", "not an https address"),
        ("public-url: ftp://127.0.0.1", "not an https address"),
        ("- a list", "key: value"),
    ],
)
def test_a_wrong_line_in_credentials_yml_is_the_only_problem(tmp_path: Path, line: str, says: str) -> None:
    credentials(tmp_path, line)
    (problem,) = problems_of(tmp_path, ENVIRON)
    assert says in problem


def test_an_access_token_with_blanks_stops_the_start_instead_of_every_call(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, {**ENVIRON, "MESSENGER_PAGE_ACCESS_TOKEN": "one another"})
    assert "MESSENGER_PAGE_ACCESS_TOKEN in the environment is not one access token" in problem
    assert "another" not in problem
    padded = {**ENVIRON, "MESSENGER_PAGE_ACCESS_TOKEN": " one\n"}
    assert load_settings(tmp_path, padded, need=EVERYTHING).pages[0].access_token.reveal() == "one"


def test_an_unquoted_variable_is_expanded_as_rasa_does(tmp_path: Path) -> None:
    credentials(tmp_path, "verify: ${MY_TOKEN}")
    assert (
        load_settings(tmp_path, {**ENVIRON, "MY_TOKEN": "x1"}, need=EVERYTHING).verify_token.reveal() == "x1"
    )


@pytest.mark.parametrize("line", ["verify: ${UNSET}", "verify: '${MY_TOKEN}'", "pages: {1: '${MY_TOKEN}'}"])
def test_what_stays_unexpanded_is_refused(tmp_path: Path, line: str) -> None:
    credentials(tmp_path, line)
    (problem,) = problems_of(tmp_path, {**ENVIRON, "MY_TOKEN": "x1"})
    assert "still holds ${…}" in problem


def test_the_databases_can_be_named_in_endpoints_yml(tmp_path: Path) -> None:
    (tmp_path / "endpoints.yml").write_text(
        "otn_store:\n  url: postgresql://otn@127.0.0.1/otn\notn_queue:\n  url: redis://127.0.0.1/1\n"
    )
    settings = load_settings(tmp_path, {**ENVIRON, "OTN_DATABASE_URL": "sqlite:///x.db"}, need=EVERYTHING)
    assert settings.database_url == "postgresql://otn@127.0.0.1/otn"
    assert settings.queue_url == "redis://127.0.0.1/1"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgres://h/d", "otn.db"])
def test_a_database_that_processes_cannot_share_or_that_is_not_one_is_refused(
    tmp_path: Path, url: str
) -> None:
    (problem,) = problems_of(tmp_path, {**ENVIRON, "OTN_DATABASE_URL": url})
    assert "OTN_DATABASE_URL" in problem


def test_a_relative_sqlite_path_is_meant_from_the_project(tmp_path: Path) -> None:
    environ = {"OTN_DATABASE_URL": "sqlite:///data/x.db?timeout=5"}
    url = load_settings(tmp_path, environ, need=ACTION_SERVER).database_url
    assert url == f"sqlite:///{tmp_path}/data/x.db?timeout=5"
    assert sqlite_file(url) == tmp_path / "data" / "x.db"
    assert sqlite_file("postgresql://127.0.0.1/x") is None


def test_time_is_simulated_only_beside_a_simulator(tmp_path: Path) -> None:
    simulated = {**ENVIRON, "OTN_CLOCK_FILE": ".otn/clock", "MESSENGER_GRAPH_URL": "http://127.0.0.1:5080/"}
    settings = load_settings(tmp_path, simulated, need=EVERYTHING)
    assert (settings.clock_file, settings.graph_url) == (tmp_path / ".otn" / "clock", "http://127.0.0.1:5080")
    (problem,) = problems_of(tmp_path, {**ENVIRON, "OTN_CLOCK_FILE": ".otn/clock"}, ACTION_SERVER)
    assert "OTN_CLOCK_FILE" in problem
    (problem,) = problems_of(tmp_path, {**simulated, "MESSENGER_GRAPH_URL": "ftp://127.0.0.1"}, ACTION_SERVER)
    assert "MESSENGER_GRAPH_URL" in problem


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(f"http://{host}:5080")


@pytest.mark.parametrize(
    "url", ["https://graph.facebook.com", "http://127.0.0.1.example.com", "http://[::1", "", "x"]
)
def test_other_hosts_are_not_loopback(url: str) -> None:
    assert not is_loopback(url)


def test_the_channel_reads_the_same_settings_from_what_rasa_read(tmp_path: Path) -> None:
    credentials(tmp_path, "verify: v-yaml", "pages: {12: token}")
    of_file = load_settings(tmp_path, ENVIRON, need=EVERYTHING)
    block = {"verify": "v-yaml", "pages": {12: "token"}}
    assert settings_from_channel(block, ENVIRON, tmp_path) == of_file
    (tmp_path / "credentials.yml").unlink()
    without = load_settings(tmp_path, ENVIRON, need=EVERYTHING)
    assert settings_from_channel(None, ENVIRON, tmp_path) == without
    with pytest.raises(ConfigError, match="put the value in quotes"):
        settings_from_channel({"verify": 5}, ENVIRON, tmp_path)


def test_files_that_cannot_be_read_are_problems_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    (tmp_path / "endpoints.yml").write_bytes(b"\xff")
    assert [p.split(" ")[0] for p in problems_of(tmp_path, ENVIRON)] == [".env", "endpoints.yml"]


# -- making .env


def test_a_fresh_env_file_configures_everything_for_the_simulator(tmp_path: Path) -> None:
    made = write_env(tmp_path, {}, database_exists=False)
    settings = load_settings(tmp_path, {}, need=EVERYTHING)
    assert settings.graph_url == "http://127.0.0.1:5080"
    assert settings.clock_file == tmp_path / ".otn" / "clock"
    assert settings.notify_key
    assert {*ENVIRON, "MESSENGER_GRAPH_URL", "OTN_CLOCK_FILE"} == set(made)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [".env"]


def test_making_it_again_makes_nothing_and_keeps_every_byte(tmp_path: Path) -> None:
    write_env(tmp_path, {}, database_exists=False)
    before = (tmp_path / ".env").read_bytes()
    (tmp_path / ".env").chmod(0o644)
    assert write_env(tmp_path, {}, database_exists=True) == []
    assert (tmp_path / ".env").read_bytes() == before
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_a_persons_own_lines_are_kept(tmp_path: Path) -> None:
    own = "# mine\nexport MESSENGER_VERIFY_TOKEN='my own'\nMESSENGER_GRAPH_URL=http://localhost:9"
    (tmp_path / ".env").write_text(own)
    made = write_env(tmp_path, {}, database_exists=False)
    assert (tmp_path / ".env").read_text().startswith(own + "\n")
    assert "MESSENGER_VERIFY_TOKEN" not in made
    settings = load_settings(tmp_path, {}, need=EVERYTHING)
    assert (settings.verify_token.reveal(), settings.graph_url) == ("my own", "http://localhost:9")


@pytest.mark.parametrize("place", ["environ", ".env", "credentials.yml"])
def test_a_project_with_a_real_page_is_not_pointed_at_the_simulator(tmp_path: Path, place: str) -> None:
    environ = {"MESSENGER_PAGE_ACCESS_TOKEN": "real"} if place == "environ" else {}
    if place == ".env":
        (tmp_path / ".env").write_text("MESSENGER_PAGE_ACCESS_TOKEN=real\n")
    elif place == "credentials.yml":
        credentials(tmp_path, "pages: {1: real}")
    made = write_env(tmp_path, environ, database_exists=False)
    assert made == ["MESSENGER_VERIFY_TOKEN", "OTN_ENCRYPTION_KEYS", "OTN_HASH_KEY", "OTN_NOTIFY_KEY"]
    (problem,) = problems_of(tmp_path, environ)
    assert "MESSENGER_APP_SECRET is missing" in problem


def test_new_keys_are_never_made_beside_an_old_database(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MESSENGER_VERIFY_TOKEN=mine\n")
    with pytest.raises(ConfigError) as caught:
        write_env(tmp_path, {}, database_exists=True)
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "OTN_ENCRYPTION_KEYS",
        "OTN_HASH_KEY",
    ]
    assert all("backup" in problem for problem in caught.value.problems)
    assert (tmp_path / ".env").read_text() == "MESSENGER_VERIFY_TOKEN=mine\n"


def test_keys_that_the_environment_gives_are_not_written_down(tmp_path: Path) -> None:
    assert write_env(tmp_path, {**ENVIRON}, database_exists=True) == []
    assert not (tmp_path / ".env").exists()


def test_settings_import_neither_rasa_nor_a_parser() -> None:
    code = (
        "import sys, otn.settings; print([m for m in ('rasa', 'ruamel.yaml', 'dotenv') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- what is remembered of people


@pytest.mark.parametrize(
    ("lines", "slots"),
    [
        ("", {}),
        ("otn_contact:", {}),
        ("otn_contact: {slots: }", {}),
        ("otn_contact: {slots: [size, city]}", {"size": "size", "city": "city"}),
        ("otn_contact: {slots: {size: shoe_size}}", {"size": "shoe_size"}),
    ],
)
def test_the_slots_to_remember_are_named_in_endpoints_yml(
    tmp_path: Path, lines: str, slots: dict[str, str]
) -> None:
    (tmp_path / "endpoints.yml").write_text(lines)
    assert remembered_slots(tmp_path) == slots


@pytest.mark.parametrize(
    "lines",
    [
        "otn_contact: [size]",
        "otn_contact: {slots: size}",
        "otn_contact: {slots: [7]}",
        "otn_contact: {slots: [two words]}",
        "otn_contact: {slots: {size: 1st}}",
        "otn_contact: {slots: {size: }}",
        "otn_contact: {slots: {name: first_name}}",
    ],
)
def test_what_could_not_be_an_attribute_is_a_problem(tmp_path: Path, lines: str) -> None:
    (tmp_path / "endpoints.yml").write_text(lines)
    with pytest.raises(ConfigError, match=r"endpoints\.yml: otn_contact"):
        remembered_slots(tmp_path)
