"""What the bot says: the rules before every message, the limits, permission requests, follow-ups, goodbyes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from on_air import HAND_PACE, PAGE, OnAir, message, now_ms, on_air, opt_in

from otn import privacy
from otn.messages import permission_request
from otn.store import contacts, pages
from simulator.journal import Filter
from simulator.people import Token
from simulator.testing import APP_SECRET, PAGE_TOKEN, VERIFY_TOKEN

HOUR = 3600 * 1000


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[OnAir]:
    async with on_air(tmp_path) as air:
        air.person()
        yield air


async def hears(air: OnAir, *responses: Any) -> list[Any]:
    """What the person gets when the bot says this in one turn."""
    before = len(air.heard("7007"))
    air.bot.say(*responses)
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    return air.heard("7007")[before:]


# --- saying ---


async def test_everything_rasa_can_say_arrives_as_messenger_says_it(air: OnAir) -> None:
    button = {"title": "Yes", "payload": "/affirm"}
    assert await hears(
        air,
        {"text": "Choose", "buttons": [button]},
        {"text": "Or tap", "quick_replies": [button]},
        {"image": "https://cdn.example/1.jpg"},
        {"attachment": "https://cdn.example/manual.pdf"},
        {"elements": [{"title": "Card", "buttons": [button]}]},
        {"custom": {"text": "raw"}},
    ) == [
        {
            "attachment": {
                "type": "template",
                "payload": {
                    "template_type": "button",
                    "text": "Choose",
                    "buttons": [{"type": "postback", "title": "Yes", "payload": "/affirm"}],
                },
            }
        },
        "Or tap",
        {"attachment": {"type": "image", "payload": {"url": "https://cdn.example/1.jpg"}}},
        {"attachment": {"type": "file", "payload": {"url": "https://cdn.example/manual.pdf"}}},
        {
            "attachment": {
                "type": "template",
                "payload": {
                    "template_type": "generic",
                    "elements": [
                        {
                            "title": "Card",
                            "buttons": [{"type": "postback", "title": "Yes", "payload": "/affirm"}],
                        }
                    ],
                },
            }
        },
        "raw",
    ]


async def test_long_texts_are_split_and_the_order_is_kept(air: OnAir) -> None:
    heard = await hears(air, "a" * 5000, "b")
    assert [len(each) for each in heard] == [1999, 1999, 1002, 1]
    assert heard[-1] == "b"


async def test_what_breaks_a_limit_costs_a_log_line_and_not_the_rest(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    heard = await hears(air, {"custom": {"attachment": {"type": "template", "payload": {}}}}, "after it")
    assert heard == ["after it"]
    assert "A message was dropped" in caplog.text


async def test_the_send_methods_of_rasa_go_the_same_way(air: OnAir) -> None:
    await hears(air)  # the person has spoken
    output = air.channel.get_output_channel()
    assert output is not None
    await output.send_text_message("7007", "one", unknown=1)
    await output.send_image_url("7007", "https://cdn.example/1.jpg")
    await output.send_attachment("7007", "https://cdn.example/1.mp4")
    await output.send_text_with_buttons("7007", "two", [{"title": "T", "payload": "P"}])
    await output.send_quick_replies("7007", "three", [{"title": "T", "payload": "P"}])
    await output.send_elements("7007", ({"title": title} for title in ("x", "y")))
    await output.send_custom_json("7007", {"text": "four"})
    heard = air.heard("7007")
    assert [each if isinstance(each, str) else each["attachment"]["type"] for each in heard] == [
        "one",
        "image",
        "video",
        "template",
        "three",
        "template",
        "four",
    ]


async def test_every_message_carries_its_wire_id_and_type(air: OnAir) -> None:
    await hears(air, "one", "two")
    delivered = air.simulated.world.journal.entries()
    sent = [each for each in delivered if each["kind"] == "delivered"]
    assert len({each["metadata"] for each in sent}) == 2
    assert all(each["metadata"].startswith("otn:") for each in sent)
    assert all(each["messaging_type"] == "RESPONSE" for each in sent)


# --- not saying ---


async def test_outside_the_window_nothing_is_said_and_one_line_tells(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    air.bot.say("one", "two\n\nthree")
    await air.deliver(message("7007", "long ago", at=now_ms() - 30 * HOUR))
    await air.quiet()
    assert air.heard("7007") == []
    assert caplog.text.count("was not sent: The messaging window closed at") == 2
    skipped = air.rows("delivery", "state", "reason")
    assert skipped == [("skipped", "window_closed")] * 2  # one for each utterance


async def test_a_late_tap_is_kept_and_not_thanked(air: OnAir) -> None:
    air.topic()
    air.bot.say("thank you")
    await air.deliver(message("7007", "hello", at=now_ms() - 30 * HOUR))
    await air.deliver(opt_in("7007", "t1"))
    await air.quiet()
    assert air.rows("otn_token", "state") == ["available"]
    assert air.heard("7007") == []


async def test_a_refusal_is_recorded_by_code_and_does_not_cost_the_turn(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    air.simulated.world.people[PAGE, "7007"].blocked = True
    air.bot.say("secret words", "more")
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    refused, *rest = air.rows("delivery", "state", "reason", "error_code", "error_subcode")
    assert refused == ("refused", "person_unavailable", 551, None) or refused[0] == "refused"
    assert [each[1] for each in rest] == ["undeliverable"]
    assert "secret words" not in caplog.text
    assert len(await air.user_events("7007")) == 1
    assert air.rows("inbound_event", "state")[0] == "done"


async def test_metas_word_on_the_window_is_believed(air: OnAir) -> None:
    air.simulated.world.people[PAGE, "7007"].window_until_ms = 0
    assert await hears(air, "one", "two") == []
    states = air.rows("delivery", "state", "reason")
    assert states == [("refused", "outside_window"), ("skipped", "window_closed")]


async def test_metas_late_word_does_not_close_a_window_that_was_opened_since(
    air: OnAir, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = air.simulated.world.person("7007")
    person.window_until_ms = 0
    graph = air.line.doors.graph
    answer_at_once = graph.send

    async def answer_late(request: Any) -> Any:
        graph.send = answer_at_once
        try:
            return await answer_at_once(request)
        finally:
            person.open_window(air.simulated.world.clock.now_ms())
            await air.deliver(message("7007", "are you there?", at=now_ms() + 1))

    monkeypatch.setattr(graph, "send", answer_late)
    assert await hears(air, "hi") == ["hi"]
    assert air.rows("delivery", "state", "reason") == [("refused", "outside_window")]


async def test_without_an_answer_the_reply_is_unknown_and_not_repeated(air: OnAir) -> None:
    air.simulated.world.faults.add({"kind": "lost_answer", "count": 1})
    assert await hears(air, "one", "two") == ["one", "two"]
    (state,) = air.rows("delivery", "state")
    assert state in ("unknown", "sent"), "until its echo has come in"
    assert air.rows("inbound_event", "state")[0] == "done"


@pytest.fixture
def out_of_reach(air: OnAir, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What nobody listens to: one address for each of the next sends, or what else is to happen then; no waits."""
    graph, coming = air.line.doors.graph, list[Any]()
    send = graph.send

    async def send_nowhere(request: Any) -> Any:
        if not coming:
            return await send(request)
        if callable(happens := coming.pop(0)):
            happens()
        return await send(replace(request, url="http://127.0.0.1:9/"))

    monkeypatch.setattr(graph, "send", send_nowhere)
    monkeypatch.setattr("channels.output.AGAIN_AFTER", (0, 0))
    return coming


async def test_what_never_left_us_is_sent_again(air: OnAir, out_of_reach: list[Any]) -> None:
    out_of_reach += ["nobody", "nobody"]
    assert await hears(air, "one", "two") == ["one", "two"]
    assert air.rows("delivery", "state") == []


async def test_a_request_that_never_left_us_is_sent_again(air: OnAir, out_of_reach: list[Any]) -> None:
    air.topic()
    air.bot.say(asking(text=""))
    out_of_reach += ["nobody", "nobody"]
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    assert len(cards(air.heard("7007"))) == 1
    assert air.rows("permission_request", "state") == ["sent"]


async def test_where_graph_stays_away_a_turn_tries_three_times_and_ends(
    air: OnAir, out_of_reach: list[Any]
) -> None:
    out_of_reach += ["nobody"] * 4
    assert await hears(air, "one", "two", "three") == ["three"]
    assert air.rows("delivery", "state", "reason") == [("refused", "unreachable")] * 2


async def test_what_may_not_be_said_any_more_is_not_sent_again(air: OnAir, out_of_reach: list[Any]) -> None:
    def pause() -> None:
        with air.app.store.begin() as tx:
            pages.pause(tx, PAGE, "somebody said so", None)

    out_of_reach += [pause]
    assert await hears(air, "one", "two") == []
    assert air.rows("delivery", "state", "reason") == [("refused", "unreachable"), ("skipped", "page_paused")]


async def test_a_recipient_nobody_knows_is_no_error(air: OnAir, caplog: pytest.LogCaptureFixture) -> None:
    output = air.channel.get_output_channel()
    assert output is not None
    await output.send_response("nobody", {"text": "hello?"})
    assert "nothing is sent to nobody" in caplog.text


async def test_nothing_that_rasa_hands_over_raises(air: OnAir) -> None:
    await hears(air)
    output = air.channel.get_output_channel()
    assert output is not None
    for nonsense in (
        {},
        {"text": None},
        {"text": object()},
        {"buttons": "x"},
        {"custom": {"a": float("nan")}},
        {"text": "a", "otn_request": "x"},
        {"text": "a", "otn_request": {"topic": {"a": 1}}},
        {"text": "a", "otn_follow_up": {"topic": "x"}},
        {"text": "a", "otn_follow_up": ["x"]},
        {"otn_remember": float("nan"), "otn_tags": {"a": object()}},
    ):
        await output.send_response("7007", nonsense)
    assert set(air.heard("7007")) <= {"a"}


# --- asking ---


def asking(text: str = "May I tell you?", topic: str = "restock-blue") -> dict[str, Any]:
    return {"text": text, "otn_request": {"topic": topic}}


def cards(heard: list[Any]) -> list[tuple[str, str]]:
    found = [each["attachment"]["payload"] for each in heard if isinstance(each, dict)]
    return [(each["title"], each["payload"]) for each in found]


async def test_a_request_follows_its_text(air: OnAir) -> None:
    air.topic()
    heard = await hears(air, asking())
    assert heard[0] == "May I tell you?"
    assert cards(heard) == [("Back in stock", "otn:restock-blue:1")]
    assert air.rows("permission_request", "state") == ["sent"]


async def test_a_replayed_turn_says_its_words_again_and_asks_no_more(air: OnAir) -> None:
    air.topic()
    air.topic("news", ask_while_available=True, min_interval=timedelta(0))
    await hears(air, asking(), asking("And?", "news"), asking("And again?", "news"))
    first = air.heard("7007")
    assert len(cards(first)) == 3
    # As if the process had died before the tracker was saved.
    tracker = air.agent.tracker_store._tracker_store
    with tracker.session_scope() as session:
        session.query(tracker.SQLEvent).delete()
        session.commit()
    air.change("UPDATE inbound_event SET state = 'new' WHERE kind = 'message'")
    await air.sweep()
    again = air.heard("7007")[len(first) :]
    assert again == ["May I tell you?", "And?", "And again?"]


async def test_asking_again_too_soon_is_left_out(air: OnAir, caplog: pytest.LogCaptureFixture) -> None:
    air.topic()
    await hears(air, asking())
    assert await hears(air, asking("Well?")) == ["Well?"]
    assert "was not asked for restock-blue" in caplog.text
    assert await hears(air, asking("Unknown?", "no-such-topic")) == ["Unknown?"]


async def test_an_utterance_is_no_way_round_the_rules_for_asking(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    await permitted(air)
    request = permission_request("Back in stock", "otn:restock-blue")
    await trigger(air, follow_up(text="", custom=request))
    assert await hears(air, {"text": "Well?", "custom": request}) == ["Well?"]
    assert air.rows("otn_token", "state") == ["available"]
    assert air.rows("delivery", "state", "reason") == [("skipped", "not_one_message")]
    assert caplog.text.count("asks for a permission") == 2


async def test_a_refused_request_is_settled(air: OnAir) -> None:
    air.topic()
    air.simulated.world.settings = air.simulated.world.settings.changed({"otn_allowed": False})
    assert await hears(air, asking()) == ["May I tell you?"]
    assert air.rows("permission_request", "state") == ["refused"]
    assert air.rows("page", "otn_denied_reason")[0]
    assert await hears(air, asking("Again?")) == ["Again?"]
    assert len(air.rows("permission_request", "id")) == 1


async def test_a_turn_without_a_message_may_ask_too(air: OnAir) -> None:
    air.topic()
    await hears(air)
    output = air.channel.get_output_channel()
    assert output is not None
    await output.send_response("7007", asking())
    assert len(cards(air.heard("7007"))) == 1


# --- follow-ups ---


def follow_up(text: str = "It is back!", event_id: str | None = "e1", **more: Any) -> dict[str, Any]:
    return {"text": text, "otn_follow_up": {"topic": "restock-blue", "event_id": event_id}, **more}


async def permitted(air: OnAir, given: str = "t1", *, window: bool = True) -> None:
    """The person agrees, and then, if wanted, a day passes."""
    air.topic()
    world = air.simulated.world
    world.tokens[given] = Token(
        text=given, person=world.person("7007"), request_mid="m", issued_ms=world.clock.now_ms()
    )
    at = now_ms() - (1 if window else 30) * HOUR
    await air.deliver(message("7007", "hello", at=at), opt_in("7007", given, at=at + 1))
    await air.quiet()
    if not window:
        world.person("7007").window_until_ms = 0


async def trigger(air: OnAir, response: dict[str, Any]) -> None:
    """As `POST /conversations/7007/trigger_intent?output_channel=messenger`."""
    air.bot.say(response)
    agent = air.agent
    async with agent.lock_store.lock("7007"):
        output = air.channel.get_output_channel()
        tracker = await agent.processor.fetch_tracker_and_update_session("7007", output)
        await agent.trigger_intent("EXTERNAL_otn_follow_up", [], output, tracker)
    await air.quiet()


async def test_a_follow_up_inside_the_window_keeps_the_permission(air: OnAir) -> None:
    await permitted(air)
    await trigger(air, follow_up())
    assert air.heard("7007") == ["It is back!"]
    assert air.rows("delivery", "state", "route", "origin") == [("sent", "window", "story")]
    assert air.rows("otn_token", "state") == ["available"]
    assert air.rows("delivery", "noted_at") != [None]


async def test_a_follow_up_outside_the_window_spends_it_and_is_said_once_an_event(air: OnAir) -> None:
    await permitted(air, window=False)
    await trigger(air, follow_up())
    await trigger(air, follow_up())
    assert air.heard("7007") == ["It is back!"]
    assert air.rows("otn_token", "state") == ["used"]
    await trigger(air, follow_up(event_id="e2"))
    assert air.heard("7007") == ["It is back!"]
    assert air.rows("delivery", "state", "reason") == [("sent", None), ("skipped", "token_used")]


async def test_a_window_that_is_closed_after_all_is_decided_once_more(air: OnAir) -> None:
    await permitted(air)
    air.simulated.world.person("7007").window_until_ms = 0
    await trigger(air, follow_up())
    assert air.heard("7007") == ["It is back!"]
    assert air.rows("delivery", "state", "route", "attempts") == [("sent", "token", 2)]
    assert air.rows("otn_token", "state") == ["used"]


async def test_a_lost_answer_to_a_follow_up_leaves_it_unknown_for_the_worker(air: OnAir) -> None:
    await permitted(air, window=False)
    world = air.simulated.world
    world.settings = world.settings.changed({"echoes": False})
    world.faults.add({"kind": "lost_answer", "count": 1})
    await trigger(air, follow_up())
    assert air.rows("delivery", "state", "doubtful") in ([("unknown", True)], [("unknown", False)])
    assert air.rows("otn_token", "state") == ["reserved"]


async def test_a_follow_up_is_one_message_or_none(air: OnAir, caplog: pytest.LogCaptureFixture) -> None:
    await permitted(air, window=False)
    await trigger(air, follow_up("a" * 2500))
    await trigger(air, follow_up(image="https://cdn.example/1.jpg", event_id="e2"))
    await trigger(air, follow_up(event_id=None))
    assert air.heard("7007") == []
    assert air.rows("otn_token", "state") == ["available"]
    assert air.rows("delivery", "state", "reason") == [("skipped", "not_one_message")] * 2
    assert "lacks its topic or event id" in caplog.text


# --- remembering ---


async def test_an_utterance_without_words_is_remembered_and_says_nothing(air: OnAir) -> None:
    wish = {"text": None, "otn_remember": {"size": "42"}, "otn_tags": ["runner"]}
    assert await hears(air, wish, "hello") == ["hello"]
    assert air.rows("contact_attribute", "name", "value") == [("size", "42")]
    assert air.rows("contact_tag", "tag") == ["runner"]
    assert "size" not in str(air.rows("delivery", "message"))
    assert await hears(air, {"text": "Noted.", "otn_remember": {"size": None}}) == ["Noted."]
    assert air.rows("contact_attribute", "name", "value") == []


async def test_what_cannot_be_remembered_costs_a_log_line_and_no_words(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    wish = {"text": "hi", "otn_remember": {"a b": "x", "ok": "y"}, "otn_tags": "nonsense"}
    assert await hears(air, wish) == ["hi"]
    assert air.rows("contact_attribute", "name", "value") == [("ok", "y")]
    assert caplog.text.count("messenger: of contact 1: ") == 2


async def test_of_who_says_goodbye_nothing_is_remembered(air: OnAir) -> None:
    assert await hears(air, {"text": "Goodbye!", "otn_forget": True, "otn_tags": ["runner"]}) == ["Goodbye!"]
    assert air.rows("contact_tag", "tag") == []


# --- forgetting ---


async def kept_about(air: OnAir) -> dict[str, Any]:
    return {
        "events": len(await air.events("7007")),
        "tokens": air.rows("otn_token", "state", "ciphertext"),
        "inbox": len([kind for kind in air.rows("inbound_event", "kind") if kind != "echo"]),
        "erased": air.rows("contact", "erased_at")[0] is not None,
    }


async def test_forget_me_says_goodbye_and_forgets_after_the_turn(air: OnAir) -> None:
    await permitted(air)
    assert await hears(air, {"text": "Goodbye!", "otn_forget": True}, "never said") == ["Goodbye!"]
    found = await kept_about(air)
    assert found["events"] == 0
    assert found["tokens"] == [("invalid", None)]
    assert found["erased"]
    assert [kind for kind in air.rows("inbound_event", "kind") if kind == "message"] == []
    assert await hears(air, "hello again") == ["hello again"]  # they may come back
    assert len(await air.user_events("7007")) == 1


async def test_the_wish_to_be_forgotten_is_forgotten_too_if_meta_s_clock_is_ahead(air: OnAir) -> None:
    air.bot.answer = lambda _tracker: [{"text": "Goodbye!", "otn_forget": True}]
    await air.deliver(message("7007", "forget me", at=now_ms() + 3000))
    await air.quiet()
    assert [kind for kind in air.rows("inbound_event", "kind") if kind == "message"] == []
    assert air.rows("contact", "window_until", "last_message_at") == [(None, None)]


async def test_who_answers_the_goodbye_before_graph_does_is_answered(
    air: OnAir, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = air.line.doors.graph
    answer_at_once = graph.send
    said = [{"text": "Goodbye!", "otn_forget": True}, {"text": "hello again"}]

    async def answer_late(request: Any) -> Any:
        graph.send = answer_at_once
        try:
            return await answer_at_once(request)
        finally:
            await air.deliver(message("7007", "one more thing"))

    monkeypatch.setattr(graph, "send", answer_late)
    air.bot.answer = lambda _tracker: [said.pop(0)]
    await air.deliver(message("7007", "forget me"))
    await air.quiet()
    assert air.heard("7007") == ["Goodbye!", "hello again"]
    assert [each.text for each in await air.user_events("7007")] == ["one more thing"]
    assert [kind for kind in air.rows("inbound_event", "kind") if kind == "message"] == ["message"]


async def test_an_erasure_marked_elsewhere_is_carried_out_by_the_sweep(air: OnAir) -> None:
    await permitted(air)
    with air.app.store.begin() as tx:
        contact = contacts.find(tx, PAGE, "7007")
        assert contact is not None
        privacy.request_erasure(tx, contact, who="operator", now=air.app.clock())
    await air.sweep()
    found = await kept_about(air)
    assert (found["events"], found["erased"]) == (0, True)
    assert air.rows("contact", "erase_requested_at", "turn_owner") == [(None, None)]


async def test_an_erasure_waits_for_a_message_on_its_way(air: OnAir) -> None:
    await permitted(air)
    await trigger(air, follow_up())
    air.change("UPDATE delivery SET state = 'sending', lease_until = 9e12")
    with air.app.store.begin() as tx:
        contact = contacts.find(tx, PAGE, "7007")
        assert contact is not None
        privacy.request_erasure(tx, contact, who="operator", now=air.app.clock())
    await air.sweep()
    assert not (await kept_about(air))["erased"]
    air.change("UPDATE delivery SET state = 'sent'")
    await air.sweep()
    assert (await kept_about(air))["erased"]


async def test_a_goodbye_before_a_crash_is_still_a_goodbye(
    air: OnAir, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_arguments: Any) -> None:
        raise RuntimeError("the process died here")

    monkeypatch.setattr(air.agent.processor, "save_tracker", die)
    await hears(air, {"text": "Goodbye!", "otn_forget": True})
    monkeypatch.undo()
    await air.sweep()
    assert air.heard("7007") == ["Goodbye!"]
    assert (await kept_about(air))["erased"]


async def test_a_tracker_store_that_cannot_forget_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_air(tmp_path, trackers="in memory") as air:
        air.person()
        air.topic()
        assert await hears(air, "hi") == ["hi"]
        await trigger(air, follow_up())
        air.change("UPDATE delivery SET noted_at = NULL")  # as if the worker had sent it
        assert await hears(air, "hi again") == ["hi again"]
        said = [each.text for each in await air.events("7007") if each.type_name == "bot"]
        assert said.count("It is back!") == 2, "once said in the conversation, once noted"
        assert await hears(air, {"text": "Goodbye!", "otn_forget": True}) == ["Goodbye!"]
        assert air.rows("contact", "erased_at") != [None]
    assert "is not in an SQL tracker store: delete it there yourself" in caplog.text


# --- typing ---


async def test_typing_is_shown_only_when_a_turn_takes_long(tmp_path: Path) -> None:
    async with on_air(tmp_path, pace=replace(HAND_PACE, typing_after=0.0)) as air:
        air.person()
        journal = air.simulated.world.journal

        async def slowly(_tracker: Any) -> list[Any]:
            for seen in range(100):  # whatever else is asked of Graph meanwhile
                if shown():
                    break
                await journal.wait(Filter(after=seen, kinds=frozenset({"graph"})), 10)
            return [{"text": "done"}]

        def shown() -> list[Any]:
            return [each for each in journal.entries() if each.get("sender_action") == "typing_on"]

        air.bot.answer = slowly
        await air.deliver(message("7007", "hello"))
        await asyncio.wait_for(air.quiet(), 10)
        assert air.heard("7007") == ["done"]
        assert len(shown()) == 1


# --- secrets ---


async def test_no_secret_and_no_word_gets_into_logs_or_trackers(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await permitted(air, "token-of-gold", window=False)
    world = air.simulated.world
    for kind in ("lost_answer", "reset", "html", "server_error"):
        world.faults.add({"kind": kind})
    await trigger(air, follow_up("words of the bot"))
    await hears(air, "words of the bot", asking("words of the bot"))
    air.bot.failure = ValueError("words of a person")
    await air.deliver(message("7007", "words of a person"))
    await air.quiet()
    world.faults.add({"kind": "access_token"})
    await hears(air, "words of the bot")
    kept = str([each.as_dict() for each in await air.events("7007")])
    ours = "\n".join(
        record.getMessage() + (record.exc_text or "")
        for record in caplog.records
        if record.name.startswith(("channels", "otn", "aiohttp", "sanic"))
    )
    for secret in ("token-of-gold", PAGE_TOKEN, APP_SECRET, VERIFY_TOKEN):
        assert secret not in ours
        assert secret not in kept
    assert "words of" not in ours
