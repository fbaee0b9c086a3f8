"""The wheel holds everything that another bot needs and nothing that belongs to this one, and it can be installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import shipped

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("otn", "channels", "simulator")
# A bot has Rasa, and Rasa brings these. pysqlite3 is wanted on Linux only, and its name is that of the import.
OF_THE_BOT = {"rasa", "sanic", "numpy", "scipy", "jsonschema"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel."""
    found = shipped.environment(tmp_path_factory.mktemp("elsewhere") / "venv")
    shipped.install(wheel, found)
    return found


def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def sources() -> Iterator[str]:
    yield "otn_actions.py"
    for package in SHIPPED:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


def test_everything_is_in_it_but_the_tools_of_this_repository(wheel: Path) -> None:
    wanted = {name for name in sources() if not name.startswith("otn/dev/")}
    assert files(wheel) == wanted


def test_what_a_bot_has_already_is_what_rasa_brings() -> None:
    brought = set(re.findall(r"^[\w.-]+", "\n".join(requires("rasa") or ()), re.M))
    assert brought | {"rasa"} >= OF_THE_BOT


def test_nothing_in_it_needs_what_is_not(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        required = re.findall(
            r"^Requires-Dist: ([\w.-]+)(?!.*extra ==)", archive.read(metadata).decode(), re.M
        )
        modules = {name: ast.parse(archive.read(name)) for name in files(wheel) if name.endswith(".py")}
    known = set(map(normal, required))
    assert "rasa" not in known
    ours = {*SHIPPED, "otn_actions", *OF_THE_BOT, *sys.stdlib_module_names}
    providers = packages_distributions()
    for name, module in modules.items():
        for imported in set(imports(module)) - ours:
            brought_by = set(map(normal, providers.get(imported, [imported])))
            assert brought_by & known, f"{name} imports {imported}, and no dependency brings it"


def normal(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.module != "otn.dev"
            names = [str(node.module)]
        yield from (name.partition(".")[0] for name in names)


def test_the_command_line_works_far_from_this_repository(installed: Path, tmp_path: Path) -> None:
    environ = {"PATH": f"{installed}:/usr/bin:/bin", "HOME": str(tmp_path)}

    def otn(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["otn", *arguments], cwd=tmp_path, env=environ, text=True, capture_output=True)

    code = "import otn_actions, simulator; from importlib.util import find_spec; print(find_spec('channels.messenger'))"
    imported = subprocess.run(
        ["python", "-c", code], cwd=tmp_path, env=environ, text=True, capture_output=True
    )
    assert str(ROOT) not in imported.stdout
    assert "site-packages/channels/messenger.py" in imported.stdout, imported.stderr
    made = otn("init")
    assert made.returncode == 0, made.stderr
    assert "database: created at revision" in made.stderr
    assert otn("topics", "add", "news", "--title", "News").returncode == 0
    assert "news" in otn("topics", "list").stdout


def test_actions_need_no_rasa(installed: Path, tmp_path: Path) -> None:
    """What an action server without Rasa imports: its SDK, SQL, and what reads the configuration."""
    code = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rasa", "tensorflow", "aiohttp", "typer", "huey"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
from rasa_sdk.executor import ActionExecutor
executor = ActionExecutor()
executor.register_package("otn_actions")
otn_actions = sys.modules["otn_actions"]
otn_actions.the_app().store.close()
print(*sorted(executor.actions))
"""
    done = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, text=True, capture_output=True)
    assert done.stdout.split() == [
        "action_forget_me",
        "action_otn_fallback",
        "action_otn_status",
        "action_remember_contact",
        "action_request_otn",
        "action_send_otn_follow_up",
        "action_tag_contact",
    ], done.stderr


def test_a_bot_may_have_channels_of_its_own(installed: Path, tmp_path: Path) -> None:
    """With the line that the guide gives for their `__init__.py`."""
    guide = (ROOT / "docs" / "add-to-your-bot.md").read_text()
    (line,) = re.findall(r"`(__path__ = .*)`", guide)
    (tmp_path / "channels").mkdir()
    (tmp_path / "channels" / "__init__.py").write_text(f"{line}\n")
    (tmp_path / "channels" / "theirs.py").touch()
    look = "print(*(find_spec(f'channels.{name}').origin for name in ('theirs', 'messenger')))"
    code = f"from importlib.util import find_spec; {look}"
    done = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, text=True, capture_output=True)
    theirs, ours = done.stdout.split()
    assert theirs == str(tmp_path / "channels" / "theirs.py")
    assert "site-packages" in ours
