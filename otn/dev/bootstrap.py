"""Make `.venv`: Python 3.10 with exactly the locked packages. Run by `make` with whatever Python there is.

Needs only the standard library of Python 3.8 or newer with venv, and is run by its path, since nothing is
installed yet. uv comes from a small environment of its own, `.otn/boot`.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOOT = ROOT / ".otn" / "boot"
VENV = ROOT / ".venv"
BOOT_LOCK = ROOT / "requirements-boot.lock"
LOCK = ROOT / "requirements-dev.lock"
# Rasa 3.6 runs on nothing newer.
WANTED = "3.10"

NO_PYTHON = f"""There is no Python {WANTED} on this machine, and none could be downloaded. Any one of these helps:
  pyenv install {WANTED}
  {BOOT.relative_to(ROOT)}/bin/uv python install {WANTED}
  the package python{WANTED} of your system (Ubuntu: the deadsnakes archive), with python{WANTED}-venv
  PYTHON310=/path/to/python{WANTED} make setup"""


class BootstrapError(Exception):
    """Something that the reader must do first; the text says what."""


def main(arguments: list[str]) -> int:
    """Bring `.venv` up to date, or with the argument `uv` only that; return 2 when the machine lacks something."""
    try:
        uv = provide_uv()
        if "uv" not in arguments:
            provide_python(uv)
            sync(uv)
    except BootstrapError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def provide_uv() -> Path:
    """Return the locked uv, installing it where it is not there yet."""
    uv = BOOT / "bin" / "uv"
    stamp = BOOT / "locked"
    locked = hashlib.sha256(BOOT_LOCK.read_bytes()).hexdigest()
    if uv.exists() and stamp.exists() and stamp.read_text() == locked:
        return uv
    venv.create(BOOT, clear=True, with_pip=True)
    python = str(BOOT / "bin" / "python")
    run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(BOOT_LOCK)], "install uv")
    stamp.write_text(locked)
    say(f"{run([str(uv), '--version'], 'start uv').split(' (')[0]}, in {BOOT.relative_to(ROOT)}")
    return uv


def provide_python(uv: Path) -> None:
    """Make `.venv` where it is missing or has another Python."""
    if version_of(str(VENV / "bin" / "python")).startswith(f"{WANTED}."):
        return
    python = find_python(uv)
    run([str(uv), "venv", "--quiet", "--clear", "--python", python, str(VENV)], "make .venv")
    say(f"Python {version_of(str(VENV / 'bin' / 'python'))}, in {VENV.relative_to(ROOT)}")


def find_python(uv: Path) -> str:
    """Return the path of a Python 3.10: named by the user, known to uv, kept by pyenv, or downloaded by uv."""
    named = os.environ.get("PYTHON310")
    if named:
        if not version_of(named).startswith(f"{WANTED}."):
            raise BootstrapError(f"PYTHON310={named} is not a Python {WANTED} that runs")
        return named
    # pyenv's own commands fail wherever another version is active, so its folders are looked at directly.
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    newest_first = sorted(kept.glob(f"{WANTED}.*/bin/python{WANTED}"), key=_patch_release, reverse=True)
    for candidate in [uv_python(uv, "find", "--no-python-downloads"), *map(str, newest_first)]:
        if version_of(candidate).startswith(f"{WANTED}."):
            return candidate
    uv_python(uv, "install")
    found = uv_python(uv, "find")
    if not found:
        raise BootstrapError(NO_PYTHON)
    return found


def sync(uv: Path) -> None:
    """Make the packages in `.venv` exactly those of the lock, and put this project beside them."""
    started = time.monotonic()
    print(
        "environment: installing the locked packages (the first time: about a minute, 3 GB)",
        flush=True,
    )
    python = ["--python", str(VENV / "bin" / "python")]
    # Compiled now, since many an image forbids Python to do it later (PYTHONDONTWRITEBYTECODE): there, every start
    # of Rasa would compile TensorFlow anew, which takes longer than the rest of it.
    options = ["--quiet", "--compile-bytecode", "--require-hashes"]
    run([str(uv), "pip", "sync", *options, *python, str(LOCK)], "install the packages")
    project = [*python, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    run([str(uv), "pip", "install", "--quiet", *project], "install this project")
    say(f"up to date with {LOCK.name} ({time.monotonic() - started:.0f} s)")


def uv_python(uv: Path, *arguments: str) -> str:
    """Ask uv about Python 3.10; return its answer, empty when it has none."""
    done = subprocess.run(
        [str(uv), "python", *arguments, WANTED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout.decode().strip() if done.returncode == 0 else ""


def version_of(python: str) -> str:
    """Return a Python's version, empty when it does not run (a pyenv shim may exist and still not run)."""
    try:
        command = [python, "-c", "import platform; print(platform.python_version())"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout.decode().strip() if done.returncode == 0 else ""


def run(command: list[str], purpose: str) -> str:
    """Run a command in the project, its complaints visible, and return what it printed."""
    # Another environment that happens to be active must not be the one that is changed.
    environ = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONHOME")}
    done = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE)
    if done.returncode:
        raise BootstrapError(
            f"Could not {purpose} (the reason stands above). The command was:\n  {' '.join(command)}"
        )
    return done.stdout.decode().strip()


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"environment: {text}", flush=True)


def _patch_release(path: Path) -> int:
    number = re.search(r"/3\.10\.(\d+)", path.as_posix())
    return int(number[1]) if number else -1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
