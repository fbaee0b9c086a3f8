"""The whole bot at work on this machine, for tests that play a use case from the outside.

with at_work(home) as work:            # `rasa run`, `rasa run actions`, the worker, a simulated Messenger
    ada = work.person("Ada")
    ada.says("do you have the canvas backpack?")
    ada.hears("The canvas backpack is sold out", "Tap Notify Me", "[Notify Me] Back in stock")
    ada.taps_notify_me()
    work.hours_pass(25)
    work.sends(ada, "restock-canvas-backpack", "It is back.")

What is heard is compared message by message, in order: whatever the bot says beside it makes the next
comparison fail. Time passes for everybody.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests

from otn.dev import demo
from otn.dev.processes import Processes, free_port

Json = dict[str, Any]

# Seconds: a machine may be busy.
START = 300.0
PATIENCE = 60.0  # for any message


@dataclass(kw_only=True)
class Person:
    """Somebody in Messenger."""

    psid: str
    work: Work = field(repr=False)
    heard: list[Json] = field(default_factory=list, repr=False)
    _last: int = 0

    def says(self, text: str) -> None:
        """Write to the bot."""
        self._act("message", text=text)

    def taps(self, title: str) -> None:
        """Tap a button or a quick reply of the latest message."""
        message = self.heard[-1]["message"]
        (payload,) = [each["payload"] for each in _choices(message) if each["title"] == title]
        self._act("tap", mid=self.heard[-1]["mid"], payload=payload)

    def taps_notify_me(self) -> None:
        """Agree to what was asked last, however long ago."""
        asked = [entry for entry in self.heard if entry["permission_request"]]
        self._act("notify-me", mid=asked[-1]["mid"])

    def hears(self, *beginnings: str) -> list[Json]:
        """Wait for so many messages; they begin with these words. What arrived, as the journal tells it."""
        news: list[Json] = []
        while len(news) < len(beginnings):
            arrived = self._news()
            assert arrived, f"waited in vain after {[shown(each) for each in news]} for {beginnings}"
            news += arrived
        self.heard += news
        said = [shown(entry) for entry in news]
        assert len(said) == len(beginnings), said
        for words, beginning in zip(said, beginnings, strict=True):
            assert words.startswith(beginning), said
        return news

    def hears_nothing_else(self) -> None:
        """Say something that has one answer: nothing came before it."""
        self.says("bye")
        self.hears("Bye, see you soon!")

    def _news(self) -> list[Json]:
        query = {"after": self._last, "psid": self.psid, "kind": "delivered", "wait": PATIENCE}
        journal = self.work.simulator("GET", "journal", params=query)
        self._last = journal["last"]
        return [entry for entry in journal["entries"] if entry.get("message")]

    def _act(self, act: str, **wish: Any) -> None:
        webhook = self.work.simulator("POST", f"people/{self.psid}/{act}", json=wish)["webhook"]
        assert webhook["status"] == requests.codes.ok, webhook


class Work:
    """The running system, and those who work with it: an operator at a terminal, the shop's own software."""

    def __init__(self, stage: Path, environ: dict[str, str], ports: dict[str, int]) -> None:
        self.stage = stage
        self._environ = environ
        self._ports = ports
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy knows nothing of this machine
        self.types("init")

    def types(self, *arguments: str) -> Any:
        """Type an `otn` command that does what it should; what it prints as JSON, else as text."""
        done = self._typed(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout

    def person(self, name: str) -> Person:
        """Somebody new, who says hello."""
        psid = self.simulator("POST", "people", json={"first_name": name})["psid"]
        person = Person(psid=psid, work=self)
        person.says("hi")
        person.hears("Hi!")
        return person

    def hours_pass(self, hours: float) -> None:
        """Let time pass, for everybody."""
        self.simulator("POST", "clock", json={"advance": hours * 3600})

    def in_hours(self, hours: int) -> str:
        """A time from now, as the command line takes it."""
        now = self.simulator("GET", "clock")["now"]
        return datetime.fromtimestamp(now + hours * 3600, timezone.utc).strftime("%Y-%m-%dT%H:%M")

    def sends(self, person: Person, topic: str, text: str, *, refused: str = "") -> None:
        """`otn send`; `refused` is a part of the reason why not."""
        done = self._typed("send", person.psid, "--topic", topic, "--text", text)
        assert done.returncode == bool(refused), done.stdout + done.stderr
        assert refused in done.stdout

    def tells(self, person: Person, topic: str, event_id: str) -> None:
        """Trigger a follow-up in the conversation."""
        self.triggers(person, "EXTERNAL_otn_follow_up", otn_topic=topic, otn_event_id=event_id)

    def triggers(self, person: Person, intent: str, **entities: str) -> None:
        """Tell the bot of an event in the shop, by Rasa's own HTTP API; returns when the turn has ended."""
        answer = self._session.post(
            f"http://127.0.0.1:{self._ports['rasa']}/conversations/{person.psid}/trigger_intent",
            params={"output_channel": "messenger"},
            json={"name": intent, "entities": entities},
            timeout=PATIENCE,
        )
        answer.raise_for_status()

    def permissions(self, person: Person) -> list[str]:
        """The topics of this person's unused permissions."""
        found = self.types("tokens", "list", "--psid", person.psid, "--json")
        return sorted(token["topic"] for token in found if token["state"] == "available")

    def log(self, program: str) -> str:
        """What a program printed so far."""
        return (self.stage / f"{program}.log").read_text(encoding="utf-8", errors="replace")

    def _typed(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "otn.cli", *arguments]
        return subprocess.run(command, cwd=self.stage, env=self._environ, text=True, capture_output=True)

    def simulator(self, method: str, path: str, **how: Any) -> Any:
        """Call the simulator's control API."""
        url = f"http://127.0.0.1:{self._ports['simulator']}/simulator/{path}"
        answer = self._session.request(method, url, timeout=PATIENCE + 30, **how)
        assert answer.ok, answer.text
        return answer.json()


@contextmanager
def at_work(home: Path) -> Iterator[Work]:
    """Start everything once; `home` is a project with a trained model."""
    ports = {name: free_port() for name in ("rasa", "actions", "simulator")}
    stage = home / ".otn" / "at-work"
    environ = demo.prepare(home, stage, ports)
    work = Work(stage, environ, ports)
    programs = [
        # The shop's software talks to Rasa's own API, which is off in the Procfile.
        replace(program, command=f"{program.command} --enable-api") if program.name == "rasa" else program
        for program in demo.cast(home, environ, ports)
    ]
    with Processes(programs, folder=stage, log_folder=stage) as running:
        running.wait_until_up(threading.Event(), START)
        yield work
        running.check()


def shown(entry: Json) -> str:
    """A message in a line, as a person sees it."""
    message = entry["message"]
    payload = (message.get("attachment") or {}).get("payload") or {}
    if entry["permission_request"]:
        return f"[Notify Me] {payload['title']}"
    if elements := payload.get("elements"):
        return f"[card] {elements[0]['title']}"
    return str(message.get("text") or payload.get("text"))


def _choices(message: Json) -> list[Json]:
    payload = (message.get("attachment") or {}).get("payload") or {}
    found = [*message.get("quick_replies", []), *payload.get("buttons", [])]
    return found + [
        button for element in payload.get("elements", []) for button in element.get("buttons", [])
    ]
