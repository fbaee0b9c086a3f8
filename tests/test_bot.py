"""The demo bot as it is at work: the trained model, the real actions, and turns shaped as the channel makes them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from otn.app import ACTION_SERVER, App
from otn.dev.train import MODEL, QUIET, fingerprint, is_trained
from otn.settings import load_settings
from otn.store import Store

pytestmark = pytest.mark.rasa

ROOT = Path(__file__).parent.parent
DECISIONS = ("otn_request_decision", "otn_follow_up_decision")
BACKPACK = "restock-canvas-backpack"


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    return sqlite_store


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trained bot: the project's own model if it is up to date, else a fresh one."""
    os.environ.update(QUIET)
    from rasa.core.agent import Agent

    model = ROOT / MODEL
    if not is_trained(ROOT, fingerprint(ROOT)):
        model = tmp_path_factory.mktemp("models") / MODEL.name
        command = [
            sys.executable,
            "-m",
            "rasa",
            "train",
            "--out",
            str(model.parent),
            "--fixed-model-name",
            "bot",
        ]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **QUIET}, check=True, capture_output=True)
    return Agent.load(str(model))


class ActionServer:
    """Stands where Rasa expects the address of an action server; runs the real actions in this process."""

    def __init__(self, app: Callable[[], App]) -> None:
        from rasa_sdk.executor import ActionExecutor

        import otn_actions
        from actions import shop

        self.kwargs: dict[str, Any] = {}
        self.url = "in this process"
        self._executor = ActionExecutor()
        for action in (
            otn_actions.ActionRequestOtn(app),
            otn_actions.ActionSendOtnFollowUp(app),
            otn_actions.ActionOtnStatus(app),
            otn_actions.ActionForgetMe(app),
            otn_actions.ActionOtnFallback(app),
            shop.ActionCheckStock(),
            shop.ActionFindOrderLink(),
            shop.ActionKeepFeedback(),
        ):
            self._executor.register_action(action)

    async def request(self, *, json: Mapping[str, Any], **_how: Any) -> Any:
        return await self._executor.run(json)


class Chat:
    """One person's conversation, with turns made as the channel makes them."""

    def __init__(self, agent: Any, psid: str) -> None:
        from rasa.core.channels.channel import OutputChannel

        class Recorder(OutputChannel):
            """Keeps what the bot wants to say: all that Rasa ever calls is send_response."""

            def __init__(self) -> None:
                self.sent: list[dict[str, Any]] = []

            @classmethod
            def name(cls) -> str:
                return "messenger"

            async def send_response(self, recipient_id: str, message: dict[str, Any]) -> None:
                self.sent.append(message)

        self.agent = agent
        self.psid = psid
        self.channel = "messenger"
        self.output = Recorder()

    async def say(self, text: str) -> list[str]:
        """The person writes; the responses that the bot answers with."""
        return await self._turn(text, None)

    async def happens(self, intent: str, **entities: str) -> list[str]:
        """Something without words: a tap, a file, a link."""
        return await self._turn(None, parsed(intent, entities))

    async def trigger(self, intent: str = "EXTERNAL_otn_follow_up", **entities: str) -> list[str]:
        """What POST /conversations/{id}/trigger_intent does."""
        self.output.sent.clear()
        async with self.agent.lock_store.lock(self.psid):
            tracker = await self.agent.processor.fetch_tracker_and_update_session(self.psid, self.output)
            await self.agent.processor.trigger_external_user_uttered(intent, entities, tracker, self.output)
        return self._said()

    async def was_told(self, topic: str, kind: str, text: str) -> None:
        """What the channel notes, before the person's next turn, of a follow-up that the worker sent."""
        from rasa.shared.core.events import ActionExecuted, ActiveLoop, BotUttered, SlotSet, UserUttered

        async with self.agent.lock_store.lock(self.psid):
            tracker = await self.agent.processor.fetch_tracker_and_update_session(self.psid, self.output)
            leave = [ActiveLoop(None), SlotSet("requested_slot", None)] if tracker.active_loop_name else []
            entities = [
                {"entity": "otn_topic", "value": topic},
                {"entity": "otn_event_id", "value": "delivery-1"},
            ]
            for event in (
                *leave,
                UserUttered.create_external("EXTERNAL_otn_follow_up", entities),
                ActionExecuted("action_send_otn_follow_up"),
                BotUttered(text, metadata={"otn_delivery": "1"}),
                SlotSet("otn_topic", topic),
                SlotSet("otn_kind", kind),
                SlotSet("otn_follow_up_decision", "allowed"),
                ActionExecuted("action_listen"),
            ):
                tracker.update(event, self.agent.domain)
            await self.agent.tracker_store.save(tracker)

    async def tracker(self) -> Any:
        return await self.agent.tracker_store.retrieve(self.psid)

    async def slot(self, name: str) -> Any:
        return (await self.tracker()).get_slot(name)

    async def _turn(self, text: str | None, parse_data: Any) -> list[str]:
        from rasa.core.channels.channel import UserMessage

        await self._clear_decisions()
        self.output.sent.clear()
        message = UserMessage(
            text, self.output, self.psid, input_channel=self.channel, parse_data=parse_data, metadata={}
        )
        async with self.agent.lock_store.lock(self.psid):
            await self.agent.processor.handle_message(message)
        return self._said()

    async def _clear_decisions(self) -> None:
        from rasa.shared.core.events import SlotSet

        async with self.agent.lock_store.lock(self.psid):
            tracker = await self.agent.processor.fetch_tracker_and_update_session(self.psid, self.output)
            for name in DECISIONS:
                if tracker.get_slot(name) is not None:
                    tracker.update(SlotSet(name, None), self.agent.domain)
            await self.agent.tracker_store.save(tracker)

    def _said(self) -> list[str]:
        return [message.get("utter_action") or message.get("text") for message in self.output.sent]


def parsed(intent: str, entities: Mapping[str, str]) -> Any:
    """Parse data for an event without words."""
    return {
        "text": None,
        "intent": {"name": intent, "confidence": 1.0},
        "entities": [{"entity": name, "value": value} for name, value in entities.items()],
    }


@pytest.fixture
def chat(agent: Any, store: Store, make: Any, now: datetime, tmp_path: Path) -> Chat:
    """A person who wrote an hour ago, in a shop that has its two topics."""
    make.topic("restock-*", kind="restock")
    make.topic("spring-collection", kind="news")
    settings = load_settings(tmp_path, {"OTN_DATABASE_URL": f"sqlite:///{store.path}"}, need=ACTION_SERVER)
    app = App(settings=settings, store=store, clock=lambda: now, vault=None)
    agent.processor.action_endpoint = ActionServer(lambda: app)
    chat = Chat(agent, psid=secrets.token_hex(8))
    chat.person = make.in_window(chat.psid)
    return chat


REQUEST = ["utter_sold_out", "utter_otn_request_restock"]
TAP = {"otn_opted_topic": BACKPACK, "otn_opted_kind": "restock"}


async def test_a_story_waits_for_the_tap_and_goes_on_after_it(chat: Chat) -> None:
    assert await chat.say("hello") == ["utter_greet"]
    assert await chat.say("Do you have the canvas backpack?") == REQUEST
    assert chat.output.sent[1]["otn_request"] == {"topic": BACKPACK}
    assert await chat.slot("otn_request_decision") == "asked"
    assert await chat.happens("otn_opted_in", **TAP) == ["utter_otn_thanks", "utter_anything_else"]
    assert await chat.say("thanks!") == ["utter_welcome"]


async def test_small_talk_does_not_end_the_waiting(chat: Chat) -> None:
    await chat.say("Do you have the canvas backpack?")
    assert await chat.say("thank you") == ["utter_welcome"]
    assert await chat.happens("otn_opted_in", **TAP) == ["utter_otn_thanks", "utter_anything_else"]


async def test_a_yes_in_words_is_told_to_tap_and_the_tap_is_thanked(chat: Chat) -> None:
    await chat.say("Do you have the canvas backpack?")
    assert await chat.say("yes please") == ["utter_otn_tap_the_button"]
    assert await chat.happens("otn_opted_in", **TAP) == ["utter_otn_thanks"]


async def test_a_no_ends_politely(chat: Chat) -> None:
    await chat.say("Do you have the canvas backpack?")
    assert await chat.say("no thanks") == ["utter_no_problem"]


async def test_a_person_who_agreed_is_not_asked_again(chat: Chat, make: Any) -> None:
    make.token(chat.person, make.topic(BACKPACK))
    assert await chat.say("Do you have the canvas backpack?") == [
        "utter_sold_out",
        "utter_otn_already_permitted",
    ]
    assert await chat.say("hello") == ["utter_greet"]


async def test_in_another_channel_it_says_so_in_words(chat: Chat) -> None:
    chat.channel = "rest"
    expected = ["utter_sold_out", "utter_otn_not_messenger", "utter_anything_else"]
    assert await chat.say("Do you have the canvas backpack?") == expected


async def test_a_story_runs_on_and_a_tap_on_the_way_leaves_it_where_it_was(chat: Chat) -> None:
    expected = ["utter_news", "utter_otn_request", "utter_ask_bestsellers"]
    assert await chat.say("what's new?") == expected
    tap = {"otn_opted_topic": "spring-collection", "otn_opted_kind": "news"}
    assert await chat.happens("otn_opted_in", **tap) == ["utter_otn_thanks"]
    assert await chat.say("yes, show me") == ["utter_bestsellers"]


async def test_a_late_tap_leaves_another_story_where_it_was(chat: Chat) -> None:
    assert await chat.say("forget me") == ["utter_ask_forget_me"]
    assert await chat.happens("otn_opted_in", **TAP) == ["utter_otn_thanks"]
    assert await chat.happens("otn_opted_in", **TAP) == ["utter_otn_thanks"]
    assert await chat.say("no") == ["utter_forget_me_kept"]


async def test_a_tap_as_the_first_thing_a_person_does_is_thanked_once(chat: Chat) -> None:
    assert await chat.happens("otn_opted_in", **TAP) == ["utter_otn_thanks"]
    assert await chat.say("hello") == ["utter_greet"]


async def test_a_tap_in_a_form_is_kept_in_silence_and_the_form_waits_on(chat: Chat) -> None:
    assert await chat.say("I have feedback") == ["utter_ask_feedback_form_feedback"]
    assert await chat.happens("otn_opted_in", **TAP) == []
    assert (await chat.tracker()).active_loop_name == "feedback_form"
    assert await chat.say("the parcel came two days late") == ["utter_feedback_thanks"]
    assert await chat.slot("feedback") is None
    assert await chat.say("I have feedback") == ["utter_ask_feedback_form_feedback"]


async def test_words_that_nobody_understands_leave_a_story_where_it_was(chat: Chat) -> None:
    await chat.say("what's new?")
    assert await chat.say("qwertz uiop") == ["utter_default"]
    assert await chat.say("yes") == ["utter_bestsellers"]


async def test_a_fallback_is_said_once_even_after_what_no_story_knows(chat: Chat) -> None:
    """A person took over and wrote through Rasa's API: no policy has seen that, so none predicts to wait."""
    from rasa.shared.core.events import ActionExecuted

    await chat.say("hello")
    tracker = await chat.tracker()
    for name in ("action_forget_me", "utter_news", "action_listen"):
        tracker.update(ActionExecuted(name), chat.agent.domain)
    await chat.agent.tracker_store.save(tracker)
    assert await chat.say("yes") == ["utter_default"]
    assert await chat.happens("otn_opted_in", **TAP) == ["utter_otn_thanks"]
    assert await chat.say("hello") == ["utter_greet"]


FOLLOW_UP = {"otn_topic": BACKPACK, "otn_event_id": "back-in-stock-17"}


@pytest.mark.parametrize("before", ["nothing", "a story", "a form"])
@pytest.mark.parametrize("way", ["triggered", "noted"])
async def test_one_story_serves_both_ways_of_telling(chat: Chat, before: str, way: str) -> None:
    if before == "a story":
        await chat.say("hello")
        await chat.say("Do you have the canvas backpack?")
        await chat.happens("otn_opted_in", **TAP)
    if before == "a form":
        await chat.say("I have feedback")
    if way == "triggered":
        assert await chat.trigger(**FOLLOW_UP) == ["utter_otn_follow_up_restock"]
        assert chat.output.sent[0]["otn_follow_up"] == {"topic": BACKPACK, "event_id": "back-in-stock-17"}
    else:
        await chat.was_told(BACKPACK, "restock", "It is back!")
    assert (await chat.tracker()).active_loop_name is None
    assert await chat.slot("otn_follow_up_decision") == "allowed"
    assert await chat.say("yes please") == ["utter_order_link"]
    assert "https://shop.example/canvas-backpack" in chat.output.sent[0]["text"]
    assert await chat.say("thanks") == ["utter_welcome"]


@pytest.mark.parametrize("way", ["triggered", "noted"])
async def test_a_no_to_the_follow_up_ends_politely(chat: Chat, way: str) -> None:
    if way == "triggered":
        await chat.trigger(**FOLLOW_UP)
    else:
        await chat.was_told(BACKPACK, "restock", "It is back!")
    assert await chat.say("no longer") == ["utter_no_problem"]


async def test_stories_branch_on_the_kind_of_the_topic(chat: Chat) -> None:
    await chat.was_told("spring-collection", "news", "It is out!")
    assert await chat.say("yes") == ["utter_collection_link"]


async def test_a_follow_up_right_after_asking_is_followed(chat: Chat) -> None:
    """An external turn does not clear the decision of the turn before."""
    await chat.say("Do you have the canvas backpack?")
    assert await chat.trigger(**FOLLOW_UP) == ["utter_otn_follow_up_restock"]
    assert await chat.say("yes please") == ["utter_order_link"]


async def test_a_follow_up_that_may_not_go_out_says_nothing_and_leaves_a_form_open(chat: Chat) -> None:
    await chat.say("I have feedback")
    assert await chat.trigger(otn_topic="no-such-topic", otn_event_id="1") == []
    assert await chat.slot("otn_follow_up_decision") == "unknown_topic"
    assert (await chat.tracker()).active_loop_name == "feedback_form"
    assert await chat.say("the parcel came two days late") == ["utter_feedback_thanks"]


async def test_a_follow_up_without_an_event_id_says_nothing(chat: Chat) -> None:
    assert await chat.trigger(otn_topic=BACKPACK) == []
    assert await chat.slot("otn_follow_up_decision") == "no_event_id"


async def test_files_and_links_are_answered_and_forgotten(chat: Chat) -> None:
    await chat.say("what's new?")
    assert await chat.happens("otn_attachment", otn_attachment_type="image") == ["utter_otn_attachment"]
    assert await chat.happens("otn_referral", otn_ref="flyer") == ["utter_greet"]
    assert await chat.say("yes") == ["utter_bestsellers"]


async def test_status_and_being_forgotten(chat: Chat, make: Any) -> None:
    assert await chat.say("what am I signed up for?") == ["utter_otn_status_nothing"]
    make.token(chat.person, make.topic(BACKPACK, title="Back in stock alert"))
    assert await chat.say("what am I signed up for?") == ["utter_otn_status"]
    assert "• Back in stock alert: one message, until 29 September 2027" in chat.output.sent[0]["text"]
    assert await chat.say("forget me") == ["utter_ask_forget_me"]
    assert await chat.say("yes") == ["utter_otn_forgotten"]
    assert chat.output.sent[0]["otn_forget"] is True


async def test_words_never_make_an_intent_that_only_the_channel_makes(agent: Any) -> None:
    for text in ("notify me", "otn_opted_in", "EXTERNAL_otn_follow_up", "🎉", "\u200b", "…", "opted in"):
        intent = (await agent.parse_message(text))["intent"]["name"]
        assert not intent.startswith(("otn_", "EXTERNAL_")), text


async def test_every_text_of_the_actions_can_be_read_in_a_chat(chat: Chat) -> None:
    said = await chat.trigger("EXTERNAL_otn_texts")
    assert said[0] == "utter_otn_request"
    assert len(said) == 9
