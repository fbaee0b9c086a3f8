"""Train the bot when what it is trained from has changed (`python -m otn.dev.train`).

Says in a line what it did. The model is `models/bot.tar.gz`; beside it stands the fingerprint of what it was made
from. Rasa is imported only when there is something to train, so that an unchanged bot costs nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

MODEL: Final = Path("models") / "bot.tar.gz"
FINGERPRINT: Final = Path("models") / "bot.trained-from"
LOG: Final = Path(".otn") / "train.log"
INPUTS: Final = ("config.yml", "domain.yml", "domain", "data")
# `make test` validates, once. Of stories glued together (augmentation) neither of the two policies would learn
# anything: memory and rules leave them out.
SWIFT: Final = ("--skip-validation", "--augmentation", "0")
# `rasa`, for what writes or reads a model: skops, which holds its classifier, is imported in three seconds before
# TensorFlow, and in twelve after it (channels/quick_start.py).
RASA_WITH_MODEL: Final = (sys.executable, "-c", "import skops.io; from rasa.__main__ import main; main()")
QUIET: Final = {
    "RASA_TELEMETRY_ENABLED": "false",  # also keeps Sentry off
    "SQLALCHEMY_SILENCE_UBER_WARNING": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def main() -> int:
    """Train in the current folder if needed; return 0, or 1 after saying why it failed."""
    root = Path.cwd()
    wanted = fingerprint(root)
    if is_trained(root, wanted):
        print(f"model: {MODEL} is up to date")
        return 0
    print(f"model: training {MODEL} (20 seconds to a minute)", flush=True)
    started = time.monotonic()
    code = train(root)
    if code:
        print(_last_lines(root / LOG), file=sys.stderr)
        print(f"model: training failed; the whole log is in {LOG}", file=sys.stderr)
        return 1
    (root / FINGERPRINT).write_text(wanted + "\n", encoding="ascii")
    print(f"model: trained {MODEL} ({time.monotonic() - started:.0f} s)")
    return 0


def fingerprint(root: Path) -> str:
    """Return a hash of the names and contents of everything that a model depends on, and of Rasa's version."""
    total = hashlib.sha256(version("rasa").encode())
    for path in _inputs(root):
        total.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def is_trained(root: Path, wanted: str) -> bool:
    """Say whether the model is there and was made from exactly this."""
    stamp = root / FINGERPRINT
    return (root / MODEL).exists() and stamp.exists() and stamp.read_text(encoding="ascii").strip() == wanted


def train(root: Path) -> int:
    """Run `rasa train` into the log and return its exit code; the old model stays until the new one is complete."""
    (root / FINGERPRINT).unlink(missing_ok=True)
    fresh = root / ".otn" / "train"
    fresh.mkdir(parents=True, exist_ok=True)
    command = [
        *RASA_WITH_MODEL,
        "train",
        "--out",
        str(fresh),
        "--fixed-model-name",
        "bot",
        *SWIFT,
    ]
    with (root / LOG).open("wb") as log:
        done = subprocess.run(command, cwd=root, env={**os.environ, **QUIET}, stdout=log, stderr=log)
    # Rasa exits 0 for some configurations that it cannot train.
    if done.returncode or not (fresh / MODEL.name).exists():
        return done.returncode or 1
    (root / MODEL).parent.mkdir(exist_ok=True)
    (fresh / MODEL.name).replace(root / MODEL)
    return 0


def _inputs(root: Path) -> Iterator[Path]:
    for name in INPUTS:
        path = root / name
        if path.is_dir():
            yield from sorted(item for item in path.rglob("*") if item.is_file())
        elif path.exists():
            yield path


def _last_lines(log: Path, count: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


if __name__ == "__main__":
    sys.exit(main())
