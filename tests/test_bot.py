"""The demo bot as it is at work: the trained model, the real actions, and turns shaped as the channel makes them."""

from __future__ import annotations

import asyncio
import copy
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from otn import project
from otn.app import ACTION_SERVER, App
from otn.catalogue import read_entries
from otn.composing import as_one_message
from otn.dev.train import MODEL, QUIET, fingerprint, is_trained
from otn.settings import load_settings
from otn.store import Store, contacts

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

        from otn_actions import OtnAction

        self.kwargs: dict[str, Any] = {}
        self.url = "in this process"
        self._executor = ActionExecutor()
        self._executor.register_package("actions")
        for kind in OtnAction.__subclasses__():
            self._executor.register_action(kind(app))

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
        said = [message.get("utter_action") or message.get("text") for message in self.output.sent]
        return [words for words in said if words]  # a wish to remember something has none


def parsed(intent: str, entities: Mapping[str, str]) -> Any:
    """Parse data for an event without words."""
    return {
        "text": None,
        "intent": {"name": intent, "confidence": 1.0},
        "entities": [{"entity": name, "value": value} for name, value in entities.items()],
    }


@pytest.fixture
def chat(agent: Any, store: Store, make: Any, now: datetime, tmp_path: Path) -> Chat:
    """A person who wrote an hour ago, in a shop that has the topics that it begins with."""
    for topic in read_entries(project.topics_to_begin_with(ROOT), None):
        make.topic(topic.name, title=topic.title, kind=topic.kind)
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
    make.token(chat.person, make.topic(BACKPACK, title="Back in stock: canvas backpack"))
    assert await chat.say("what am I signed up for?") == ["utter_otn_status"]
    assert (
        "• Back in stock: canvas backpack: one message, until 29 September 2027"
        in chat.output.sent[0]["text"]
    )
    assert await chat.say("forget me") == ["utter_ask_forget_me"]
    assert await chat.say("yes") == ["utter_otn_forgotten"]
    assert chat.output.sent[0]["otn_forget"] is True


async def test_words_never_make_an_intent_that_only_the_channel_makes(agent: Any) -> None:
    for text in ("notify me", "otn_opted_in", "EXTERNAL_otn_follow_up", "🎉", "\u200b", "…", "opted in"):
        intent = (await agent.parse_message(text))["intent"]["name"]
        assert not intent.startswith(("otn_", "EXTERNAL_")), text


async def test_every_text_of_the_actions_can_be_read_in_a_chat(chat: Chat) -> None:
    said = [await chat.trigger("EXTERNAL_otn_texts") for _ in range(3)]
    assert [len(part) for part in said] == [7, 8, 7]
    own = {name for name in project.domain(ROOT, "responses") if name.startswith("utter_otn_request")}
    assert own <= {name for part in said for name in part}


# --- the use cases ---


async def test_a_size_is_asked_for_and_stands_in_the_topic(chat: Chat) -> None:
    assert await chat.say("do you have the trail shoe") == ["utter_ask_size"]
    assert await chat.say("42") == REQUEST
    assert chat.output.sent[1]["otn_request"] == {"topic": "restock-trail-shoe-42"}
    assert await chat.say("and in 40?") == ["utter_in_stock"]
    assert "https://shop.example/trail-shoe?size=40" in chat.output.sent[0]["text"]


async def test_product_and_size_at_once_and_the_link_leads_to_both(chat: Chat) -> None:
    assert await chat.say("is the trail shoe in 43 available?") == REQUEST
    await chat.happens("otn_opted_in", otn_opted_topic="restock-trail-shoe-43", otn_opted_kind="restock")
    await chat.was_told("restock-trail-shoe-43", "restock", "It is back!")
    assert await chat.say("/affirm") == ["utter_order_link"]
    assert "https://shop.example/trail-shoe?size=43" in chat.output.sent[0]["text"]


WATCH = ["utter_price", "utter_otn_request_price"]
PRICE_FELL = {"product": "rain jacket", "price": "79", "otn_event_id": "price-17"}


async def test_the_price_at_sign_up_stands_in_the_topic(chat: Chat) -> None:
    assert await chat.say("how much is the rain jacket?") == ["utter_price"]
    assert "89 €" in chat.output.sent[0]["text"]
    assert await chat.say("that's too expensive") == WATCH
    assert chat.output.sent[1]["otn_request"] == {"topic": "price-rain-jacket-89"}


async def test_only_a_price_below_is_told(chat: Chat, make: Any) -> None:
    make.token(chat.person, make.topic("price-rain-jacket-89", kind="price"))
    for entities in ({"price": "89"}, {"price": "95"}, {"product": "wool scarf"}, {"price": "cheap"}):
        assert await chat.trigger("EXTERNAL_price_changed", **{**PRICE_FELL, **entities}) == []
    assert await chat.trigger("EXTERNAL_price_changed", **PRICE_FELL) == ["utter_otn_follow_up_price"]
    assert chat.output.sent[0]["text"].startswith("The rain jacket costs 79 € now")
    assert chat.output.sent[0]["otn_follow_up"] == {"topic": "price-rain-jacket-89", "event_id": "price-17"}
    assert await chat.say("yes please") == ["utter_order_link"]
    assert "https://shop.example/rain-jacket" in chat.output.sent[0]["text"]


async def test_a_price_that_is_not_below_leaves_a_form_and_a_story_where_they_were(chat: Chat) -> None:
    await chat.say("what's new?")
    assert await chat.trigger("EXTERNAL_price_changed", **PRICE_FELL) == []
    assert await chat.say("yes") == ["utter_bestsellers"]
    await chat.say("I have feedback")
    assert await chat.trigger("EXTERNAL_price_changed", **PRICE_FELL) == []
    assert await chat.say("the parcel came two days late") == ["utter_feedback_thanks"]


async def test_a_price_told_by_hand_is_followed_by_the_same_link(chat: Chat) -> None:
    await chat.was_told("price-wool-scarf-35", "price", "The scarf is 29 € now.")
    assert await chat.say("ok") == ["utter_order_link"]
    assert "https://shop.example/wool-scarf" in chat.output.sent[0]["text"]


async def test_tickets_are_asked_for_and_told_with_more_than_one_message(chat: Chat) -> None:
    assert await chat.say("when do the concert tickets go on sale?") == [
        "utter_tickets_not_yet",
        "utter_otn_request_tickets",
    ]
    assert chat.output.sent[1]["otn_request"] == {"topic": "summer-concert"}
    await chat.happens("otn_opted_in", otn_opted_topic="summer-concert", otn_opted_kind="tickets")
    await chat.was_told("summer-concert", "tickets", "Tickets are on sale!")
    assert await chat.say("yes") == ["utter_tickets_link", "utter_tickets_hint"]


@pytest.mark.parametrize("by", ["the person", "the shop"])
async def test_after_a_purchase_a_survey_may_be_agreed_to(chat: Chat, by: str) -> None:
    await chat.say("hello")
    said = await (
        chat.say("I've just ordered") if by == "the person" else chat.trigger("EXTERNAL_order_placed")
    )
    assert said == ["utter_order_placed", "utter_otn_request_survey"]
    assert chat.output.sent[1]["otn_request"] == {"topic": "order-survey"}
    tap = {"otn_opted_topic": "order-survey", "otn_opted_kind": "survey"}
    assert await chat.happens("otn_opted_in", **tap) == ["utter_otn_thanks", "utter_anything_else"]


SURVEY = {"otn_topic": "order-survey", "otn_event_id": "order-4711"}
ASK_SCORE, ASK_COMMENT = "utter_ask_survey_form_survey_score", "utter_ask_survey_form_survey_comment"


async def test_a_good_score_and_a_comment_are_collected_by_the_form(chat: Chat) -> None:
    assert await chat.trigger(**SURVEY) == ["utter_otn_follow_up_survey"]
    assert await chat.say('/give_score{"score": "5"}') == [ASK_COMMENT]
    assert await chat.say("the scarf is lovely") == ["utter_survey_thanks"]
    assert await chat.slot("survey_result") == "good"
    assert (await chat.tracker()).active_loop_name is None


async def test_a_bad_score_hands_over_to_a_person(chat: Chat) -> None:
    await chat.was_told("order-survey", "survey", "How was your order, 1 to 5?")
    assert await chat.say("2") == [ASK_COMMENT]
    assert await chat.say("no") == ["utter_survey_sorry", "utter_handover"]
    kept, *_words, tagged = chat.output.sent
    assert kept["otn_remember"] == {"survey_score": "2", "survey_comment": None}
    assert tagged["otn_tags"] == ["wants-a-person"]
    assert (await chat.tracker()).latest_action_name == "action_listen"
    assert await chat.say("hello") == ["utter_greet"]


async def test_the_form_asks_again_for_what_is_no_score(chat: Chat) -> None:
    await chat.trigger(**SURVEY)
    assert await chat.say("yes") == [ASK_SCORE]
    assert await chat.say("qwertz uiop") == ["utter_survey_not_a_score", ASK_SCORE]
    assert await chat.happens("otn_opted_in", **TAP) == []
    assert await chat.say("four out of 5") == [ASK_COMMENT]
    assert await chat.slot("survey_score") == "4"
    assert await chat.say("no") == ["utter_survey_thanks"]


async def test_who_has_no_time_for_the_survey_is_left_alone(chat: Chat) -> None:
    await chat.trigger(**SURVEY)
    assert await chat.say("no, not now") == ["utter_no_problem"]
    assert await chat.say("hello") == ["utter_greet"]


async def test_a_guide_comes_with_an_image_and_a_button_that_works_for_ever(chat: Chat) -> None:
    expected = ["utter_guide_not_yet", "utter_otn_request_content"]
    assert await chat.say("tell me when the guide is out") == expected
    told = {"otn_topic": "hiking-guide", "otn_event_id": "out"}
    assert await chat.trigger(**told) == ["utter_otn_follow_up_content"]
    (card,) = as_one_message(chat.output.sent[0])["attachment"]["payload"]["elements"]
    assert card["image_url"]
    assert card["buttons"][0]["payload"] == "/get_guide"
    assert await chat.say("/get_guide") == ["utter_guide_link", "utter_guide_questions"]
    assert await chat.say("thanks") == ["utter_welcome"]
    assert await chat.say("/get_guide") == ["utter_guide_link", "utter_guide_questions"]


PART = ["utter_otn_request_course"]


async def test_a_course_goes_on_as_long_as_the_person_does(chat: Chat) -> None:
    assert await chat.say("start the packing course") == ["utter_course_part_1", *PART]
    for part in (2, 3):
        topic = f"course-{part}"
        assert chat.output.sent[-1]["otn_request"] == {"topic": topic}
        await chat.happens("otn_opted_in", otn_opted_topic=topic, otn_opted_kind="course")
        assert await chat.trigger(otn_topic=topic, otn_event_id="due") == ["utter_otn_follow_up_course"]
        assert chat.output.sent[0]["text"].startswith(f"Part {part} of 3")
        assert await chat.say("/affirm") == (PART if part == 2 else ["utter_course_finished"])


async def test_who_stops_the_course_is_not_asked_for_the_next_part(chat: Chat) -> None:
    await chat.was_told("course-2", "course", "Part 2")
    assert await chat.say("that's enough, no") == ["utter_course_stopped"]


# --- what a person may always say ---


async def test_each_topic_is_asked_for_separately(chat: Chat, make: Any) -> None:
    for words, topic in (
        ("Do you have the canvas backpack?", BACKPACK),
        ("the rain jacket is too expensive", "price-rain-jacket-89"),
        ("what's new?", "spring-collection"),
    ):
        await chat.say(words)
        (asked,) = [each["otn_request"] for each in chat.output.sent if "otn_request" in each]
        assert asked == {"topic": topic}
        make.token(chat.person, make.topic(topic))
    assert await chat.say("what am I signed up for?") == ["utter_otn_status"]
    assert chat.output.sent[0]["text"].count("•") == 3


async def test_outside_the_window_nothing_is_asked_and_nothing_said(
    chat: Chat, make: Any, store: Store
) -> None:
    await chat.say("hello")
    with store.begin() as tx:
        contacts.close_window(tx, chat.person.id, make.now)
    assert await chat.trigger("EXTERNAL_order_placed") == ["utter_order_placed"]  # the channel sends it not
    assert await chat.slot("otn_request_decision") == "window_closed"


@pytest.mark.parametrize("form", ["feedback", "survey"])
async def test_a_form_is_left_by_whoever_wants_to_be_forgotten(chat: Chat, form: str) -> None:
    await (chat.say("I have feedback") if form == "feedback" else chat.say('/give_score{"score": "3"}'))
    assert await chat.say("forget me") == ["utter_ask_forget_me"]
    assert (await chat.tracker()).active_loop_name is None
    assert await chat.say("yes") == ["utter_otn_forgotten"]
    assert chat.output.sent[0]["otn_forget"] is True


async def test_who_asks_for_a_person_gets_one_also_in_a_form(
    chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    assert await chat.say("I want to talk to a human") == ["utter_handover"]
    assert f"conversation {chat.psid} wants a person" in caplog.text
    await chat.say("I have feedback")
    assert await chat.say("can I speak to a person") == ["utter_handover"]
    assert (await chat.tracker()).active_loop_name is None


async def test_whoever_speaks_german_is_answered_in_german(chat: Chat, make: Any) -> None:
    assert await chat.say("Deutsch bitte") == ["utter_language"]
    await chat.say("what's new?")
    assert "schreibe dir" in chat.output.sent[1]["text"]
    make.token(chat.person, make.topic("summer-concert"))
    assert await chat.say("wofür bin ich angemeldet?") == ["utter_otn_status"]
    assert "• Summer concert tickets: eine Nachricht, bis 29.9.2027" in chat.output.sent[0]["text"]
    assert await chat.say("vergiss mich") == ["utter_ask_forget_me"]
    assert await chat.say("nein") == ["utter_forget_me_kept"]
    assert chat.output.sent[0]["text"] == "Gut, alles bleibt, wie es ist."
    await chat.say("English please")
    assert await chat.say("what am I signed up for?") == ["utter_otn_status"]
    assert "one message, until 29 September 2027" in chat.output.sent[0]["text"]


# --- a model's components without dask ---


def test_a_planned_run_gives_what_a_run_by_dask_gives(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rasa.shared.core.events import ActionExecuted, UserUttered
    from rasa.shared.core.trackers import DialogueStateTracker

    from channels.planned_runner import PlannedRunner

    slow = agent.processor.graph_runner
    planned = PlannedRunner(slow)

    async def told(runner: Any, text: str) -> Any:
        monkeypatch.setattr(agent.processor, "graph_runner", runner)
        parsed = await agent.parse_message(text)
        tracker = DialogueStateTracker("7007", agent.domain.slots)
        said = UserUttered(text, parsed["intent"], parsed["entities"], parsed)
        tracker.update_with_events([ActionExecuted("action_listen"), said], agent.domain)
        foreseen = agent.processor.predict_next_with_tracker(tracker)
        return parsed, foreseen["scores"], foreseen["policy"], foreseen["confidence"]

    for text in ("hi", "tell me when the blue shoe is back", "/ask_news", "xyzzy"):
        assert asyncio.run(told(planned, text)) == asyncio.run(told(slow, text))


def test_a_whole_conversation_goes_the_same_way(agent: Any) -> None:
    """Stories, rules and words that nobody knows, with the trained model: Rasa's own way beside ours."""
    from rasa.shared.core.trackers import DialogueStateTracker

    from channels.planned_runner import PlannedRunner
    from channels.quick_tracker import QuickTracker

    runner = agent.processor.graph_runner
    slow = _Led(agent, runner, DialogueStateTracker)
    quick = _Led(agent, PlannedRunner(runner), QuickTracker)
    for said in (
        "hi",
        "is the blue shoe in stock?",
        "thanks",
        "/ask_news",
        "xyzzy",
        "hi",
        "/ask_price",
        "what do I get?",
        "/affirm",
        "tell me when the blue shoe is back",
        "/deny",
        "speak German",
        "hallo",
        "/ask_news",
        "hi",
    ):
        assert quick.hears(said) == slow.hears(said)


class _Led:
    """A conversation with a model, by one of two runners; actions are foreseen, not run."""

    def __init__(self, agent: Any, runner: Any, tracker: Any) -> None:
        self._processor = copy.copy(agent.processor)
        self._processor.graph_runner = runner
        self._domain = agent.domain
        self._tracker = tracker("7007", agent.domain.slots)
        self._listens()

    def hears(self, text: str) -> list[Any]:
        """What was understood, and each prediction until it listens again."""
        from rasa.core.channels.channel import UserMessage
        from rasa.shared.core.events import UserUttered

        parsed = asyncio.run(self._processor.parse_message(UserMessage(text), self._tracker))
        said = UserUttered(text, parsed["intent"], parsed["entities"], parsed)
        self._tracker.update(said)
        self._tracker.update_with_events(self._domain.slots_for_entities(parsed["entities"]), self._domain)
        told = [parsed]
        for _ in range(5):
            told.append(self._foresees())
            if self._tracker.latest_action_name == "action_listen":
                return told
        self._listens()
        return told

    def _foresees(self) -> Any:
        from rasa.shared.core.events import ActionExecuted

        foreseen = self._processor._predict_next_with_tracker(self._tracker)
        self._tracker.update_with_events(foreseen.events, self._domain)
        action = self._domain.action_names_or_texts[foreseen.max_confidence_index]
        self._tracker.update(ActionExecuted(action, hide_rule_turn=foreseen.hide_rule_turn))
        return action, foreseen.policy_name, foreseen.probabilities, foreseen.hide_rule_turn

    def _listens(self) -> None:
        from rasa.shared.core.events import ActionExecuted

        self._tracker.update(ActionExecuted("action_listen"))


def test_it_stands_in_for_rasa_s_own_runner_once(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rasa.core.actions.action import RemoteAction
    from rasa.engine.runner.dask import DaskGraphRunner

    from channels import quick_checks
    from channels.planned_runner import PlannedRunner
    from channels.quicken import quicken

    monkeypatch.setattr(RemoteAction, "_validate_action_result", quick_checks._rasas_action_check)
    processor = copy.copy(agent.processor)
    assert type(processor.graph_runner) is DaskGraphRunner
    quicken(processor)
    assert RemoteAction._validate_action_result is quick_checks._check_action_answer
    planned = processor.graph_runner
    assert type(planned) is PlannedRunner
    quicken(processor)
    assert processor.graph_runner is planned
    monkeypatch.delattr("rasa.shared.core.domain.Domain.empty")  # nobody needs one to compare with
    assert not agent.domain.is_empty()


def test_a_conversation_that_begins_has_a_quick_tracker_behind_rasa_s_wrapping(
    agent: Any, tmp_path: Path
) -> None:
    from rasa.core.tracker_store import FailSafeTrackerStore

    from channels.quick_tracker import QuickTracker
    from channels.quicken import quicken
    from channels.tracker_store import QuickSQLTrackerStore

    processor = copy.copy(agent.processor)
    ours = QuickSQLTrackerStore(agent.domain, db=str(tmp_path / "rasa.db"))
    processor.tracker_store = FailSafeTrackerStore(ours)
    quicken(processor)
    tracker = asyncio.run(processor.tracker_store.get_or_create_tracker("7007", max_event_history=7))
    assert type(tracker) is QuickTracker
    assert tracker.events.maxlen == 7
