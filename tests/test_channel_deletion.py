"""Meta's data-deletion callback: recorded once a person, answered with a page that tells the truth."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from on_air import OnAir, Reply, on_air

from channels.deletion import LARGEST_BODY
from otn.signed_request import sign
from simulator.testing import APP_SECRET


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[OnAir]:
    async with on_air(tmp_path) as air:
        yield air


async def ask(air: OnAir, user_id: Any = "218471", secret: str = APP_SECRET, **headers: str) -> Any:
    """The JSON of the answer to what Meta posts when this user wants to be deleted."""
    signed = sign({"user_id": user_id, "algorithm": "HMAC-SHA256", "issued_at": 1}, secret)
    async with air.session.post(
        f"{air.url}/deletion", data={"signed_request": signed}, headers=headers
    ) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def post(air: OnAir, form: Any, **headers: str) -> Reply:
    async with air.session.post(f"{air.url}/deletion", data=form, headers=headers) as answer:
        return Reply(status=answer.status, text=await answer.text())


async def test_a_request_is_recorded_and_the_same_person_gets_the_same_code(air: OnAir) -> None:
    first = await ask(air)
    assert first["url"] == f"{air.url}/deletion?code={first['confirmation_code']}"
    assert await ask(air) == first
    assert await ask(air, secret="an older app secret") == first
    assert await ask(air, user_id=218471) == first
    other = await ask(air, user_id="300")
    assert other["confirmation_code"] != first["confirmation_code"]
    codes = air.rows("deletion_request", "confirmation_code")
    assert sorted(codes) == sorted([first["confirmation_code"], other["confirmation_code"]])


@pytest.mark.parametrize("database", ["postgresql"])
async def test_it_is_recorded_on_a_server_too(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(f"{database}_store")
    where = store.engine.url.render_as_string(hide_password=False)
    async with on_air(tmp_path, database_url=where) as air:
        assert await ask(air) == await ask(air)
        assert len(air.rows("deletion_request", "confirmation_code")) == 1


async def test_the_id_is_kept_and_logged_nowhere(air: OnAir, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await ask(air, user_id="9182736455463728")
    await ask(air, user_id="9182736455463728")
    kept = str(air.rows("deletion_request", "confirmation_code", "user_hash", "requested_at"))
    assert "9182736455463728" not in kept + caplog.text
    assert air.rows("deletion_request", "user_hash") == [
        air.app.require_vault().user_hash("9182736455463728")
    ]


async def test_what_somebody_else_signed_is_forbidden(air: OnAir, caplog: pytest.LogCaptureFixture) -> None:
    forged = sign({"user_id": "1"}, "another secret")
    assert (await post(air, {"signed_request": forged})).status == 403
    assert air.rows("deletion_request", "confirmation_code") == []
    assert "a deletion request was refused" in caplog.text


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"{}",
        b"\xff=\xfe",
        {"signed_request": ""},
        {"signed_request": "no dot"},
        {"signed_request": "!.!"},
        [("signed_request", "a.b"), ("signed_request", "c.d")],
        [(f"f{number}", "x") for number in range(100)],
    ],
)
async def test_what_is_no_signed_request_is_a_bad_request(air: OnAir, form: Any) -> None:
    assert (await post(air, form)).status == 400


@pytest.mark.parametrize("user_id", [None, "", True, [], "x" * 256, "a\x00b", "\ud83d"])
async def test_without_a_user_it_is_a_bad_request(air: OnAir, user_id: Any) -> None:
    form = {"signed_request": sign({"user_id": user_id}, APP_SECRET)}
    assert (await post(air, form)).status == 400
    assert air.rows("deletion_request", "confirmation_code") == []


async def test_a_large_body_is_refused(air: OnAir) -> None:
    assert (await post(air, b"x" * (LARGEST_BODY + 1))).status == 413


async def test_without_the_database_it_has_to_come_again(air: OnAir, tmp_path: Path) -> None:
    air.app.store.close()
    (tmp_path / "otn.db").rename(tmp_path / "elsewhere.db")
    (tmp_path / "otn.db").mkdir()
    assert (await post(air, {"signed_request": sign({"user_id": "1"}, APP_SECRET)})).status == 503
    assert (await air.get("/deletion", code="x")).status == 503


# --- where people read it ---


async def test_the_page_is_at_the_host_that_meta_called_by_https(air: OnAir) -> None:
    answer = await ask(air, Host="bot.example")
    code = answer["confirmation_code"]
    assert answer["url"] == f"https://bot.example/webhooks/messenger/deletion?code={code}"
    misled = await ask(air, Host="bot.example:8443", **{"X-Forwarded-Host": "evil.example"})
    assert misled["url"].startswith("https://bot.example:8443/webhooks/")
    signed = {"signed_request": sign({"user_id": "1"}, APP_SECRET)}
    assert (await post(air, signed, Host="bot.example/evil?")).status == 400


async def test_the_page_is_where_the_setting_says(tmp_path: Path) -> None:
    async with on_air(tmp_path, public_url="https://shop.example/bot") as air:
        answer = await ask(air, Host="10.0.0.5:5005")
        assert answer["url"].startswith("https://shop.example/bot/webhooks/messenger/deletion?code=")


async def test_the_page_says_what_was_recorded_and_how_to_be_forgotten(air: OnAir) -> None:
    code = (await ask(air))["confirmation_code"]
    async with air.session.get(f"{air.url}/deletion", params={"code": code}) as answer:
        text = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert f"Your request {code} of " in text
    assert "does not tell us which Messenger conversation" in text
    assert "forget me" in text
    assert "<script" not in text
    assert "218471" not in text


@pytest.mark.parametrize("code", ["", "0a1b2c", "<script>alert(1)</script>", "a\x00b", "x" * 5000])
async def test_an_unknown_code_is_not_repeated_and_the_way_is_shown_all_the_same(
    air: OnAir, code: str
) -> None:
    answer = await air.get("/deletion", code=code)
    assert answer.status == 404
    assert "no request with this confirmation code" in answer.text
    assert "forget me" in answer.text
    assert not code or code not in answer.text
