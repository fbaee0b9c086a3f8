"""The Graph API's door: credentials, bodies, rates, and the calls that send nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator

import pytest

from simulator.config import Page
from simulator.journal import Kind
from simulator.testing import APP_SECRET, PAGE_TOKEN, Stage, made_up_config, on_stage

HELLO = {"text": "hello"}
PAGE_ID = "100000000000001"
CREDENTIALS = {"access_token": PAGE_TOKEN}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with on_stage() as stage:
        yield stage


def proof(secret: str = APP_SECRET) -> str:
    return hmac.new(secret.encode(), PAGE_TOKEN.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize("path", ["/v2.12/me/messages", "/v26.0/me/messages", f"/v21.0/{PAGE_ID}/messages"])
async def test_any_version_and_both_names_of_the_page_are_served(stage: Stage, path: str) -> None:
    body = {"recipient": {"id": await stage.friend()}, "message": HELLO}

    assert (await stage.call("POST", path, params=CREDENTIALS, json=body)).status == 200


async def test_the_access_token_may_come_in_the_header_the_query_or_the_body(stage: Stage) -> None:
    psid = await stage.friend()
    body = {"recipient": {"id": psid}, "message": HELLO}
    form = {"recipient": json.dumps({"id": psid}), "message": json.dumps(HELLO), **CREDENTIALS}

    for more in (
        {"json": body, "headers": {"Authorization": f"Bearer {PAGE_TOKEN}"}},
        {"json": body, "params": CREDENTIALS},
        {"json": {**body, **CREDENTIALS}},
        {"data": form},
        {"params": form},
    ):
        assert (await stage.call("POST", "/v26.0/me/messages", **more)).body["recipient_id"] == psid


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_bad_access_token_gets_190_with_a_whole_error_body(stage: Stage, token: str) -> None:
    answer = await stage.send({"id": await stage.friend()}, HELLO, token=token)

    assert (answer.status, answer.error) == (401, "190")
    assert answer.body["error"].keys() == {"message", "type", "code", "is_transient", "fbtrace_id"}


async def test_the_access_token_of_another_page_does_not_open_this_one() -> None:
    pages = (*made_up_config().pages, Page(id="2", name="Other", token="other"))
    async with on_stage(pages=pages) as stage:
        body = {"recipient": {"id": await stage.friend()}, "message": HELLO, "access_token": "other"}

        assert (await stage.call("POST", f"/v26.0/{PAGE_ID}/messages", json=body)).error == "100/33"
        assert (await stage.call("POST", "/v26.0/me/messages", json=body)).error == "100/2018001"


async def test_appsecret_proof_is_checked_when_sent_and_demanded_by_setting(stage: Stage) -> None:
    body = {"recipient": {"id": await stage.friend()}, "message": HELLO, **CREDENTIALS}

    async def send(**more: str) -> str:
        return (await stage.call("POST", "/v26.0/me/messages", json={**body, **more})).error

    assert await send() == ""
    assert await send(appsecret_proof=proof()) == ""
    assert await send(appsecret_proof=proof("another secret")) == "100"
    await stage.settings(require_appsecret_proof=True)
    assert await send() == "100"
    assert await send(appsecret_proof=proof()) == ""


@pytest.mark.parametrize(
    "raw",
    [
        "{",
        "[]",
        '{"recipient": 1}',
        '{"recipient": {}, "message": {"text": "x"}}',
        '{"recipient": {"id": true}, "message": {"text": "x"}}',
        '{"recipient": {"id": "1", "one_time_notif_token": "x"}, "message": {"text": "x"}}',
        '{"recipient": {"id": "1"}}',
        '{"recipient": {"id": "1"}, "message": "x"}',
        '{"recipient": {"id": "1"}, "message": {"text": "x"}, "sender_action": "typing_on"}',
        '{"recipient": {"id": "1"}, "sender_action": "dance"}',
        '{"recipient": {"id": "1"}, "sender_action": {"sender_action": "typing_on"}}',
        '{"recipient": {"one_time_notif_token": "x"}, "sender_action": "typing_on"}',
        '{"recipient": {"id": "1"}, "message": ' + "[" * 100_000,
    ],
)
async def test_calls_that_make_no_sense_get_100_and_never_500(stage: Stage, raw: str) -> None:
    headers = {"Content-Type": "application/json"}

    answer = await stage.call("POST", "/v26.0/me/messages", params=CREDENTIALS, data=raw, headers=headers)

    assert (answer.status, answer.error) == (400, "100")


async def test_typing_reaches_the_person_and_leaves_no_message(stage: Stage) -> None:
    psid = await stage.friend()
    body = {"recipient": {"id": psid}, "sender_action": "typing_on", **CREDENTIALS}

    assert (await stage.call("POST", "/v26.0/me/messages", json=body)).body == {"recipient_id": psid}
    assert [entry["sender_action"] for entry in stage.world.journal.entries(Kind.GRAPH)] == ["typing_on"]
    assert stage.world.stats()["delivered"] == 0


async def test_the_301st_call_of_a_second_is_refused_and_tells_when_to_go_on(stage: Stage) -> None:
    psid = await stage.friend()
    stage.world.pages[PAGE_ID].calls.extend([0.0] * 298)
    assert [(await stage.send({"id": psid}, HELLO)).error for _ in range(2)] == ["", ""]

    over = await stage.send({"id": psid}, HELLO)
    [usage] = json.loads(over.headers["X-Business-Use-Case-Usage"])[PAGE_ID]

    assert (over.error, usage["estimated_time_to_regain_access"], usage["call_count"]) == ("613", 1, 100)
    stage.monotonic.value += 0.999
    assert (await stage.send({"id": psid}, HELLO)).error == "613"
    stage.monotonic.value += 1
    again = await stage.send({"id": psid}, HELLO)
    assert again.status == 200
    assert json.loads(again.headers["X-Business-Use-Case-Usage"])[PAGE_ID][0]["call_count"] == 0


async def test_calls_made_while_throttled_lengthen_the_block(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.settings(calls_per_second=2)
    for step in range(5):
        assert (await stage.send({"id": psid}, HELLO)).error == ("613" if step > 1 else "")
        stage.monotonic.value += 0.4


async def test_audio_and_video_have_a_limit_of_ten_and_each_page_its_own() -> None:
    pages = (*made_up_config().pages, Page(id="2", name="Other", token="other"))
    async with on_stage(pages=pages) as stage:
        psid, elsewhere = await stage.friend(), await stage.friend(page_id="2")
        audio = {"attachment": {"type": "audio", "payload": {"url": "https://a.example/a.mp3"}}}

        codes = [(await stage.send({"id": psid}, audio)).error for _ in range(11)]

        assert codes == [""] * 10 + ["613"]
        assert (await stage.send({"id": psid}, HELLO)).status == 200
        assert (await stage.send({"id": elsewhere}, audio, token="other")).status == 200


async def test_me_is_the_page(stage: Stage) -> None:
    for node in ("me", PAGE_ID):
        answer = await stage.call("GET", f"/v26.0/{node}", params=CREDENTIALS)
        assert answer.body == {"id": PAGE_ID, "name": "Demo Shop"}
    assert (await stage.call("GET", "/v26.0/me")).error == "190"


async def test_a_profile_holds_what_is_known_of_what_was_asked(stage: Stage) -> None:
    psid = await stage.person(first_name="Ann", locale="en_GB", timezone=1)
    path = f"/v26.0/{psid}"

    asked = {"fields": "first_name,last_name,timezone", **CREDENTIALS}
    assert (await stage.call("GET", path, params=asked)).body == {
        "first_name": "Ann",
        "timezone": 1,
        "id": psid,
    }
    assert (await stage.call("GET", path, params={"fields": "shoe_size", **CREDENTIALS})).error == "100"
    assert (await stage.call("GET", "/v26.0/4711", params=CREDENTIALS)).error == "100/2018001"


async def test_the_journal_names_whom_a_profile_call_asks_about(stage: Stage) -> None:
    psid = await stage.person()
    asked = {"fields": "first_name", **CREDENTIALS}

    await stage.call("GET", f"/v26.0/{psid}", params=asked)
    await stage.call("GET", f"/v26.0/{psid}", params={"fields": "shoe_size", **CREDENTIALS})
    await stage.call("GET", f"/v26.0/{psid}")
    await stage.call("GET", "/v26.0/me", params=CREDENTIALS)

    assert [(entry["kind"], entry.get("psid")) for entry in stage.world.journal.entries()] == [
        ("graph", psid), ("refused", psid), ("refused", psid), ("graph", None),
    ]  # fmt: skip


async def test_the_subscription_can_be_seen_left_and_taken_up(stage: Stage) -> None:
    path = f"/v26.0/{PAGE_ID}/subscribed_apps"

    [app] = (await stage.call("GET", path, params=CREDENTIALS)).body["data"]
    assert "messaging_optins" in app["subscribed_fields"]
    assert (await stage.call("DELETE", path, params=CREDENTIALS)).body == {"success": True}
    assert (await stage.call("GET", path, params=CREDENTIALS)).body == {"data": []}
    fields = {"subscribed_fields": "messages,messaging_optins", **CREDENTIALS}
    assert (await stage.call("POST", path, data=fields)).body == {"success": True}
    [app] = (await stage.call("GET", path, params=CREDENTIALS)).body["data"]
    assert app["subscribed_fields"] == ["messages", "messaging_optins"]
    assert (await stage.call("POST", path, json={"subscribed_fields": [1], **CREDENTIALS})).error == "100"


async def test_the_messenger_profile_is_kept(stage: Stage) -> None:
    path = "/v26.0/me/messenger_profile"
    asked = {"fields": "get_started,greeting", **CREDENTIALS}
    start = {"get_started": {"payload": "start"}}

    assert (await stage.call("POST", path, json={**start, **CREDENTIALS})).body == {"result": "success"}
    assert (await stage.call("GET", path, params=asked)).body == {"data": [start]}
    gone = {"fields": ["get_started"], **CREDENTIALS}
    assert (await stage.call("DELETE", path, json=gone)).body == {"result": "success"}
    assert (await stage.call("GET", path, params=asked)).body == {"data": []}
    assert (await stage.call("POST", path, params=CREDENTIALS)).error == "100"
    assert (await stage.call("DELETE", path, params=CREDENTIALS)).error == "100"


async def test_saved_media_can_be_sent_by_id_and_unknown_ids_cannot(stage: Stage) -> None:
    psid = await stage.friend()
    image = {
        "attachment": {"type": "image", "payload": {"url": "https://a.example/a.png", "is_reusable": True}}
    }
    path = "/v26.0/me/message_attachments"

    saved = await stage.call("POST", path, json={"message": image, **CREDENTIALS})
    by_id = {"attachment": {"type": "image", "payload": {"attachment_id": saved.body["attachment_id"]}}}
    unknown = {"attachment": {"type": "image", "payload": {"attachment_id": "4711"}}}

    assert (await stage.send({"id": psid}, by_id)).status == 200
    assert (await stage.send({"id": psid}, unknown)).error == "100"
    assert (await stage.call("POST", path, json={"message": HELLO, **CREDENTIALS})).error == "100"
    bad = {"attachment": {"type": "image", "payload": {"url": "nowhere"}}}
    assert (await stage.call("POST", path, json={"message": bad, **CREDENTIALS})).error == "100/2018008"


async def test_what_is_not_simulated_is_refused_in_graphs_words(stage: Stage) -> None:
    answer = await stage.call("POST", "/v26.0/me/feed", params=CREDENTIALS)

    assert (answer.status, answer.error) == (400, "100/33")
    assert stage.world.journal.entries(Kind.REFUSED)[-1]["rule"] == "POST /v26.0/me/feed is not simulated"
