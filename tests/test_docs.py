"""What docs/ and README.md tell people to type, to set and to watch is there, and nothing is missing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from otn import cli, project
from otn.env_file import write_env
from otn.errors import Refusal, Refused, Throttled
from otn.graph.protocol import SUBSCRIBED_FIELDS
from otn.policy import BLOCKED, PagePause, pause_for
from otn.settings import DEFAULT_GRAPH_URL, EVERYTHING, load_settings

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATING = (ROOT / "docs" / "operating.md").read_text()
SETUP = (ROOT / "docs" / "messenger-setup.md").read_text()
OURS = r"\b(?:OTN|MESSENGER|SIMULATOR)_[A-Z_]+\b"
OF_THE_TOOLS = {"OTN_WITHOUT_BROWSER"}


def section(text: str, heading: str) -> str:
    """What stands under a heading."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def sources(*names: str) -> Iterator[str]:
    for name in names:
        for path in [ROOT / f"{name}.py", *(ROOT / name).rglob("*.py")]:
            if path.exists() and "dev" not in path.parts:
                yield path.read_text()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        name, _, anchor = target.partition("#")
        found = path.parent / name if name else path
        assert found.exists(), target
        headings = re.findall(r"^#+ (.+)$", found.read_text(), re.M) if anchor else []
        assert not anchor or anchor in [
            re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings
        ]


# --- what to type


def typed() -> Iterator[tuple[str, str]]:
    """Every command line of ours that stands as code: where, and what."""
    for path in DOCS:
        text = path.read_text()
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
        lines = [line.removeprefix("$ ") for block in blocks(text, r"(?:sh)?") for line in block.splitlines()]
        for line in [*re.findall(r"`(otn [^`]+)`", prose), *lines]:
            if re.match(r"otn [a-z-]", line):
                yield path.name, line


@pytest.mark.parametrize(("where", "line"), sorted(set(typed())))
def test_every_command_in_the_docs_exists(where: str, line: str) -> None:
    command: Any = typer.main.get_command(cli.app)
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        found = command.commands.get(words[0])
        assert found is not None, f"{where}: there is no `otn {words[0]}` in `{line}`"
        command, words = found, words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known, f"{where}: {line}"


# --- what to set


def test_every_variable_is_explained_and_none_that_is_not_there() -> None:
    table = section(OPERATING, "Configuration")
    explained = set(re.findall(OURS, table.replace("…", "")))
    quoted = "\n".join(
        found
        for text in sources("otn", "channels", "otn_actions", "simulator")
        for found in re.findall(r'"\w+"', text)
    )
    assert explained == set(re.findall(OURS, quoted)) - OF_THE_TOOLS


def test_the_database_and_the_queue_of_several_machines_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "RASA_DB_PASSWORD", "secret"
    )  # Rasa, once it is imported, insists on what a YAML file names
    part = section(OPERATING, "PostgreSQL, Redis, more than one machine")
    environ = dict(line.split("=", 1) for line in blocks(part, "sh")[0].splitlines())
    (tmp_path / "endpoints.yml").write_text(blocks(part, "yaml")[0])
    write_env(tmp_path, environ, database_exists=False)
    settings = load_settings(tmp_path, environ, need=EVERYTHING)
    assert settings.database_url == environ["OTN_DATABASE_URL"]
    assert settings.queue_url == environ["OTN_QUEUE_URL"]
    assert (project.tracker_store(tmp_path) or {})["dialect"] == "postgresql"


def test_what_meta_gives_is_all_that_a_live_page_lacks(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(blocks(SETUP, "sh")[0])
    write_env(tmp_path, {}, database_exists=False)
    settings = load_settings(tmp_path, {}, need=EVERYTHING)
    assert (settings.graph_url, settings.clock_file) == (DEFAULT_GRAPH_URL, None)


def test_the_webhook_s_fields_are_those_that_we_understand() -> None:
    listed = section(SETUP, "3. The webhook").partition("- fields: ")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"`(\w+)`", listed)) == SUBSCRIBED_FIELDS


# --- what to watch


def test_every_metric_is_explained_and_alerts_watch_only_those() -> None:
    part = section(OPERATING, "Metrics and alerts")
    explained = set(re.findall(r"^\| `(otn_\w+)", part, re.M))
    made = set(re.findall(r'"(otn_\w+)"', (ROOT / "otn" / "metrics.py").read_text()))
    assert {name.removesuffix("_total") for name in explained} == made
    rules = YAML(typ="safe").load(blocks(part, "yaml")[0])["groups"][0]["rules"]
    assert {name for rule in rules for name in re.findall(r"otn_\w+", rule["expr"])} <= explained


def test_every_reason_for_a_pause_is_explained() -> None:
    explained = re.findall(r"^\| ([^|]+) \|", section(OPERATING, "When a page is paused"), re.M)
    answers = [
        Throttled(1, code=4),
        *(Refused(refusal, code=1, subcode=None, detail="") for refusal in Refusal),
    ]
    pauses = [*filter(None, map(pause_for, answers)), PagePause(reason=BLOCKED)]
    assert len(pauses) >= 5
    for pause in pauses:
        assert any(pause.reason.startswith(reason) for reason in explained), pause.reason
