"""Start several programs, watch them, and stop every process that came of them.

Each program gets a process group of its own, so that its children die with it and a Ctrl-C in the terminal reaches
only the one who stops them in order.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Final
from urllib.parse import urlsplit

import requests

# Rasa finishes the conversations that are under way; longer than this it is stuck.
STOP_SECONDS: Final = 15.0
START_SECONDS: Final = 120.0
LOOK_EVERY_SECONDS: Final = 0.1
_DEPRECATION: Final = re.compile(r"/site-packages/\S+\.py:\d+: \w*DeprecationWarning: ")
COLOURS: Final = ("36", "33", "35", "32", "34", "31")


class StartError(Exception):
    """A program could not be started or did not stay; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A line of the Procfile, with the environment it gets and the address that answers 200 once it is up."""

    name: str
    command: str
    environ: Mapping[str, str] = field(repr=False)
    answers_at: str | None = None

    @property
    def port(self) -> int | None:
        """The port it will listen on, None when it listens on none."""
        return urlsplit(self.answers_at).port if self.answers_at else None


class Processes:
    """Running programs. Leaving the `with` block stops all of them, in whatever way it is left.

    What they print goes to `log_folder` (`NAME.log`), or line by line to the terminal, each with its program's name.
    """

    def __init__(self, programs: Sequence[Program], *, folder: Path, log_folder: Path | None = None) -> None:
        self._programs = programs
        self._folder = folder
        self._log_folder = log_folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._pumps: dict[str, threading.Thread] = {}
        self._width = max(len(program.name) for program in programs)
        self._hurry = threading.Event()

    def __enter__(self) -> Processes:
        for program in self._programs:
            if program.port and is_taken(program.port):
                raise StartError(
                    f"{program.name} cannot start: port {program.port} is taken. Stop what listens there "
                    f"(`ss -ltnp 'sport = :{program.port}'` names it) and try again"
                )
        try:
            for number, program in enumerate(self._programs):
                self._start(program, COLOURS[number % len(COLOURS)])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_up(self, stop: threading.Event, seconds: float = START_SECONDS) -> bool:
        """Wait until every address answers; False when told to stop first. Raises StartError when one fails."""
        deadline = time.monotonic() + seconds
        silent = [program for program in self._programs if program.answers_at]
        while silent:
            self.check()
            silent = [program for program in silent if not answers(str(program.answers_at))]
            if silent and time.monotonic() > deadline:
                names = ", ".join(program.name for program in silent)
                raise StartError(
                    f"{names} did not answer within {seconds:.0f} s{self._see_log(silent[0].name)}"
                )
            if silent and stop.wait(LOOK_EVERY_SECONDS):
                return False
        return True

    def check(self) -> None:
        """Raise StartError if a program has ended by itself."""
        for name, process in self._running.items():
            code = process.poll()
            if code is not None:
                if name in self._pumps:  # let its last words out first; a child of it may still hold the pipe
                    self._pumps[name].join(timeout=1)
                raise StartError(f"{name} ended by itself ({how_it_ended(code)}){self._see_log(name)}")

    def hurry(self) -> None:
        """Kill the programs that are being stopped instead of waiting for them."""
        self._hurry.set()

    def stop(self) -> None:
        """End every program and all its children; kill what does not end in time."""
        for process in self._running.values():
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(_is_alive, self._running.values())) and time.monotonic() < deadline:
            if self._hurry.wait(LOOK_EVERY_SECONDS / 5):
                break
        for process in self._running.values():
            if _is_alive(process):
                _signal_group(process, signal.SIGKILL)
            process.wait()
        for pump in self._pumps.values():
            pump.join()
        self._running.clear()
        self._pumps.clear()

    def _start(self, program: Program, colour: str) -> None:
        log = (self._log_folder / f"{program.name}.log").open("wb") if self._log_folder else None
        process = subprocess.Popen(  # noqa: S602 - a Procfile's lines are shell commands by definition
            program.command,
            shell=True,
            cwd=self._folder,
            env=dict(program.environ),
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running[program.name] = process
        if log:
            log.close()
            return
        label = f"{program.name:<{self._width}} | "
        if sys.stdout.isatty():
            label = f"\033[{colour}m{label}\033[0m"
        pump = threading.Thread(target=_pump, args=(process.stdout, label), daemon=True)
        pump.start()
        self._pumps[program.name] = pump

    def _see_log(self, name: str) -> str:
        if self._log_folder is None:
            return "; the reason stands above"
        return f"; the reason stands in {self._log_folder / name}.log"


def is_taken(port: int) -> bool:
    """Say whether somebody listens on this port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Say whether an address of this machine answers 200."""
    with requests.Session() as session:
        session.trust_env = False  # a proxy knows nothing of this machine
        try:
            return session.get(url, timeout=2).ok
        except requests.RequestException:
            return False


def how_it_ended(code: int) -> str:
    """Put an exit code into words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into an event instead of an exception."""
    event = threading.Event()

    def set_event(number: int, frame: FrameType | None) -> None:
        event.set()

    before = {
        number: signal.signal(number, set_event) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def without_deprecations(lines: Iterable[str]) -> Iterator[str]:
    """Leave out what Python warns of in the libraries that Rasa pins: nobody here can do anything about it."""
    to_skip = 0
    for line in lines:
        if _DEPRECATION.search(line):
            to_skip = 3  # at most: the message may go on for a line, then stands the line of code, indented
        to_skip -= 1
        if to_skip < 0:
            yield line
        elif line.startswith("  "):
            to_skip = 0


def _pump(stream: IO[bytes], label: str) -> None:
    with stream:
        for line in without_deprecations(raw.decode("utf-8", "replace") for raw in stream):
            sys.stdout.write(label + line.rstrip() + "\n")
            sys.stdout.flush()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _is_alive(process: subprocess.Popen[bytes]) -> bool:
    """Say whether anybody of the group is left, the leader or a child that outlived it."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
