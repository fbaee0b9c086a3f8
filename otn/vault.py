"""Tokens at rest: sealed with Fernet, found again by a keyed hash."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from otn.errors import ConfigError


class Vault:
    """Seals and opens secrets. The first encryption key seals, any of them opens.

    `hash_key` is never rotated: uniqueness of tokens stands on it. Raises ConfigError on a bad key.
    """

    def __init__(self, encryption_keys: Sequence[str], hash_key: str) -> None:
        if not encryption_keys or not hash_key:
            raise ConfigError(["OTN_ENCRYPTION_KEYS and OTN_HASH_KEY are needed; `make setup` makes them"])
        try:
            fernets = [Fernet(key) for key in encryption_keys]
        except ValueError as exc:
            raise ConfigError(
                ["OTN_ENCRYPTION_KEYS: each key must be 32 bytes in URL-safe base64 (Fernet.generate_key())"]
            ) from exc
        self._first, self._fernet = fernets[0], MultiFernet(fernets)
        self._hash_key = hash_key.encode()
        self.key_fingerprints = tuple(_key_fingerprint(key) for key in encryption_keys)
        self.hash_key_fingerprint = _key_fingerprint(hash_key)

    def __repr__(self) -> str:
        return f"Vault(keys={list(self.key_fingerprints)})"

    def seal(self, secret: bytes) -> bytes:
        """Encrypt with the first key."""
        return self._fernet.encrypt(secret)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt with whichever key fits. Raises ConfigError if none does."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as exc:
            raise ConfigError(
                ["OTN_ENCRYPTION_KEYS: no key opens what is stored; put the old key back behind the new one"]
            ) from exc

    def is_under_first_key(self, sealed: bytes) -> bool:
        """Whether the first key opens it: then a rotation has nothing to do."""
        try:
            self._first.decrypt(sealed)
        except InvalidToken:
            return False
        return True

    def reseal(self, sealed: bytes) -> bytes:
        """The same secret under the first key."""
        try:
            return self._fernet.rotate(sealed)
        except InvalidToken as exc:
            raise ConfigError(
                ["OTN_ENCRYPTION_KEYS: no key opens what is stored; put the old key back behind the new one"]
            ) from exc

    def token_hash(self, token: str) -> str:
        """HMAC-SHA256 under the hash key, hex: equal for equal tokens, useless to a reader of the database."""
        return hmac.digest(self._hash_key, token.encode(), "sha256").hex()

    def user_hash(self, app_scoped_id: str) -> str:
        """The same for the id under which an app knows a person. No token has a blank, so none has this hash."""
        return self.token_hash(f"app-scoped id {app_scoped_id}")


def _key_fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]
