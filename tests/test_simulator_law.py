"""Who may be written to, when, and by which right: to the second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from simulator.config import Page
from simulator.journal import Kind
from simulator.testing import PAGE_TOKEN, Stage, made_up_config, on_stage, permission_request

HOUR = 3600
DAY = 24 * HOUR
HELLO = {"text": "hello"}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with on_stage() as stage:
        yield stage


async def test_the_window_closes_24_hours_after_the_message_and_not_a_second_earlier(stage: Stage) -> None:
    psid = await stage.friend()

    stage.pass_time(DAY - 1)
    assert (await stage.send({"id": psid}, HELLO)).status == 200
    stage.pass_time(1)
    late = await stage.send({"id": psid}, HELLO)

    assert (late.status, late.error) == (403, "10/2018278")


async def test_the_window_counts_from_the_events_own_time_and_late_news_never_shorten_it(
    stage: Stage,
) -> None:
    psid = await stage.person()
    now_ms = int(stage.wall() * 1000)
    await stage.do(psid, "message", text="second", timestamp=now_ms - 1 * HOUR * 1000)
    await stage.do(psid, "message", text="first", timestamp=now_ms - 2 * HOUR * 1000)

    stage.pass_time(23 * HOUR - 1)
    assert (await stage.send({"id": psid}, HELLO)).status == 200
    stage.pass_time(1)
    assert (await stage.send({"id": psid}, HELLO)).error == "10/2018278"


@pytest.mark.parametrize("messaging_type", [None, "RESPONSE", "UPDATE"])
async def test_nobody_is_written_to_before_they_wrote(stage: Stage, messaging_type: str | None) -> None:
    psid = await stage.person()
    more = {"messaging_type": messaging_type} if messaging_type else {}

    assert (await stage.send({"id": psid}, HELLO, **more)).error == "10/2018278"
    action = await stage.call(
        "POST",
        "/v26.0/me/messages",
        params={"access_token": PAGE_TOKEN},
        json={"recipient": {"id": psid}, "sender_action": "typing_on"},
    )
    assert action.error == "10/2018278"


@pytest.mark.parametrize(
    ("act", "wish", "opens"),
    [
        ("message", {"text": "hi"}, True),
        (
            "message",
            {"attachments": [{"type": "image", "payload": {"url": "https://a.example/a.png"}}]},
            True,
        ),
        ("postback", {"payload": "start"}, True),
        ("referral", {"ref": "poster"}, True),
        ("reaction", {"action": "react"}, True),
        ("reaction", {"action": "unreact"}, False),
        ("read", {}, False),
    ],
)
async def test_what_opens_the_window(stage: Stage, act: str, wish: dict[str, object], opens: bool) -> None:
    psid = await stage.friend()
    mid = (await stage.send({"id": psid}, HELLO)).body["message_id"]
    stage.pass_time(DAY)

    await stage.do(psid, act, **({"mid": mid} if act == "reaction" else {}), **wish)

    assert ((await stage.send({"id": psid}, HELLO)).status == 200) is opens


async def test_the_journal_says_what_each_act_did_to_the_window(stage: Stage) -> None:
    psid = await stage.friend()
    asked = [(await stage.ask(psid)).body["message_id"] for _ in range(2)]
    stage.pass_time(60)
    now, day_ago_ms = stage.wall(), int((stage.wall() - DAY) * 1000)

    await stage.do(psid, "postback", payload="start")
    await stage.do(psid, "referral", ref="poster")
    await stage.do(psid, "reaction", mid=asked[0])
    await stage.do(psid, "reaction", mid=asked[0], action="unreact")
    await stage.do(psid, "read")
    await stage.do(psid, "notify-me", mid=asked[0])
    await stage.settings(notify_me_opens_window=True)
    await stage.do(psid, "notify-me", mid=asked[1])
    await stage.do(psid, "message", text="late", timestamp=day_ago_ms)
    await stage.do(psid, "message", text="hi", referral={"source": "ADS"})

    done = [entry["window"] for entry in stage.world.journal.entries(Kind.PERSON)]
    assert done == [
        {"rule": "a message opens the window for 24 hours (SEND)", "until": now - 60 + DAY},
        {"rule": "a tap on a button opens the window for 24 hours (SEND)", "until": now + DAY},
        {"rule": "an m.me link into the thread opens the window for 24 hours (SEND)", "until": now + DAY},
        {"rule": "a reaction opens the window for 24 hours (SEND)", "until": now + DAY},
        {"rule": "taking a reaction back does not open the window (SEND)"},
        {"rule": "reading does not open the window (SEND)"},
        {"rule": "a tap on Notify Me is not on the list of actions that open the window (FAQ)"},
        {
            "rule": "setting notify_me_opens_window: a tap on Notify Me opens the window for 24 hours",
            "until": now + DAY,
        },
        {"rule": "a message opens the window for 24 hours (SEND)", "until": now + DAY},
        {"rule": "a message after an ad opens the window for 168 hours (POLICY)", "until": now + 7 * DAY},
    ]
    told = [
        window for entry in stage.world.journal.entries(Kind.WEBHOOK) for window in entry.get("windows", [])
    ]
    assert sorted(told, key=str) == sorted(done, key=str)
    assert "opens the window" not in str([webhook.raw for webhook in stage.bot.received])


async def test_an_m_me_link_opens_nothing_where_there_is_no_thread(stage: Stage) -> None:
    psid = await stage.person()

    refused = await stage.do(psid, "referral", ref="poster")

    assert (refused.status, refused.body["error"].split(",")[0]) == (
        409,
        "there is no thread with the Page yet",
    )
    assert stage.bot.received == []
    assert (await stage.send({"id": psid}, HELLO)).error == "10/2018278"
    for known in (await stage.friend(), await stage.person(wrote=True)):
        stage.pass_time(DAY)
        assert (await stage.do(known, "referral", ref="poster")).status == 200
        assert (await stage.send({"id": known}, HELLO)).status == 200


async def test_taps_on_buttons_and_quick_replies_open_the_window(stage: Stage) -> None:
    psid = await stage.friend()
    buttons = [{"type": "postback", "title": "Yes", "payload": "yes"}]
    template = {"template_type": "button", "text": "?", "buttons": buttons}
    reply = {"content_type": "text", "title": "No", "payload": "no"}
    sent = {
        "yes": await stage.send({"id": psid}, {"attachment": {"type": "template", "payload": template}}),
        "no": await stage.send({"id": psid}, {"text": "?", "quick_replies": [reply]}),
    }
    for payload, answer in sent.items():
        stage.pass_time(DAY)
        assert (await stage.send({"id": psid}, HELLO)).error == "10/2018278"
        assert (await stage.do(psid, "tap", mid=answer.body["message_id"], payload=payload)).status == 200
        assert (await stage.send({"id": psid}, HELLO)).status == 200


async def test_a_message_after_an_ad_opens_the_window_for_seven_days(stage: Stage) -> None:
    psid = await stage.person()
    await stage.do(
        psid, "message", text="hi", referral={"source": "ADS", "type": "OPEN_THREAD", "ad_id": "1"}
    )

    stage.pass_time(7 * DAY - 1)
    assert (await stage.send({"id": psid}, HELLO)).status == 200
    stage.pass_time(1)
    assert (await stage.send({"id": psid}, HELLO)).error == "10/2018278"


async def test_a_human_agent_may_write_for_seven_days_after_the_last_message(stage: Stage) -> None:
    psid = await stage.friend()
    tag = {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}

    stage.pass_time(7 * DAY - 1)
    assert (await stage.send({"id": psid}, HELLO, **tag)).status == 200
    assert (await stage.send({"id": psid}, permission_request(), **tag)).error == "10/2018278"
    await stage.settings(human_agent_allowed=False)
    assert (await stage.send({"id": psid}, HELLO, **tag)).error == "10"
    await stage.settings(human_agent_allowed=True)
    stage.pass_time(1)
    assert (await stage.send({"id": psid}, HELLO, **tag)).error == "10/2018278"


@pytest.mark.parametrize(
    "more",
    [
        {"messaging_type": "MESSAGE_TAG", "tag": "CONFIRMED_EVENT_UPDATE"},
        {"messaging_type": "MESSAGE_TAG", "tag": "ACCOUNT_UPDATE"},
        {"messaging_type": "MESSAGE_TAG", "tag": "POST_PURCHASE_UPDATE"},
        {"messaging_type": "MESSAGE_TAG", "tag": "NO_SUCH_TAG"},
        {"messaging_type": "MESSAGE_TAG"},
        {"messaging_type": "RESPONSE", "tag": "HUMAN_AGENT"},
        {"messaging_type": "CHAT"},
        {"notification_type": "LOUD"},
    ],
)
async def test_dead_tags_and_unknown_types_are_refused_even_inside_the_window(
    stage: Stage, more: dict[str, str]
) -> None:
    assert (await stage.send({"id": await stage.friend()}, HELLO, **more)).error == "100"


async def test_a_permission_request_goes_out_inside_the_window_only(stage: Stage) -> None:
    psid = await stage.friend()
    assert (await stage.ask(psid, "x" * 65)).status == 200
    assert (await stage.ask(psid, "x" * 66)).error == "100"

    stage.pass_time(DAY)
    assert (await stage.ask(psid)).error == "10/2018278"


async def test_a_token_sends_one_message_outside_the_window_and_no_second_one(stage: Stage) -> None:
    psid = await stage.friend()
    token = await stage.token(psid)
    stage.pass_time(25 * HOUR)

    first = await stage.send({"one_time_notif_token": token}, {**HELLO, "metadata": "otn:1"})
    second = await stage.send({"one_time_notif_token": token}, HELLO)

    assert first.body["recipient_id"] == psid
    assert second.error == "100/2018320"
    [delivered] = [entry for entry in stage.world.journal.entries(Kind.DELIVERED) if entry["by_token"]]
    assert (delivered["psid"], delivered["metadata"], delivered["mid"]) == (
        psid,
        "otn:1",
        first.body["message_id"],
    )
    assert stage.world.stats()["tokens_used"] == 1


async def test_of_many_sends_at_once_one_spends_the_token(stage: Stage) -> None:
    token = await stage.token(await stage.friend())

    replies = await asyncio.gather(*[stage.send({"one_time_notif_token": token}, HELLO) for _ in range(20)])

    assert sorted(reply.status for reply in replies) == [200] + [400] * 19


async def test_a_token_is_spent_inside_the_window_too(stage: Stage) -> None:
    token = await stage.token(await stage.friend())

    assert (await stage.send({"one_time_notif_token": token}, HELLO)).status == 200
    assert (await stage.send({"one_time_notif_token": token}, HELLO)).error == "100/2018320"


async def test_a_refused_send_does_not_burn_the_token(stage: Stage) -> None:
    psid = await stage.friend()
    token = await stage.token(psid)
    stage.pass_time(DAY)
    to_token = {"one_time_notif_token": token}

    assert (await stage.send(to_token, {"text": "x" * 2000})).error == "100"
    assert (await stage.send(to_token, HELLO, messaging_type="MESSAGE_TAG", tag="HUMAN_AGENT")).error == "100"
    assert (await stage.send(to_token, permission_request())).error == "10/2018278"
    await stage.call("PATCH", f"/simulator/people/{psid}", json={"blocked": True})
    assert (await stage.send(to_token, HELLO)).error == "551"
    await stage.call("PATCH", f"/simulator/people/{psid}", json={"blocked": False})
    assert (await stage.send(to_token, HELLO)).status == 200


async def test_a_token_lives_for_365_days_and_not_a_second_longer(stage: Stage) -> None:
    psid = await stage.friend()
    young, old = await stage.token(psid), await stage.token(psid)

    stage.pass_time(365 * DAY - 1)
    assert (await stage.send({"one_time_notif_token": young}, HELLO)).status == 200
    stage.pass_time(1)
    await stage.settings(expired_token_error="100/2018999")
    assert (await stage.send({"one_time_notif_token": old}, HELLO)).error == "100/2018999"


async def test_the_error_of_a_token_that_cannot_be_used_can_be_chosen(stage: Stage) -> None:
    token = await stage.token(await stage.friend())
    await stage.settings(used_token_error="10/2018278", invalid_token_error="190")
    await stage.send({"one_time_notif_token": token}, HELLO)

    assert (await stage.send({"one_time_notif_token": token}, HELLO)).error == "10/2018278"
    assert (await stage.send({"one_time_notif_token": "made up"}, HELLO)).error == "190"


async def test_a_token_belongs_to_one_page() -> None:
    pages = (*made_up_config().pages, Page(id="2", name="Other", token="other"))
    async with on_stage(pages=pages) as stage:
        token = await stage.token(await stage.friend())

        assert (
            await stage.send({"one_time_notif_token": token}, HELLO, token="other")
        ).error == "100/2018320"
        assert (await stage.send({"one_time_notif_token": token}, HELLO)).status == 200


async def test_notify_me_opens_the_window_only_if_the_setting_says_so(stage: Stage) -> None:
    psid = await stage.friend()
    mids = [(await stage.ask(psid)).body["message_id"] for _ in range(2)]
    stage.pass_time(DAY)

    await stage.do(psid, "notify-me", mid=mids[0])
    assert (await stage.send({"id": psid}, HELLO)).error == "10/2018278"
    await stage.settings(notify_me_opens_window=True)
    await stage.do(psid, "notify-me", mid=mids[1])
    assert (await stage.send({"id": psid}, HELLO)).status == 200


async def test_whether_messaging_type_and_recipient_id_go_with_a_token_is_a_setting(stage: Stage) -> None:
    psid = await stage.friend()
    first, second = await stage.token(psid), await stage.token(psid)

    with_type = await stage.send({"one_time_notif_token": first}, HELLO, messaging_type="UPDATE")
    assert (with_type.status, with_type.body["recipient_id"]) == (200, psid)
    await stage.settings(messaging_type_with_token=False, token_answer_has_recipient_id=False)
    assert (await stage.send({"one_time_notif_token": second}, HELLO, messaging_type="UPDATE")).error == "100"
    assert (await stage.send({"one_time_notif_token": second}, HELLO)).body.keys() == {"message_id"}


async def test_another_apps_thread_is_closed_to_psid_sends_and_to_token_sends_by_setting(
    stage: Stage,
) -> None:
    psid = await stage.friend()
    first, second = await stage.token(psid), await stage.token(psid)
    await stage.call("PATCH", f"/simulator/people/{psid}", json={"thread_owner": "other"})

    assert (await stage.send({"id": psid}, HELLO)).error == "10/2018300"
    assert (await stage.send({"one_time_notif_token": first}, HELLO)).status == 200
    await stage.settings(token_send_needs_thread=True)
    assert (await stage.send({"one_time_notif_token": second}, HELLO)).error == "10/2018300"


async def test_a_page_without_one_time_notification_can_neither_ask_nor_follow_up(stage: Stage) -> None:
    psid = await stage.friend()
    token = await stage.token(psid)
    await stage.settings(otn_allowed=False)

    assert (await stage.ask(psid)).error == "10"
    assert (await stage.send({"one_time_notif_token": token}, HELLO)).error == "10"
    assert (await stage.send({"id": psid}, HELLO)).status == 200


async def test_people_who_blocked_or_cannot_receive_or_do_not_exist(stage: Stage) -> None:
    psid = await stage.friend()
    person = f"/simulator/people/{psid}"

    await stage.call("PATCH", person, json={"unreachable": True})
    assert (await stage.send({"id": psid}, HELLO)).error == "10/2018108"
    await stage.call("PATCH", person, json={"blocked": True, "unreachable": False})
    assert (await stage.send({"id": psid}, HELLO)).error == "551"
    await stage.settings(blocked_person_error="200/1545041")
    assert (await stage.send({"id": psid}, HELLO)).error == "200/1545041"
    assert (await stage.send({"id": "4711"}, HELLO)).error == "100/2018001"


async def test_every_refusal_is_in_the_journal_with_its_rule_in_words(stage: Stage) -> None:
    psid = await stage.person()

    await stage.send({"id": psid}, {**HELLO, "metadata": "otn:7"})

    [entry] = stage.world.journal.entries(Kind.REFUSED, psid=psid)
    assert entry["rule"] == "the 24 h window is closed, and the send carries no permission (SEND)"
    assert (entry["code"], entry["subcode"], entry["metadata"]) == (10, 2018278, "otn:7")
