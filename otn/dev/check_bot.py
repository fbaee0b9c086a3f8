"""Check the bot as Rasa sees it: its data, its training, its stories (`python -m otn.dev.check_bot`).

Says in a line what was checked, and shows Rasa's own words only where something is wrong: its exit codes hide unused
intents and responses, and its output hides the lines that matter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from otn.dev import train

# Rasa takes the files test_*.yml of a folder.
STORIES: Final = Path("tests")
RESULTS: Final = Path(".otn") / "stories"
# What Rasa itself complains of, by warning or by log; deprecated Python is none of the bot's business.
_COMPLAINT: Final = re.compile(
    r"/rasa/\S+\.py:\d+: (?!Deprecat)(\w*Warning: .*)|\b((?:WARNING|ERROR|CRITICAL) +rasa\S* +- .*)"
)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


def main() -> int:
    """Check everything in the current folder; return 0, or 1 after showing what is wrong."""
    return check_data(Path.cwd()) or train.main() or check_stories(Path.cwd())


def check_data(root: Path) -> int:
    """Let Rasa validate domain and data; every warning counts as an error."""
    started = time.monotonic()
    code, output = rasa(root, "data", "validate", "--fail-on-warnings")
    wrong = complaints(output)
    if code or wrong:
        print(
            "bot: its data is not sound:", *(wrong or output.splitlines()[-20:]), sep="\n  ", file=sys.stderr
        )
        return 1
    print(f"bot: its data is sound ({time.monotonic() - started:.0f} s)", flush=True)
    return 0


def check_stories(root: Path) -> int:
    """Let Rasa predict every action of the test stories with the trained model."""
    started = time.monotonic()
    options = ["--stories", str(STORIES), "--model", str(train.MODEL), "--out", str(RESULTS)]
    code, output = rasa(
        root, "test", "core", "--fail-on-prediction-errors", "--no-plot", *options, with_model=True
    )
    wrong = complaints(output)
    if code or wrong:
        told = output.partition("WrongPredictionException: ")[2].splitlines() or output.splitlines()[-20:]
        print(f"bot: a story of {STORIES}/ goes another way:", *wrong, *told, sep="\n  ", file=sys.stderr)
        return 1
    print(
        f"bot: every story of {STORIES}/ goes as it should ({time.monotonic() - started:.0f} s)", flush=True
    )
    return 0


def rasa(root: Path, *arguments: str, with_model: bool = False) -> tuple[int, str]:
    """Run a command of Rasa's in a project; return its exit code and everything it printed, without colours."""
    program = train.RASA_WITH_MODEL if with_model else (sys.executable, "-m", "rasa")
    command = [*program, *arguments]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **train.QUIET}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, _COLOUR.sub("", done.stdout.decode("utf-8", "replace"))


def complaints(output: str) -> list[str]:
    """Return what Rasa complains of in its output, without file names and colours."""
    return [found[1] or found[2] for line in output.splitlines() if (found := _COMPLAINT.search(line))]


if __name__ == "__main__":
    sys.exit(main())
