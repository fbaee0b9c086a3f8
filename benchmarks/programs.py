"""Scratch projects with invented secrets, and the programs that run in them until the block ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from otn.dev import demo
from otn.dev.processes import free_port

HOME: Final = Path.cwd()
STAGES: Final = HOME / ".otn" / "bench"
PYTHON: Final = sys.executable
RASA: Final = str(Path(sys.executable).parent / "rasa")
OTN: Final = str(Path(sys.executable).parent / "otn")

START_SECONDS: Final = 400.0  # on a busy machine
STOP_SECONDS: Final = 20.0
LOOK_EVERY_SECONDS: Final = 0.02

APP_SECRET: Final = "a-made-up-app-secret"
_SECRETS: Final = {
    "MESSENGER_APP_SECRET": APP_SECRET,
    "MESSENGER_VERIFY_TOKEN": "a-made-up-verify-token",
    "MESSENGER_PAGE_ACCESS_TOKEN": "a-made-up-access-token",
}
RASAS_TRACKER_STORE: Final = "SQL"
# What Rasa's own channels want in credentials.yml.
REST: Final = {"rest": {}}
FACEBOOK: Final = {
    "facebook": {
        "verify": _SECRETS["MESSENGER_VERIFY_TOKEN"],
        "secret": APP_SECRET,
        "page-access-token": _SECRETS["MESSENGER_PAGE_ACCESS_TOKEN"],
    }
}
_QUIET: Final = {"NO_PROXY": "127.0.0.1", "LOG_LEVEL": "WARNING"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A project like the real one, with empty databases, for one program under measurement."""

    folder: Path
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A program that answers. `started_in`: the seconds from its start to its first good answer."""

    pid: int
    url: str
    started_in: float


def set_up(
    name: str,
    *,
    graph: str = "http://127.0.0.1:9",
    credentials: Mapping[str, Any] | None = None,
    nlg: str | None = None,
    tracker_store: str | None = None,
    actions: str | None = None,
    **environ: str,
) -> Stage:
    """Lay out a fresh project. `credentials`: other channels than ours; `nlg`: who makes the responses;
    `tracker_store`: another type than ours; `actions`: who runs custom actions."""
    folder = STAGES / name
    ports = {"rasa": 0, "actions": 9, "simulator": int(graph.rpartition(":")[2])}
    theirs = demo.prepare(HOME, folder, ports)
    if credentials is not None:
        (folder / "credentials.yml").write_text(json.dumps(credentials), encoding="utf-8")
    endpoints = json.loads((folder / "endpoints.yml").read_text(encoding="utf-8"))
    if nlg is not None:
        endpoints["nlg"] = {"url": nlg}
    if actions is not None:
        endpoints["action_endpoint"] = {"url": actions}
    if tracker_store is not None:
        endpoints["tracker_store"]["type"] = tracker_store
    (folder / "endpoints.yml").write_text(json.dumps(endpoints), encoding="utf-8")
    stage = Stage(
        folder=folder, environ={**theirs, **_SECRETS, **_QUIET, "BENCHMARK_GRAPH_URL": graph, **environ}
    )
    subprocess.run([OTN, "init"], cwd=folder, env=stage.environ, check=True, capture_output=True)
    return stage


def tear_down() -> None:
    """Remove every project that was laid out."""
    shutil.rmtree(STAGES, ignore_errors=True)


@contextmanager
def running(
    stage: Stage, command: Sequence[str], answers_at: str | None, *, good: Sequence[int] = (200,)
) -> Iterator[Server]:
    """Start a program, wait until it answers, end it and its children when the block ends."""
    started = time.monotonic()
    log = stage.folder / f"{time.time_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=stage.folder, env=stage.environ, stdout=out, stderr=out, start_new_session=True
        )
    try:
        if answers_at is not None:
            _wait(process, answers_at, good, log)
        base = "/".join((answers_at or "").split("/")[:3])
        yield Server(pid=process.pid, url=base, started_in=time.monotonic() - started)
    finally:
        _end(process)


@contextmanager
def rasa(stage: Stage, channel: str) -> Iterator[Server]:
    """Run Rasa with the channels of the stage; it is up once `channel` says that it is well."""
    port = free_port()
    program = [PYTHON, "-m", "benchmarks.facebook"] if channel == "facebook" else [RASA]
    command = [*program, "run", "-i", "127.0.0.1", "-p", str(port)]
    with running(stage, command, f"http://127.0.0.1:{port}/webhooks/{channel}/") as server:
        yield server


@contextmanager
def helper(module: str, *arguments: str) -> Iterator[Server]:
    """Run one of our own small servers: `python -m benchmarks.MODULE PORT …`."""
    STAGES.mkdir(parents=True, exist_ok=True)
    port = free_port()
    stage = Stage(folder=STAGES, environ={**os.environ, "PYTHONPATH": str(HOME)})
    command = [PYTHON, "-m", f"benchmarks.{module}", str(port), *arguments]
    with running(stage, command, f"http://127.0.0.1:{port}/health") as server:
        yield server


def _wait(process: subprocess.Popen[bytes], url: str, good: Sequence[int], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with requests.Session() as session:
        session.trust_env = False  # a proxy knows nothing of this machine
        while True:
            with suppress(requests.RequestException):
                if session.get(url, timeout=2).status_code in good:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(process.args)} does not answer; its log ends:\n{_tail(log)}")
            time.sleep(LOOK_EVERY_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
