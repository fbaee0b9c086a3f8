"""Tables `setting` and `encryption_key`: fingerprints of the keys this database was written with."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from otn.errors import ConfigError
from otn.store.engine import Tx
from otn.store.schema import encryption_key, setting
from otn.store.statements import insert_if_new
from otn.vault import Vault

_HASH_KEY = "hash_key_fingerprint"
# Built once: it goes along with every event, and building it costs six times as much as running it.
_TAKE_BACK = (
    encryption_key.update()
    .where(encryption_key.c.fingerprint == sa.bindparam("first"), encryption_key.c.retired_at.isnot(None))
    .values(retired_at=None)
)


def problems(tx: Tx, vault: Vault) -> list[str]:
    """What does not fit between the configured keys and this database; empty if all is well."""
    found = []
    known = tx.execute(sa.select(setting.c.value).where(setting.c.name == _HASH_KEY)).scalar_one_or_none()
    if known is not None and known != vault.hash_key_fingerprint:
        found.append(
            "OTN_HASH_KEY is not the key this database was made with; put the old key back "
            "(it is never rotated: uniqueness of tokens stands on it)"
        )
    missing = set(in_use(tx)) - set(vault.key_fingerprints)
    if missing:
        found.append(
            f"OTN_ENCRYPTION_KEYS lacks the key(s) with fingerprint {', '.join(sorted(missing))}; "
            "put them back behind the new one until `otn tokens rotate` has run"
        )
    return found


def check_and_remember(tx: Tx, vault: Vault, now: datetime) -> None:
    """Refuse to go on with the wrong keys, and remember the ones in use. Raises ConfigError."""
    if found := problems(tx, vault):
        raise ConfigError(found)
    insert_if_new(tx, setting, {"name": _HASH_KEY, "value": vault.hash_key_fingerprint}, ["name"])
    first = vault.key_fingerprints[0]
    insert_if_new(tx, encryption_key, {"fingerprint": first, "first_used_at": now}, ["fingerprint"])
    tx.execute(encryption_key.update().where(encryption_key.c.fingerprint == first).values(retired_at=None))


def are_remembered(tx: Tx) -> bool:
    """Whether this database was written with keys; an empty one would do with any."""
    return tx.execute(sa.select(setting.c.name).where(setting.c.name == _HASH_KEY)).first() is not None


def in_use(tx: Tx) -> list[str]:
    """Fingerprints of the encryption keys that something may still be sealed with."""
    query = sa.select(encryption_key.c.fingerprint).where(encryption_key.c.retired_at.is_(None))
    return list(tx.execute(query).scalars())


def note_use(tx: Tx, vault: Vault) -> None:
    """Something is being sealed with the first key: it is in use, even if a rotation has retired it meanwhile.

    A process that was not restarted for a rotation goes on with the old key; the database must know.
    """
    tx.execute(_TAKE_BACK, {"first": vault.key_fingerprints[0]})


def retire_all_but(tx: Tx, fingerprint: str, now: datetime) -> None:
    """After a rotation: only this key is needed from now on."""
    tx.execute(
        encryption_key.update()
        .where(encryption_key.c.fingerprint != fingerprint, encryption_key.c.retired_at.is_(None))
        .values(retired_at=now)
    )
