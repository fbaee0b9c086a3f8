"""What starting costs, and what the programs hold: `rasa run` with our channel and without, `otn`, memory."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack
from dataclasses import replace
from statistics import median

from benchmarks import machine, programs
from benchmarks.graph import SECONDS as GRAPH_SECONDS
from benchmarks.machine import Memory
from benchmarks.programs import HOME, OTN, RASA
from benchmarks.results import Finding, met
from otn.dev.processes import free_port
from otn.dev.up import procfile_programs

HELP_MS = 300.0
SETTLING_SECONDS = 3.0  # for programs that say nothing of when they are up
Starts = dict[str, list[float]]


def run(*, quick: bool) -> Finding:
    """Measure."""
    rounds = 1 if quick else 5
    with programs.helper("graph") as graph:
        starts, rest = _starts(graph.url, rounds)
        processes = {**_procfile(graph.url), "rasa with rest instead": rest}
    help_ms = 1000 * _times([OTN, "--help"], 3 * rounds)
    return _finding(starts, processes, help_ms, 1000 * _times([RASA, "--help"], rounds))


def _starts(graph: str, rounds: int) -> tuple[Starts, Memory]:
    """Seconds until Rasa says that it is well, with each channel in turns, and its memory without ours."""
    stages = {
        "messenger": programs.set_up("messenger", graph=graph),
        "rest": programs.set_up("rest", graph=graph, credentials=programs.REST),
    }
    starts: Starts = {name: [] for name in stages}
    for _ in range(rounds):
        for name, stage in stages.items():
            with programs.rasa(stage, name) as server:
                starts[name].append(server.started_in)
                last = machine.memory(server.pid)
    return starts, last


def _procfile(graph: str) -> dict[str, Memory]:
    """Everything that `make run` starts, once it answers: the memory of each process."""
    stage = programs.set_up("procfile", graph=graph)
    ports = {name: free_port() for name in ("rasa", "actions", "simulator")}
    # The stage was laid out before the bot's port was known.
    environ = {key: value for key, value in stage.environ.items() if key != "SIMULATOR_WEBHOOK_URL"}
    pids = {}
    with ExitStack() as stack:
        for program in procfile_programs(HOME / "Procfile", environ, ports):
            theirs = replace(stage, environ=program.environ)
            running = programs.running(theirs, ["sh", "-c", program.command], program.answers_at)
            pids[program.name] = stack.enter_context(running).pid
        time.sleep(SETTLING_SECONDS)
        return {name: machine.memory(pid) for name, pid in pids.items()}


def _times(command: list[str], rounds: int) -> float:
    """The median of the seconds that a command takes."""
    environ = {**os.environ, "RASA_TELEMETRY_ENABLED": "false"}
    seconds = []
    for _ in range(rounds):
        started = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, env=environ)
        seconds.append(time.monotonic() - started)
    return median(seconds)


def _finding(starts: Starts, processes: dict[str, Memory], help_ms: float, rasa_help_ms: float) -> Finding:
    ours, rest = median(starts["messenger"]), median(starts["rest"])
    return Finding(
        name="start",
        columns=["what", "start", "RSS MB", "PSS MB"],
        rows=[
            ["rasa run, our channel", f"{ours:.1f} s", "", ""],
            ["rasa run, rest only", f"{rest:.1f} s", "", ""],
            ["otn --help", f"{help_ms:.0f} ms", "", ""],
            ["rasa --help", f"{rasa_help_ms:.0f} ms", "", ""],
            *([name, "", f"{each.rss:.0f}", f"{each.pss:.0f}"] for name, each in processes.items()),
        ],
        says=[
            f"Medians of {len(starts['rest'])} interleaved starts; with our channel {abs(ours - rest):.1f} s "
            f"{'later, of which' if ours > rest else 'sooner, although'} asking Graph whose token it has takes "
            f"{GRAPH_SECONDS:.1f} s.",
            f"Memory just after the start; `otn --help` takes {help_ms / rasa_help_ms:.2f} of `rasa --help`.",
            met(f"`otn --help` within {HELP_MS:.0f} ms", help_ms < HELP_MS),
        ],
    )
