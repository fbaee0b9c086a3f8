"""The command line as a whole, `otn init` and `otn topics`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli import CommandLine, forget_environment
from conftest import Databases
from cryptography.fernet import Fernet
from simulated import environment

import otn.cli
from otn.errors import StoreUnavailable

PROJECT = Path(__file__).parents[1]
DOMAIN = """
slots:
  otn_kind:
    type: categorical
    values: [restock, news]
"""
TOPICS = """
otn_topics:
  - {name: restock-*, title: Back in stock, kind: restock}
  - {name: news, title: News, kind: news, ask_while_available: true, min_interval_hours: 1.5, weekly_cap: 2}
"""


@pytest.fixture
def otn_(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A folder with a domain and two topics, and nothing else."""
    forget_environment(monkeypatch)
    (tmp_path / "domain.yml").write_text(DOMAIN)
    (tmp_path / "endpoints.yml").write_text(TOPICS)
    return CommandLine(tmp_path, capsys)


def started(*arguments: str, root: Path, **more: object) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own."""
    command = [sys.executable, "-m", "otn.cli", "--root", str(root), *arguments]
    environ = {**environment(), "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environ, check=False, **more
    )


# --- the whole


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from otn.cli import main; main(['--help']); main(['send', '--help']); "
        "found = {'sqlalchemy', 'rasa', 'requests', 'alembic', 'rich', 'structlog'} & set(sys.modules); "
        "sys.exit(f'imported {found}' if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=False
    )
    assert done.returncode == 0, done.stderr


def commands() -> list[list[str]]:
    import typer

    root = typer.main.get_command(otn.cli.app)
    found = []
    for name, command in root.commands.items():
        below = getattr(command, "commands", None)
        found += [[name, each] for each in below] if below else [[name]]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(otn_: CommandLine, command: list[str]) -> None:
    shown = otn_(*command, "--help")
    assert shown.code == 0
    assert "Example" in shown.out
    assert f"otn {' '.join(command)}" in shown.out.split("Example")[1]


def test_version_is_told(otn_: CommandLine) -> None:
    answer = otn_("--version")
    assert (answer.code, answer.out.split()[0]) == (0, "otn")


def test_a_mistyped_command_ends_with_2_and_no_traceback(otn_: CommandLine) -> None:
    for arguments in (["nonsense"], ["topics", "add"], ["send", "7007"], ["topics", "list", "--nonsense"]):
        answer = otn_(*arguments)
        assert answer.code == 2
        assert "Traceback" not in answer.err


def test_missing_configuration_is_listed_as_a_whole_and_ends_with_2(otn_: CommandLine) -> None:
    answer = otn_("send", "7007", "--topic", "news", "--text", "hello")
    assert (answer.code, answer.out) == (2, "")
    for key in (
        "OTN_HASH_KEY",
        "OTN_ENCRYPTION_KEYS",
        "MESSENGER_PAGE_ACCESS_TOKEN",
        "MESSENGER_APP_SECRET",
    ):
        assert f"- {key} is missing" in answer.err


def test_a_database_out_of_reach_ends_with_1_and_a_sentence(
    otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    otn_("init")

    def gone(*_: object, **__: object) -> None:
        raise StoreUnavailable("the database does not answer: it is locked")

    monkeypatch.setattr("otn.store.topics.every", gone)
    answer = otn_("topics", "list")
    assert answer.code == 1
    assert "does not answer" in answer.err
    assert "What was not finished can be done again" in answer.err


def test_a_bug_is_admitted_without_its_text(otn_: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    otn_("init")

    def broken(*_: object, **__: object) -> None:
        raise KeyError("a secret that slipped into an error")

    monkeypatch.setattr("otn.store.topics.every", broken)
    answer = otn_("topics", "list")
    assert answer.code == 1
    assert "KeyError" in answer.err
    assert "secret" not in answer.err
    monkeypatch.setenv("OTN_DEBUG", "1")
    with pytest.raises(KeyError):
        otn_("topics", "list")


def test_a_reader_who_leaves_early_is_no_disaster(otn_: CommandLine) -> None:
    otn_("init")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "otn.cli", "--root", str(otn_.root), "topics", "list", "--json"]
    environ = {**environment(), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environ, check=False
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command",
    [
        ["broadcasts", "show", "9" * 20],
        ["broadcasts", "report", "1", "--limit", "9" * 20],
        ["tokens", "void", "9" * 20],
        ["contacts", "list", "--limit", "9" * 19],
    ],
)
def test_a_number_that_no_database_counts_to_is_mistyped(otn_: CommandLine, command: list[str]) -> None:
    otn_("init")
    answer = otn_(*command)
    assert answer.code == 2
    assert "is not in the range" in answer.err


def test_half_a_character_is_mistyped(otn_: CommandLine) -> None:
    """What a terminal sends that is not UTF-8 reaches Python so."""
    answer = otn_("send", "7\udcff", "--topic", "sale", "--text", "hello")
    assert answer.code == 2
    assert answer.err == "Not UTF-8: '7\\udcff'.\n"


def test_control_c_ends_with_a_sentence(otn_: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    otn_("init")

    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("otn.store.topics.every", interrupted)
    answer = otn_("topics", "list")
    assert answer.code == 130
    assert "Interrupted" in answer.err
    assert "Traceback" not in answer.err


def test_what_people_wrote_does_not_steer_the_terminal(otn_: CommandLine) -> None:
    otn_("init")
    otn_("topics", "add", "x", "--title", "Title", "--note", "\x1b[2Jgone")
    otn_("topics", "edit", "x", "--title", "Rings \U0001f469\u200d\U0001f467 \u202eback")
    shown = otn_("topics", "list").out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\U0001f469\u200d\U0001f467" in shown


# --- otn init


def test_init_makes_everything_and_a_second_one_changes_nothing(otn_: CommandLine) -> None:
    first = otn_("init")
    assert (first.code, first.out) == (0, "")
    before = (otn_.root / ".env").read_text()
    assert "OTN_HASH_KEY=" in before
    assert (otn_.root / ".env").stat().st_mode & 0o777 == 0o600
    assert [topic["name"] for topic in otn_("topics", "list", "--json").json()] == ["news", "restock-*"]
    second = otn_("init")
    assert second.code == 0
    assert [line.split(":")[0] for line in second.err.splitlines()] == ["configuration", "database", "topics"]
    assert "unchanged" in second.err
    assert (otn_.root / ".env").read_text() == before


def test_init_tells_each_thing_in_a_line_and_no_key(otn_: CommandLine) -> None:
    shown = otn_("init").err
    assert "OTN_ENCRYPTION_KEYS" in shown
    for line in (otn_.root / ".env").read_text().splitlines():
        value = line.partition("=")[2]
        if len(value) > 20 and not value.startswith("http"):
            assert value not in shown


def test_init_takes_a_topic_s_limits_from_endpoints_yml(otn_: CommandLine) -> None:
    otn_("init")
    news = otn_("topics", "list", "--json").json()[0]
    assert news["ask_while_available"] is True
    assert news["min_interval_seconds"] == 5400
    assert news["weekly_cap"] == 2


def test_init_keeps_what_was_edited(otn_: CommandLine) -> None:
    otn_("init")
    otn_("topics", "edit", "news", "--title", "Better news")
    otn_("topics", "archive", "restock-*")
    assert otn_("init").code == 0
    shown = {topic["name"]: topic for topic in otn_("topics", "list", "--archived", "--json").json()}
    assert shown["news"]["title"] == "Better news"
    assert shown["restock-*"]["archived_at"] is not None


def test_init_lists_every_wrong_topic_of_endpoints_yml(otn_: CommandLine) -> None:
    (otn_.root / "endpoints.yml").write_text(
        "otn_topics:\n"
        f"  - {{name: Bad Name, title: {'x' * 66}}}\n"
        "  - {name: fine, title: Fine, kind: nonsense, colour: red}\n"
        "  - {name: fine, title: Fine, kind: nonsense}\n"
        "  - just text\n"
        "  - {name: often, title: Often, weekly_cap: many, min_interval_hours: true}\n"
        "  - {name: never, title: Never, min_interval_hours: 1e300}\n"
        "  - {name: unclear, title: Unclear, min_interval_hours: .nan}\n"
    )
    answer = otn_("init")
    assert answer.code == 2
    for words in (
        "'Bad Name' is no topic name",
        "66 characters",
        "'colour' means nothing",
        "no story knows the kind 'nonsense'",
        "write `name:`",
        "weekly_cap must be",
        "often: min_interval_hours must be",
        "never: min_interval_hours must be",
        "unclear: min_interval_hours must be",
    ):
        assert words.lower() in answer.err.lower()
    assert otn_("topics", "list", "--json").json() == []


def test_init_never_makes_new_keys_where_a_database_was_written_with_others(otn_: CommandLine) -> None:
    otn_("init")
    (otn_.root / ".env").rename(otn_.root / "backup")
    answer = otn_("init")
    assert answer.code == 2
    assert "OTN_HASH_KEY is missing, but a database exists" in answer.err
    (otn_.root / "backup").rename(otn_.root / ".env")
    assert otn_("init").code == 0


def test_init_makes_keys_for_a_database_that_was_made_without_any(otn_: CommandLine) -> None:
    """`rasa run actions` has no keys and may have made the tables."""
    from otn.app import ACTION_SERVER, open_app

    open_app(otn_.root, {}, need=ACTION_SERVER).store.close()
    assert (otn_.root / ".otn" / "otn.db").exists()
    assert otn_("init").code == 0


def test_init_refuses_keys_that_the_database_does_not_know(otn_: CommandLine) -> None:
    otn_("init")
    env = otn_.root / ".env"
    kept = [line for line in env.read_text().splitlines() if not line.startswith("OTN_ENCRYPTION_KEYS")]
    env.write_text("\n".join([*kept, f"OTN_ENCRYPTION_KEYS={Fernet.generate_key().decode()}"]))
    answer = otn_("init")
    assert answer.code == 2
    assert "lacks the key(s) with fingerprint" in answer.err


def test_init_restores_the_journal_mode(otn_: CommandLine) -> None:
    otn_("init")
    path = otn_.root / ".otn" / "otn.db"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sqlite3; sqlite3.connect({str(path)!r}).execute('PRAGMA journal_mode=DELETE')",
        ],
        check=True,
    )
    assert done.returncode == 0
    assert "journal mode is WAL now" in otn_("init").err
    header = path.read_bytes()[18:20]
    assert header == b"\x02\x02"  # WAL, in the file's own words


def test_init_in_an_empty_folder_has_nothing_to_add(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = CommandLine(tmp_path, capsys)("init")
    assert answer.code == 0
    assert "endpoints.yml lists none" in answer.err


def test_init_creates_the_tables_of_a_postgresql_database(
    otn_: CommandLine, postgresql_databases: Databases
) -> None:
    store = postgresql_databases.create("otn_cli")
    url = store.engine.url.render_as_string(hide_password=False)
    (otn_.root / ".env").write_text(f"OTN_DATABASE_URL={url}\n")
    first, second = otn_("init"), otn_("init")
    assert (first.code, second.code) == (0, 0)
    assert "created at revision" in first.err
    assert "unchanged at revision" in second.err
    assert [topic["name"] for topic in otn_("topics", "list", "--json").json()] == ["news", "restock-*"]
    (otn_.root / ".env").write_text(f"OTN_DATABASE_URL={url}\n")
    assert "a database exists that was written with it" in otn_("init").err
    store.close()


# --- otn topics


def test_a_topic_is_added_edited_archived_and_brought_back_on_record(otn_: CommandLine) -> None:
    otn_("init")
    added = otn_(
        "topics", "add", "sale", "--title", "Sale", "--kind", "news", "--min-interval", "7d",
        "--weekly-cap", "1", "--ask-while-available", "--note", "Ask Ann", "--json",
    )  # fmt: skip
    assert added.code == 0
    assert added.json() == {
        "name": "sale",
        "title": "Sale",
        "kind": "news",
        "is_family": False,
        "ask_while_available": True,
        "min_interval_seconds": 7 * 86400,
        "weekly_cap": 1,
        "note": "Ask Ann",
        "archived_at": None,
    }
    edited = otn_("topics", "edit", "sale", "--no-ask-while-available", "--min-interval", "90min", "--json")
    assert edited.json()["min_interval_seconds"] == 5400
    assert edited.json()["ask_while_available"] is False
    assert edited.json()["title"] == "Sale"
    assert otn_("topics", "archive", "sale").code == 0
    assert "sale" not in otn_("topics", "list").out
    assert otn_("topics", "unarchive", "sale").code == 0
    assert "sale" in otn_("topics", "list").out
    assert audited(otn_.root, "sale") == ["topic.add", "topic.edit", "topic.archive", "topic.unarchive"]


def audited(root: Path, subject: str) -> list[str]:
    import sqlalchemy as sa

    from otn.cli.session import user
    from otn.store import Store
    from otn.store.schema import audit

    store = Store(f"sqlite:///{root / '.otn' / 'otn.db'}")
    with store.read() as tx:
        query = sa.select(audit.c.action).where(audit.c.subject == subject, audit.c.who == user())
        found = list(tx.execute(query.order_by(audit.c.id)).scalars())
    store.close()
    return found


def test_a_name_is_taken_once(otn_: CommandLine) -> None:
    otn_("init")
    answer = otn_("topics", "add", "news", "--title", "More news")
    assert answer.code == 1
    assert "otn topics edit news" in answer.err


@pytest.mark.parametrize(
    ("name", "title", "more", "says"),
    [
        ("Sale", "Sale", [], "no topic name"),
        ("-sale", "Sale", [], "no topic name"),
        ("s" * 65, "Sale", [], "no topic name"),
        ("a-b-*", "Sale", [], "no name of a family"),
        ("*", "Sale", [], "no name of a family"),
        ("sale", "x" * 66, [], "66 characters"),
        ("sale", "\U0001f600" * 33, [], "66 characters"),
        ("sale", " ", [], "blank"),
        ("sale", "two\nlines", [], "line break"),
        ("sale", "Sale", ["--kind", "nonsense"], "restock, news"),
        ("sale", "Sale", ["--weekly-cap", "0"], "weekly cap"),
        ("sale", "Sale", ["--weekly-cap", "9" * 20], "weekly cap"),
    ],
)
def test_a_topic_that_messenger_or_the_stories_would_not_understand_is_refused(
    otn_: CommandLine, name: str, title: str, more: list[str], says: str
) -> None:
    otn_("init")
    answer = otn_("topics", "add", "--title", title, *more, "--", name)
    assert answer.code == 1
    assert says in answer.err


@pytest.mark.parametrize("title", ["x" * 65, "\U0001f600" * 32, "Caf\u00e9 \u2014 neu!"])
def test_a_title_may_have_65_characters(otn_: CommandLine, title: str) -> None:
    otn_("init")
    assert otn_("topics", "add", "sale", "--title", title).code == 0


def test_without_a_kind_stories_see_a_topic_as_any_other(otn_: CommandLine) -> None:
    otn_("init")
    assert otn_("topics", "add", "sale", "--title", "Sale", "--json").json()["kind"] == "other"


def test_without_a_domain_any_kind_will_do(otn_: CommandLine) -> None:
    otn_("init")
    (otn_.root / "domain.yml").unlink()
    assert otn_("topics", "add", "sale", "--title", "Sale", "--kind", "whatever").code == 0


def test_editing_needs_a_change_and_a_topic(otn_: CommandLine) -> None:
    otn_("init")
    assert otn_("topics", "edit", "news").code == 2
    missing = otn_("topics", "edit", "nonsense", "--title", "Sale")
    assert missing.code == 1
    assert "otn topics list" in missing.err
    assert otn_("topics", "edit", "news", "--kind", "nonsense").code == 1


def test_the_project_is_where_one_stands_or_where_root_points(otn_: CommandLine) -> None:
    otn_("init")
    here = subprocess.run(
        [sys.executable, "-m", "otn.cli", "topics", "list"],
        capture_output=True,
        text=True,
        cwd=otn_.root,
        env={**environment(), "PYTHONPATH": str(PROJECT)},
        check=False,
    )
    elsewhere = started("topics", "list", root=otn_.root, cwd="/")
    assert here.returncode == elsewhere.returncode == 0
    assert here.stdout == elsewhere.stdout
    assert "restock-*" in here.stdout


def test_an_ordinary_command_does_without_alembic(otn_: CommandLine) -> None:
    otn_("init")
    script = (
        "import sys; from otn.cli import main; "
        f"code = main(['--root', {str(otn_.root)!r}, 'topics', 'list']); "
        "sys.exit('imported' if 'alembic' in sys.modules else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_newest_migration_is_the_one_that_alembic_takes_for_it() -> None:
    from alembic.script import ScriptDirectory

    from otn.store import migrate

    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert scripts.get_heads() == [migrate.newest()]
