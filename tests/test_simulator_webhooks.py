"""What reaches the bot: signed, repeated, echoed, in batches, and wrong on demand."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from itertools import accumulate
from typing import Any

import pytest

from simulator.config import APP_ID
from simulator.journal import Filter, Kind
from simulator.settings import Settings
from simulator.testing import APP_SECRET, VERIFY_TOKEN, Stage, on_stage

HELLO = {"text": "hello"}
PAGE_ID = "100000000000001"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with on_stage() as stage:
        await stage.settings(deliveries=False, retry_delays=[0, 0])
        yield stage


async def journalled(stage: Stage, kind: Kind, **facts: Any) -> dict[str, Any]:
    """The first entry of that kind with those facts, once it exists."""
    after = 0
    while True:
        for entry in stage.world.journal.entries(kind, after=after):
            if facts.items() <= entry.items():
                return entry
            after = entry["seq"]
        await stage.world.journal.wait(Filter(after=after, kinds=frozenset({kind.value})), 5)
        assert stage.world.journal.entries(kind, after=after), f"no {kind.value} with {facts}"


async def test_a_webhook_is_signed_over_its_raw_bytes(stage: Stage) -> None:
    psid = await stage.person()

    answer = await stage.do(psid, "message", text="grüezi \U0001f44b")

    [webhook] = stage.bot.received
    digest = hmac.new(APP_SECRET.encode(), webhook.raw, hashlib.sha256).hexdigest()
    assert webhook.headers["X-Hub-Signature-256"] == f"sha256={digest}"
    assert answer.body["webhook"] == {"status": 200, "attempts": 1}
    now_ms = int(stage.wall() * 1000)
    message = {"mid": answer.body["mid"], "text": "grüezi \U0001f44b"}
    assert webhook.body == {
        "object": "page",
        "entry": [
            {
                "id": PAGE_ID,
                "time": now_ms,
                "messaging": [
                    {
                        "sender": {"id": psid},
                        "recipient": {"id": PAGE_ID},
                        "timestamp": now_ms,
                        "message": message,
                    }
                ],
            }
        ],
    }


async def test_the_echo_brings_back_metadata_app_and_mid_with_the_page_as_sender(stage: Stage) -> None:
    psid = await stage.friend()

    sent = await stage.send({"id": psid}, {**HELLO, "metadata": "otn:1"})

    [echo] = await stage.bot.wait_for("echo")
    assert (echo["sender"], echo["recipient"]) == ({"id": PAGE_ID}, {"id": psid})
    assert echo["message"] == {
        "is_echo": True,
        "app_id": APP_ID,
        "mid": sent.body["message_id"],
        "text": "hello",
        "metadata": "otn:1",
    }


async def test_the_echo_of_an_attachment_lists_attachments(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.ask(psid)

    [echo] = await stage.bot.wait_for("echo")
    assert echo["message"]["attachments"][0]["payload"]["template_type"] == "one_time_notif_req"


async def test_a_delivery_event_names_the_message(stage: Stage) -> None:
    await stage.settings(deliveries=True, echoes=False)
    sent = await stage.send({"id": await stage.friend()}, HELLO)

    [event] = await stage.bot.wait_for("delivery")
    assert event["delivery"] == {"mids": [sent.body["message_id"]], "watermark": int(stage.wall() * 1000)}
    assert stage.bot.events("echo") == []


async def test_notify_me_gives_one_new_token_for_each_request(stage: Stage) -> None:
    psid = await stage.friend()
    mids = [(await stage.ask(psid, payload=f"otn:{number}")).body["message_id"] for number in (1, 2)]

    first = await stage.do(psid, "notify-me", mid=mids[0])
    assert (await stage.do(psid, "notify-me", mid=mids[0])).status == 409
    await stage.do(psid, "notify-me", mid=mids[1])
    hello = stage.bot.events("message")[0]["message"]["mid"]
    assert (await stage.do(psid, "notify-me", mid=hello)).status == 404
    assert (await stage.do(psid, "notify-me", mid="nothing")).status == 404

    opt_ins = [event["optin"] for event in stage.bot.events("optin")]
    tokens = [opt_in.pop("one_time_notif_token") for opt_in in opt_ins]
    assert opt_ins == [{"type": "one_time_notif_req", "payload": f"otn:{number}"} for number in (1, 2)]
    assert len(set(tokens)) == 2
    assert first.body["token_id"] == hashlib.sha256(tokens[0].encode()).hexdigest()


async def test_no_token_and_no_secret_is_in_the_journal(stage: Stage) -> None:
    psid = await stage.friend()
    token = await stage.token(psid)
    await stage.send({"one_time_notif_token": token}, HELLO)
    await stage.send({"one_time_notif_token": token}, HELLO)
    optin = {"type": "one_time_notif_req", "one_time_notif_token": "by-hand", "payload": "x"}
    await stage.call(
        "POST", "/simulator/webhook", json={"body": {"entry": [{"messaging": [{"optin": optin}]}]}}
    )

    text = json.dumps((await stage.call("GET", "/simulator/journal")).body)

    for secret in (token, "by-hand", APP_SECRET, VERIFY_TOKEN, "page-access-token"):
        assert secret not in text
    assert text.count(hashlib.sha256(token.encode()).hexdigest()) >= 3


async def test_taps_reactions_referrals_and_reads_in_metas_words(stage: Stage) -> None:
    psid = await stage.friend()
    buttons = [{"type": "postback", "title": "Yes", "payload": "yes"}]
    template = {"template_type": "button", "text": "?", "buttons": buttons}
    reply = {"content_type": "text", "title": "No", "payload": "no"}
    first = await stage.send({"id": psid}, {"attachment": {"type": "template", "payload": template}})
    second = await stage.send({"id": psid}, {"text": "?", "quick_replies": [reply]})
    mids = [answer.body["message_id"] for answer in (first, second)]

    await stage.do(psid, "tap", mid=mids[0], payload="yes")
    await stage.do(psid, "tap", mid=mids[1], payload="no")
    await stage.do(psid, "reaction", mid=mids[0], reaction="love", emoji="\u2764", action="react")
    await stage.do(psid, "reaction", mid=mids[0], action="unreact")
    await stage.do(psid, "referral", ref="poster", source="SHORTLINK", type="OPEN_THREAD")
    await stage.do(psid, "read")
    await stage.do(psid, "postback", payload="start")

    postbacks = [event["postback"] for event in stage.bot.events("postback")]
    assert [(back["title"], back["payload"]) for back in postbacks] == [
        ("Yes", "yes"),
        ("Get Started", "start"),
    ]
    tapped = stage.bot.events("message")[-1]["message"]
    assert (tapped["text"], tapped["quick_reply"]) == ("No", {"payload": "no"})
    assert [event["reaction"] for event in stage.bot.events("reaction")] == [
        {"mid": mids[0], "action": "react", "reaction": "love", "emoji": "\u2764"},
        {"mid": mids[0], "action": "unreact"},
    ]
    [referral] = stage.bot.events("referral")
    assert referral["referral"] == {"ref": "poster", "source": "SHORTLINK", "type": "OPEN_THREAD"}
    [read] = stage.bot.events("read")
    assert read["read"] == {"watermark": int(stage.wall() * 1000)}


async def test_what_is_not_there_cannot_be_tapped(stage: Stage) -> None:
    psid = await stage.friend()
    mid = (await stage.send({"id": psid}, HELLO)).body["message_id"]

    assert (await stage.do(psid, "tap", mid=mid, payload="yes")).status == 409
    assert (await stage.do(psid, "tap", mid="nothing", payload="yes")).status == 404
    assert (await stage.do(psid, "reaction", mid="nothing")).status == 404
    assert (await stage.do(psid, "reaction", mid=mid, action="shout")).status == 400


async def test_a_failing_webhook_is_repeated_with_the_same_bytes_until_it_gets_its_200(stage: Stage) -> None:
    psid = await stage.person()
    stage.bot.answers.extend([500, None, 200])

    answer = await stage.do(psid, "message", text="hi")

    assert answer.body["webhook"] == {"status": 500, "attempts": 1}
    await stage.bot.until(lambda: len(stage.bot.received) == 3)
    assert len({webhook.raw for webhook in stage.bot.received}) == 1
    assert (await journalled(stage, Kind.WEBHOOK, attempt=3))["status"] == 200


async def test_repetition_has_an_end(stage: Stage) -> None:
    stage.bot.answers.extend([503] * 3)

    await stage.do(await stage.person(), "message", text="hi")

    assert await journalled(stage, Kind.WEBHOOK, given_up="no attempt is left", attempt=3)
    assert len(stage.bot.received) == 3
    assert stage.world.stats()["webhooks_waiting"] == 0


async def test_a_reset_ends_repetition_even_of_what_is_on_its_way(stage: Stage) -> None:
    stage.bot.silent = True
    on_its_way = asyncio.ensure_future(stage.do(await stage.person(), "message", text="before"))
    await stage.bot.until(lambda: len(stage.bot.received) == 1)
    await stage.call("POST", "/simulator/reset")
    stage.bot.silent = False
    stage.bot.release()

    await on_its_way
    await stage.do(await stage.person(), "message", text="after")

    assert [event["message"]["text"] for event in stage.bot.events("message")] == ["before", "after"]


async def test_what_fails_after_a_reset_is_given_up_in_so_many_words(stage: Stage) -> None:
    stage.bot.silent = True
    on_its_way = asyncio.ensure_future(stage.do(await stage.person(), "message", text="before"))
    await stage.bot.until(lambda: len(stage.bot.received) == 1)
    await stage.call("POST", "/simulator/reset")
    stage.bot.answers.append(500)
    stage.bot.silent = False
    stage.bot.release()

    await on_its_way

    assert await journalled(stage, Kind.WEBHOOK, given_up="the simulator was reset")


def test_by_default_attempts_go_on_less_and_less_often_until_the_app_is_unsubscribed() -> None:
    settings = Settings()
    delays = settings.retry_delays
    attempts = list(accumulate(delays))

    assert list(delays) == sorted(delays)
    assert attempts[-1] >= settings.unsubscribe_after
    assert len([at for at in attempts if at <= 60]) >= 7
    assert max(delay for delay, at in zip(delays, attempts, strict=True) if at <= 15 * 60) <= 60


async def test_after_an_hour_of_failures_the_app_is_unsubscribed(stage: Stage) -> None:
    psid = await stage.person()
    stage.bot.answers.extend([500, 500])
    await stage.settings(retry_delays=[])
    await stage.do(psid, "message", text="one")
    stage.monotonic.value += 3600
    await stage.do(psid, "message", text="two")

    answer = await stage.do(psid, "message", text="three")

    assert answer.body["webhook"]["note"] == "the app is not subscribed to messages of this Page"
    assert len(stage.bot.received) == 2
    given_up = await journalled(stage, Kind.WEBHOOK, unsubscribed=True)
    assert [event["message"]["text"] for event in given_up["events"]] == ["two"]

    credentials = {"access_token": "page-access-token"}
    await stage.call("POST", f"/v26.0/{PAGE_ID}/subscribed_apps", json=credentials)
    stage.bot.answers.append(500)
    await stage.do(psid, "message", text="four")
    assert stage.world.subscribed(PAGE_ID, "messages"), "another hour begins"


async def test_what_fails_beside_the_end_of_a_subscription_is_no_failure_of_the_next(stage: Stage) -> None:
    await stage.settings(retry_delays=[])
    psid = await stage.person()
    stage.bot.answers.append(500)
    await stage.do(psid, "message", text="zero")
    stage.monotonic.value += 3600
    stage.bot.received.clear()
    stage.bot.silent = True
    both = [asyncio.ensure_future(stage.do(psid, "message", text=each)) for each in ("one", "two")]
    await stage.bot.until(lambda: len(stage.bot.received) == 2)
    stage.bot.answers.extend([500, 500])
    stage.bot.silent = False
    stage.bot.release()
    await asyncio.gather(*both)
    assert not stage.world.subscribed(PAGE_ID, "messages")

    stage.monotonic.value += 2 * 3600
    credentials = {"access_token": "page-access-token"}
    await stage.call("POST", f"/v26.0/{PAGE_ID}/subscribed_apps", json=credentials)
    stage.bot.answers.append(500)
    await stage.do(psid, "message", text="three")
    assert stage.world.subscribed(PAGE_ID, "messages")


async def test_what_waits_is_not_repeated_for_an_app_that_was_unsubscribed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Callable[[], object]] = []
    monkeypatch.setattr(stage.world.outbox, "_later", lambda _seconds, act: waiting.append(act))
    stage.bot.answers.append(500)
    await stage.settings(retry_delays=[3600])
    await stage.do(await stage.person(), "message", text="hi")
    credentials = {"access_token": "page-access-token"}
    await stage.call("DELETE", f"/v26.0/{PAGE_ID}/subscribed_apps", json=credentials)
    for act in waiting:  # an hour later
        act()

    assert await journalled(stage, Kind.WEBHOOK, given_up="the app was unsubscribed from the Page")
    assert len(stage.bot.received) == 1
    assert stage.world.stats()["webhooks_waiting"] == 0


async def test_the_bot_gets_only_what_its_app_is_subscribed_to(stage: Stage) -> None:
    path, credentials = f"/v26.0/{PAGE_ID}/subscribed_apps", {"access_token": "page-access-token"}
    await stage.call("POST", path, json={"subscribed_fields": ["messages"], **credentials})
    psid = await stage.friend()

    answer = await stage.do(psid, "read")

    assert answer.body["webhook"]["status"] is None
    assert [event["message"]["text"] for event in stage.bot.events()] == ["hello"]


async def test_a_slow_bot_is_not_waited_for_forever() -> None:
    async with on_stage() as stage:
        await stage.settings(webhook_timeout=0.05, retry_delays=[])
        stage.bot.silent = True

        answer = await stage.do(await stage.person(), "message", text="hi")

        assert answer.body["webhook"]["note"] == "the bot did not answer in time"


async def test_events_of_one_page_can_share_an_envelope(stage: Stage) -> None:
    await stage.settings(batch_size=3, batch_wait=60)
    psid = await stage.person()
    stage.world.person(psid).open_window(stage.world.clock.now_ms())

    for number in range(3):
        await stage.send({"id": psid}, {"text": str(number)})

    await stage.bot.wait_for("echo", 3)
    [webhook] = stage.bot.received
    assert [event["message"]["text"] for event in webhook.body["entry"][0]["messaging"]] == ["0", "1", "2"]


async def test_a_batch_goes_out_when_its_time_is_over(stage: Stage) -> None:
    await stage.settings(batch_size=50, batch_wait=0.01)

    answer = await stage.do(await stage.person(), "message", text="alone")

    assert answer.body["webhook"] == {"status": 200, "attempts": 1}


async def test_events_of_another_apps_thread_stand_by_and_opt_ins_by_setting(stage: Stage) -> None:
    psid = await stage.friend()
    mids = [(await stage.ask(psid)).body["message_id"] for _ in range(2)]
    await stage.bot.wait_for("echo", 2)
    await stage.call("PATCH", f"/simulator/people/{psid}", json={"thread_owner": "other"})
    before = len(stage.bot.received)

    await stage.do(psid, "message", text="to the other app")
    await stage.do(psid, "notify-me", mid=mids[0])
    await stage.settings(optins_in_standby=True)
    await stage.do(psid, "notify-me", mid=mids[1])

    lists = [
        set(webhook.body["entry"][0]) & {"messaging", "standby"} for webhook in stage.bot.received[before:]
    ]
    assert lists == [{"standby"}, {"messaging"}, {"standby"}]


@pytest.mark.parametrize(("signature", "there"), [("good", True), ("bad", True), ("none", False)])
async def test_any_body_can_be_sent_with_any_signature(stage: Stage, signature: str, there: bool) -> None:
    stage.bot.answers.append(403)
    answer = await stage.call("POST", "/simulator/webhook", json={"raw": "\ud800{", "signature": signature})

    [webhook] = stage.bot.received
    digest = hmac.new(APP_SECRET.encode(), webhook.raw, hashlib.sha256).hexdigest()
    assert answer.body == {"status": 403, "text": ""}
    assert webhook.raw == b"\xed\xa0\x80{"
    assert ("X-Hub-Signature-256" in webhook.headers) is there
    assert (webhook.headers.get("X-Hub-Signature-256") == f"sha256={digest}") is (signature == "good")


async def test_a_body_by_hand_is_sent_as_json_once(stage: Stage) -> None:
    stage.bot.answers.append(500)

    answer = await stage.call("POST", "/simulator/webhook", json={"body": {"object": "page", "entry": []}})

    assert answer.body["status"] == 500
    assert [webhook.body for webhook in stage.bot.received] == [{"object": "page", "entry": []}]
    assert (await stage.call("POST", "/simulator/webhook", json={})).status == 400
    assert (
        await stage.call("POST", "/simulator/webhook", json={"raw": "x", "signature": "maybe"})
    ).status == 400


async def test_the_handshake_sends_the_verify_token_and_expects_the_challenge(stage: Stage) -> None:
    answer = await stage.call("POST", "/simulator/handshake", json={"challenge": "42"})

    assert answer.body == {"status": 200, "text": "42", "verified": True}
    assert stage.bot.received[0].query == {
        "hub.mode": "subscribe",
        "hub.challenge": "42",
        "hub.verify_token": VERIFY_TOKEN,
    }
    stage.bot.answers.append(403)
    refused = await stage.call("POST", "/simulator/handshake", json={"token": "bad"})
    assert (refused.body["status"], refused.body["verified"]) == (403, False)
    assert stage.bot.received[1].query["hub.verify_token"] != VERIFY_TOKEN


async def test_a_duplicated_webhook_arrives_twice(stage: Stage) -> None:
    await stage.fault("duplicate_webhook", match={"field": "messages"})

    await stage.do(await stage.person(), "message", text="hi")

    first, second = await stage.bot.wait_for("message", 2)
    assert first == second
    assert stage.world.journal.entries(Kind.FAULT)[0]["fault"] == "duplicate_webhook"


async def test_a_reordered_webhook_is_overtaken_by_the_next(stage: Stage) -> None:
    psid = await stage.person()
    await stage.fault("reorder_webhook", seconds=60)

    held = await stage.do(psid, "message", text="first")
    await stage.do(psid, "message", text="second")

    assert held.body["webhook"]["status"] is None
    await stage.bot.wait_for("message", 2)
    assert [event["message"]["text"] for event in stage.bot.events("message")] == ["second", "first"]


async def test_a_reordered_webhook_that_nothing_overtakes_still_arrives(stage: Stage) -> None:
    await stage.fault("reorder_webhook", seconds=0.01)

    await stage.do(await stage.person(), "message", text="alone")

    assert len(await stage.bot.wait_for("message")) == 1


async def test_an_echo_can_be_late_or_lost(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.fault("lose_echo")
    await stage.fault("delay_echo", seconds=0.05)

    for text in ("lost", "late", "on time"):
        await stage.send({"id": psid}, {"text": text})

    await stage.bot.wait_for("echo", 2)
    assert [event["message"]["text"] for event in stage.bot.events("echo")] == ["on time", "late"]
