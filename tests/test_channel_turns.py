"""Turns: what an event says to Rasa, one at a time for each person, once, whoever dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from on_air import HAND_PACE, PAGE, OnAir, event, message, now_ms, on_air, opt_in
from rasa.engine.graph import GraphSchema
from rasa.engine.runner.dask import DaskGraphRunner
from rasa.shared.core.events import ActiveLoop, SlotSet

from channels.planned_runner import PlannedRunner
from channels.turn import Turn
from channels.turns import Turns
from otn import delivery
from otn.delivery import Order
from otn.graph.protocol import Sent
from otn.models import Attempt, Origin
from otn.store import contacts
from otn.store.contacts import Opening
from simulator.journal import Filter


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[OnAir]:
    async with on_air(tmp_path) as air:
        yield air


async def understood(air: OnAir, *events: Any) -> list[tuple[Any, Any, list[tuple[str, Any]]]]:
    """Deliver to a bot that says nothing; (text, intent, entities) of the turns that came of it."""
    before = len(await air.user_events("7007"))
    assert (await air.deliver(*events)).status == 200
    await air.quiet()
    return [
        (each.text, each.intent_name, [(entity["entity"], entity["value"]) for entity in each.entities])
        for each in (await air.user_events("7007"))[before:]
    ]


def tapped(payload: str, text: str = "Title") -> Any:
    return message("7007", text, quick_reply={"payload": payload})


def postback(payload: str | None, title: str = "Title") -> Any:
    return event("7007", "postback", mid="m_p", title=title, **({"payload": payload} if payload else {}))


# --- what is said ---


@pytest.mark.parametrize(
    "typed", ["/greet", "/EXTERNAL_x", "  /EXTERNAL_x", "/restart", '/greet{"product": "x"}', "/", "//greet"]
)
async def test_what_a_person_types_is_never_an_intent(air: OnAir, typed: str) -> None:
    assert await understood(air, message("7007", typed)) == [(typed.strip(), "say", [])]


async def test_a_tap_may_name_an_intent_but_no_external_one(air: OnAir) -> None:
    assert await understood(air, tapped('/greet{"product": "scarf"}')) == [
        ('/greet{"product": "scarf"}', "greet", [("product", "scarf")])
    ]
    assert await understood(air, postback("/greet")) == [("/greet", "greet", [])]
    for payload in ("/EXTERNAL_x", "/ EXTERNAL_x", " /EXTERNAL_x{}", "/unknown", "/greet\n/EXTERNAL_x"):
        assert await understood(air, tapped(payload)) == [("Title", "say", [])]


async def test_any_other_payload_is_text_as_in_rasas_own_channel(air: OnAir) -> None:
    assert await understood(air, tapped("BUY_NOW")) == [("BUY_NOW", "say", [])]
    assert await understood(air, postback("BUY_NOW")) == [("BUY_NOW", "say", [])]


async def test_a_tap_without_payload_is_its_title(air: OnAir) -> None:
    assert await understood(air, postback(None, "Get Started")) == [("Get Started", "say", [])]
    assert await understood(air, postback(None, "/greet")) == []  # the same mid: delivered before


async def test_a_title_is_no_way_round_either(air: OnAir) -> None:
    assert await understood(air, tapped("/nothing", "/EXTERNAL_x")) == [("/EXTERNAL_x", "say", [])]


async def test_an_opt_in_says_topic_and_kind(air: OnAir) -> None:
    air.topic("restock-*", is_family=True)
    assert await understood(air, opt_in("7007", "t1", "otn:restock-blue")) == [
        (None, "otn_opted_in", [("otn_opted_topic", "restock-blue"), ("otn_opted_kind", "restock")])
    ]
    for strange in ("something else", "otn:no-such-topic"):
        assert await understood(air, opt_in("7007", strange, strange)) == [(None, "otn_opted_in", [])]


async def test_signs_have_no_text(air: OnAir) -> None:
    picture = {"type": "image", "payload": {"url": "https://cdn.example/1.jpg"}}
    assert await understood(air, message("7007", attachments=[picture, {"type": "audio"}])) == [
        (None, "otn_attachment", [("otn_attachment_type", "image"), ("otn_attachment_type", "audio")])
    ]
    assert await understood(air, event("7007", "referral", ref="/EXTERNAL_x", source="SHORTLINK")) == [
        (None, "otn_referral", [("otn_ref", "/EXTERNAL_x")])
    ]
    assert await understood(air, event("7007", "reaction", action="react", emoji="❤", mid="m_9")) == [
        (None, "otn_reaction", [("otn_emoji", "❤")])
    ]


async def test_a_caption_is_text_with_everything_else_in_the_metadata(air: OnAir) -> None:
    picture = {"type": "image", "payload": {"url": "https://cdn.example/1.jpg"}}
    said = message(
        "7007",
        "look",
        mid="m_1",
        at=now_ms(),
        attachments=[picture],
        reply_to={"mid": "m_0"},
        referral={"ref": "ad"},
    )
    assert await understood(air, said) == [("look", "say", [])]
    (user,) = await air.user_events("7007")
    ours = {key: value for key, value in user.metadata.items() if key not in ("assistant_id", "model_id")}
    assert ours == {
        "page_id": PAGE,
        "event": "message",
        "timestamp": said["timestamp"],
        "mid": "m_1",
        "reply_to": "m_0",
        "attachments": [{"type": "image", "url": "https://cdn.example/1.jpg"}],
        "referral": {"ref": "ad"},
    }


async def test_what_the_bot_has_no_word_for_is_recorded_and_starts_no_turn(air: OnAir) -> None:
    air.agent.domain.intents.remove("otn_reaction")
    assert await understood(air, event("7007", "reaction", action="react", emoji="❤", mid="m")) == []
    assert await understood(air, message("7007", " ")) == []
    assert air.rows("inbound_event", "kind", "state") == [("reaction", "ignored"), ("message", "ignored")]


# --- in order, and at once ---


async def test_one_person_is_answered_in_order_while_others_are_answered_at_once(air: OnAir) -> None:
    running, most = 0, 0
    gate = asyncio.Event()

    async def answer(tracker: Any) -> list[Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == HAND_PACE.turns_at_once:
            gate.set()
        await gate.wait()
        running -= 1
        return [{"text": tracker.latest_message.text}]

    air.bot.answer = answer
    people = [air.person(f"80{number:02}") for number in range(20)]
    start = now_ms() - 10_000
    for number in range(3):
        events = [message(psid, f"word {number}", at=start + number) for psid in people]
        assert (await air.deliver(*events)).status == 200
    await air.quiet()
    assert most == HAND_PACE.turns_at_once
    assert all(air.heard(psid) == ["word 0", "word 1", "word 2"] for psid in people)


async def test_a_silent_graph_holds_up_one_person_only(tmp_path: Path) -> None:
    async with on_air(tmp_path, pace=replace(HAND_PACE, drain=0.01)) as air:
        for psid in ("7007", "7008"):
            air.person(psid)
        air.simulated.world.faults.add({"kind": "no_answer", "match": {"psid": "7007"}, "seconds": 60})
        air.bot.say("hi")
        assert (await air.deliver(message("7007", "hello"), message("7008", "hello"))).status == 200
        await air.simulated.world.journal.wait(Filter(kinds=frozenset({"delivered"}), psid="7008"), 10)
        assert air.heard("7008") == ["hi"]
        assert (await air.deliver(message("7007", "are you there?"))).status == 200
        waiting = [
            row
            for row in air.rows("inbound_event", "contact_id", "kind", "state")
            if row == (1, "message", "new")
        ]
        assert len(waiting) == 2


async def test_events_that_arrive_in_disorder_are_taken_in_their_own_order(air: OnAir) -> None:
    air.person()
    start = now_ms() - 10_000
    gate = asyncio.Event()

    async def answer(tracker: Any) -> list[Any]:
        await gate.wait()
        return [{"text": tracker.latest_message.text}]

    air.bot.answer = answer
    await air.deliver(message("7007", "first", at=start))
    await air.deliver(message("7007", "third", at=start + 2))
    await air.deliver(message("7007", "second", at=start + 1))
    gate.set()
    await air.quiet()
    assert air.heard("7007") == ["first", "second", "third"]


# --- once ---


async def test_a_turn_that_raises_is_tried_three_times_and_then_visible(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    air.person()
    air.bot.failure = ValueError("what a person wrote")
    await air.deliver(message("7007", "what a person wrote"))
    await air.quiet()
    assert air.rows("inbound_event", "state", "attempts") == [("failed", 3)]
    (error,) = air.rows("inbound_event", "error")
    assert error.startswith("ValueError at on_air.py:")
    assert caplog.text.count("of 3: ValueError") == 3
    assert not air.line.turns._failures
    assert "what a person wrote" not in caplog.text
    air.bot.failure = None
    air.bot.say("hi")
    await air.deliver(message("7007", "still there?"))
    await air.quiet()
    assert air.heard("7007") == ["hi"]


async def test_the_ticket_of_a_process_that_died_costs_the_event_nothing(air: OnAir) -> None:
    """In a Redis lock store it stays for a minute; whoever waited behind it would leave another one when it dies."""
    air.person()
    air.bot.say("hi")
    locks = air.agent.lock_store
    left_behind = locks.issue_ticket("7007", lock_lifetime=60)
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    assert air.heard("7007") == []
    assert air.rows("inbound_event", "state", "attempts") == [("new", 0)]
    assert [each.number for each in locks.get_lock("7007").tickets] == [left_behind]
    locks.finish_serving("7007", left_behind)
    await air.sweep()
    assert air.heard("7007") == ["hi"]


async def test_a_turn_runs_the_model_s_components_by_a_plan(air: OnAir) -> None:
    air.person()
    air.bot.say("hi")
    runner = DaskGraphRunner.create(GraphSchema({}), None, None)
    air.agent.processor.graph_runner = runner  # as after another model was loaded
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    assert air.heard("7007") == ["hi"]
    assert type(air.agent.processor.graph_runner) is PlannedRunner


async def test_whoever_dies_waiting_for_the_conversation_has_tried_nothing(
    air: OnAir, monkeypatch: pytest.MonkeyPatch
) -> None:
    air.person()
    looked = asyncio.Event()
    monkeypatch.setattr("channels.turns.LOOK", 3600)
    is_locked = Turn._is_locked

    def look(turn: Turn) -> bool:
        looked.set()
        return is_locked(turn)

    monkeypatch.setattr(Turn, "_is_locked", look)
    air.agent.lock_store.issue_ticket("7007", lock_lifetime=60)
    await air.deliver(message("7007", "hello"))
    await looked.wait()
    await air.line.doors.write(lambda _tx: None)  # behind what the turn wrote down
    assert air.rows("inbound_event", "state", "attempts") == [("new", 0)]
    for leader in air.line.turns._leaders.values():  # as a process ends with its tasks
        leader.cancel()


async def test_a_turn_that_fails_once_is_run_again(air: OnAir) -> None:
    air.person()
    failures = [ValueError("once")]

    class Once(Exception):
        pass

    def answer(_tracker: Any) -> list[Any]:
        air.bot.failure = None
        return [{"text": "hi"}]

    air.bot.failure = failures[0]
    original = air.line.turns._failed

    async def heal(*arguments: Any) -> Any:
        air.bot.failure = None
        return await original(*arguments)

    air.line.turns._failed = heal
    air.bot.answer = answer
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    assert air.heard("7007") == ["hi"]
    assert [row for row in air.rows("inbound_event", "kind", "state", "attempts") if row[0] == "message"] == [
        ("message", "done", 2)
    ]


async def test_a_turn_that_is_in_the_tracker_is_not_run_again(air: OnAir) -> None:
    air.person()
    air.bot.say("hi")
    await air.deliver(message("7007", "hello", mid="m_1"))
    await air.quiet()
    # As if the process had died between the tracker and the inbox.
    air.change("UPDATE inbound_event SET state = 'new', closed_at = NULL WHERE kind = 'message'")
    await air.sweep()
    assert air.heard("7007") == ["hi"]
    assert len(await air.user_events("7007")) == 1
    assert air.rows("inbound_event", "state")[0] == "done"


async def test_a_turn_deep_in_the_past_of_the_tracker_is_found(air: OnAir) -> None:
    air.person()
    air.bot.say("hi")
    await air.deliver(message("7007", "hello", mid="m_old"))
    await air.quiet()
    for number in range(60):
        await air.deliver(message("7007", f"word {number}"))
    await air.quiet()
    # As after a week: the inbox has forgotten the event, and somebody plays it again.
    air.change("DELETE FROM inbound_event WHERE event_key = 'message:m_old'")
    await air.deliver(message("7007", "hello", mid="m_old", at=now_ms() - 8 * 24 * 3600 * 1000))
    await air.quiet()
    assert len(air.heard("7007")) == 61


async def test_a_dead_process_is_succeeded_when_its_lease_is_over(air: OnAir, tmp_path: Path) -> None:
    air.person()
    air.bot.say("hi")
    dead = Turns(air.line.doors, lambda: None, HAND_PACE)
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    air.change(
        "UPDATE inbound_event SET state = 'new', closed_at = NULL, event_key = 'message:other' WHERE id = 1"
    )
    await dead._next(1, None)  # it claims and dies
    await air.sweep()
    assert air.heard("7007") == ["hi"]  # still leased
    air.change("UPDATE contact SET turn_lease_until = 0")
    await air.sweep()
    assert air.heard("7007") == ["hi", "hi"]
    assert air.rows("inbound_event", "state", "attempts")[0] == ("done", 3)


async def test_the_lease_is_renewed_while_a_turn_runs(air: OnAir) -> None:
    air.person()
    gate, entered = asyncio.Event(), asyncio.Event()

    async def answer(_tracker: Any) -> list[Any]:
        entered.set()
        await gate.wait()
        return [{"text": "hi"}]

    air.bot.answer = answer
    await air.deliver(message("7007", "hello"))
    await entered.wait()
    air.change("UPDATE contact SET turn_lease_until = 0")
    await air.line.turns.renew()
    other = Turns(air.line.doors, lambda: air.agent, HAND_PACE)
    await other.sweep()
    await other.finish()
    gate.set()
    await air.quiet()
    assert air.heard("7007") == ["hi"]
    assert air.rows("contact", "turn_owner") == [None]
    await air.line.turns.renew()
    assert air.rows("contact", "turn_owner") == [None]


async def test_whoever_lost_the_lease_does_not_close_the_event(air: OnAir) -> None:
    air.person()
    gate, entered = asyncio.Event(), asyncio.Event()

    async def answer(_tracker: Any) -> list[Any]:
        entered.set()
        await gate.wait()
        return [{"text": "hi"}]

    air.bot.answer = answer
    await air.deliver(message("7007", "hello"))
    await entered.wait()
    air.change("UPDATE contact SET turn_owner = 'another', turn_lease_until = 0")
    gate.set()
    await air.quiet()
    assert air.rows("inbound_event", "state")[0] == "new"
    await air.sweep()  # the next one finds the turn in the tracker
    assert air.rows("inbound_event", "state")[0] == "done"
    assert air.heard("7007") == ["hi"]


async def test_stopping_waits_for_the_turn_and_leaves_the_rest(tmp_path: Path) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def answer(_tracker: Any) -> list[Any]:
        entered.set()
        await gate.wait()
        return [{"text": "hi"}]

    async with on_air(tmp_path) as air:
        air.person()
        air.bot.answer = answer
        start = now_ms() - 1000
        await air.deliver(message("7007", "one", at=start), message("7007", "two", at=start + 1))
        await entered.wait()
        stopping = asyncio.create_task(air.line.turns.stop())
        await asyncio.sleep(0)
        gate.set()
        await stopping
        assert air.heard("7007") == ["hi"]
        assert air.rows("contact", "turn_owner") == [None]
        graph = air.simulated
        async with on_air(tmp_path, graph=graph) as next_one:
            next_one.bot.say("again")
            await next_one.sweep()
            assert air.heard("7007") == ["hi", "again"]


async def test_a_turn_that_does_not_end_in_time_is_left_to_the_next(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def answer(_tracker: Any) -> list[Any]:
        entered.set()
        await asyncio.Event().wait()
        return []

    async with on_air(tmp_path, pace=replace(HAND_PACE, drain=0.01)) as air:
        air.person()
        air.bot.answer = answer
        await air.deliver(message("7007", "hello"))
        await entered.wait()
        await air.line.turns.stop()
        assert air.rows("contact", "turn_owner") == [None]
        assert air.rows("inbound_event", "state") == ["new"]


# --- while something is missing ---


async def test_without_a_model_conversations_wait(air: OnAir) -> None:
    air.person()
    air.bot.say("hi")
    processor, air.agent.processor = air.agent.processor, None
    assert (await air.deliver(message("7007", "hello"))).status == 200
    assert (await air.get("/")).status == 503
    await air.sweep()
    assert air.rows("inbound_event", "state", "attempts") == [("new", 0)]
    air.agent.processor = processor
    await air.sweep()
    assert air.heard("7007") == ["hi"]


async def test_while_the_tracker_store_cannot_be_read_nothing_is_said_and_nothing_counted(
    air: OnAir, tmp_path: Path
) -> None:
    air.person()
    air.bot.say("hi")
    (tmp_path / "tracker.db").rename(tmp_path / "elsewhere.db")
    (tmp_path / "tracker.db").mkdir()
    for _ in range(4):
        await air.deliver(message("7007", "hello", mid="m_1"))
        await air.quiet()
    assert air.heard("7007") == []
    assert air.rows("inbound_event", "state", "attempts") == [("new", 0)]
    (tmp_path / "tracker.db").rmdir()
    (tmp_path / "elsewhere.db").rename(tmp_path / "tracker.db")
    await air.sweep()
    assert air.heard("7007") == ["hi"]


async def test_a_turn_that_the_tracker_store_did_not_keep_is_not_done(
    air: OnAir, monkeypatch: pytest.MonkeyPatch
) -> None:
    air.person()
    air.bot.say("hi")
    store = air.agent.tracker_store._tracker_store
    monkeypatch.setattr(store, "save", _refuse)
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    states = [row for row in air.rows("inbound_event", "kind", "state", "error") if row[0] == "message"]
    assert states[0][1] == "failed"
    assert states[0][2].startswith("NotSaved")


async def _refuse(_tracker: Any) -> None:
    raise OSError("disk full")


# --- afterwards ---


def sent_outside(air: OnAir, psid: str, text: str, key: str, *, by_hand: bool = False) -> None:
    """A follow-up that the worker sent, or what a colleague wrote."""
    order = Order(
        page_id=PAGE,
        psid=psid,
        topic="restock-blue",
        message={"text": text},
        dedupe_key=key,
        origin=Origin.CLI,
        human_agent=by_hand,
    )
    vault = air.app.require_vault()
    with air.app.store.begin() as tx:
        begun = delivery.begin(tx, vault, order, air.app.clock())
        assert isinstance(begun, Attempt)
        delivery.settle(tx, begun, Sent(message_id="m_out", recipient_id=psid), air.app.clock())


def shape(events: list[Any]) -> list[Any]:
    """Events as words."""
    found: list[Any] = []
    for each in events:
        if each.type_name == "user":
            found.append(("user", each.intent_name, each.text))
        elif each.type_name == "bot":
            found.append(("bot", each.text))
        elif each.type_name == "action":
            found.append(each.action_name)
        elif each.type_name == "slot":
            found.append((each.key, each.value))
        else:
            found.append(each.type_name)
    return found


async def test_a_follow_up_is_a_step_of_the_story_before_the_next_turn(air: OnAir) -> None:
    air.person()
    air.topic()
    air.bot.say("hi")
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    before = len(await air.events("7007"))
    sent_outside(air, "7007", "It is back!", "cli:1")
    await air.deliver(message("7007", "yes please"))
    await air.quiet()
    after = shape((await air.events("7007"))[before:])
    assert after[:9] == [
        ("user", "EXTERNAL_otn_follow_up", "EXTERNAL: EXTERNAL_otn_follow_up"),
        "action_send_otn_follow_up",
        ("bot", "It is back!"),
        ("otn_topic", "restock-blue"),
        ("otn_kind", "restock"),
        ("otn_follow_up_decision", "allowed"),
        "action_listen",
        ("otn_follow_up_decision", None),
        ("user", "say", "yes please"),
    ]
    assert all(noted is not None for noted in air.rows("delivery", "noted_at"))
    await air.deliver(message("7007", "and another"))
    await air.quiet()
    assert shape(await air.events("7007")).count(("bot", "It is back!")) == 1


async def in_a_form(air: OnAir) -> int:
    """Somebody has a form open; how many events the conversation has by then."""
    air.person()
    air.topic()
    air.bot.events = [ActiveLoop("feedback_form")]
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    air.bot.events = []
    return len(await air.events("7007"))


async def test_what_a_colleague_wrote_is_told_and_is_no_step_of_a_story(air: OnAir) -> None:
    before = await in_a_form(air)
    sent_outside(air, "7007", "This is Mia. Shall I call you?", "cli:1", by_hand=True)
    await air.deliver(message("7007", "yes"))
    await air.quiet()
    after = shape((await air.events("7007"))[before:])
    assert after[:2] == [("bot", "This is Mia. Shall I call you?"), ("user", "say", "yes")]
    assert all(noted is not None for noted in air.rows("delivery", "noted_at"))


async def test_a_follow_up_is_noted_once_even_after_a_crash_in_between(air: OnAir) -> None:
    air.person()
    air.topic()
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    sent_outside(air, "7007", "It is back!", "cli:1")
    await air.deliver(message("7007", "yes"))
    await air.quiet()
    air.change("UPDATE delivery SET noted_at = NULL")
    await air.deliver(message("7007", "again"))
    await air.quiet()
    assert shape(await air.events("7007")).count(("bot", "It is back!")) == 1
    assert all(noted is not None for noted in air.rows("delivery", "noted_at"))


async def test_a_follow_up_leaves_an_open_form_first(air: OnAir) -> None:
    before = await in_a_form(air)
    sent_outside(air, "7007", "It is back!", "cli:1")
    await air.deliver(message("7007", "yes"))
    await air.quiet()
    after = shape((await air.events("7007"))[before:])
    assert after.index("active_loop") < after.index("action_send_otn_follow_up")
    tracker = await air.agent.processor.get_tracker("7007")
    assert tracker.active_loop_name is None


async def test_a_follow_up_to_somebody_who_never_spoke_begins_the_conversation(air: OnAir) -> None:
    air.person()
    air.topic()
    await air.deliver(event("7007", "read", watermark=now_ms()))
    with air.app.store.begin() as tx:
        contact = contacts.find(tx, PAGE, "7007")
        assert contact is not None
        now = air.app.clock()
        until = now.replace(year=now.year + 1)
        opening = Opening(contact_id=contact.id, opened_by="message", at=now, until=until)
        contacts.open_windows(tx, [opening])
    sent_outside(air, "7007", "It is back!", "cli:1")
    air.bot.say("hi")
    await air.deliver(message("7007", "yes"))
    await air.quiet()
    found = shape(await air.events("7007"))
    assert (
        found.index("session_started")
        < found.index(("bot", "It is back!"))
        < found.index(("user", "say", "yes"))
    )
    assert air.heard("7007") == ["hi"]


async def test_old_decisions_are_cleared_before_the_next_turn(air: OnAir) -> None:
    air.person()
    air.bot.events = [SlotSet("otn_request_decision", "asked")]
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    air.bot.events = []
    seen: list[Any] = []

    def answer(tracker: Any) -> list[Any]:
        seen.append(tracker.get_slot("otn_request_decision"))
        return []

    air.bot.answer = answer
    await air.deliver(message("7007", "and now"))
    await air.quiet()
    assert seen == [None]


async def trigger(air: OnAir) -> None:
    """As `trigger_intent` does, with a follow-up."""
    agent, output = air.agent, air.channel.get_output_channel()
    async with agent.lock_store.lock("7007"):
        tracker = await agent.processor.fetch_tracker_and_update_session("7007", output)
        await agent.trigger_intent("EXTERNAL_otn_follow_up", [], output, tracker)


def pass_time_for_rasa(air: OnAir, hours: int) -> None:
    """Make all that was said older: Rasa looks at the machine's own clock."""
    store = air.agent.tracker_store._tracker_store
    with store.session_scope() as session:
        for row in session.query(store.SQLEvent):
            row.timestamp -= hours * 3600
            row.data = json.dumps({**json.loads(row.data), "timestamp": row.timestamp})
        session.commit()


async def test_what_was_triggered_waits_for_its_answer_in_the_next_session(air: OnAir) -> None:
    air.person()
    told = SlotSet("otn_follow_up_decision", "allowed")
    await air.deliver(message("7007", "hello"))
    await air.quiet()
    air.bot.say("It is back!")
    air.bot.events = [told]
    await trigger(air)
    air.bot.say()
    air.bot.events = []
    pass_time_for_rasa(air, hours=2)
    before = len(await air.events("7007"))
    await air.deliver(message("7007", "yes please"))
    await air.quiet()
    session = shape((await air.events("7007"))[before:])
    assert session[session.index("action_listen") + 1 :][:6] == [
        ("user", "EXTERNAL_otn_follow_up", "EXTERNAL: EXTERNAL_otn_follow_up"),
        "action_scripted",
        ("otn_follow_up_decision", "allowed"),
        "action_listen",
        ("otn_follow_up_decision", None),
        ("user", "say", "yes please"),
    ]
    live = await air.agent.processor.get_tracker("7007")
    intents = [each.intent_name for each in live.events if each.type_name == "user"]
    assert intents == ["EXTERNAL_otn_follow_up", "say"]


async def test_what_was_answered_or_said_by_the_person_ends_with_its_session(air: OnAir) -> None:
    air.person()
    await trigger(air)
    air.bot.events = [SlotSet("otn_request_decision", "asked")]
    await air.deliver(message("7007", "yes"))
    await air.quiet()
    air.bot.events = []
    pass_time_for_rasa(air, hours=2)
    before = len(await air.events("7007"))
    await air.deliver(message("7007", "hello again"))
    await air.quiet()
    said = [each for each in shape((await air.events("7007"))[before:]) if each[0] == "user"]
    assert said == [("user", "say", "hello again")]


# --- Rasa's own lock ---


async def test_turns_and_rasas_http_api_take_the_same_lock(air: OnAir) -> None:
    air.person()
    air.bot.say("hi")
    async with air.agent.lock_store.lock("7007"):
        await air.deliver(message("7007", "hello"))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert air.heard("7007") == []
    await air.quiet()
    assert air.heard("7007") == ["hi"]
