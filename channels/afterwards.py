"""What must happen to a conversation beside its turns: note what was sent outside it, and forget it.

A follow-up that the worker or the command line sent becomes a step of the story before the person's next
turn, in the shape that `trigger_intent` leaves: one story serves both. What `trigger_intent` left unanswered goes on in
a new session. Everything here runs under the conversation's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from rasa.core.channels.channel import UserMessage
from rasa.shared.core.constants import IS_EXTERNAL
from rasa.shared.core.events import ActionExecuted, ActiveLoop, BotUttered, SlotSet, UserUttered

from channels.doors import Doors, NotNow
from channels.output import NAME
from channels.tracker import DELIVERY, Conversation, Lately
from otn import privacy
from otn.models import Contact, Delivery, Topic
from otn.store import Tx, deliveries, topics

logger = logging.getLogger(__name__)

FOLLOW_UP_INTENT = "EXTERNAL_otn_follow_up"
FOLLOW_UP_ACTION = "action_send_otn_follow_up"
DECISION_SLOTS = ("otn_request_decision", "otn_follow_up_decision")


FollowUp = tuple[Delivery, Topic | None]
"""What went out beside the conversation, and its topic."""


def unnoted(tx: Tx, person: Contact) -> list[FollowUp]:
    """What was sent to this person outside the conversation and is not in the tracker yet, oldest first."""
    found = deliveries.unnoted(tx, person.id)
    return [(each, topics.find(tx, each.topic) if each.topic else None) for each in found]


async def prepare(
    doors: Doors, agent: Any, sent: Sequence[FollowUp], message: UserMessage, lately: Lately
) -> None:
    """Bring the tracker to where the person's next turn begins: follow-ups noted, old decisions cleared.

    Raises NotNow if what was noted is not really saved; it is noted again, once, next time.
    """
    conversation = Conversation(agent.tracker_store, message.sender_id)
    missing = [each for each in sent if not await conversation.tells_of(each[0].wire_id)]
    decided = [name for name in DECISION_SLOTS if lately.slots.get(name) is not None]
    if missing or decided:
        await _update(agent, message, missing)
    for delivery, _topic in missing:
        if not await conversation.tells_of(delivery.wire_id):
            raise NotNow("the tracker store did not keep a follow-up")
    if sent:
        ids = [delivery.id for delivery, _topic in sent]
        await doors.write(lambda tx: deliveries.note(tx, ids, doors.now()))


async def forget(doors: Doors, conversation: Conversation, person: Contact) -> bool:
    """Delete the conversation and everything kept about a person who is marked; False: try again later."""
    if not await conversation.forget():
        logger.warning(
            "messenger: the tracker of contact %s is not in an SQL tracker store: delete it there yourself",
            person.id,
        )
    if not await doors.write(lambda tx: privacy.erase(tx, person.id, doors.now())):
        logger.info("messenger: contact %s is erased once the message on its way has arrived", person.id)
        return False
    logger.info("messenger: contact %s is erased", person.id)
    return True


async def _update(agent: Any, message: UserMessage, missing: Sequence[FollowUp]) -> None:
    processor = agent.processor
    before = await processor.get_tracker(message.sender_id)
    # An expired session starts anew first, so that the follow-up lands in the live one.
    tracker = await processor.fetch_tracker_and_update_session(
        message.sender_id, message.output_channel, message.metadata
    )
    if len(tracker.events) > len(before.events):
        now = tracker.events[-1].timestamp  # by it the tracker store tells which session an event belongs to
        tracker.update_with_events(_unanswered(before, now), agent.domain)
    for delivery, topic in missing:
        tracker.update_with_events(_as_step(delivery, topic, agent.domain, tracker), agent.domain)
    decided = [
        name for name in DECISION_SLOTS if name in tracker.slots and tracker.get_slot(name) is not None
    ]
    tracker.update_with_events([SlotSet(name, None) for name in decided], agent.domain)
    await processor.save_tracker(tracker)


def _unanswered(ended: Any, now: float) -> list[Any]:
    """The last turn of a session, if it was `trigger_intent`'s: to be repeated at the beginning of the next.

    An hour after it the session is over, but a follow-up may be answered days later. What was said, was said once.
    """
    applied = ended.applied_events()
    begins = max((at for at, each in enumerate(applied) if isinstance(each, UserUttered)), default=None)
    if begins is None or not applied[begins].metadata.get(IS_EXTERNAL):
        return []
    turn = [each for each in applied[begins:] if not isinstance(each, BotUttered)]
    for each in turn:
        each.timestamp = now
    return turn


def _as_step(delivery: Delivery, topic: Topic | None, domain: Any, tracker: Any) -> list[Any]:
    said = _said(delivery)
    intended = FOLLOW_UP_INTENT in domain.intents and FOLLOW_UP_ACTION in domain.action_names_or_texts
    # What a colleague wrote by hand is no step of a story: a "yes" to it is not the story's.
    if topic is None or delivery.human_agent or not intended:
        return [said]
    entities = {"otn_topic": topic.name, "otn_event_id": delivery.dedupe_key}
    known = [{"entity": key, "value": value} for key, value in entities.items() if key in domain.entities]
    slots = {"otn_topic": topic.name, "otn_kind": topic.kind, "otn_follow_up_decision": "allowed"}
    return [
        *_leave_loop(tracker),
        UserUttered.create_external(FOLLOW_UP_INTENT, known, NAME),
        ActionExecuted(FOLLOW_UP_ACTION),
        said,
        *(SlotSet(key, value) for key, value in slots.items() if key in tracker.slots),
        ActionExecuted("action_listen"),
    ]


def _said(delivery: Delivery) -> Any:
    message = delivery.message or {}
    rest = {key: value for key, value in message.items() if key != "text"}
    return BotUttered(
        text=message.get("text"),
        data={"custom": rest} if rest else None,
        metadata={DELIVERY: delivery.wire_id},
    )


def _leave_loop(tracker: Any) -> list[Any]:
    """An open form would take the person's answer to the follow-up for its own."""
    if not tracker.active_loop_name:
        return []
    asked = [SlotSet("requested_slot", None)] if "requested_slot" in tracker.slots else []
    return [ActiveLoop(None), *asked]
