"""The main path from the first message to the refused second send, with every process of the Procfile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from otn.dev import demo
from otn.dev.train import fingerprint, is_trained
from otn.dev.up import SECRETS

pytestmark = pytest.mark.rasa

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project folder that borrows this one's files, and its model where it is up to date."""
    names = [*demo.BOT, "Procfile", "endpoints.yml"]
    if not is_trained(ROOT, fingerprint(ROOT)):
        names.remove("models")
    for name in names:
        (tmp_path / name).symlink_to(ROOT / name)
    subprocess.run([sys.executable, "-m", "otn.dev.train"], cwd=tmp_path, env=environ(), check=True)
    return tmp_path


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_the_demo_plays_to_its_end_and_shows_no_secret(home: Path) -> None:
    of_the_user = {"MESSENGER_PAGE_ACCESS_TOKEN": "the-users-own", "OTN_DATABASE_URL": "sqlite:///users.db"}
    command = [sys.executable, "-m", "otn.dev.demo"]
    done = subprocess.run(command, cwd=home, env=environ(**of_the_user), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 9
    assert "Everything went as it should." in done.stdout
    assert not (home / "users.db").exists()

    stage = home / ".otn" / "demo"
    told = done.stdout + done.stderr + "".join(log.read_text() for log in stage.glob("*.log"))
    secrets = [value for key, value in dotenv_values(stage / ".env").items() if key in SECRETS and value]
    assert len(secrets) == len(SECRETS) - 2  # the databases' addresses are left to their defaults
    assert not [secret for secret in [*secrets, "the-users-own"] if secret in told]


def test_a_program_that_ends_is_named_and_the_demo_fails(home: Path) -> None:
    (home / "Procfile").unlink()
    (home / "Procfile").write_text("actions: exit 1\nworker: exec sleep 600\n")
    command = [sys.executable, "-m", "otn.dev.demo"]
    done = subprocess.run(command, cwd=home, env=environ(), text=True, capture_output=True)
    assert done.returncode == 1
    assert "actions ended by itself (exit code 1)" in done.stderr
