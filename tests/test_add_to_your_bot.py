"""docs/add-to-your-bot.md, done word for word to a fresh Rasa project: its files, its commands, its conversation.

What the guide leaves to the bot, this test brings: a light pipeline, so that training takes seconds. Ports are free
ones, and nothing is downloaded: the wheel is installed beside the packages of `.venv`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import shipped
from ruamel.yaml import YAML
from simulated import environment

from otn.dev.processes import answers, free_port
from otn.dev.train import QUIET

pytestmark = pytest.mark.rasa

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "add-to-your-bot.md"
PATIENCE = 240.0  # seconds; Rasa starts in twelve on a machine that has nothing else to do
PIPELINE = """
pipeline:
  - name: WhitespaceTokenizer
  - name: CountVectorsFeaturizer
  - name: CountVectorsFeaturizer
    analyzer: char_wb
    min_ngram: 1
    max_ngram: 4
  - name: LogisticRegressionClassifier
"""

yaml = YAML()


class Reader:
    """Somebody who does what the guide says."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("rasa", "actions", "simulator")}
        self.environ = environment() | {
            **QUIET,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            # The guide's own ports may be taken here.
            "MESSENGER_GRAPH_URL": f"http://127.0.0.1:{self.ports['simulator']}",
            "SIMULATOR_PORT": str(self.ports["simulator"]),
            "SIMULATOR_WEBHOOK_URL": f"http://127.0.0.1:{self.ports['rasa']}/webhooks/messenger/webhook",
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> str:
        """Type something; what it printed."""
        done = subprocess.run(
            ["bash", "-ec", command], cwd=self.folder, env=self.environ, text=True, capture_output=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, command: str) -> None:
        """Type something in a terminal of its own, with the ports of this test."""
        for program, port in (("rasa run actions", "actions"), ("rasa run", "rasa")):
            if command.endswith(program):
                command += f" -p {self.ports[port]}"
        with (self.folder / "log").open("ab") as log:
            self.running.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec env {command}"],
                    cwd=self.folder,
                    env=self.environ,
                    stdout=log,
                    stderr=log,
                )
            )

    def write(self, name: str, text: str) -> None:
        """Make a file."""
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text.replace(":5055/", f":{self.ports['actions']}/"))

    def edit(self, name: str, text: str) -> None:
        """Put keys into a YAML file that is there."""
        path = self.folder / name
        content = yaml.load(path) or {}
        content.update(yaml.load(text.replace(":5055/", f":{self.ports['actions']}/")))
        yaml.dump(content, path)

    def wait_until_up(self) -> None:
        """Wait until everything answers."""
        silent = {
            "rasa": "/webhooks/messenger/",
            "actions": "/health",
            "simulator": "/simulator/health",
        }
        deadline = time.monotonic() + PATIENCE
        while silent:
            assert all(process.poll() is None for process in self.running), self.log()
            assert time.monotonic() < deadline, self.log()
            silent = {
                name: path
                for name, path in silent.items()
                if not answers(f"http://127.0.0.1:{self.ports[name]}{path}")
            }
            time.sleep(0.1)

    def stop(self) -> None:
        for process in self.running:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    # --- the chat page ---

    def simulate(self, path: str, **body: Any) -> Any:
        address = f"http://127.0.0.1:{self.ports['simulator']}/simulator/{path}"
        answer = requests.post(address, json=body, timeout=PATIENCE)
        assert answer.ok, answer.text
        return answer.json()

    def hear(self, psid: str, after: int) -> tuple[dict[str, Any], int]:
        """The next thing that reaches the person, and where to go on."""
        query: dict[str, Any] = {"after": after, "psid": psid, "kind": "delivered", "wait": 30, "limit": 1}
        address = f"http://127.0.0.1:{self.ports['simulator']}/simulator/journal"
        entries = requests.get(address, params=query, timeout=PATIENCE).json()["entries"]
        said = next((entry for entry in entries if entry.get("message")), None)
        assert said is not None, self.log()
        return said, said["seq"]


def blocks() -> Iterator[tuple[str, str]]:
    """Language and content of every block of the guide, in order."""
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text(), re.M | re.S):
        yield found[1], found[2]


def sh(beginning: str) -> str:
    """The one block of commands that begins so."""
    (block,) = (
        content for language, content in blocks() if language == "sh" and content.startswith(beginning)
    )
    return block


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A fresh project and an environment that has Rasa."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "bot").mkdir()
    reader = Reader(folder / "bot", shipped.environment(folder / "venv"))
    # What `rasa init` does before it trains, which would take minutes.
    reader.run(
        "python -c 'from rasa.cli.scaffold import create_initial_project; create_initial_project(\".\")'"
    )
    reader.edit("config.yml", PIPELINE)
    yield reader
    reader.stop()


def test_the_guide_adds_one_time_notifications_to_a_fresh_bot(reader: Reader, tmp_path: Path) -> None:
    built = shipped.build(tmp_path)
    assert sh("pip install") == f"pip install {built.name}\n"
    shipped.install(built, Path(reader.environ["PATH"].partition(":")[0]))
    apply(reader)

    reader.run(sh("otn init"))
    for command in sh("rasa run").splitlines():
        reader.start(command)
    reader.wait_until_up()
    reader.run("otn check")  # now with a Messenger to ask
    play(reader)
    trigger(reader)


def test_its_slots_are_those_of_the_bot_that_we_ship() -> None:
    (theirs,) = (yaml.load(content) for _, content in blocks() if content.startswith("# domain/otn.yml"))
    ours = yaml.load(ROOT / "domain.yml")
    for name in ("otn_request_decision", "otn_follow_up_decision"):
        assert theirs["slots"][name] == ours["slots"][name]


def apply(reader: Reader) -> None:
    """Step 2: the commands and the files, in the guide's order."""
    for language, content in blocks():
        name, _, rest = content.removeprefix("# ").partition("\n")
        if content.startswith("mkdir"):
            reader.run(content)
        elif language == "yaml" and name.startswith("in "):
            reader.edit(name.removeprefix("in "), rest)
        elif language == "yaml":
            reader.write(name, rest)


def play(reader: Reader) -> None:
    """Step 4, with the chat page's own calls."""
    psid = reader.simulate("people", first_name="Ada")["psid"]
    reader.simulate(f"people/{psid}/message", text="what's new?")
    why, seen = reader.hear(psid, 0)
    assert "Just one" in why["message"]["text"]
    card, seen = reader.hear(psid, seen)
    assert card["permission_request"]
    reader.simulate(f"people/{psid}/notify-me", mid=card["mid"])
    thanks, seen = reader.hear(psid, seen)
    assert thanks["message"]["text"].startswith("Thanks!")

    reader.simulate("clock", advance=25 * 3600)
    *looks, tell = sh("otn contacts list").splitlines()
    assert psid in reader.run(looks[0])
    assert "news" in reader.run(looks[1])
    reader.run(tell.replace("PSID", psid))
    told, seen = reader.hear(psid, seen)
    assert told["by_token"]
    reader.simulate(f"people/{psid}/message", text="yes")
    link, seen = reader.hear(psid, seen)
    assert "https://example.com/news" in link["message"]["text"]

    reader.simulate("clock", advance=25 * 3600)
    again = subprocess.run(
        ["bash", "-c", tell.replace("PSID", psid)],
        cwd=reader.folder,
        env=reader.environ,
        text=True,
        capture_output=True,
    )
    assert again.returncode == 1
    assert "one permission, one message" in again.stdout + again.stderr


def trigger(reader: Reader) -> None:
    """The end of step 4: Rasa again, now with its HTTP API."""
    rasa = reader.running.pop(0)
    rasa.kill()
    rasa.wait()
    reader.environ["RASA_TOKEN"] = "a-token-of-their-own"
    reader.start(f"{sh('# RASA_TOKEN').splitlines()[-1]} -p {reader.ports['rasa']}")
    reader.wait_until_up()
    psid = reader.simulate("people", first_name="Bob")["psid"]
    reader.simulate(f"people/{psid}/message", text="what's new?")
    _why, seen = reader.hear(psid, 0)
    _card, seen = reader.hear(psid, seen)

    call = sh("curl").replace("PSID", psid).replace(":5005/", f":{reader.ports['rasa']}/")
    answer = json.loads(reader.run(call))
    assert "messages" not in answer
    assert answer["tracker"]["slots"]["otn_follow_up_decision"] == "allowed"
    told, seen = reader.hear(psid, seen)
    assert told["message"]["text"].startswith("Here is the news")
    reader.simulate(f"people/{psid}/message", text="yes")
    link, seen = reader.hear(psid, seen)
    assert "https://example.com/news" in link["message"]["text"]

    lost = call.replace("output_channel=messenger&", "").replace('"42"', '"43"')
    assert "messages" in json.loads(reader.run(lost))
    stranger = call.replace("$RASA_TOKEN", "another")
    assert json.loads(reader.run(stranger))["reason"] == "NotAuthenticated"
