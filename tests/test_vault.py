"""Tokens at rest: sealed under keys that change, found by a hash that does not."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from otn.errors import ConfigError
from otn.vault import Vault

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_what_was_sealed_opens_again_and_reads_as_nothing() -> None:
    vault = Vault([OLD], "hash key")
    sealed = vault.seal(b"a token")
    assert b"a token" not in sealed
    assert vault.open(sealed) == b"a token"
    assert vault.seal(b"a token") != sealed


def test_a_new_first_key_seals_and_the_old_one_still_opens() -> None:
    sealed = Vault([OLD], "hash key").seal(b"a token")
    both = Vault([NEW, OLD], "hash key")
    assert both.open(sealed) == b"a token"
    resealed = both.reseal(sealed)
    assert Vault([NEW], "hash key").open(resealed) == b"a token"


def test_without_the_right_key_the_error_says_which_setting_to_mend() -> None:
    sealed = Vault([OLD], "hash key").seal(b"a token")
    stranger = Vault([NEW], "hash key")
    for use in (stranger.open, stranger.reseal):
        with pytest.raises(ConfigError, match="OTN_ENCRYPTION_KEYS"):
            use(sealed)
    with pytest.raises(ConfigError, match="OTN_ENCRYPTION_KEYS"):
        Vault([OLD], "hash key").open(sealed[:-4])


@pytest.mark.parametrize("keys", [[], ["short"], [OLD, "not base64!"], ["schlüssel"]])
def test_unusable_keys_are_refused_without_being_shown(keys: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Vault(keys, "hash key")
    assert not any(key in str(caught.value) for key in keys)
    with pytest.raises(ConfigError):
        Vault([OLD], "")


def test_the_hash_of_a_token_outlives_every_rotation_and_needs_its_own_key() -> None:
    vault, rotated = Vault([OLD], "hash key"), Vault([NEW], "hash key")
    assert vault.token_hash("a token") == rotated.token_hash("a token")
    assert vault.token_hash("a token") != vault.token_hash("another")
    assert vault.token_hash("a token") != Vault([OLD], "another key").token_hash("a token")
    assert len(vault.token_hash("a token")) == 64
    assert vault.user_hash("a token") not in (vault.token_hash("a token"), vault.user_hash("another"))


def test_a_vault_shows_fingerprints_and_never_keys() -> None:
    vault = Vault([NEW, OLD], "hash key")
    shown = f"{vault!r} {vault.key_fingerprints} {vault.hash_key_fingerprint}"
    assert not any(key in shown for key in (OLD, NEW, "hash key"))
    assert vault.key_fingerprints == Vault([NEW, OLD], "other").key_fingerprints
