"""Meta's signed_request: only what an app secret of ours signed is read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otn.errors import InvalidSignature, MalformedPayload
from otn.signed_request import sign, verified

SECRETS = ("an app secret", "an older app secret")
PAYLOAD = {"user_id": "218471", "algorithm": "HMAC-SHA256", "issued_at": 1790000000}


@pytest.mark.parametrize("secret", SECRETS)
def test_what_any_of_our_secrets_signed_is_read(secret: str) -> None:
    assert verified(sign(PAYLOAD, secret), SECRETS) == PAYLOAD


def test_it_is_signed_as_the_platform_s_page_says() -> None:
    encoded = base64.urlsafe_b64encode(json.dumps(PAYLOAD).encode()).decode()
    digest = hmac.new(SECRETS[0].encode(), encoded.encode(), hashlib.sha256).digest()
    with_padding = f"{base64.urlsafe_b64encode(digest).decode()}.{encoded}"
    assert verified(with_padding, SECRETS) == PAYLOAD


def test_what_somebody_else_signed_is_refused() -> None:
    signature, _, encoded = sign(PAYLOAD, SECRETS[0]).partition(".")
    forged = sign({"user_id": "1"}, "another secret").partition(".")[2]
    for wrong in (
        sign(PAYLOAD, "another secret"),
        f"{signature}.{forged}",
        f".{encoded}",
        f"{signature}.",
        f"{signature}.{encoded}\u00e9",
    ):
        with pytest.raises(InvalidSignature, match="MESSENGER_APP_SECRET"):
            verified(wrong, SECRETS)


def test_an_algorithm_that_the_request_names_changes_nothing() -> None:
    encoded = sign({**PAYLOAD, "algorithm": "none"}, "another secret").partition(".")[2]
    with pytest.raises(InvalidSignature):
        verified(f".{encoded}", SECRETS)


def test_an_empty_secret_signs_nothing() -> None:
    with pytest.raises(InvalidSignature):
        verified(sign(PAYLOAD, ""), ["", SECRETS[0]])
    with pytest.raises(TypeError):
        verified(sign(PAYLOAD, "a"), "abc")


@pytest.mark.parametrize("nothing", ["", "no dot in it", "!!!.!!!", "a.b", "\ud83d.x"])
def test_what_is_no_signed_request_is_said_to_be_none(nothing: str) -> None:
    with pytest.raises(MalformedPayload):
        verified(nothing, SECRETS)


@pytest.mark.parametrize("content", [b"[]", b"7", b"{", b"\xff", b"[" * 100_000])
def test_what_was_signed_has_to_be_an_object(content: bytes) -> None:
    encoded = base64.urlsafe_b64encode(content).decode()
    digest = hmac.new(SECRETS[0].encode(), encoded.encode(), hashlib.sha256).digest()
    with pytest.raises(MalformedPayload):
        verified(f"{base64.urlsafe_b64encode(digest).decode()}.{encoded}", SECRETS)


@given(st.text())
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    with pytest.raises((MalformedPayload, InvalidSignature)):
        verified(text, SECRETS)
