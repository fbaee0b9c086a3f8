"""Play the whole path by script, against the real processes (`python -m otn.dev.demo`).

A person chats, is asked for permission, taps Notify Me; 25 hours later a follow-up goes out and is answered; a second
one is refused. Everything happens in a project of its own, `.otn/demo`, on free ports, with invented secrets: nothing
of the user's is read but the bot itself. Exit code 0, or 1 after saying which step failed and where the logs are.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import requests

from otn import project
from otn.dev.processes import Processes, Program, StartError, free_port
from otn.dev.up import environment_of, procfile_programs
from otn.env_file import write_env
from otn.settings import CHANNEL

Json = dict[str, Any]

# Seconds. Rasa polls its lock once a second, and a busy machine is slow.
PATIENCE: Final = 30.0
# When nothing has come for so long, the bot has said what it had to say.
PAUSE: Final = 1.5
HOURS_25: Final = 25 * 3600
# What a project is made of, borrowed from the real one.
BOT: Final = ("config.yml", "domain.yml", "data", "actions", "channels", "models")

NAME: Final = "Ada"
QUESTION: Final = "do you have the canvas backpack?"
FOLLOW_UP: Final = "Good news: the canvas backpack is back in stock. Shall I send you the order link?"
REPLY: Final = "yes please"
SECOND: Final = "And now there is one in green."


class StepError(Exception):
    """A step went another way than it should; the text says how."""


def main() -> int:
    """Play everything; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    home, stage = Path.cwd(), Path.cwd() / ".otn" / "demo"
    ports = {name: free_port() for name in ("rasa", "actions", "simulator")}
    environ = prepare(home, stage, ports)
    try:
        operator = Operator(stage, environ)
        with Processes(cast(home, environ, ports), folder=stage, log_folder=stage) as running:
            print("Starting the bot, its actions, the worker and a stand-in for Messenger …", flush=True)
            running.wait_until_up(threading.Event())
            try:
                play(Messenger(f"http://127.0.0.1:{ports['simulator']}/simulator"), operator)
            except (StepError, requests.RequestException):
                running.check()  # a program that ended explains more than the step that missed it
                raise
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 1
    except StartError as error:
        print(f"\n✗ {error}", file=sys.stderr)
        return 1
    except (StepError, requests.RequestException) as error:
        print(f"\n✗ {error}\n  What the programs said is in {stage.relative_to(home)}/*.log", file=sys.stderr)
        return 1
    print("\nEverything went as it should.")
    return 0


def play(messenger: Messenger, operator: Operator) -> None:
    """The path, step by step. Raises StepError at the first step that goes another way."""
    messenger.enter(NAME)
    messenger.say("hi")
    messenger.hear("the bot answers", is_text)
    messenger.say(QUESTION)
    request = messenger.hear("the bot asks for permission", is_request)
    messenger.tap_notify_me(request)
    messenger.hear("the tap is answered, since the 24-hour window is open", is_text)
    topic = operator.only_topic(messenger.psid)

    messenger.let_time_pass(HOURS_25)
    code = operator.send(messenger.psid, topic, FOLLOW_UP)
    check(code == 0, "the follow-up may go out, by the permission", f"`otn send` exited with {code}")
    messenger.hear("it arrives, and is paid for with the one permission", is_paid_for)
    messenger.say(REPLY)
    messenger.hear("the story goes on after the follow-up", is_text)

    messenger.let_time_pass(HOURS_25)
    code = operator.send(messenger.psid, topic, SECOND)
    check(code == 1, "a second one is refused: the permission is used up", f"`otn send` exited with {code}")
    check(not messenger.news(), "and nothing arrives", "a message arrived all the same")


# -- the stage


def prepare(home: Path, stage: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """Lay out a fresh project in `stage` and return the environment for its programs."""
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for name in BOT:
        (stage / name).symlink_to(home / name)
    (stage / "credentials.yml").write_text(f"{CHANNEL}: {{}}\n", encoding="utf-8")
    # JSON is YAML. Of the real endpoints only the first topics are taken over: databases are not to be touched.
    endpoints = {
        "action_endpoint": {"url": f"http://127.0.0.1:{ports['actions']}/webhook"},
        "tracker_store": {"type": project.QUICK_TRACKER_STORE, "dialect": "sqlite", "db": ".otn/tracker.db"},
        "otn_topics": project.topics_to_begin_with(home),
    }
    (stage / "endpoints.yml").write_text(json.dumps(endpoints, indent=2), encoding="utf-8")
    (stage / ".env").write_text(
        f"MESSENGER_GRAPH_URL=http://127.0.0.1:{ports['simulator']}\n", encoding="utf-8"
    )
    write_env(stage, {}, database_exists=False)
    ours = ("MESSENGER_", "OTN_", "SIMULATOR_")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    path = os.pathsep.join([str(home), *filter(None, [environ.get("PYTHONPATH")])])
    return environment_of("worker", {**environ, "PYTHONPATH": path}, ports)


def cast(home: Path, environ: Mapping[str, str], ports: Mapping[str, int]) -> list[Program]:
    """The programs of the real Procfile."""
    return procfile_programs(home / "Procfile", environ, ports)


class Operator:
    """Somebody at a terminal."""

    def __init__(self, stage: Path, environ: Mapping[str, str]) -> None:
        self._stage = stage
        self._environ = dict(environ)
        code, output = self.run("init")
        check_quietly(code == 0, f"`otn init` exited with {code}: {output}")

    def only_topic(self, psid: str) -> str:
        """The topic of the person's one permission."""
        code, output = self.run("tokens", "list", "--psid", psid, "--json")
        tokens = json.loads(output) if code == 0 else []
        found = f"`otn tokens list` shows {len(tokens)}"
        check(len(tokens) == 1, "one permission is kept, with its topic", found)
        return str(tokens[0]["topic"])

    def send(self, psid: str, topic: str, text: str) -> int:
        """Type `otn send`, show what it prints, return its exit code."""
        print(f'\n$ otn send {psid} --topic {topic} --text "{text}"')
        code, output = self.run("send", psid, "--topic", topic, "--text", text)
        print(textwrap.indent(output.strip(), "  "))
        return code

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run the command line; return its exit code and everything it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "otn.cli", *arguments],
            cwd=self._stage,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.returncode, done.stdout.decode()


class Messenger:
    """One person's Messenger, and the hands of its clock."""

    def __init__(self, simulator: str) -> None:
        self._simulator = simulator
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy knows nothing of this machine
        self._seen = 0
        self.psid = ""

    def enter(self, name: str) -> None:
        """Let somebody come who never wrote before."""
        self.psid = self._post("people", first_name=name)["psid"]

    def say(self, text: str) -> None:
        """Write to the bot."""
        print(f"\n{NAME:>8}  {text}", flush=True)
        self._act("message", text=text)

    def tap_notify_me(self, request: Json) -> None:
        """Agree."""
        print(f"\n{NAME:>8}  [taps Notify Me]", flush=True)
        self._act("notify-me", mid=request["mid"])

    def let_time_pass(self, seconds: int) -> None:
        """Move simulated time, which the bot reads too."""
        self._post("clock", advance=seconds)
        print(f"\n          … {seconds // 3600} hours later: the 24-hour window is closed …", flush=True)

    def hear(self, what: str, is_it: Callable[[Json], bool]) -> Json:
        """Wait for the bot to finish talking; return the message that was expected."""
        heard: list[Json] = []
        wait = PATIENCE
        while news := self.news(wait):
            for entry in news:
                print(f"{'Bot':>8}  {in_words(entry['message'])}", flush=True)
            heard += news
            wait = PAUSE if any(map(is_it, heard)) else PATIENCE
        expected = [entry for entry in heard if is_it(entry)]
        check(
            len(expected) > 0, what, f"{what}: that did not happen, the bot sent {len(heard)} other messages"
        )
        return expected[0]

    def news(self, wait: float = 0) -> list[Json]:
        """What was delivered since the last look; waits so many seconds for the first."""
        query = {"after": str(self._seen), "psid": self.psid, "kind": "delivered", "wait": str(wait)}
        answer = self._session.get(f"{self._simulator}/journal", params=query, timeout=wait + 30)
        answer.raise_for_status()
        journal = answer.json()
        self._seen = journal["last"]
        return [entry for entry in journal["entries"] if entry.get("message")]

    def _act(self, act: str, **wish: Any) -> None:
        webhook = self._post(f"people/{self.psid}/{act}", **wish)["webhook"]
        check_quietly(webhook.get("status") == requests.codes.ok, f"the bot's webhook answered {webhook}")

    def _post(self, path: str, **body: Any) -> Json:
        answer = self._session.post(f"{self._simulator}/{path}", json=body, timeout=PATIENCE)
        check_quietly(answer.ok, f"the simulator refused {path}: {answer.text}")
        result: Json = answer.json()
        return result


# -- what is checked


def is_text(entry: Json) -> bool:
    """A message in words, other than the bot's "I did not understand"."""
    text = entry["message"].get("text")
    return bool(text) and text not in not_understood()


def is_request(entry: Json) -> bool:
    """A permission request: Messenger's own card with the button Notify Me."""
    return bool(entry["permission_request"])


def is_paid_for(entry: Json) -> bool:
    """The follow-up, sent with a token."""
    return bool(entry["by_token"]) and entry["message"].get("text") == FOLLOW_UP


@functools.cache
def not_understood() -> list[str]:
    """The texts by which this bot says that it did not understand."""
    variations = project.domain(Path.cwd(), "responses").get("utter_default") or []
    return [str(variation.get("text")) for variation in variations]


def in_words(message: Json) -> str:
    """A message as the person sees it."""
    payload = (message.get("attachment") or {}).get("payload") or {}
    if payload.get("template_type") == "one_time_notif_req":
        return f"┌ {payload.get('title')} ┐  [Notify Me]"
    return textwrap.fill(str(message.get("text") or message), 100, subsequent_indent=" " * 10)


def check(good: bool, what: str, otherwise: str) -> None:
    """Tick a step off, or raise StepError."""
    check_quietly(good, otherwise)
    print(f"       ✓  {what}", flush=True)


def check_quietly(good: bool, otherwise: str) -> None:
    """Raise StepError unless good."""
    if not good:
        raise StepError(otherwise)


if __name__ == "__main__":
    sys.exit(main())
