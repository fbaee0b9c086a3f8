"""`make` trains only what changed, starts every program of the Procfile, and stops all that came of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from otn.dev import up
from otn.dev.check_bot import complaints
from otn.dev.processes import (
    Processes,
    Program,
    StartError,
    answers,
    free_port,
    is_taken,
    without_deprecations,
)
from otn.dev.train import FINGERPRINT, MODEL, fingerprint, is_trained
from otn.env_file import write_env
from otn.settings import EVERYTHING, load_settings

ROOT = Path(__file__).resolve().parents[1]

ANSWER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args): pass
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("config.yml", "domain.yml", "data/nlu.yml"):
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path


def program(name: str, command: str, port: int | None = None) -> Program:
    address = f"http://127.0.0.1:{port}/" if port else None
    return Program(name=name, command=command, environ=os.environ, answers_at=address)


def server(folder: Path, name: str = "server") -> Program:
    (folder / "answer.py").write_text(ANSWER)
    port = free_port()
    return program(name, f"{sys.executable} answer.py {port}", port)


def is_running(pid: int) -> bool:
    """A process that ended but was not collected by its parent (state Z) does not run."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")


# -- train


@pytest.mark.parametrize("name", ["config.yml", "domain.yml", "data/nlu.yml"])
def test_a_changed_input_asks_for_training(bot: Path, name: str) -> None:
    before = fingerprint(bot)
    (bot / name).write_text("# changed\n")
    assert fingerprint(bot) != before


def test_an_input_that_is_new_gone_or_renamed_asks_for_training(bot: Path) -> None:
    seen = [fingerprint(bot)]
    (bot / "data" / "rules.yml").write_text("# rules\n")
    seen.append(fingerprint(bot))
    (bot / "data" / "rules.yml").rename(bot / "data" / "stories.yml")
    seen.append(fingerprint(bot))
    assert len(set(seen)) == 3
    (bot / "data" / "stories.yml").unlink()
    assert fingerprint(bot) == seen[0]


def test_other_files_ask_for_nothing(bot: Path) -> None:
    before = fingerprint(bot)
    (bot / "endpoints.yml").write_text("# other\n")
    assert fingerprint(bot) == before


def test_a_model_counts_only_with_the_fingerprint_it_was_made_from(bot: Path) -> None:
    wanted = fingerprint(bot)
    (bot / "models").mkdir()
    (bot / FINGERPRINT).write_text(wanted)
    assert not is_trained(bot, wanted)
    (bot / MODEL).touch()
    assert is_trained(bot, wanted)
    assert not is_trained(bot, "another")


# -- check


def test_rasas_own_complaints_are_found_and_nobody_elses() -> None:
    site = "/x/site-packages"
    output = f"""{site}/rasa/shared/utils/validation.py:134: DeprecationWarning: pkg_resources is deprecated
{site}/sklearn/linear_model/_logistic.py:444: ConvergenceWarning: lbfgs failed to converge
{site}/rasa/shared/utils/io.py:100: UserWarning: The utterance 'utter_x' is not used in any story or rule.
2026-01-01 00:00:00 INFO     rasa.validator  - Validating intents...
2026-01-01 00:00:00 WARNING  rasa.validator  - Story structure conflict found"""
    assert complaints(output) == [
        "UserWarning: The utterance 'utter_x' is not used in any story or rule.",
        "WARNING  rasa.validator  - Story structure conflict found",
    ]


# -- processes


def test_leaving_stops_a_program_and_its_children(tmp_path: Path) -> None:
    tree = program("tree", "sleep 600 & echo $! > child.pid; echo $$ > parent.pid; wait")
    one = server(tmp_path)
    with Processes([tree, one], folder=tmp_path) as processes:
        assert processes.wait_until_up(threading.Event())
        pids = [int((tmp_path / name).read_text()) for name in ("child.pid", "parent.pid")]
        assert [is_running(pid) for pid in pids] == [True, True]
    assert [is_running(pid) for pid in pids] == [False, False]
    assert not answers(str(one.answers_at))


def test_one_in_a_hurry_kills_what_does_not_listen(tmp_path: Path) -> None:
    deaf = program("deaf", f"trap '' TERM; {sys.executable} answer.py {(port := free_port())}", port)
    (tmp_path / "answer.py").write_text(ANSWER)
    with Processes([deaf], folder=tmp_path) as processes:
        assert processes.wait_until_up(threading.Event())
        processes.hurry()
    assert not is_taken(port)


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with Processes([server(tmp_path)], folder=tmp_path) as processes:
        assert processes.wait_until_up(threading.Event())
        taken = processes._programs[0].port
        second = [program("first", "touch started"), program("second", "true", taken)]
        with pytest.raises(StartError, match=f"second cannot start: port {taken} is taken"):
            Processes(second, folder=tmp_path).__enter__()
    assert not (tmp_path / "started").exists()


def test_a_program_that_ends_by_itself_is_named_and_the_others_stop(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = server(tmp_path)
    with (
        pytest.raises(StartError, match=r"short ended by itself \(exit code 3\)"),
        Processes([one, program("short", "echo why; exit 3", free_port())], folder=tmp_path) as processes,
    ):
        processes.wait_until_up(threading.Event())
    assert "short  | why" in capfd.readouterr().out
    assert not answers(str(one.answers_at))


def test_output_goes_to_log_files_where_a_folder_is_given(tmp_path: Path) -> None:
    with (
        pytest.raises(StartError, match=r"talker\.log"),
        Processes([program("talker", "echo hello", 1)], folder=tmp_path, log_folder=tmp_path) as processes,
    ):
        processes.wait_until_up(threading.Event())
    assert (tmp_path / "talker.log").read_text() == "hello\n"


def test_deprecations_of_libraries_are_left_out_and_nothing_else() -> None:
    site = "/x/site-packages"
    lines = [
        "first",
        f"{site}/a.py:1: DeprecationWarning: old",
        "  import a",
        f"{site}/b.py:2: SADeprecationWarning: older",
        "goes on here",
        "  import b",
        "  an indented line of somebody's",
        f"{site}/c.py:3: UserWarning: mine",
        f"{site}/d.py:4: DeprecationWarning: at the end of its output",
        "  import d",
        "last",
    ]
    assert list(without_deprecations(lines)) == [lines[0], lines[6], lines[7], lines[10]]


def test_waiting_ends_when_told_to_stop(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with Processes([program("silent", "exec sleep 600", free_port())], folder=tmp_path) as processes:
        assert not processes.wait_until_up(stop)


# -- up


SECRETS: Mapping[str, str] = dict.fromkeys(up.SECRETS, "s")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("actions", {"OTN_DATABASE_URL", "OTN_QUEUE_URL"}),
        ("simulator", {"MESSENGER_VERIFY_TOKEN", "MESSENGER_APP_SECRET", "MESSENGER_PAGE_ACCESS_TOKEN"}),
        ("rasa", up.SECRETS),
        ("unheard-of", set()),
    ],
)
def test_a_program_is_given_only_the_secrets_it_needs(name: str, given: set[str]) -> None:
    environ = up.environment_of(name, {**SECRETS, "HOME": "/home"}, {"rasa": 5005})
    assert {key for key in environ if key in up.SECRETS} == given
    assert environ["HOME"] == "/home"


def test_every_program_of_the_procfile_is_known(tmp_path: Path) -> None:
    ports = {"rasa": 1, "actions": 2, "simulator": 3}
    programs = up.procfile_programs(ROOT / "Procfile", {}, ports)
    assert {one.name for one in programs} == set(up.ALLOWED)
    assert {one.name: one.port for one in programs if one.port} == ports


def test_with_the_real_graph_api_there_is_no_simulator(tmp_path: Path) -> None:
    environ = {"MESSENGER_PAGE_ACCESS_TOKEN": "real", "MESSENGER_APP_SECRET": "real"}
    write_env(tmp_path, environ, database_exists=False)
    ports = up.ports_of(load_settings(tmp_path, environ, need=EVERYTHING), environ)
    assert ports == {"rasa": 5005, "actions": 5055}
    names = [one.name for one in up.procfile_programs(ROOT / "Procfile", environ, ports)]
    assert names == ["rasa", "actions", "worker"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose programs are small servers that answer everything."""
    (tmp_path / "answer.py").write_text(ANSWER)
    names = ("rasa", "actions", "simulator")
    lines = [f"{name}: python answer.py ${name.upper()}_PORT" for name in names]
    (tmp_path / "Procfile").write_text("\n".join([*lines, "worker: exec sleep 600"]) + "\n")
    (tmp_path / ".env").write_text(f"MESSENGER_GRAPH_URL=http://127.0.0.1:{free_port()}\n")
    write_env(tmp_path, {}, database_exists=False)
    return tmp_path


@pytest.fixture
def started(project: Path) -> Iterator[subprocess.Popen[str]]:
    ports = {"RASA_PORT": str(free_port()), "ACTIONS_PORT": str(free_port())}
    environ = {**os.environ, **ports, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "otn.dev.up"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=project, env=environ, text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.terminate()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_introduces_the_programs_and_stops_cleanly(
    started: subprocess.Popen[str], how: signal.Signals
) -> None:
    assert started.stdout
    lines: list[str] = []
    for line in started.stdout:
        lines.append(line)
        if line.startswith("Everything answers"):
            break
    text = "".join(lines)
    for name in ("rasa", "actions", "worker", "simulator"):
        assert f"\n  {name} " in text
    assert re.search(r"simulator +http://127\.0\.0\.1:\d+ +open it in a browser", text)
    ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", text)]
    started.send_signal(how)
    rest = started.stdout.read()
    assert started.wait() == 0
    assert rest.rstrip().endswith("Everything has stopped.")
    assert "Traceback" not in text + rest
    assert len(ports) == 3
    assert not any(map(is_taken, ports))


def test_run_lists_every_missing_key_and_exits_2(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "otn.dev.up"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n- ") == 5
    assert "make setup" in done.stderr
