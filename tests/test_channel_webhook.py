"""The webhook: what is answered, and that what was answered 200 is durable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from on_air import OnAir, message, on_air

from simulator.testing import VERIFY_TOKEN


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[OnAir]:
    async with on_air(tmp_path) as air:
        yield air


async def test_the_handshake_gives_the_bare_challenge_back(air: OnAir) -> None:
    asked = {"hub.mode": "subscribe", "hub.verify_token": VERIFY_TOKEN, "hub.challenge": "1158201444"}
    answer = await air.get("/webhook", **asked)
    assert (answer.status, answer.text) == (200, "1158201444")
    for wrong in (
        {"hub.verify_token": "wrong"},
        {"hub.verify_token": "\u00e9"},
        {"hub.verify_token": ""},
        {"hub.mode": "unsubscribe"},
    ):
        assert (await air.get("/webhook", **{**asked, **wrong})).status == 403
    assert (await air.get("/webhook")).status == 403


async def test_a_message_is_answered(air: OnAir) -> None:
    psid = air.person()
    air.bot.say("hi there")
    assert (await air.deliver(message(psid, "hello", mid="m_1"))).status == 200
    await air.quiet()
    assert air.heard(psid) == ["hi there"]
    (said,) = await air.user_events(psid)
    assert (said.text, said.message_id, said.input_channel) == ("hello", "message:m_1", "messenger")
    assert set(air.rows("inbound_event", "state")) == {"done"}
