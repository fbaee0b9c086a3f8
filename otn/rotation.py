"""Key rotation: everything that is sealed comes under the first key, then the others are needed no more.

Safe beside everything else that runs, safe to stop, and a second run finds what the first one left: a row that
is under the first key already costs a look only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from otn.app import App
from otn.errors import ConfigError, InvalidMove
from otn.store import Tx, audit, inbox, keys, tokens
from otn.vault import Vault

BATCH = 200  # rows a write transaction; they are sealed outside of it
BREATH = timedelta(milliseconds=20)  # after each batch: the webhook writes too
PASSES = 3  # over everything, until one finds nothing to do

Advance = Callable[[int], object]
Pause = Callable[[timedelta], object]
Read = Callable[[Tx, int, int], list[tuple[int, bytes]]]
Write = Callable[[Tx, int, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What a rotation came to: how many sealed rows there are, how many of them were sealed anew."""

    rows: int
    resealed: int
    fingerprint: str


def rows_to_look_at(app: App) -> int:
    """How many sealed rows one pass walks through."""
    with app.store.read() as tx:
        return tokens.count_sealed(tx) + inbox.count(tx)


def rotate(app: App, *, who: str, pause: Pause, advance: Advance) -> Rotated:
    """Bring everything under the first key and retire the others. `advance` hears of rows as they are done.

    Raises InvalidMove if another process keeps sealing with an old key, ConfigError if no key opens a row; the
    old keys stay in use then.
    """
    vault, resealed = app.require_vault(), 0
    for _ in range(PASSES):
        rows, changed, unreadable = _walk(app, vault, pause, advance)
        resealed += changed
        if not changed:
            break
    else:
        raise InvalidMove(
            "another process keeps writing with an old key: restart everything that runs (`rasa run`, "
            "`otn worker`), so that it knows the new one, then run this again"
        )
    if unreadable:
        raise ConfigError(
            [
                f"OTN_ENCRYPTION_KEYS: no key opens {unreadable} of {rows} sealed rows; put the key they were "
                "written with behind the others and run this again (the other rows are done)"
            ]
        )
    _retire(app, vault, who, resealed)
    return Rotated(rows=rows, resealed=resealed, fingerprint=vault.key_fingerprints[0])


def _walk(app: App, vault: Vault, pause: Pause, advance: Advance) -> tuple[int, int, int]:
    """One pass over everything: how many rows there are, were sealed anew, and could not be opened."""
    rows = changed = unreadable = 0
    for read, write in _TABLES:
        for batch in _batches(app, read):
            anew, broken = _seal_anew(vault, batch)
            if anew:
                with app.store.begin() as tx:
                    for row_id, sealed in anew:
                        write(tx, row_id, sealed)
                pause(BREATH)
            rows, changed, unreadable = rows + len(batch), changed + len(anew), unreadable + broken
            advance(len(batch))
    return rows, changed, unreadable


def _batches(app: App, read: Read) -> Iterator[list[tuple[int, bytes]]]:
    after, batch = 0, [(0, b"")] * BATCH
    while len(batch) == BATCH:  # a shorter one was the last: what has arrived since is the next pass's
        with app.store.read() as tx:
            batch = read(tx, after, BATCH)
        if batch:
            yield batch
            after = batch[-1][0]


def _seal_anew(vault: Vault, batch: list[tuple[int, bytes]]) -> tuple[list[tuple[int, bytes]], int]:
    anew, broken = [], 0
    for row_id, sealed in batch:
        if vault.is_under_first_key(sealed):
            continue
        try:
            anew.append((row_id, vault.reseal(sealed)))
        except ConfigError:
            broken += 1
    return anew, broken


def _retire(app: App, vault: Vault, who: str, resealed: int) -> None:
    first, now = vault.key_fingerprints[0], app.clock()
    with app.store.begin() as tx:
        keys.retire_all_but(tx, first, now)
        audit.record(
            tx, who=who, action="keys.rotate", subject=first, now=now, details={"resealed": resealed}
        )


def _sealed_tokens(tx: Tx, after: int, limit: int) -> list[tuple[int, bytes]]:
    return [(row.id, row.ciphertext) for row in tokens.to_reseal(tx, after, limit)]


# A token that was used or erased meanwhile has no ciphertext any more, and `reseal` leaves it so.
_TABLES: tuple[tuple[Read, Write], ...] = (
    (_sealed_tokens, tokens.reseal),
    (inbox.to_reseal, inbox.reseal),
)
