"""MessengerOutput: what the bot says in a turn, checked by the rules before every message.

Rasa calls one method, `send_response`, with everything that one utterance holds. Extra keys do what only
this channel can: `otn_request` asks for a permission below the text, `otn_follow_up` sends the utterance as
the one message that a permission pays for, `otn_forget` says goodbye and forgets the person, `otn_remember`
and `otn_tags` keep attributes and tags, and need no words.

Nothing here raises into Rasa: an exception out of an output channel would lose the whole turn, though its
actions ran. What could not be sent is recorded and logged, by ids and states.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from rasa.core.channels.channel import OutputChannel

from channels.doors import Doors, fault
from otn import asking, composing, delivery, messages, privacy, remembering
from otn.delivery import Order
from otn.errors import NotFound, OtnError, SendError, Unreachable
from otn.graph.protocol import Sent, with_metadata
from otn.models import AskAttempt, Attempt, Contact, Delivery, DeliveryState, Origin, split_sender_id
from otn.policy import Deny, Reason
from otn.store import contacts

logger = logging.getLogger(__name__)

NAME = "messenger"
# Seconds until a message that could not leave us is sent again. Of all messages of a turn together: where Graph stays
# away, a turn must end in good time all the same, before its lock and, when the server stops, its drain run out.
AGAIN_AFTER = (0.5, 2.0)

_Json = Mapping[str, Any]


class MessengerOutput(OutputChannel):  # type: ignore[misc] # Rasa ships no types
    """Speaks to one person during one turn.

    `turn_key` names the turn: what it does beyond replying is done once, however often it runs. `turn_at`: when, by
    Meta's clock, the person did what it answers. Without a person (a turn that nobody's message started) it is
    whoever has the recipient's id.
    """

    @classmethod
    def name(cls) -> str:
        """The same as the input channel's, so that responses and `trigger_intent` find it."""
        return NAME

    def __init__(
        self,
        doors: Doors,
        *,
        person: Contact | None = None,
        turn_key: str | None = None,
        turn_at: datetime | None = None,
    ) -> None:
        super().__init__()
        self._doors = doors
        self._partner = person
        self._turn_at = turn_at
        self._turn_key = turn_key or f"external:{uuid4()}"
        self._asked: Counter[str] = Counter()
        self._pauses = list(AGAIN_AFTER)

    async def send_response(self, recipient_id: str, message: dict[str, Any]) -> None:
        """Say one utterance of the bot, if the rules allow it. Never raises."""
        try:
            await self._respond(recipient_id, message)
        except Exception as exc:  # noqa: BLE001 - what gets out of here costs the whole turn
            reason = str(exc) if isinstance(exc, OtnError) else fault(exc)
            logger.error("messenger: a message to %s was not sent: %s", recipient_id, reason)

    async def send_text_message(self, recipient_id: str, text: str, **kwargs: Any) -> None:
        """Say a text."""
        await self.send_response(recipient_id, {"text": text, **kwargs})

    async def send_image_url(self, recipient_id: str, image: str, **kwargs: Any) -> None:
        """Show an image."""
        await self.send_response(recipient_id, {"image": image, **kwargs})

    async def send_attachment(self, recipient_id: str, attachment: Any, **kwargs: Any) -> None:
        """Send an image, a video, a sound or a file, by its address."""
        await self.send_response(recipient_id, {"attachment": attachment, **kwargs})

    async def send_text_with_buttons(
        self, recipient_id: str, text: str, buttons: list[dict[str, Any]], **kwargs: Any
    ) -> None:
        """Say a text with buttons below it."""
        await self.send_response(recipient_id, {"text": text, "buttons": buttons, **kwargs})

    async def send_quick_replies(
        self, recipient_id: str, text: str, quick_replies: list[dict[str, Any]], **kwargs: Any
    ) -> None:
        """Say a text with quick replies."""
        await self.send_response(recipient_id, {"text": text, "quick_replies": quick_replies, **kwargs})

    async def send_elements(
        self, recipient_id: str, elements: Iterable[dict[str, Any]], **kwargs: Any
    ) -> None:
        """Show cards."""
        await self.send_response(recipient_id, {"elements": list(elements), **kwargs})

    async def send_custom_json(self, recipient_id: str, json_message: Any, **kwargs: Any) -> None:
        """Send a message in Messenger's own JSON."""
        await self.send_response(recipient_id, {"custom": json_message, **kwargs})

    async def _respond(self, sender_id: str, response: _Json) -> None:
        person = await self._person(sender_id)
        if person is None:
            logger.warning(
                "messenger: nothing is sent to %s: nobody, or somebody on several pages", sender_id
            )
            return
        # Without an access token for this page: say so before anything is recorded.
        self._doors.app.graph_config(person.page_id)
        if follow_up := response.get("otn_follow_up"):
            await self._follow_up(person, response, _object(follow_up))
        elif response.get("otn_forget"):
            await self._say_goodbye(person, response)
        else:
            await self._say(person, response)
        if request := response.get("otn_request"):
            await self._ask(person, _object(request))
        if response.get("otn_remember") or response.get("otn_tags"):
            await self._remember(person, response)

    async def _person(self, sender_id: str) -> Contact | None:
        psid, page_id = split_sender_id(sender_id)
        partner = self._partner
        if partner is not None and partner.psid == psid and page_id in (None, partner.page_id):
            return partner
        try:
            return await self._doors.read(lambda tx: contacts.by_psid(tx, psid, page_id))
        except NotFound:  # on several pages, and nobody said which
            return None

    # --- an ordinary reply ---

    async def _say(self, person: Contact, response: _Json) -> None:
        said, notes = composing.from_response(response)
        for note in notes:
            logger.warning("messenger: for contact %s: %s", person.id, note)
        for message in said:
            decision = await self._doors.may_say(person)
            if isinstance(decision, Deny):
                await self._not_said(person, message, f"otn:{uuid4()}", decision)
                return
            await self._send(person, message)

    async def _send(self, person: Contact, message: _Json) -> None:
        wire_id, sent_at = f"otn:{uuid4()}", self._doors.now()
        outcome = await self._post(person, with_metadata(message, wire_id))
        if isinstance(outcome, SendError):
            await self._not_said(person, message, wire_id, outcome, sent_at)

    async def _post(self, person: Contact, message: _Json) -> Sent | SendError:
        """Send it, and again a moment later if not a byte of it left us and it may still be sent."""
        to = {"id": person.psid}
        outcome = await self._doors.post(person.page_id, to, message, messaging_type="RESPONSE")
        while isinstance(outcome, Unreachable) and self._pauses:
            await asyncio.sleep(self._pauses.pop(0))
            if isinstance(await self._doors.may_say(person), Deny):
                break
            outcome = await self._doors.post(person.page_id, to, message, messaging_type="RESPONSE")
        return outcome

    async def _not_said(
        self,
        person: Contact,
        message: _Json,
        wire_id: str,
        why: Deny | SendError,
        sent_at: datetime | None = None,
    ) -> None:
        reason = why.sentence if isinstance(why, Deny) else str(why)
        logger.warning("messenger: a reply to contact %s was not sent: %s", person.id, reason)
        await self._doors.write(
            lambda tx: delivery.record_unsent_reply(
                tx,
                page_id=person.page_id,
                psid=person.psid,
                message=dict(message),
                wire_id=wire_id,
                why=why,
                now=self._doors.now(),
                sent_at=sent_at,
            )
        )

    async def _say_goodbye(self, person: Contact, response: _Json) -> None:
        """Say it, then mark the person at once: from this commit on nothing more is sent, whatever dies next.

        What they did until we began to say it is forgotten, not what came since: they may answer it sooner than Graph
        tells us that it arrived. Meta's clock may be ahead of ours, so the wish itself belongs to it whenever it was.
        """
        now = self._doors.now()
        until = max(now, self._turn_at or now)
        try:
            await self._say(person, response)
        finally:
            await self._doors.write(lambda tx: privacy.request_erasure(tx, person, who="contact", now=until))
            logger.info("messenger: contact %s asked to be forgotten", person.id)

    async def _remember(self, person: Contact, response: _Json) -> None:
        facts, notes = remembering.read(response.get("otn_remember"), response.get("otn_tags"))
        for note in notes:
            logger.warning("messenger: of contact %s: %s", person.id, note)
        if not await self._doors.write(lambda tx: remembering.remember(tx, person.id, facts)):
            logger.info("messenger: nothing more is remembered of contact %s", person.id)

    # --- asking for a permission ---

    async def _ask(self, person: Contact, request: _Json) -> None:
        topic = str(request.get("topic"))
        self._asked[topic] += 1
        key = f"{self._turn_key}:ask:{topic}:{self._asked[topic]}"
        begun = await self._doors.write(
            lambda tx: asking.begin(
                tx,
                page_id=person.page_id,
                psid=person.psid,
                topic=topic,
                dedupe_key=key,
                now=self._doors.now(),
            )
        )
        if isinstance(begun, AskAttempt):
            await self._send_request(person, begun)
        elif isinstance(begun, Deny):
            logger.warning("messenger: contact %s was not asked for %s: %s", person.id, topic, begun.sentence)
        else:
            logger.info("messenger: contact %s was asked for %s already in this turn", person.id, topic)

    async def _send_request(self, person: Contact, attempt: AskAttempt) -> None:
        card = messages.permission_request(attempt.title, attempt.payload)
        outcome = await self._post(person, with_metadata(card, attempt.wire_id))
        state = await self._doors.write(lambda tx: asking.settle(tx, attempt, outcome, self._doors.now()))
        if isinstance(outcome, SendError):
            logger.warning(
                "messenger: request %s to contact %s is %s: %s",
                attempt.request_id,
                person.id,
                state.value,
                outcome,
            )

    # --- a follow-up ---

    async def _follow_up(self, person: Contact, response: _Json, follow_up: _Json) -> None:
        topic, event_id = follow_up.get("topic"), follow_up.get("event_id")
        if not topic or not event_id:
            logger.error("messenger: a follow-up to contact %s lacks its topic or event id", person.id)
            return
        try:
            message = composing.as_one_message(response)
        except composing.NotOneMessage as exc:
            why = Deny(reason=Reason.NOT_ONE_MESSAGE, sentence=str(exc))
            await self._not_said(person, {}, f"otn:{uuid4()}", why)
            return
        order = Order(
            page_id=person.page_id,
            psid=person.psid,
            topic=str(topic),
            message=message,
            dedupe_key=delivery.key_of_event(person, str(topic), str(event_id)),
            origin=Origin.STORY,
        )
        begun = await self._doors.write(
            lambda tx: delivery.begin(tx, self._doors.vault, order, self._doors.now())
        )
        await self._carry_out(person, begun)

    async def _carry_out(self, person: Contact, begun: Attempt | Deny | Delivery) -> None:
        if isinstance(begun, Deny):
            logger.warning("messenger: a follow-up to contact %s was not sent: %s", person.id, begun.sentence)
            return
        if isinstance(begun, Delivery):
            logger.info("messenger: delivery %s was decided before: %s", begun.id, begun.state.value)
            return
        settled = await self._attempt(begun)
        if settled.delivery.state is DeliveryState.QUEUED and settled.delivery.window_refused:
            # Meta says that the window is closed after all: decided once more, now a token must pay.
            again = await self._doors.write(
                lambda tx: delivery.resume(tx, self._doors.vault, begun.delivery_id, self._doors.now())
            )
            if isinstance(again, Attempt):
                settled = await self._attempt(again)
            elif isinstance(again, Deny):
                logger.warning("messenger: delivery %s was not sent: %s", begun.delivery_id, again.sentence)

    async def _attempt(self, attempt: Attempt) -> delivery.Settled:
        outcome = await self._doors.post(
            attempt.page_id,
            attempt.recipient,
            attempt.message,
            messaging_type=attempt.messaging_type,
            tag=attempt.tag,
            notification_type=attempt.notification_type,
        )
        settled = await self._doors.write(lambda tx: delivery.settle(tx, attempt, outcome, self._doors.now()))
        if isinstance(outcome, SendError):
            state = settled.delivery.state.value
            logger.warning("messenger: delivery %s is %s: %s", attempt.delivery_id, state, outcome)
        return settled


def _object(value: object) -> _Json:
    return value if isinstance(value, Mapping) else {}
