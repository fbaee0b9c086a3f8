"""What was measured on, and what a process costs: read from /proc (Linux)."""

from __future__ import annotations

import os
import platform
import sysconfig
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of one process, in MB: everything mapped, and its fair share of what it shares with others."""

    rss: float
    pss: float


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all its threads, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def idle_seconds() -> float:
    """CPU time that the machine's cores had nothing to do, since it started."""
    return int(Path("/proc/stat").read_text().split(maxsplit=5)[4]) / _TICKS_PER_SECOND


def memory(pid: int) -> Memory:
    """What a process holds now."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return Memory(rss=kilobytes["Rss"] / 1024, pss=kilobytes["Pss"] / 1024)


def load() -> float:
    """How many processes wanted to run during the last minute."""
    return os.getloadavg()[0]


def description() -> str:
    """Machine, versions, day: figures mean nothing without."""
    libraries = ("rasa", "sanic", "SQLAlchemy", "aiohttp")
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    today = datetime.now(timezone.utc).date()
    return (
        f"{os.cpu_count()} cores of {_cpu_model()}, {_memory_gb():.0f} GB, Linux {platform.release()}, "
        f"Python {platform.python_version()}{_how_built()}, {versions}; {today}"
    )


def _how_built() -> str:
    """A Python as pyenv builds it takes up to twice as long for a loop as one built with profiles, and a tenth longer
    for a turn of Rasa's. Debian's makers run the profiles themselves.
    """
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "" if "--enable-optimizations" in options else " (built without --enable-optimizations)"


def _cpu_model() -> str:
    return _value_of("/proc/cpuinfo", "model name") or platform.machine()


def _memory_gb() -> float:
    return int(_value_of("/proc/meminfo", "MemTotal").split()[0]) / 1024**2


def _value_of(file: str, wanted: str) -> str:
    for line in Path(file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return ""
