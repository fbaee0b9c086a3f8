"""The channel inside the real `rasa run`: the demo bot, its real actions, Messenger simulated, real processes."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from dotenv import dotenv_values

from otn.dev import demo
from otn.dev.processes import answers, free_port
from otn.dev.train import fingerprint, is_trained
from otn.dev.up import SECRETS, environment_of

pytestmark = pytest.mark.rasa

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240.0  # seconds; Rasa starts in twelve on a machine that has nothing else to do
RASA = str(Path(sys.executable).parent / "rasa")


class Stage:
    """A project of its own with invented secrets, and what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("rasa", "actions", "simulator")}
        self.environ = demo.prepare(ROOT, folder, self.ports)
        self.session = requests.Session()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.heard = 0

    def start(self, name: str, *command: str, up: str) -> None:
        """Start a program and wait until it answers."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environ_of(name),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE
        while not answers(f"http://127.0.0.1:{self.ports[name]}{up}"):
            assert self.running[name].poll() is None, self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.1)

    def environ_of(self, name: str) -> Mapping[str, str]:
        return {**environment_of(name, self.environ, self.ports), "SANIC_HOST": "127.0.0.1"}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def simulate(self, path: str, **body: Any) -> Any:
        answer = self.session.post(
            f"http://127.0.0.1:{self.ports['simulator']}/simulator/{path}", json=body, timeout=PATIENCE
        )
        assert answer.ok, answer.text
        return answer.json()

    def hear(self, psid: str, count: int = 1) -> list[dict[str, Any]]:
        """The next messages that reach the person."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            query: dict[str, Any] = {"after": self.heard, "psid": psid, "kind": "delivered", "wait": 20}
            answer = self.session.get(
                f"http://127.0.0.1:{self.ports['simulator']}/simulator/journal",
                params=query,
                timeout=PATIENCE,
            ).json()
            assert answer["entries"], f"heard only {found}\n{self.log('rasa')}"
            self.heard = answer["last"]
            found += [{**entry["message"], "mid": entry["mid"]} for entry in answer["entries"]]
        assert len(found) == count, found
        return found

    def say(self, psid: str, text: str, count: int = 1) -> list[dict[str, Any]]:
        """Let the person write, and wait for as many answers."""
        assert self.simulate(f"people/{psid}/message", text=text)["webhook"]["status"] == 200
        return self.hear(psid, count)

    def otn(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "otn.cli", *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
        )

    def trigger(self, psid: str, event_id: str) -> None:
        order = {
            "name": "EXTERNAL_otn_follow_up",
            "entities": {"otn_topic": "restock-canvas-backpack", "otn_event_id": event_id},
        }
        url = f"http://127.0.0.1:{self.ports['rasa']}/conversations/{psid}/trigger_intent"
        answer = self.session.post(url, params={"output_channel": "messenger"}, json=order, timeout=PATIENCE)
        assert answer.ok, answer.text
        assert "messages" not in answer.json(), "undelivered"

    def pass_time_for_rasa(self, hours: int) -> None:
        """Make all that was said older: Rasa looks at the machine's own clock."""
        with sqlite3.connect(self.folder / ".otn" / "tracker.db") as connection:
            for number, data in connection.execute("SELECT id, data FROM events").fetchall():
                event = json.loads(data)
                event["timestamp"] -= hours * 3600
                connection.execute(
                    "UPDATE events SET timestamp = ?, data = ? WHERE id = ?",
                    (event["timestamp"], json.dumps(event), number),
                )

    def rows(self, database: str, query: str) -> list[Any]:
        with sqlite3.connect(self.folder / ".otn" / database) as connection:
            return list(connection.execute(query))


@contextmanager
def on_stage(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder)
    try:
        stage.start("simulator", sys.executable, "-m", "simulator", up="/simulator/health")
        stage.start("actions", RASA, "run", "actions", "-p", str(stage.ports["actions"]), up="/health")
        stage.start(
            "rasa",
            *(RASA, "run", "--enable-api", "-i", "127.0.0.1", "-p", str(stage.ports["rasa"])),
            up="/webhooks/messenger/",
        )
        yield stage
    finally:
        for process in stage.running.values():
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if not is_trained(ROOT, fingerprint(ROOT)):
        subprocess.run([sys.executable, "-m", "otn.dev.train"], cwd=ROOT, check=True)
    with on_stage(tmp_path_factory.mktemp("rasa") / "stage") as stage:
        assert stage.otn("init").returncode == 0
        yield stage


def test_a_whole_conversation(stage: Stage) -> None:
    psid = stage.simulate("people", first_name="Ada")["psid"]
    assert "text" in stage.say(psid, "hi")[0]

    # What a person types is words, whatever it looks like.
    assert "didn't get that" in stage.say(psid, "/EXTERNAL_otn_follow_up")[0]["text"]
    assert stage.say(psid, "/restart")[0]["text"] == stage.say(psid, "restart")[0]["text"]

    _sold_out, _why, card = stage.say(psid, "do you have the canvas backpack?", 3)
    assert card["attachment"]["payload"]["template_type"] == "one_time_notif_req"
    stage.simulate(f"people/{psid}/notify-me", mid=card["mid"])
    assert "one message" in stage.hear(psid, 2)[0]["text"]

    # A form is open when the command line sends the follow-up; the answer belongs to the follow-up.
    stage.say(psid, "I have feedback")
    done = stage.otn(
        "send", psid, "--topic", "restock-canvas-backpack", "--text", "It is back! Want the link?"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert stage.hear(psid)[0]["text"] == "It is back! Want the link?"
    assert "https://" in stage.say(psid, "yes please")[0]["text"]

    # By event: told once, however often it is triggered; the same story goes on.
    stage.trigger(psid, "restocked-1")
    assert "back in stock" in stage.hear(psid)[0]["text"]
    stage.trigger(psid, "restocked-1")
    assert "https://" in stage.say(psid, "yes please")[0]["text"]

    # Rasa's session is over when the person reads it.
    stage.trigger(psid, "restocked-2")
    assert "back in stock" in stage.hear(psid)[0]["text"]
    stage.pass_time_for_rasa(hours=2)
    assert "https://" in stage.say(psid, "yes please")[0]["text"]

    stage.say(psid, "forget me")
    assert "forgetting you" in stage.say(psid, "yes")[0]["text"]
    deadline = time.monotonic() + PATIENCE
    erased = "SELECT erased_at IS NOT NULL, (SELECT group_concat(state) FROM otn_token) FROM contact"
    while stage.rows("otn.db", erased) != [(1, "invalid")]:
        assert time.monotonic() < deadline, stage.log("rasa")
        time.sleep(0.1)
    said = f"SELECT id FROM events WHERE sender_id = '{psid}'"  # noqa: S608 - a number
    assert not stage.rows("tracker.db", said)
    assert "text" in stage.say(psid, "hi")[0]


def test_it_stops_cleanly_and_has_told_no_secret(stage: Stage) -> None:
    server = stage.running["rasa"]
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    told = stage.log("rasa")
    assert "Traceback" not in told
    secrets = [
        value for key, value in dotenv_values(stage.folder / ".env").items() if key in SECRETS and value
    ]
    assert secrets
    assert not [secret for secret in secrets if secret in told]
    for words in ("It is back!", "canvas backpack?", "forget me"):
        assert words not in told
    leftovers = stage.rows("otn.db", "SELECT count(*) FROM contact WHERE turn_owner IS NOT NULL")
    assert leftovers == [(0,)]


def test_a_wrong_configuration_is_told_and_ends_with_code_2(stage: Stage) -> None:
    wrong = {**stage.environ_of("rasa"), "OTN_HASH_KEY": "short", "MESSENGER_GRAPH_URL": "ftp://nowhere"}
    done = subprocess.run(
        [RASA, "run", "-p", str(free_port())], cwd=stage.folder, env=wrong, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "OTN_HASH_KEY" in done.stderr
    assert "MESSENGER_GRAPH_URL" in done.stderr
    assert "Traceback" not in done.stderr
