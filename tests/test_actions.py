"""Every custom action on its own: what it reads, decides against a real store, says and sets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rasa_sdk import Action, Tracker
from rasa_sdk.executor import ActionExecutor, CollectingDispatcher
from ruamel.yaml import YAML

import otn_actions
from actions import course, shop, survey
from otn import delivery, project
from otn.app import ACTION_SERVER, App
from otn.catalogue import read_entries
from otn.errors import OutcomeUnknown
from otn.graph.protocol import Sent
from otn.models import Attempt, Contact, Origin
from otn.settings import load_settings
from otn.store import Store, contacts, pages, topics
from otn.vault import Vault

ROOT = Path(__file__).parent.parent
PAGE_ID = "1001"
PSID = "7007"
DOMAIN = YAML(typ="safe").load((ROOT / "domain.yml").read_text(encoding="utf-8"))
DOMAIN["responses"] = project.domain(ROOT, "responses")
BACKPACK = "restock-canvas-backpack"


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    return sqlite_store


@pytest.fixture
def app(store: Store, make: Any, now: datetime, tmp_path: Path) -> App:
    """The project with two topics."""
    make.topic("restock-*", kind="restock", title="Back in stock alert")
    make.topic("spring-collection", kind="news", title="Spring collection news")
    settings = load_settings(tmp_path, {"OTN_DATABASE_URL": f"sqlite:///{store.path}"}, need=ACTION_SERVER)
    return App(settings=settings, store=store, clock=lambda: now, vault=None)


@pytest.fixture
def person(app: App, make: Any) -> Contact:
    """Somebody who wrote an hour ago."""
    found: Contact = make.in_window(PSID)
    return found


def a_tracker(
    *,
    slots: Mapping[str, Any] | None = None,
    entities: Mapping[str, str] | None = None,
    intent: str = "ask_product",
    channel: str | None = "messenger",
    page_id: str | None = PAGE_ID,
    form: str | None = None,
) -> Tracker:
    """The tracker that Rasa would send, as the JSON that travels."""
    message = {
        "intent": {"name": intent},
        "entities": [{"entity": name, "value": value} for name, value in (entities or {}).items()],
        "metadata": {"page_id": page_id} if page_id else {},
    }
    event = {
        "event": "user",
        "input_channel": channel,
        "metadata": message["metadata"],
        "parse_data": message,
    }
    return Tracker.from_dict(
        {
            "sender_id": PSID,
            "slots": dict(slots or {}),
            "latest_message": message,
            "events": [event],
            "active_loop": {"name": form} if form else {},
            "latest_action_name": "action_listen",
            "paused": False,
        }
    )


async def run(
    action: Action, tracker: Tracker, domain: Mapping[str, Any] = DOMAIN
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """The slots that an action sets, what it says, and its other events."""
    dispatcher = CollectingDispatcher()
    events = await action.run(dispatcher, tracker, domain)
    slots = {event["name"]: event["value"] for event in events if event["event"] == "slot"}
    return slots, dispatcher.messages, [event["event"] for event in events if event["event"] != "slot"]


def responses(messages: list[dict[str, Any]]) -> list[str]:
    return [message["response"] for message in messages]


async def ask(
    app: App, domain: Mapping[str, Any] = DOMAIN, **tracker: Any
) -> tuple[str, list[dict[str, Any]]]:
    tracker = {"slots": {"otn_topic": BACKPACK}, **tracker}
    slots, said, others = await run(otn_actions.ActionRequestOtn(lambda: app), a_tracker(**tracker), domain)
    assert set(slots) == {"otn_request_decision"}
    assert others == []
    return slots["otn_request_decision"], said


class TestRequest:
    async def test_asks_in_words_of_the_kind_and_wishes_the_card(self, app: App, person: Contact) -> None:
        decision, said = await ask(app)
        assert decision == "asked"
        assert responses(said) == ["utter_otn_request_restock"]
        assert said[0]["otn_request"] == {"topic": BACKPACK}

    async def test_a_kind_without_words_of_its_own_gets_the_common_ones(
        self, app: App, person: Contact
    ) -> None:
        _decision, said = await ask(app, slots={"otn_topic": "spring-collection"})
        assert responses(said) == ["utter_otn_request"]

    async def test_a_missing_slot_is_an_unknown_topic_and_says_so_in_the_log(
        self, app: App, person: Contact, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await ask(app, slots={}) == ("unknown_topic", [])
        assert "set the slot otn_topic" in caplog.text

    async def test_an_unknown_topic_is_not_asked_for(self, app: App, person: Contact) -> None:
        assert await ask(app, slots={"otn_topic": "no-such-topic"}) == ("unknown_topic", [])

    async def test_who_agreed_already_is_not_asked(self, app: App, person: Contact, make: Any) -> None:
        make.token(person, make.topic(BACKPACK))
        assert await ask(app) == ("already_permitted", [])

    async def test_outside_the_window_nobody_is_asked(self, app: App, make: Any) -> None:
        make.out_of_window(PSID)
        assert await ask(app) == ("window_closed", [])

    async def test_a_paused_page_asks_nobody(self, app: App, person: Contact, now: datetime) -> None:
        with app.store.begin() as tx:
            pages.pause(tx, PAGE_ID, "the access token expired", None)
        assert await ask(app) == ("page_paused", [])

    async def test_nobody_is_asked_when_meta_said_too_often(
        self, app: App, person: Contact, now: datetime
    ) -> None:
        with app.store.begin() as tx:
            contacts.do_not_ask_before(tx, person.id, now + timedelta(hours=1))
        assert await ask(app) == ("too_soon", [])

    async def test_another_channel_is_told_in_words(self, app: App, person: Contact) -> None:
        decision, said = await ask(app, channel="rest")
        assert decision == "not_messenger"
        assert responses(said) == ["utter_otn_not_messenger"]

    async def test_a_bot_without_any_words_for_it_says_so_in_the_log(
        self, app: App, person: Contact, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await ask(app, {"responses": {}}) == ("asked", [])
        assert "lacks the response utter_otn_request" in caplog.text


ABOUT_THE_BACKPACK = {"otn_topic": BACKPACK, "otn_event_id": "back-17"}


async def tell(
    app: App, entities: Mapping[str, str] = ABOUT_THE_BACKPACK, **tracker: Any
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    tracker = {"intent": "EXTERNAL_otn_follow_up", "channel": None, "page_id": None, **tracker}
    return await run(
        otn_actions.ActionSendOtnFollowUp(lambda: app), a_tracker(entities=entities, **tracker), DOMAIN
    )


class TestFollowUp:
    async def test_tells_in_words_of_the_kind_and_wishes_the_send(self, app: App, person: Contact) -> None:
        slots, said, others = await tell(app)
        assert slots == {
            "otn_topic": BACKPACK,
            "otn_kind": "restock",
            "otn_follow_up_decision": "allowed",
        }
        assert responses(said) == ["utter_otn_follow_up_restock"]
        assert said[0]["otn_follow_up"] == {"topic": BACKPACK, "event_id": "back-17"}
        assert others == []

    async def test_a_kind_without_words_of_its_own_gets_the_common_ones(
        self, app: App, person: Contact, make: Any
    ) -> None:
        make.topic("summer-sale", kind="other")
        slots, said, _others = await tell(app, {"otn_topic": "summer-sale", "otn_event_id": "1"})
        assert responses(said) == ["utter_otn_follow_up"]
        assert slots["otn_kind"] == "other"

    async def test_a_permission_pays_once_the_window_is_closed(self, app: App, make: Any) -> None:
        person = make.out_of_window(PSID)
        assert (await tell(app))[0]["otn_follow_up_decision"] == "no_permission"
        make.token(person, make.topic(BACKPACK))
        assert (await tell(app))[0]["otn_follow_up_decision"] == "allowed"

    async def test_without_an_event_id_nothing_is_said(
        self, app: App, person: Contact, caplog: pytest.LogCaptureFixture
    ) -> None:
        slots, said, _others = await tell(app, {"otn_topic": BACKPACK})
        assert slots["otn_follow_up_decision"] == "no_event_id"
        assert said == []
        assert "otn_event_id" in caplog.text

    async def test_without_a_topic_nothing_is_said(self, app: App, person: Contact) -> None:
        slots, said, _others = await tell(app, {"otn_event_id": "1"})
        assert (slots["otn_follow_up_decision"], said) == ("unknown_topic", [])

    async def test_the_slot_names_the_topic_where_the_trigger_does_not(
        self, app: App, person: Contact
    ) -> None:
        slots, _said, _others = await tell(app, {"otn_event_id": "1"}, slots={"otn_topic": BACKPACK})
        assert slots["otn_follow_up_decision"] == "allowed"

    async def test_an_unknown_topic_is_said_to_be_one(self, app: App, person: Contact) -> None:
        slots, said, _others = await tell(app, {"otn_topic": "no-such-topic", "otn_event_id": "1"})
        assert slots == {
            "otn_topic": "no-such-topic",
            "otn_kind": None,
            "otn_follow_up_decision": "unknown_topic",
        }
        assert said == []

    async def test_nobody_knows_this_person(self, app: App) -> None:
        assert (await tell(app))[0]["otn_follow_up_decision"] == "unreachable"

    async def test_a_person_who_blocked_us_is_unreachable(self, app: App, person: Contact) -> None:
        with app.store.begin() as tx:
            contacts.mark_undeliverable(tx, person.id, "the person blocked the page")
        assert (await tell(app))[0]["otn_follow_up_decision"] == "unreachable"

    async def test_a_person_who_asks_to_be_forgotten_is_unreachable(
        self, app: App, person: Contact, now: datetime
    ) -> None:
        with app.store.begin() as tx:
            contacts.request_erasure(tx, person.id, now)
        assert (await tell(app))[0]["otn_follow_up_decision"] == "unreachable"

    async def test_a_paused_page_tells_nobody(self, app: App, person: Contact) -> None:
        with app.store.begin() as tx:
            pages.pause(tx, PAGE_ID, "the access token expired", None)
        assert (await tell(app))[0]["otn_follow_up_decision"] == "page_paused"

    async def test_an_open_form_is_left_when_it_goes_out(self, app: App, person: Contact) -> None:
        slots, _said, others = await tell(app, form="feedback_form")
        assert others == ["active_loop"]
        assert slots["requested_slot"] is None

    async def test_an_open_form_stays_when_it_does_not(self, app: App) -> None:
        slots, _said, others = await tell(app, form="feedback_form")
        assert others == ["rewind", "followup"]
        assert slots["otn_follow_up_decision"] == "unreachable"

    async def test_of_two_pages_that_know_the_person_the_conversation_says_which(
        self, app: App, person: Contact, make: Any
    ) -> None:
        make.out_of_window(PSID, page_id="2002")
        assert (await tell(app, page_id=PAGE_ID))[0]["otn_follow_up_decision"] == "allowed"
        assert (await tell(app, page_id="2002"))[0]["otn_follow_up_decision"] == "no_permission"


@pytest.mark.parametrize("state", ["sent", "unknown"])
class TestFollowUpAgain:
    """The shop's own software may tell of one event twice."""

    @pytest.fixture
    def told(self, app: App, make: Any, vault: Vault, now: datetime, state: str) -> None:
        """Somebody out of the window who was told, by the only permission."""
        person = make.out_of_window(PSID)
        make.token(person, make.topic(BACKPACK))
        order = delivery.Order(
            page_id=PAGE_ID,
            psid=PSID,
            topic=BACKPACK,
            message={"text": "It is back"},
            dedupe_key=delivery.key_of_event(person, BACKPACK, "back-17"),
            origin=Origin.STORY,
        )
        with app.store.begin() as tx:
            attempt = delivery.begin(tx, vault, order, now)
        assert isinstance(attempt, Attempt)
        outcome = (
            Sent(message_id="m_1", recipient_id=PSID) if state == "sent" else OutcomeUnknown("no answer")
        )
        with app.store.begin() as tx:
            delivery.settle(tx, attempt, outcome, now)

    async def test_what_the_conversation_knows_is_as_if_it_had_not_come_again(
        self, app: App, told: None
    ) -> None:
        tracker = a_tracker(intent="EXTERNAL_otn_follow_up", entities=ABOUT_THE_BACKPACK)
        tracker.events *= 2
        outcome = await run(otn_actions.ActionSendOtnFollowUp(lambda: app), tracker, DOMAIN)
        assert outcome == ({}, [], ["rewind", "followup"])

    async def test_a_turn_that_died_after_telling_is_made_up_for(self, app: App, told: None) -> None:
        slots, said, _others = await tell(app)
        assert slots["otn_follow_up_decision"] == "allowed"
        assert said[0]["otn_follow_up"]["event_id"] == "back-17"  # the channel knows it, and sends nothing

    async def test_in_a_later_session_it_is_as_if_it_had_not_come_again_either(
        self, app: App, told: None, now: datetime
    ) -> None:
        days_later = replace(app, clock=lambda: now + timedelta(days=2))
        assert await tell(days_later, form="feedback_form") == ({}, [], ["rewind", "followup"])

    async def test_another_event_is_decided_for_itself(self, app: App, told: None) -> None:
        slots, _said, _others = await tell(app, {**ABOUT_THE_BACKPACK, "otn_event_id": "back-18"})
        assert slots["otn_follow_up_decision"] == "no_permission"


class TestStatus:
    async def test_says_what_was_agreed_to_how_often_and_until_when(
        self, app: App, person: Contact, make: Any, now: datetime
    ) -> None:
        backpack = make.topic(BACKPACK, title="Back in stock alert")
        make.token(person, backpack, opted_in_at=now)
        make.token(person, backpack, opted_in_at=now - timedelta(days=10))
        with app.store.read() as tx:
            collection = topics.get(tx, "spring-collection")
        make.token(person, collection, opted_in_at=now)
        _slots, said, _others = await run(otn_actions.ActionOtnStatus(lambda: app), a_tracker())
        assert responses(said) == ["utter_otn_status"]
        assert said[0]["otn_agreements"] == (
            "• Back in stock alert: 2 messages, until 21 September 2027\n"
            "• Spring collection news: one message, until 1 October 2027"
        )

    async def test_says_it_in_the_person_s_language(self, app: App, person: Contact, make: Any) -> None:
        make.token(person, make.topic(BACKPACK, title="Back in stock: canvas backpack"))
        make.token(person, make.topic(BACKPACK))
        tracker = a_tracker(slots={"language": "de"})
        _slots, said, _others = await run(otn_actions.ActionOtnStatus(lambda: app), tracker)
        assert said[0]["otn_agreements"] == "• Back in stock: canvas backpack: 2 Nachrichten, bis 29.9.2027"

    async def test_says_so_when_there_is_nothing(self, app: App, person: Contact) -> None:
        _slots, said, _others = await run(otn_actions.ActionOtnStatus(lambda: app), a_tracker())
        assert responses(said) == ["utter_otn_status_nothing"]

    async def test_keeps_it_to_messenger(self, app: App, person: Contact) -> None:
        tracker = a_tracker(channel="rest")
        _slots, said, _others = await run(otn_actions.ActionOtnStatus(lambda: app), tracker)
        assert responses(said) == ["utter_otn_not_messenger"]


class TestForgetMe:
    async def test_says_goodbye_and_wishes_to_be_forgotten(self, app: App) -> None:
        _slots, said, _others = await run(otn_actions.ActionForgetMe(lambda: app), a_tracker())
        assert responses(said) == ["utter_otn_forgotten"]
        assert said[0]["otn_forget"] is True

    async def test_a_bot_without_the_words_forgets_all_the_same(self, app: App) -> None:
        _slots, said, _others = await run(otn_actions.ActionForgetMe(lambda: app), a_tracker(), {})
        assert said[0]["otn_forget"] is True
        assert said[0]["text"]

    async def test_nobody_is_forgotten_from_another_channel(self, app: App) -> None:
        tracker = a_tracker(channel="rest")
        _slots, said, _others = await run(otn_actions.ActionForgetMe(lambda: app), tracker)
        assert responses(said) == ["utter_otn_not_messenger"]
        assert "otn_forget" not in said[0]


class TestRemember:
    async def wish(self, app: App, lines: str, slots: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What it utters; it sets nothing."""
        (app.settings.root / "endpoints.yml").write_text(f"otn_contact: {lines}\n")
        tracker = a_tracker(slots=slots)
        set_slots, said, others = await run(otn_actions.ActionRememberContact(lambda: app), tracker)
        assert (set_slots, others) == ({}, [])
        return said

    async def test_wishes_the_slots_that_are_named_and_says_nothing(self, app: App) -> None:
        slots = {"size": "42", "product": "trail shoe", "other": "x"}
        (said,) = await self.wish(app, "{slots: {size: shoe_size, product: product}}", slots)
        assert said["otn_remember"] == {"shoe_size": "42", "product": "trail shoe"}
        assert not any(said[key] for key in ("text", "response", "custom", "image", "buttons", "attachment"))

    @pytest.mark.parametrize(
        ("value", "kept"),
        [
            (True, "yes"),
            (False, "no"),
            (3, "3"),
            (3.0, "3"),
            (3.5, "3.5"),
            (["a", 1, None], "a, 1"),
            (" a ", "a"),
        ],
    )
    async def test_every_kind_of_slot_becomes_words(self, app: App, value: Any, kept: str) -> None:
        (said,) = await self.wish(app, "{slots: [size]}", {"size": value})
        assert said["otn_remember"] == {"size": kept}

    @pytest.mark.parametrize("value", [None, "", " ", [], {"a": 1}])
    async def test_a_slot_without_a_value_changes_nothing(self, app: App, value: Any) -> None:
        assert await self.wish(app, "{slots: [size]}", {"size": value}) == []

    @pytest.mark.parametrize("lines", ["", "{slots: [no_such_slot]}"])
    async def test_slots_that_are_not_there_are_said_in_the_log(
        self, app: App, lines: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await self.wish(app, lines, {}) == []
        assert "endpoints.yml: otn_contact" in caplog.text


class TestTag:
    @pytest.mark.parametrize(
        ("slot", "tags"),
        [("runner", ["runner"]), ("runner, walker,", ["runner", "walker"]), (["a", "b"], ["a", "b"])],
    )
    async def test_wishes_the_tags_of_the_slot_and_says_nothing(
        self, app: App, slot: Any, tags: list[str]
    ) -> None:
        tracker = a_tracker(slots={"otn_tag": slot})
        slots, (said,), others = await run(otn_actions.ActionTagContact(lambda: app), tracker)
        assert (slots, others) == ({}, [])
        assert said["otn_tags"] == tags
        assert not any(said[key] for key in ("text", "response", "custom", "image", "buttons", "attachment"))

    async def test_an_entity_goes_before_the_slot(self, app: App) -> None:
        tracker = a_tracker(slots={"otn_tag": "a"}, entities={"otn_tag": "b"})
        _slots, (said,), _others = await run(otn_actions.ActionTagContact(lambda: app), tracker)
        assert said["otn_tags"] == ["b"]

    async def test_without_a_tag_it_says_so_in_the_log(
        self, app: App, caplog: pytest.LogCaptureFixture
    ) -> None:
        _slots, said, _others = await run(otn_actions.ActionTagContact(lambda: app), a_tracker())
        assert said == []
        assert "set the slot otn_tag" in caplog.text


class TestFallback:
    @pytest.mark.parametrize(
        ("intent", "form", "expected"),
        [
            ("affirm", None, ["utter_default"]),
            ("affirm", "feedback_form", ["utter_default"]),
            ("otn_opted_in", None, ["utter_otn_thanks"]),
            ("otn_opted_in", "feedback_form", []),
            ("otn_reaction", None, []),
            ("EXTERNAL_something", None, []),
        ],
    )
    async def test_answers_and_takes_the_turn_back(
        self, app: App, intent: str, form: str | None, expected: list[str]
    ) -> None:
        tracker = a_tracker(intent=intent, form=form)
        slots, said, others = await run(otn_actions.ActionOtnFallback(lambda: app), tracker)
        assert responses(said) == expected
        assert (slots, others) == ({}, ["rewind", "followup"])

    async def test_thanks_in_words_of_the_kind_where_there_are_any(self, app: App) -> None:
        domain = {"responses": {"utter_otn_thanks": [], "utter_otn_thanks_news": []}}
        tracker = a_tracker(intent="otn_opted_in", entities={"otn_opted_kind": "news"})
        _slots, said, _others = await run(otn_actions.ActionOtnFallback(lambda: app), tracker, domain)
        assert responses(said) == ["utter_otn_thanks_news"]


async def check_stock(**tracker: Any) -> dict[str, Any]:
    slots, said, others = await run(shop.ActionCheckStock(), a_tracker(**tracker))
    assert (said, others) == ([], [])
    return slots


class TestStock:
    async def test_what_is_sold_out_has_a_topic_of_product_and_size(self) -> None:
        slots = await check_stock(entities={"product": "trail shoe", "size": "42"})
        assert (slots["stock"], slots["otn_topic"]) == ("sold_out", "restock-trail-shoe-42")

    async def test_what_has_no_sizes_is_asked_for_none(self) -> None:
        slots = await check_stock(entities={"product": "canvas backpack", "size": "42"})
        assert (slots["stock"], slots["otn_topic"]) == ("sold_out", BACKPACK)

    async def test_what_is_there_has_a_link_and_no_topic(self) -> None:
        slots = await check_stock(entities={"product": "Rain Jacket"})
        assert (slots["stock"], slots["order_link"]) == ("in_stock", "https://shop.example/rain-jacket")
        assert "otn_topic" not in slots

    @pytest.mark.parametrize("entities", [{}, {"size": "3"}])
    async def test_a_size_that_is_missing_or_not_made_is_asked_for(self, entities: dict[str, str]) -> None:
        assert (await check_stock(entities={"product": "trail shoe", **entities}))["stock"] == "which_size"

    async def test_a_size_alone_means_the_product_before(self) -> None:
        slots = await check_stock(
            entities={"size": "40"}, slots={"product": "trail shoe"}, intent="give_size"
        )
        assert slots["order_link"] == "https://shop.example/trail-shoe?size=40"

    @pytest.mark.parametrize("entities", [{}, {"product": "submarine"}, {"size": "40"}])
    async def test_anything_else_is_unknown(self, entities: dict[str, str]) -> None:
        assert await check_stock(entities=entities) == {"stock": "unknown"}

    @pytest.mark.parametrize(
        ("topic", "link"),
        [
            (BACKPACK, "/canvas-backpack"),
            ("restock-trail-shoe-43", "/trail-shoe?size=43"),
            ("price-rain-jacket-89", "/rain-jacket"),
            ("restock-submarine", ""),
            (None, ""),
        ],
    )
    async def test_the_order_link_is_that_of_what_was_told_about(self, topic: str | None, link: str) -> None:
        tracker = a_tracker(slots={"otn_topic": topic, "product": "wool scarf"})
        slots, _said, _others = await run(shop.ActionFindOrderLink(), tracker)
        assert slots == {"order_link": f"https://shop.example{link}"}

    def test_every_product_and_size_can_be_named(self) -> None:
        data = YAML(typ="safe").load((ROOT / "data" / "back_in_stock.yml").read_text(encoding="utf-8"))
        known = {item["lookup"]: item["examples"] for item in data["nlu"] if "lookup" in item}
        for product in shop.PRODUCTS:
            assert f"- {product.name}\n" in known["product"]
            assert all(f"- {size}\n" in known["size"] for size in product.sizes)


class TestPrice:
    @pytest.mark.parametrize(
        "tracker", [{"entities": {"product": "rain jacket"}}, {"slots": {"product": "rain jacket"}}]
    )
    async def test_the_price_of_today_stands_in_the_topic(self, tracker: dict[str, Any]) -> None:
        slots, _said, _others = await run(shop.ActionCheckPrice(), a_tracker(intent="watch_price", **tracker))
        assert slots == {
            "price_check": "known",
            "product": "rain jacket",
            "price": "89",
            "otn_topic": "price-rain-jacket-89",
        }

    async def test_an_unknown_product_has_no_price(self) -> None:
        slots, _said, _others = await run(shop.ActionCheckPrice(), a_tracker(entities={"product": "tent"}))
        assert slots == {"price_check": "unknown"}

    @pytest.fixture
    def agreed(self, app: App, person: Contact, make: Any) -> None:
        """Somebody who wants to hear of a jacket below 89 and below 80, and of other things."""
        for topic in ("price-rain-jacket-89", "price-rain-jacket-80", "price-wool-scarf-35", BACKPACK):
            make.token(person, make.topic(topic, kind="price"))

    @pytest.mark.parametrize(
        ("price", "topic"),
        [("79", "80"), ("1", "80"), ("80", "89"), ("88", "89"), ("89", None), ("95", None)],
    )
    async def test_only_below_the_price_of_a_permission(
        self, app: App, agreed: None, price: str, topic: str | None
    ) -> None:
        tracker = a_tracker(
            intent="EXTERNAL_price_changed", entities={"product": "rain jacket", "price": price}
        )
        slots, said, others = await run(shop.ActionComparePrice(lambda: app), tracker)
        assert said == []
        assert slots == ({"otn_topic": f"price-rain-jacket-{topic}"} if topic else {})
        assert others == ([] if topic else ["rewind", "followup"])

    @pytest.mark.parametrize(
        "entities",
        [{}, {"product": "rain jacket"}, {"price": "1"}, {"product": "rain jacket", "price": "1.50"}],
    )
    async def test_a_trigger_that_lacks_something_says_nothing(
        self, app: App, agreed: None, entities: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = a_tracker(intent="EXTERNAL_price_changed", entities=entities, channel=None)
        outcome = await run(shop.ActionComparePrice(lambda: app), tracker)
        assert outcome == ({}, [], ["rewind", "followup"])
        assert "needs the entities product and price" in caplog.text

    async def test_who_agreed_to_nothing_hears_nothing(self, app: App) -> None:
        entities = {"product": "rain jacket", "price": "1"}
        outcome = await run(shop.ActionComparePrice(lambda: app), a_tracker(entities=entities))
        assert outcome == ({}, [], ["rewind", "followup"])


class TestCourse:
    @pytest.mark.parametrize(
        ("intent", "read", "course_slot", "following"),
        [
            ("start_course", None, "more", "course-2"),
            ("start_course", "course-3", "more", "course-2"),
            ("affirm", "course-2", "more", "course-3"),
            ("affirm", "course-3", "finished", None),
            ("affirm", "something-else", "more", "course-2"),
        ],
    )
    async def test_the_next_part_follows_the_one_that_was_told(
        self, intent: str, read: str | None, course_slot: str, following: str | None
    ) -> None:
        tracker = a_tracker(intent=intent, slots={"otn_topic": read})
        slots, _said, _others = await run(course.ActionFindNextPart(), tracker)
        assert slots == {"course": course_slot, **({"otn_topic": following} if following else {})}

    def test_every_part_has_its_text(self) -> None:
        variations = DOMAIN["responses"]["utter_otn_follow_up_course"]
        of = [each["condition"][0]["value"] for each in variations if "condition" in each]
        assert of == [f"{course.TOPICS}{part}" for part in range(2, course.PARTS + 1)]


async def validated(slot: str, value: object, entities: list[dict[str, Any]], intent: str) -> Any:
    tracker = a_tracker(intent=intent, slots={slot: value, "requested_slot": slot}, form="survey_form")
    tracker.latest_message["entities"] = entities
    method = getattr(survey.ValidateSurveyForm(), f"validate_{slot}")
    return method(value, CollectingDispatcher(), tracker, DOMAIN)[slot]


class TestSurvey:
    @pytest.mark.parametrize(
        ("named", "score"),
        [
            ([("5", 0)], "5"),
            ([("5", 9), ("4", 0)], "4"),
            ([("6", 0)], None),
            ([("0", 0)], None),
            ([], None),
        ],
    )
    async def test_a_score_is_the_first_number_named_from_1_to_5(
        self, named: list[tuple[str, int]], score: str | None
    ) -> None:
        entities = [{"entity": "score", "value": value, "start": start} for value, start in named]
        assert await validated("survey_score", "7", entities, "give_score") == score

    async def test_a_button_s_score_has_no_place_in_the_text(self) -> None:
        assert await validated("survey_score", "3", [{"entity": "score", "value": "3"}], "give_score") == "3"

    @pytest.mark.parametrize(
        ("intent", "kept"), [("deny", ""), ("nlu_fallback", "no parcel came"), ("affirm", "no parcel came")]
    )
    async def test_a_no_is_an_empty_comment_and_anything_else_is_one(self, intent: str, kept: str) -> None:
        assert await validated("survey_comment", "no parcel came", [], intent) == kept

    @pytest.mark.parametrize(
        ("score", "result"), [("1", "bad"), ("2", "bad"), ("3", "good"), ("4", "good"), ("5", "good")]
    )
    async def test_two_and_less_are_bad_and_there_is_room_for_the_next(self, score: str, result: str) -> None:
        slots = {"survey_score": score, "survey_comment": "it was late"}
        answered, said, _others = await run(survey.ActionKeepSurvey(), a_tracker(slots=slots))
        assert answered == {"survey_result": result, "survey_score": None, "survey_comment": None}
        assert [message["otn_remember"] for message in said] == [slots]

    @pytest.mark.parametrize(("comment", "kept"), [("", None), ("x" * 501, "x" * 500)])
    async def test_an_answer_takes_the_place_of_the_one_before(self, comment: str, kept: str | None) -> None:
        slots = {"survey_score": "4", "survey_comment": comment}
        _answered, (said,), _others = await run(survey.ActionKeepSurvey(), a_tracker(slots=slots))
        assert said["otn_remember"] == {"survey_score": "4", "survey_comment": kept}


class TestPeople:
    async def test_who_wants_a_person_is_tagged_and_stands_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        slots, (said,), others = await run(shop.ActionHandOver(), a_tracker())
        assert (slots, said["otn_tags"], others) == ({}, ["wants-a-person"], [])
        assert f"conversation {PSID} wants a person" in caplog.text

    async def test_feedback_makes_room_for_the_next_and_is_not_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        tracker = a_tracker(slots={"feedback": "the parcel was late"})
        assert (await run(shop.ActionKeepFeedback(), tracker))[0] == {"feedback": None}
        assert "19 characters" in caplog.text
        assert "parcel" not in caplog.text


def test_the_topics_to_begin_with_have_a_kind_that_stories_know() -> None:
    seeded = read_entries(project.topics_to_begin_with(ROOT), project.kinds(ROOT))
    assert {topic.kind for topic in seeded} == set(project.kinds(ROOT) or ())
    assert {topic.name for topic in seeded if topic.is_family} == {
        f"{family}*" for family in (shop.RESTOCK, shop.PRICE, course.TOPICS)
    }


def test_no_external_event_can_be_an_answer_to_a_form() -> None:
    external = {name for name in project.domain(ROOT, "intents") if name.startswith("EXTERNAL_")}
    mappings = [mapping for slot in DOMAIN["slots"].values() for mapping in slot["mappings"]]
    for mapping in mappings:
        if mapping["type"] == "from_text":
            assert external | {"forget_me", "ask_human"} <= set(mapping["not_intent"])


def test_the_action_server_finds_every_action_of_the_domain() -> None:
    executor = ActionExecutor()
    executor.register_package("actions")
    assert set(executor.actions) == set(DOMAIN["actions"])


def test_decisions_are_words_that_the_domain_knows() -> None:
    words = {otn_actions.ALLOWED, otn_actions.NO_EVENT_ID, *otn_actions._FOLLOW_UP_DECISION_OF.values()}
    words.add(otn_actions._NO_PERMISSION)
    assert words == set(DOMAIN["slots"]["otn_follow_up_decision"]["values"])


def test_what_only_carries_data_is_no_feature() -> None:
    for intent in DOMAIN["intents"]:
        name, how = next(iter(intent.items())) if isinstance(intent, dict) else (intent, {})
        if name.startswith(("otn_", "EXTERNAL_otn_follow_up")):
            assert how == {"use_entities": []}, name


async def test_the_event_loop_never_waits_for_the_database(app: App, person: Contact) -> None:
    """The store is opened in a worker thread."""
    threads = []

    def opened() -> App:
        threads.append(threading.current_thread())
        return app

    action = otn_actions.ActionRequestOtn(opened)
    await run(action, a_tracker(slots={"otn_topic": BACKPACK}))
    assert threads != []
    assert threading.main_thread() not in threads


@pytest.mark.parametrize(("told", "host"), [({}, "127.0.0.1"), ({"SANIC_HOST": "10.0.0.5"}, "10.0.0.5")])
def test_the_action_server_listens_on_loopback_unless_told_otherwise(told: dict[str, str], host: str) -> None:
    environ = {key: value for key, value in os.environ.items() if key != "SANIC_HOST"} | told
    code = "import actions, os; print(os.environ['SANIC_HOST'])"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, text=True, capture_output=True, check=True
    )
    assert printed.stdout.strip() == host
