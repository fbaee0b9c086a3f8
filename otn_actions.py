"""Rasa's custom actions for One-Time Notifications: read slots, ask `otn` for a decision, utter.

A module of its own beside every bot's `actions` package: `import otn_actions` there, and they are registered.

No SQL, no HTTP, no side effect. Whoever reaches the action server can run these for anybody, so what an action
says is a wish: the channel decides once more, records and sends. Wishes are extra keys of an utterance:
`otn_request` {"topic"}, `otn_follow_up` {"topic", "event_id"}, `otn_forget` True, and in an utterance without
words `otn_remember` {attribute: value} and `otn_tags` [tag].
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from rasa_sdk import Action, Tracker
from rasa_sdk.events import ActiveLoop, FollowupAction, SlotSet, UserUtteranceReverted
from rasa_sdk.executor import CollectingDispatcher

from otn import asking, delivery, project
from otn.app import ACTION_SERVER, App, open_app
from otn.asking import Agreement, AskDecision
from otn.models import split_sender_id
from otn.policy import Allow, Reason
from otn.store import topics

logger = logging.getLogger(__name__)

Domain = dict[str, Any]
Events = list[dict[str, Any]]

CHANNEL = "messenger"
ALLOWED = "allowed"
NO_EVENT_ID = "no_event_id"
_REPEATED = "repeated"
_MADE_UP_FOR = timedelta(minutes=10)  # how long whoever triggers an event may take to try again after a crash

# What stories need to tell apart of a follow-up that may not go out; the finer reason is in the log.
_FOLLOW_UP_DECISION_OF = {
    Reason.UNKNOWN_TOPIC: "unknown_topic",
    Reason.PAGE_PAUSED: "page_paused",
    Reason.UNKNOWN_CONTACT: "unreachable",
    Reason.UNDELIVERABLE: "unreachable",
    Reason.ERASED: "unreachable",
}
_NO_PERMISSION = "no_permission"

_opening = Lock()


@cache
def _open_here() -> App:
    return open_app(Path.cwd(), need=ACTION_SERVER)


def the_app() -> App:
    """Settings, store and clock of the project in the current folder; opened on first use, from any thread."""
    with _opening:
        return _open_here()


class OtnAction(Action, ABC):  # type: ignore[misc] # rasa_sdk's classes are untyped for mypy
    """Base of the actions below; `app` is asked for in a worker thread, so it may block."""

    action_name: ClassVar[str]

    def __init__(self, app: Callable[[], App] = the_app) -> None:
        self._app = app

    def name(self) -> str:
        return self.action_name

    @abstractmethod
    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        """Decide, utter, set slots."""

    async def agreements(self, tracker: Tracker) -> list[Agreement]:
        """What the person of this conversation agreed to and was not told yet."""
        return await asyncio.to_thread(self._agreements, tracker)

    def _agreements(self, tracker: Tracker) -> list[Agreement]:
        app = self._app()
        with app.store.read() as tx:
            return asking.agreements(tx, now=app.clock(), **_person(tracker))


class ActionRequestOtn(OtnAction):
    """Ask for permission to write once about the topic in slot `otn_topic`, if that is allowed.

    Sets `otn_request_decision`: asked, already_permitted, window_closed, too_soon, unknown_topic, page_paused
    or not_messenger. When asked, it utters `utter_otn_request_<kind>`, else `utter_otn_request`: its text
    goes out first, in a bubble of its own, then the permission request. A story may wait for the answer or
    run on; a tap is kept either way.
    """

    action_name = "action_request_otn"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        if not _in_messenger(dispatcher, tracker, domain):
            return [SlotSet("otn_request_decision", Reason.NOT_MESSENGER.value)]
        decision = await asyncio.to_thread(self._decide, tracker)
        if decision.word == asking.ASKED and decision.topic is not None:
            _utter(
                dispatcher,
                domain,
                f"utter_otn_request_{decision.topic.kind}",
                "utter_otn_request",
                otn_request={"topic": decision.topic.name},
            )
        return [SlotSet("otn_request_decision", decision.word)]

    def _decide(self, tracker: Tracker) -> AskDecision:
        topic = tracker.get_slot("otn_topic")
        if not topic:
            logger.warning(
                "%s: set the slot otn_topic before it, there is nothing to ask for", self.action_name
            )
            return AskDecision(word=Reason.UNKNOWN_TOPIC.value, sentence="The slot otn_topic is not set.")
        app = self._app()
        with app.store.read() as tx:
            decision = asking.decide(tx, topic=topic, now=app.clock(), **_person(tracker))
        logger.info("%s: topic %s: %s", self.action_name, topic, decision.word)
        return decision


class ActionSendOtnFollowUp(OtnAction):
    """Tell a person what they agreed to hear: the step after `EXTERNAL_otn_follow_up`.

    Reads the entities `otn_topic` (else the slot) and `otn_event_id`: the id of what happened, the same for
    every repeat, so that one event is told once. Sets `otn_topic`, `otn_kind` and `otn_follow_up_decision`:
    allowed, no_permission, unreachable, page_paused, unknown_topic or no_event_id. When allowed, it utters
    `utter_otn_follow_up_<kind>`, else `utter_otn_follow_up`, and leaves an open form first: the reply would
    be taken for an answer to the form. When not, an open form stays as it is. An event that was told is as if it
    had not come again.
    """

    action_name = "action_send_otn_follow_up"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        topic = _entity(tracker, "otn_topic") or tracker.get_slot("otn_topic")
        event_id = _entity(tracker, "otn_event_id")
        word, kind = await asyncio.to_thread(self._decide, tracker, topic, event_id)
        if word == _REPEATED:
            return as_if_nothing_was_said()
        outcome = [
            SlotSet("otn_topic", topic),
            SlotSet("otn_kind", kind),
            SlotSet("otn_follow_up_decision", word),
        ]
        form = tracker.active_loop_name
        if word != ALLOWED:
            return [*as_if_nothing_was_said(), *outcome] if form else outcome
        wish = {"topic": topic, "event_id": event_id}
        _utter(dispatcher, domain, f"utter_otn_follow_up_{kind}", "utter_otn_follow_up", otn_follow_up=wish)
        return [ActiveLoop(None), SlotSet("requested_slot", None), *outcome] if form else outcome

    def _decide(self, tracker: Tracker, topic: str | None, event_id: str | None) -> tuple[str, str | None]:
        """The decision and, if the topic is known, its kind."""
        if not topic or not event_id:
            missing = "otn_event_id" if topic else "otn_topic"
            logger.warning("%s: the trigger lacks the entity %s, nothing is sent", self.action_name, missing)
            return (NO_EVENT_ID if topic else Reason.UNKNOWN_TOPIC.value), None
        app = self._app()
        with app.store.read() as tx:
            found = topics.resolve(tx, topic)
            decision = delivery.decide(tx, topic=topic, now=app.clock(), **_person(tracker))
            told_at = delivery.told_at(tx, topic=topic, event_id=event_id, **_person(tracker))
        kind = found.kind if found else None
        if told_at is not None:
            # Just now, and without a step in the conversation: the turn that told it died before it was saved, and is
            # made up for. Later the step may only be out of sight: Rasa shows the newest session alone.
            repeated = _came_before(tracker, event_id) or app.clock() - told_at > _MADE_UP_FOR
            return (_REPEATED if repeated else ALLOWED), kind
        if isinstance(decision, Allow):
            return ALLOWED, kind
        logger.info("%s: topic %s: not sent, %s", self.action_name, topic, decision.reason.value)
        return _FOLLOW_UP_DECISION_OF.get(decision.reason, _NO_PERMISSION), kind


class ActionOtnStatus(OtnAction):
    """Say in words what this person agreed to: each topic, how many messages, until when.

    Utters `utter_otn_status` with the list as `{otn_agreements}`, or `utter_otn_status_nothing`.
    """

    action_name = "action_otn_status"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        if not _in_messenger(dispatcher, tracker, domain):
            return []
        agreements = await self.agreements(tracker)
        if agreements:
            say = _IN_WORDS.get(tracker.get_slot("language"), _in_english)
            lines = "\n".join(f"• {agreement.title}: {say(agreement)}" for agreement in agreements)
            _utter(dispatcher, domain, "utter_otn_status", otn_agreements=lines)
        else:
            _utter(dispatcher, domain, "utter_otn_status_nothing")
        return []


class ActionForgetMe(OtnAction):
    """Say goodbye and wish to be forgotten; the channel erases after the turn. Let a story ask first.

    Utters `utter_otn_forgotten`; a bot that lacks it erases all the same.
    """

    action_name = "action_forget_me"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        if not _in_messenger(dispatcher, tracker, domain):
            return []
        if not _utter(dispatcher, domain, "utter_otn_forgotten", otn_forget=True):
            dispatcher.utter_message(text="Done. Goodbye!", otn_forget=True)
        return []


class ActionRememberContact(OtnAction):
    """Copy the slots that endpoints.yml names (`otn_contact: {slots: …}`) into the person's attributes.

    A slot without a value changes nothing: it may be unset only because a session began anew.
    """

    action_name = "action_remember_contact"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        slots = await asyncio.to_thread(self._slots)
        missing = sorted(slots.keys() - tracker.slots.keys())
        if missing or not slots:
            named = ", ".join(missing) or "none is named"
            logger.warning("%s: no such slots (endpoints.yml: otn_contact): %s", self.action_name, named)
        values = {attribute: _as_text(tracker.get_slot(slot)) for slot, attribute in slots.items()}
        if found := {name: value for name, value in values.items() if value}:
            dispatcher.utter_message(otn_remember=found)
        return []

    def _slots(self) -> dict[str, str]:
        return project.remembered_slots(self._app().settings.root)


class ActionTagContact(OtnAction):
    """Tag the person with what the entity or the slot `otn_tag` says: a tag, several with commas, or a list."""

    action_name = "action_tag_contact"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        said = next(tracker.get_latest_entity_values("otn_tag"), None) or tracker.get_slot("otn_tag")
        words = said.split(",") if isinstance(said, str) else said
        tags = [_as_text(word) for word in words] if isinstance(words, list) else []
        if found := [tag for tag in tags if tag]:
            dispatcher.utter_message(otn_tags=found)
        else:
            logger.warning("%s: set the slot otn_tag before it, there is no tag", self.action_name)
        return []


class ActionOtnFallback(OtnAction):
    """What happens when no rule and no story knows how to go on: the turn is taken back.

    For config.yml: `core_fallback_action_name: action_otn_fallback`. Not under Rasa's own name: it would come
    before the fallback that a bot has of its own.

    A tap on Notify Me that no story waits for is thanked (`utter_otn_thanks_<kind>`, else `utter_otn_thanks`;
    silently kept while a form waits for an answer), other events of the channel pass in silence, words get
    `utter_default`. Then everything is as before the turn, in a story or a form alike.
    """

    action_name = "action_otn_fallback"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        intent = intent_of(tracker)
        if intent == "otn_opted_in":
            if not tracker.active_loop_name:
                kind = _entity(tracker, "otn_opted_kind")
                _utter(dispatcher, domain, f"utter_otn_thanks_{kind}", "utter_otn_thanks")
        elif not intent.startswith(("otn_", "EXTERNAL_")):
            _utter(dispatcher, domain, "utter_default")
        return as_if_nothing_was_said()


def intent_of(tracker: Tracker) -> str:
    """What the latest turn means. Not Rasa's get_intent_of_latest_message: it reads a ranking, which an event
    without words lacks.
    """
    return (tracker.latest_message.get("intent") or {}).get("name") or ""


def as_if_nothing_was_said() -> Events:
    """Take the user's turn back and wait. Told to wait: Rasa's own fallback leaves that to the policies, and
    where they have never seen what came before, it falls back once more and says everything twice.
    """
    return [UserUtteranceReverted(), FollowupAction("action_listen")]


def _in_messenger(dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> bool:
    if tracker.get_latest_input_channel() == CHANNEL:
        return True
    _utter(dispatcher, domain, "utter_otn_not_messenger")
    return False


def _utter(dispatcher: CollectingDispatcher, domain: Domain, *names: str, **extra: Any) -> bool:
    """Utter the first of these responses that the domain has; Rasa would skip a missing one in silence."""
    responses = domain.get("responses", {})
    for name in names:
        if name in responses:
            dispatcher.utter_message(response=name, **extra)
            return True
    logger.error("the domain lacks the response %s; nothing was said", names[-1])
    return False


def _entity(tracker: Tracker, name: str) -> str | None:
    value = next(tracker.get_latest_entity_values(name), None)
    return value if isinstance(value, str) and value else None


def _came_before(tracker: Tracker, event_id: str) -> bool:
    """Whether an earlier turn of the conversation, beside the latest one, was about this event."""
    turns = [event.get("parse_data") or {} for event in tracker.events if event.get("event") == "user"]
    return any(
        each.get("entity") == "otn_event_id" and each.get("value") == event_id
        for turn in turns[:-1]
        for each in turn.get("entities") or []
    )


def _person(tracker: Tracker) -> dict[str, Any]:
    """Whose conversation this is: `psid` and `page_id`."""
    psid, page_id = split_sender_id(tracker.sender_id)
    return {"psid": psid, "page_id": page_id or _page_id(tracker)}


def _page_id(tracker: Tracker) -> str | None:
    """The Page of the conversation, as the channel noted it last: an external turn carries none itself."""
    for event in reversed(tracker.events):
        if event.get("event") == "user" and (page_id := (event.get("metadata") or {}).get("page_id")):
            return str(page_id)
    return None


def _in_english(agreement: Agreement) -> str:
    messages = "one message" if agreement.available == 1 else f"{agreement.available} messages"
    until = agreement.soonest_expiry
    return f"{messages}, until {until.day} {until:%B %Y}"


def _in_german(agreement: Agreement) -> str:
    messages = "eine Nachricht" if agreement.available == 1 else f"{agreement.available} Nachrichten"
    until = agreement.soonest_expiry
    return f"{messages}, bis {until.day}.{until.month}.{until.year}"


_IN_WORDS = {"de": _in_german}  # by the slot `language`; all else is English


def _as_text(value: Any) -> str:
    """A slot's value in words, empty if it has none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return ", ".join(filter(None, map(_as_text, value)))
    return str(value).strip() if isinstance(value, str | int | float) else ""
