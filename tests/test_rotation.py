"""A new key replaces an old one while everything runs, and no permission is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cli import CommandLine, forget_environment
from cryptography.fernet import Fernet
from simulated import KEY, TOPIC, Project, project

from otn import rotation
from otn.app import App
from otn.errors import ConfigError, InvalidMove
from otn.store import keys
from otn.store.schema import audit, inbound_event, otn_token
from otn.vault import Vault

NEW = Fernet.generate_key().decode()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def otn_(shop: Project, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    found = CommandLine(shop.root, capsys)
    yield found
    for secret in (*shop.secrets(), NEW):
        assert secret not in found.printed


def configure(shop: Project, encryption_keys: str) -> None:
    env = shop.root / ".env"
    kept = [line for line in env.read_text().splitlines() if not line.startswith("OTN_ENCRYPTION_KEYS")]
    env.write_text("\n".join([*kept, f"OTN_ENCRYPTION_KEYS={encryption_keys}", ""]))


def sealed(app: App) -> list[bytes]:
    with app.store.read() as tx:
        secrets = tx.execute(sa.select(otn_token.c.ciphertext).where(otn_token.c.ciphertext.isnot(None)))
        return [*secrets.scalars(), *tx.execute(sa.select(inbound_event.c.raw)).scalars()]


def are_under(app: App, key: str) -> bool:
    vault = Vault([key], "another hash key does here")
    return all(vault.is_under_first_key(each) for each in sealed(app))


def rotate(app: App, *, pause: object = None) -> rotation.Rotated:
    return rotation.rotate(app, who="ann", pause=pause or (lambda _length: None), advance=lambda _rows: None)  # type: ignore[arg-type]


def test_after_a_rotation_the_new_key_alone_opens_everything(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=3)
    configure(shop, f"{NEW},{KEY}")
    answer = otn_("tokens", "rotate", "--json")
    assert answer.code == 0
    assert answer.json()["rows"] == answer.json()["resealed"] == 7  # 3 tokens; a message and 3 taps
    configure(shop, NEW)
    with shop.opened() as app:
        assert are_under(app, NEW)
    shop.pass_time(timedelta(hours=25))
    assert otn_("send", "7007", "--topic", TOPIC, "--text", "It is back.").code == 0
    assert shop.heard() == ["It is back."]


def test_a_second_rotation_finds_nothing_to_do(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    configure(shop, f"{NEW},{KEY}")
    otn_("tokens", "rotate")
    assert otn_("tokens", "rotate", "--json").json()["resealed"] == 0


def test_taking_the_old_key_out_too_early_is_refused(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    configure(shop, NEW)
    answer = otn_("tokens", "rotate")
    assert answer.code == 2
    assert "put them back behind the new one" in answer.err


def test_a_rotation_that_was_stopped_is_taken_up_again(
    shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)
    shop.person(permissions=3)
    configure(shop, f"{NEW},{KEY}")

    def killed(_length: timedelta) -> None:
        raise KeyboardInterrupt

    with shop.opened() as app:
        with pytest.raises(KeyboardInterrupt):
            rotate(app, pause=killed)
        assert not are_under(app, NEW)
        with app.store.read() as tx:
            assert len(keys.in_use(tx)) == 2
        assert rotate(app).resealed == 5
        assert are_under(app, NEW)
        with app.store.read() as tx:
            assert keys.in_use(tx) == list(app.require_vault().key_fingerprints[:1])


def test_what_arrives_meanwhile_is_taken_along(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 1)
    shop.person(permissions=2)
    configure(shop, f"{NEW},{KEY}")
    arrivals = iter(["7008", "7009"])

    def arrive(_length: timedelta) -> None:
        if psid := next(arrivals, None):
            shop.person(psid, permissions=1)  # recorded by a process that knows the old key only

    with shop.opened() as app:
        rotate(app, pause=arrive)
        assert are_under(app, NEW)


def test_a_process_that_keeps_writing_with_the_old_key_keeps_it_in_use(shop: Project) -> None:
    """Promise 1: the old key is not given up while something is still sealed with it."""
    shop.person(permissions=1)
    configure(shop, f"{NEW},{KEY}")
    people = iter(range(7100, 7200))

    def arrive(_length: timedelta) -> None:
        shop.person(str(next(people)))

    with shop.opened() as app:
        with pytest.raises(InvalidMove, match="restart everything"):
            rotate(app, pause=arrive)
        with app.store.read() as tx:
            assert len(keys.in_use(tx)) == 2


def test_a_forgotten_process_that_writes_after_the_rotation_is_not_forgotten(
    shop: Project, otn_: CommandLine
) -> None:
    """Promise 1: the database says that the old key is needed again."""
    shop.person(permissions=1)
    configure(shop, f"{NEW},{KEY}")
    assert otn_("tokens", "rotate").code == 0
    shop.person("7008", permissions=1)
    configure(shop, NEW)
    answer = otn_("tokens", "list")
    assert answer.code == 0, "reading needs no encryption key"
    assert otn_("tokens", "rotate").code == 2
    configure(shop, f"{NEW},{KEY}")
    assert otn_("tokens", "rotate").code == 0
    configure(shop, NEW)
    assert otn_("tokens", "rotate").code == 0


def test_a_row_that_no_key_opens_stops_nothing_but_the_end(shop: Project) -> None:
    shop.person(permissions=3)
    configure(shop, f"{NEW},{KEY}")
    with shop.opened() as app:
        with app.store.begin() as tx:
            lost = Fernet(Fernet.generate_key()).encrypt(b"lost")
            tx.execute(otn_token.update().where(otn_token.c.id == 2).values(ciphertext=lost))
        with pytest.raises(ConfigError, match="no key opens 1 of 7"):
            rotate(app)
        vault = Vault([NEW], "another hash key does here")
        assert sum(vault.is_under_first_key(each) for each in sealed(app)) == 6
        with app.store.read() as tx:
            assert len(keys.in_use(tx)) == 2


def test_a_permission_that_was_used_meanwhile_stays_destroyed(
    shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.person(permissions=1)
    configure(shop, f"{NEW},{KEY}")
    real = rotation._seal_anew

    with shop.opened() as app:

        def used_between_read_and_write(vault: Vault, batch: list[tuple[int, bytes]]) -> object:
            with app.store.begin() as tx:
                tx.execute(otn_token.update().values(ciphertext=None))
                tx.execute(inbound_event.delete())
            return real(vault, batch)

        monkeypatch.setattr(rotation, "_seal_anew", used_between_read_and_write)
        rotate(app)
        assert sealed(app) == []


def test_a_rotation_is_on_record(shop: Project) -> None:
    shop.person(permissions=1)
    configure(shop, f"{NEW},{KEY}")
    with shop.opened() as app:
        done = rotate(app)
        with app.store.read() as tx:
            row = tx.execute(sa.select(audit).where(audit.c.action == "keys.rotate")).one()
    assert (row.who, row.subject, row.details) == ("ann", done.fingerprint, {"resealed": 3})
