"""Imports point one way, and each outside world has one door (docs: the map of the code)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up: a module imports its own layer and those below. What is not named belongs to FLOWS.
PURE, TOOLS, DOORS, USE_CASES, FLOWS, ENTRY = range(6)
LAYERS = {
    "otn": PURE,
    "otn.audience": PURE,
    "otn.composing": PURE,
    "otn.errors": PURE,
    "otn.events": PURE,
    "otn.filters": PURE,
    "otn.graph": PURE,
    "otn.graph.protocol": PURE,
    "otn.local_time": PURE,
    "otn.messages": PURE,
    "otn.models": PURE,
    "otn.placeholders": PURE,
    "otn.policy": PURE,
    "otn.times": PURE,
    "otn.signed_request": PURE,
    "otn.wording": PURE,
    "otn.clock": TOOLS,
    "otn.config_files": TOOLS,
    "otn.env_file": TOOLS,
    "otn.project": TOOLS,
    "otn.settings": TOOLS,
    "otn.vault": TOOLS,
    "otn.graph.aio": DOORS,
    "otn.graph.sync": DOORS,
    "otn.store": DOORS,
    "otn.asking": USE_CASES,
    "otn.batches": USE_CASES,
    "otn.broadcasts": USE_CASES,
    "otn.catalogue": USE_CASES,
    "otn.delivery": USE_CASES,
    "otn.estimates": USE_CASES,
    "otn.intake": USE_CASES,
    "otn.people": USE_CASES,
    "otn.privacy": USE_CASES,
    "otn.reactions": USE_CASES,
    "otn.remembering": USE_CASES,
    "otn.scheduler": USE_CASES,
    "otn.cli": ENTRY,
    "otn.console": ENTRY,
    "otn.dev": ENTRY,
    "channels": ENTRY,
    "otn_actions": ENTRY,
    "actions": ENTRY,
}
# Who may import what reaches outside. `otn.dev` starts the processes of this machine and looks at them.
DOOR_OF = {
    "sqlalchemy": {"otn.store"},
    "alembic": {"otn.store"},
    "sqlite3": {"otn.store"},
    "pysqlite3": {"otn.store"},
    "psycopg2": {"otn.store"},
    "requests": {"otn.graph", "otn.dev"},
    "aiohttp": {"otn.graph"},
    "urllib3": {"otn.graph"},
    "urllib.request": {"otn.dev"},
    "http.client": {"otn.dev"},
    "socket": {"otn.graph", "otn.dev"},
    "cryptography": {"otn.vault", "otn.dev"},
    "rasa": {"channels"},
    "sanic": {"channels"},
    "huey": {"otn.queue"},
    "prometheus_client": {"otn.metrics"},
    "rasa_sdk": {"otn_actions", "actions"},
    "typer": {"otn.cli"},
    "rich": {"otn.cli"},
    "simulator": set(),
}


def modules(*packages: str) -> dict[str, ast.Module]:
    """Every module of these packages by its name."""
    found = {}
    for package in packages:
        for path in [ROOT / f"{package}.py", *(ROOT / package).rglob("*.py")]:
            if not path.exists():
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


OURS = modules("otn", "channels", "otn_actions", "actions")
SIMULATOR = modules("simulator")


def imports(name: str, tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[str]:
    """What a module imports, wherever in it; a name taken from a package counts as the module it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else str(node.module)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def layer(name: str) -> int:
    """The layer that a module, or the package around it, is named for."""
    while name not in LAYERS and "." in name.removeprefix("otn."):
        name = name.rpartition(".")[0]
    return LAYERS.get(name, FLOWS)


@pytest.mark.parametrize("name", OURS)
def test_imports_point_downwards(name: str) -> None:
    for imported in imports(name, OURS[name], OURS):
        if imported in OURS:
            assert layer(imported) <= layer(name), f"{name} imports {imported}, which is above it"


@pytest.mark.parametrize("name", [name for name in OURS if layer(name) == PURE])
def test_pure_modules_need_nothing_but_python(name: str) -> None:
    for imported in imports(name, OURS[name], OURS):
        assert imported in OURS or imported.partition(".")[0] in sys.stdlib_module_names, imported


@pytest.mark.parametrize("name", OURS)
def test_each_outside_world_has_one_door(name: str) -> None:
    for imported in imports(name, OURS[name], OURS):
        for world, doors in DOOR_OF.items():
            if within(imported, world):
                assert any(within(name, door) for door in doors), f"{name} imports {imported}"


def test_the_two_doors_know_nothing_of_each_other() -> None:
    for name, tree in OURS.items():
        found = list(imports(name, tree, OURS))
        if within(name, "otn.store"):
            assert not any(within(imported, "otn.graph") for imported in found), name
        if within(name, "otn.graph"):
            assert not any(within(imported, "otn.store") for imported in found), name


def test_the_simulator_is_nobody_s_relative_so_that_it_can_judge() -> None:
    strangers = ("otn", "channels", "otn_actions", "actions", "rasa", "rasa_sdk", "sqlalchemy")
    for name, tree in SIMULATOR.items():
        for imported in imports(name, tree, SIMULATOR):
            assert not any(within(imported, stranger) for stranger in strangers), f"{name} imports {imported}"


def test_no_module_needs_itself() -> None:
    needs = {
        name: {imported for imported in imports(name, tree, OURS) if imported in OURS and imported != name}
        for name, tree in OURS.items()
        if not within(name, "otn.cli")  # a command imports its group, and the group its commands
    }
    while free := {name for name, needed in needs.items() if not needed & needs.keys()}:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert needs == {}


CLOCKS = {"now", "utcnow", "today", "time", "time_ns"}


@pytest.mark.parametrize("name", [name for name in OURS if not within(name, "otn.dev")])
def test_only_the_clock_reads_the_time(name: str) -> None:
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(OURS[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS
    ]
    read = [call for call in calls if call.partition(".")[0] in ("datetime", "date", "time", "dt")]
    assert read == (["datetime.now"] if name == "otn.clock" else []), name


def test_the_law_decides_and_does_nothing() -> None:
    for name in ("otn.policy", "otn.events", "otn.models"):
        imported = set(imports(name, OURS[name], OURS))
        assert not imported & {
            "os",
            "pathlib",
            "time",
            "random",
            "secrets",
            "uuid",
            "logging",
            "subprocess",
        }, name
        called = {
            node.func.id
            for node in ast.walk(OURS[name])
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"open", "print", "input"}, name
