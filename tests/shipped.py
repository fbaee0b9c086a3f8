"""The wheel as `make wheel` builds it, and an environment of somebody else's with nothing of ours but it.

No download: it is built with what is in `.venv`, and the environment borrows Rasa and all other packages from there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".otn" / "boot" / "bin" / "uv"
SOURCES = ("otn", "channels", "simulator", "otn_actions.py", "actions", "pyproject.toml", "README.md")

_RASA = """#!{python}
import sys
from rasa.__main__ import main
sys.exit(main())
"""


def build(folder: Path) -> Path:
    """Build the wheel from a copy, so that nothing that lies about in this folder gets in."""
    copy = folder / "clone"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    _uv(
        "build", "--wheel", "--no-build-isolation", "--out-dir", str(folder), "--python", sys.executable, copy
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder: Path) -> Path:
    """Make a virtual environment that has Rasa, and return its `bin`."""
    _uv("venv", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    borrowed = sysconfig.get_path("purelib")
    # A line of a .pth file is a folder and no more: what makes this project importable in .venv stays there.
    (folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "borrowed.pth").write_text(
        borrowed
    )
    rasa = folder / "bin" / "rasa"
    rasa.write_text(_RASA.format(python=python))
    rasa.chmod(0o755)
    return folder / "bin"


def install(wheel: Path, bin_folder: Path) -> None:
    """Install the wheel and nothing that it depends on."""
    _uv("pip", "install", "--no-deps", "--python", bin_folder / "python", wheel)


def _uv(*arguments: str | Path) -> None:
    subprocess.run([UV, *arguments, "--quiet", "--offline"], check=True)
