"""Start everything in the Procfile, say where it answers, and stop it all on Ctrl-C (`python -m otn.dev.up`).

Exit code 0 after Ctrl-C or SIGTERM, 1 when a program could not start or ended by itself, 2 when the configuration is
wrong. Every program reads `.env` itself and keeps only what it needs; the environment that it is given here holds no
secret that is none of its business.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from honcho.environ import parse_procfile

from otn import project
from otn.dev.processes import Processes, Program, StartError, stop_signals
from otn.dev.train import QUIET
from otn.errors import ConfigError
from otn.settings import EVERYTHING, Settings, is_loopback, load_settings

_CONNECTION: Final = frozenset(
    {"MESSENGER_VERIFY_TOKEN", "MESSENGER_APP_SECRET", "MESSENGER_PAGE_ACCESS_TOKEN"}
)
_DATABASES: Final = frozenset({"OTN_DATABASE_URL", "OTN_QUEUE_URL"})
_KEYS: Final = frozenset({"OTN_ENCRYPTION_KEYS", "OTN_HASH_KEY", "OTN_NOTIFY_KEY"})
# A database's address may hold a password, so it counts.
SECRETS: Final = _CONNECTION | _DATABASES | _KEYS
ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "rasa": SECRETS,
    "actions": _DATABASES,
    "worker": SECRETS - {"MESSENGER_VERIFY_TOKEN", "OTN_NOTIFY_KEY"},
    "simulator": _CONNECTION,
}


def main() -> int:
    """Run until told to stop; return the exit code."""
    root = Path.cwd()
    try:
        settings = load_settings(root, need=EVERYTHING)
    except ConfigError as error:
        print("The configuration is not complete:", *error.problems, sep="\n- ", file=sys.stderr)
        return 2
    programs = procfile_programs(root / "Procfile", os.environ, ports_of(settings, os.environ))
    with stop_signals() as stop:
        try:
            return run(programs, root, stop)
        except StartError as error:
            print(f"\n{error}.", file=sys.stderr)
            return 1


def run(programs: list[Program], root: Path, stop: threading.Event) -> int:
    """Start the programs, say where they answer, wait for the word to stop."""
    print("Starting " + ", ".join(program.name for program in programs) + " …", flush=True)
    with Processes(programs, folder=root) as processes:
        if processes.wait_until_up(stop):
            print("\n" + "\n".join(_introduction(program) for program in programs), flush=True)
            print("\nEverything answers. Ctrl-C stops it.\n", flush=True)
        while not stop.wait(0.5):
            processes.check()
        print("\nStopping …", flush=True)
        threading.Thread(target=_hurry_on_next, args=(stop, processes), daemon=True).start()
    print("Everything has stopped.", flush=True)
    return 0


def ports_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, int]:
    """Choose the ports. The simulator listens where the Graph API is expected; for the real one there is none."""
    ports = {
        "rasa": int(environ.get("RASA_PORT", "5005")),
        "actions": _action_endpoint_port(settings.root) or int(environ.get("ACTIONS_PORT", "5055")),
    }
    if is_loopback(settings.graph_url):
        ports["simulator"] = urlsplit(settings.graph_url).port or 80
    return ports


def _action_endpoint_port(root: Path) -> int | None:
    """Where Rasa will look for the actions: another port would make every one of them fail, silently."""
    endpoint = project.read(root / "endpoints.yml").get("action_endpoint")
    url = endpoint.get("url") if isinstance(endpoint, dict) else None
    return urlsplit(str(url)).port if url and is_loopback(str(url)) else None


def procfile_programs(procfile: Path, environ: Mapping[str, str], ports: Mapping[str, int]) -> list[Program]:
    """Read the Procfile; leave out the simulator where there is no port for it."""
    lines: dict[str, str] = parse_procfile(procfile.read_text(encoding="utf-8")).processes
    return [
        Program(
            name=name,
            command=command,
            environ=environment_of(name, environ, ports),
            answers_at=_health(name, ports),
        )
        for name, command in lines.items()
        if name != "simulator" or name in ports
    ]


def environment_of(name: str, environ: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    """Return the environment for one program: everybody's, without the secrets of others."""
    none_of_its_business = SECRETS - ALLOWED.get(name, frozenset())
    mine = {key: value for key, value in environ.items() if key not in none_of_its_business}
    webhook = f"http://127.0.0.1:{ports['rasa']}/webhooks/messenger/webhook"
    return {
        "SIMULATOR_WEBHOOK_URL": webhook,
        **mine,
        **QUIET,
        **{f"{program.upper()}_PORT": str(port) for program, port in ports.items()},
        # The Procfile's words are those of this environment, whether it is active or not.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
    }


def _health(name: str, ports: Mapping[str, int]) -> str | None:
    paths = {"rasa": "/webhooks/messenger/", "actions": "/health", "simulator": "/simulator/health"}
    return f"http://127.0.0.1:{ports[name]}{paths[name]}" if name in paths else None


def _introduction(program: Program) -> str:
    base = f"http://127.0.0.1:{program.port}" if program.port else "-"
    place, sentence = {
        "rasa": (
            f"{base}/webhooks/messenger/webhook",
            "the bot: Messenger delivers messages and opt-ins here",
        ),
        "actions": (base, "its custom actions: only the bot calls them"),
        "worker": (base, "sends what is due outside of conversations"),
        "simulator": (base, "open it in a browser: it is Messenger, and you are Ada"),
    }.get(program.name, (base, program.command))
    return f"  {program.name:<10} {place:<50} {sentence}"


def _hurry_on_next(stop: threading.Event, processes: Processes) -> None:
    """A second Ctrl-C does not wait for conversations to finish. The same one may arrive twice, through `make`."""
    time.sleep(1)
    stop.clear()
    stop.wait()
    processes.hurry()


if __name__ == "__main__":
    sys.exit(main())
