"""A Chromium for the tests of the chat page (`python -m otn.dev.browser`): found, or installed where that is possible.

`CHROMIUM` names another one. Exit code 0, or 1 after saying what to type; `OTN_WITHOUT_BROWSER=1` leaves the tests
that need it out, and they say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ON_A_MAC: Final = ("Google Chrome", "Chromium")
# The second one draws what people react with.
PACKAGES: Final = ("chromium", "fonts-noto-color-emoji")

MISSING: Final = """There is no Chromium here, and the tests of the chat page need one. Any one of these helps:
  sudo apt-get install chromium         (Debian; Ubuntu: chromium-browser)
  CHROMIUM=/path/to/chrome make test    if you have one elsewhere
  OTN_WITHOUT_BROWSER=1 make test       to leave these tests out"""


def main() -> int:
    """See to it that there is one; return the exit code."""
    if unwanted() or find() or (may_install() and install() and find()):
        return 0
    print(MISSING, file=sys.stderr)
    return 1


def unwanted() -> bool:
    """Whether the tests that need a browser are to be left out."""
    return os.environ.get("OTN_WITHOUT_BROWSER") == "1"


def find() -> str | None:
    """The path of a Chromium or Chrome, None where there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    found = [shutil.which(name) for name in NAMES]
    found += [shutil.which(f"/Applications/{app}.app/Contents/MacOS/{app}") for app in ON_A_MAC]
    return next(filter(None, found), None)


def may_install() -> bool:
    """Whether packages can be installed without asking anybody: Debian, as root, and no other browser named."""
    if os.environ.get("CHROMIUM"):
        return False
    return hasattr(os, "geteuid") and os.geteuid() == 0 and Path("/etc/debian_version").exists()


def install() -> bool:
    """Install the packages; False after apt-get has said why not."""
    print(f"browser: installing {', '.join(PACKAGES)}", flush=True)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    steps = (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "-y", *PACKAGES])
    return all(subprocess.run(step, env=environ, stdout=subprocess.DEVNULL).returncode == 0 for step in steps)


if __name__ == "__main__":
    sys.exit(main())
