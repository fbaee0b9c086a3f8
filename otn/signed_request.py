"""Meta's `signed_request`: `<base64url(signature)>.<base64url(JSON)>`. Pure.

    user_id = verified(form["signed_request"], app_secrets)["user_id"]

The signature is HMAC-SHA256 under the app secret over the second part as it stands, encoded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from otn.errors import InvalidSignature, MalformedPayload


def sign(payload: Mapping[str, Any], secret: str) -> str:
    """Return a signed request as Meta makes it."""
    encoded = _encoded(json.dumps(payload, separators=(",", ":")).encode("ascii"))
    return f"{_encoded(_signature(encoded, secret))}.{encoded}"


def verified(signed_request: str, secrets: Sequence[str]) -> dict[str, Any]:
    """Return what was signed with one of the app secrets (several, so that one can be rotated).

    Raises MalformedPayload for what is no signed request, InvalidSignature for one that somebody else signed.
    Nothing is parsed before the signature is checked; the digest is ours to choose, never the request's.
    """
    if isinstance(secrets, str):
        raise TypeError("secrets is a list of app secrets, not one: each of its characters would sign")
    claimed, dot, encoded = signed_request.partition(".")
    if not dot:
        raise MalformedPayload("signed_request is not two parts with a dot between them.")
    signature = _decoded(claimed)
    genuine = [hmac.compare_digest(_signature(encoded, secret), signature) for secret in secrets if secret]
    if not any(genuine):
        raise InvalidSignature(
            "The signed_request is not signed with any of the configured app secrets: "
            "compare MESSENGER_APP_SECRET with App settings > Basic."
        )
    return _object(_decoded(encoded))


def _signature(encoded: str, secret: str) -> bytes:
    return hmac.new(secret.encode(), encoded.encode("utf-8", "replace"), hashlib.sha256).digest()


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _decoded(part: str) -> bytes:
    bare = part.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedPayload("signed_request is not base64url.") from exc


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise MalformedPayload(f"signed_request holds no JSON: {type(exc).__name__}.") from exc
    if not isinstance(found, dict):
        raise MalformedPayload("signed_request holds no JSON object.")
    return found
