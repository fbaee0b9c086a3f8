"""Adds to `.env` what a project needs and does not have: its own keys, and for the simulator what Meta would give."""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from otn.errors import ConfigError
from otn.settings import SIMULATOR_URL, Reader, is_loopback

_MADE_UP: Final[Mapping[str, Callable[[], str]]] = {
    "MESSENGER_VERIFY_TOKEN": lambda: secrets.token_urlsafe(24),
    "MESSENGER_APP_SECRET": lambda: secrets.token_hex(16),
    "MESSENGER_PAGE_ACCESS_TOKEN": lambda: "SIMULATED" + secrets.token_hex(32),
    "MESSENGER_GRAPH_URL": lambda: SIMULATOR_URL,
    "OTN_CLOCK_FILE": lambda: ".otn/clock",
    "OTN_ENCRYPTION_KEYS": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "OTN_HASH_KEY": lambda: secrets.token_urlsafe(32),
    "OTN_NOTIFY_KEY": lambda: secrets.token_urlsafe(32),
}
# Meta gives these (or they say that there is no Meta): invented only for the simulator.
_NOT_OURS_TO_MAKE: Final = frozenset(
    {"MESSENGER_APP_SECRET", "MESSENGER_PAGE_ACCESS_TOKEN", "MESSENGER_GRAPH_URL", "OTN_CLOCK_FILE"}
)


def write_env(root: Path, environ: Mapping[str, str] = os.environ, *, database_exists: bool) -> list[str]:
    """Add what is missing to `.env` (mode 0600) and return the names of the keys that were made.

    Lines that are there stay as they are, and a key that the environment or a YAML file gives is not made. A
    project that says nothing of a Page yet is pointed at the simulator, with invented credentials; one that
    does gets only what need not come from Meta. Where a database exists, the keys it was written with are
    never made anew, since new ones could not read it: `ConfigError`.
    """
    reader = Reader.of_project(root, environ)
    if reader.problems:
        raise ConfigError(reader.problems)
    missing = _to_make(reader)
    lost = [key for key in ("OTN_ENCRYPTION_KEYS", "OTN_HASH_KEY") if key in missing]
    if database_exists and lost:
        raise ConfigError(
            [
                f"{key} is missing, but a database exists that was written with it: "
                "put the key from your backup into .env (a new one could not read it)"
                for key in lost
            ]
        )
    made = {key: make() for key, make in missing.items()}
    _append_env(root / ".env", made)
    return list(made)


def _to_make(reader: Reader) -> dict[str, Callable[[], str]]:
    """Choose what may be invented for this project."""
    connection = (
        "MESSENGER_VERIFY_TOKEN",
        "MESSENGER_APP_SECRET",
        "MESSENGER_PAGE_ACCESS_TOKEN",
        "MESSENGER_GRAPH_URL",
    )
    graph_url = reader.graph_url_or_none()
    simulated = is_loopback(graph_url) if graph_url else not any(map(reader.is_given, connection))
    return {
        key: make
        for key, make in _MADE_UP.items()
        if not reader.is_given(key) and (simulated or key not in _NOT_OURS_TO_MAKE)
    }


def _append_env(path: Path, made: Mapping[str, str]) -> None:
    """Write the old lines and the new ones in one move, for the owner's eyes; a crash loses no key."""
    target = path.resolve()
    if not made:
        if target.exists():
            target.chmod(0o600)
        return
    before = (
        target.read_text(encoding="utf-8")
        if target.exists()
        else "# Read by `otn` and Rasa. Keep a backup: see the keys below.\n"
    )
    if before and not before.endswith("\n"):
        before += "\n"
    descriptor, temporary = tempfile.mkstemp(prefix=".env.", dir=target.parent)  # mkstemp's mode is 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(before + "".join(f"{key}={value}\n" for key, value in made.items()))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
