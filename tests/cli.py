"""The command line inside a test: what it printed, and how it ended."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otn.cli import main


@dataclass(frozen=True)
class Answer:
    """Exit code, data and talk."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Types `otn …` in one project, and keeps everything that was ever printed."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.printed = ""
        self._capture = capture

    def __call__(self, *arguments: str) -> Answer:
        self._capture.readouterr()
        code = main(["--root", str(self.root), *arguments])
        printed = self._capture.readouterr()
        self.printed += printed.out + printed.err
        return Answer(code, printed.out, printed.err)


def forget_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own configuration reaches a command."""
    for name in list(os.environ):
        if name.startswith(("MESSENGER_", "OTN_")):
            monkeypatch.delenv(name)
