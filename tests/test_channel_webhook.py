"""The webhook: what is answered, and that what was answered 200 is durable and talked about once."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from on_air import PAGE, OnAir, event, message, now_ms, on_air, opt_in

from channels.messenger import LARGEST_BODY, SWITCH_SECONDS, MessengerInput
from otn.events import sign
from otn.settings import PageCredentials, Secret
from otn.store import Store, pages
from simulator.testing import APP_SECRET, PAGE_TOKEN, VERIFY_TOKEN


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[OnAir]:
    async with on_air(tmp_path) as air:
        yield air


def envelope(*entries: Any) -> bytes:
    return json.dumps({"object": "page", "entry": list(entries)}).encode()


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
        answer = await air.get("/webhook", **{**asked, **wrong})
        assert (answer.status, "1158201444" in answer.text) == (403, False)
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


async def test_the_writer_waits_for_python_s_lock_as_long_as_the_channel_says(air: OnAir) -> None:
    assert air.line is not None
    assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)


async def test_only_an_app_secret_of_ours_opens_the_door(air: OnAir) -> None:
    body = envelope({"id": PAGE, "messaging": [message("7007", "hello")]})
    assert (await air.post(body, sign(body, "an older app secret"))).status == 200
    for forged in (None, "", "sha256=", sign(body, "wrong"), sign(body + b" ", APP_SECRET), "sha1=0"):
        assert (await air.post(body, forged)).status == 403
    assert len(air.rows("inbound_event", "id")) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"object":"user"}', b"\xff", b'{"object":"page"}'])
async def test_a_body_that_is_no_webhook_is_a_bad_request(air: OnAir, body: bytes) -> None:
    assert (await air.post(body)).status == 400


async def test_a_body_over_a_mebibyte_is_refused_before_it_is_read(air: OnAir) -> None:
    async def forever() -> AsyncIterator[bytes]:
        for _ in range(LARGEST_BODY // 65536 + 2):
            yield b" " * 65536

    assert (await air.post(b" " * (LARGEST_BODY + 1))).status == 413
    async with air.session.post(f"{air.url}/webhook", data=forever()) as answer:
        assert answer.status == 413
    padded = envelope({"id": PAGE, "messaging": [message("7007", "hello")]}).ljust(LARGEST_BODY)
    assert (await air.post(padded)).status == 200
    assert (await air.post(b"x", signature=None)).status == 403  # it still answers


async def test_a_database_that_is_gone_means_try_again_and_loses_nothing(air: OnAir, tmp_path: Path) -> None:
    psid = air.person()
    air.bot.say("hi")
    event = opt_in(psid, "token-1")
    air.app.store.close()
    (tmp_path / "otn.db").rename(tmp_path / "elsewhere.db")
    (tmp_path / "otn.db").mkdir()
    assert (await air.deliver(event)).status == 503
    (tmp_path / "otn.db").rmdir()
    (tmp_path / "elsewhere.db").rename(tmp_path / "otn.db")
    assert (await air.deliver(event)).status == 200
    await air.quiet()
    assert air.rows("otn_token", "state") == ["available"]
    assert len(await air.user_events(psid)) == 1


MIXED_AT = now_ms()


def mixed_bag() -> bytes:
    """Several entries with everything that Meta, or somebody in between, may send."""
    lone, nul, huge = "lone \ud83d surrogate", "nul \x00 byte", "huge number"
    entries = [
        {
            "id": PAGE,
            "time": MIXED_AT,
            "messaging": [
                message("7001", "hello", mid="m_1", at=MIXED_AT),
                opt_in("7001", "token-1", at=MIXED_AT + 1),
                event("7001", "postback", mid="m_2", title="Buy", payload="BUY", at=MIXED_AT + 2),
                event("7001", "newest_invention", what=1, at=MIXED_AT),
            ],
        },
        {
            "id": PAGE,
            "time": MIXED_AT,
            "messaging": [
                message("7002", lone, mid="m_3", at=MIXED_AT),
                message("7003", nul, mid="m_4", at=MIXED_AT),
                message("7004", huge, mid="m_5", at=10**400),
                {**message("7005", "x", mid="m_6", at=MIXED_AT), "sender": {"id": "a\ud83db"}},
                "not an event at all",
                opt_in("7002", "token-2", at=MIXED_AT),
            ],
            "standby": [message("7006", "for another app", mid="m_7", at=MIXED_AT)],
        },
        {"id": "999", "messaging": [message("7007", "to another page", mid="m_8", at=MIXED_AT)]},
        "not an entry at all",
        {"id": PAGE, "messaging": [opt_in("7001", "token-3", at=MIXED_AT + 3)]},
    ]
    return envelope(*entries)


async def everything(air: OnAir) -> dict[str, Any]:
    """What came of it."""
    people = [f"700{number}" for number in range(1, 8)]
    return {
        "turns": {psid: [each.text for each in await air.user_events(psid)] for psid in people},
        "heard": {psid: air.heard(psid) for psid in people},
        "tokens": sorted(
            (contact, topic is not None) for contact, topic in air.rows("otn_token", "contact_id", "topic_id")
        ),
        "events": sorted(
            (kind, state)
            for kind, state in air.rows("inbound_event", "kind", "state")
            if kind not in ("echo", "delivery")  # the simulator's own, in their own time
        ),
    }


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_a_mixed_bag_is_kept_whole_and_every_good_event_handled_once(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    where = {}
    if database == "postgresql":
        store: Store = request.getfixturevalue("postgresql_store")
        where["database_url"] = store.engine.url.render_as_string(hide_password=False)
    async with on_air(tmp_path, **where) as air:
        await _deliver_a_mixed_bag_again_and_again(air, tmp_path, caplog, where)


async def _deliver_a_mixed_bag_again_and_again(
    air: OnAir, tmp_path: Path, caplog: pytest.LogCaptureFixture, where: dict[str, str]
) -> None:
    for number in range(1, 8):
        air.person(f"700{number}")
    air.topic("restock-blue")
    air.bot.say("ok")
    answer = await air.post(mixed_bag())
    assert (answer.status, answer.text) == (200, "EVENT_RECEIVED")
    await air.quiet()

    first = await everything(air)
    assert first["turns"] == {
        "7001": ["hello", None, "BUY", None],  # opt-ins have no words
        "7002": ["lone  surrogate", None],
        "7003": ["nul  byte"],
        "7004": ["huge number"],
        "7005": [],  # the id was half a character: nobody's
        "7006": [],  # standby
        "7007": [],  # another page's
    }
    assert {psid: len(heard) for psid, heard in first["heard"].items()} == {
        psid: len(turns) for psid, turns in first["turns"].items()
    }
    assert len(first["tokens"]) == 3, "two opt-ins for one topic are two tokens"
    assert all(has_topic for _contact, has_topic in first["tokens"])
    states = dict.fromkeys(state for _kind, state in first["events"])
    assert set(states) == {"done", "broken", "foreign"}

    assert (await air.post(mixed_bag())).status == 200
    await air.quiet()
    assert await everything(air) == first

    async with on_air(tmp_path, graph=air.simulated, **where) as restarted:
        restarted.bot.say("again?")
        assert (await restarted.post(mixed_bag())).status == 200
        await restarted.quiet()
        assert await everything(restarted) == first

    strangers = [record for record in caplog.records if "page 999" in record.getMessage()]
    assert len(strangers) == 2, "warned once a page and process"


async def test_an_event_that_the_database_cannot_take_is_kept_as_broken(
    air: OnAir, monkeypatch: pytest.MonkeyPatch
) -> None:
    air.person("7001")
    air.person("7002")
    air.bot.say("ok")

    def choke(tx: Any, vault: Any, events: Any, **more: Any) -> Any:
        recorded = record(tx, vault, events, **more)
        if any(sealed.event.psid == "7001" for sealed in events):
            raise ValueError("what a person wrote")
        return recorded

    from otn import intake

    record = intake.record
    monkeypatch.setattr("channels.messenger.intake.record", choke)
    assert (await air.deliver(message("7001", "a"), message("7002", "b"))).status == 200
    await air.quiet()
    states = [state for kind, state in air.rows("inbound_event", "kind", "state") if kind == "message"]
    assert sorted(states) == ["broken", "done"]
    assert air.heard("7002") == ["ok"]
    assert not any("what a person wrote" in (error or "") for error in air.rows("inbound_event", "error"))

    assert (await air.deliver(opt_in("7001", "token-1"))).status == 200
    kept = [raw for kind, raw in air.rows("inbound_event", "kind", "raw") if kind == "optin_otn"]
    assert b'"one_time_notif_token": "token-1"' in air.app.require_vault().open(kept[0])


async def test_with_a_token_only_graph_says_whose_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nameless = (PageCredentials(page_id=None, access_token=Secret(PAGE_TOKEN)),)
    async with on_air(tmp_path, pages=nameless) as air:
        await air.line._learning
        psid = air.person()
        air.bot.say("hi")
        assert (await air.get("/")).text == '{"status":"ok"}'
        assert (await air.deliver(message(psid, "hello"))).status == 200
        await air.quiet()
        assert air.heard(psid) == ["hi"]
        assert f"speaking for page {PAGE}" in caplog.text
    assert PAGE_TOKEN not in caplog.text


async def test_until_graph_says_whose_it_is_webhooks_come_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nameless = (PageCredentials(page_id=None, access_token=Secret("a-token-that-Graph-refuses")),)
    async with on_air(tmp_path, pages=nameless) as air:
        psid = air.person()
        assert (await air.deliver(opt_in(psid, "token-1"))).status == 503
        assert (await air.get("/")).status == 503
        assert air.rows("inbound_event", "id") == []
        with air.app.store.begin() as tx:
            pages.ensure(tx, PAGE, air.app.clock())
    async with on_air(tmp_path, pages=nameless) as air:  # a page that this database knows is ours
        air.person()
        assert (await air.deliver(opt_in(psid, "token-1"))).status == 200
    assert "a-token-that-Graph-refuses" not in caplog.text


async def test_a_page_that_the_database_does_not_know_is_no_stranger_before_graph_says_so(
    air: OnAir, tmp_path: Path
) -> None:
    with air.app.store.begin() as tx:  # an earlier page: the simulator's, or one that was given up
        pages.ensure(tx, "1999", air.app.clock())
    nameless = (PageCredentials(page_id=None, access_token=Secret(PAGE_TOKEN)),)
    async with on_air(tmp_path, pages=nameless, graph=air.simulated) as later:
        later.line._learning.cancel()  # Graph takes its time
        tap = opt_in("7007", "token-1")
        assert (await later.deliver(tap)).status == 503
        assert later.rows("inbound_event", "id") == []
        await later.line.pages.learn()
        assert (await later.deliver(tap)).status == 200
        assert later.rows("otn_token", "state") == ["available"]
        assert (await later.deliver(message("7007", "hello"), page_id="999")).status == 200
        assert "foreign" in later.rows("inbound_event", "state")


def test_a_wrong_configuration_ends_with_code_2_and_every_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MESSENGER_VERIFY_TOKEN", "MESSENGER_APP_SECRET", "OTN_HASH_KEY", "OTN_ENCRYPTION_KEYS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as stopped:
        MessengerInput.from_credentials({"page-access-token": "t", "sercet": "x"})
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for name in ("MESSENGER_VERIFY_TOKEN", "MESSENGER_APP_SECRET", "OTN_HASH_KEY", "sercet"):
        assert name in told
