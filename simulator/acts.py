"""What a person can do: write, tap, react, follow a link, read. Each act becomes a webhook."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from simulator import events
from simulator.content import postback_buttons, quick_replies
from simulator.events import Event
from simulator.journal import Kind
from simulator.outbox import Pending
from simulator.people import DAY_MS, WINDOW_MS, Direction, Json, Message, Person, ThreadOwner, Token
from simulator.sending import new_mid
from simulator.world import Mistake, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What came of it: facts for the caller, and the webhook's fate."""

    webhook: Pending
    mid: str | None = None
    token_id: str | None = None


def write(world: World, person: Person, wish: Json) -> Act:
    """The person sends text or attachments; this opens the window (SEND)."""
    content: Json = {
        name: wish[name] for name in ("text", "attachments", "reply_to", "referral") if name in wish
    }
    if not isinstance(content.get("text", ""), str) or not isinstance(content.get("attachments", []), list):
        raise Mistake(400, "text must be text, attachments a list")
    if not content.get("text") and not content.get("attachments"):
        raise Mistake(400, "a message needs text or attachments")
    return _say(world, person, content, at_ms=_time(world, wish), window_ms=_window(world, content))


def tap(world: World, person: Person, wish: Json) -> Act:
    """The person taps a button or a quick reply of a message; both open the window (SEND)."""
    message, payload, at_ms = _message(person, wish), wish.get("payload"), _time(world, wish)
    if message.direction is Direction.OUT and isinstance(payload, str):
        if (title := postback_buttons(message.content).get(payload)) is not None:
            return _postback(world, person, at_ms, title, payload)
        if (title := quick_replies(message.content).get(payload)) is not None:
            return _say(world, person, {"text": title}, at_ms=at_ms, quick_reply=payload)
    raise Mistake(409, "that message has no button or quick reply with that payload")


def tap_menu(world: World, person: Person, wish: Json) -> Act:
    """The person taps Get Started or the persistent menu: a postback that belongs to no message."""
    payload, title = wish.get("payload"), wish.get("title", "Get Started")
    if not isinstance(payload, str) or not payload or not isinstance(title, str):
        raise Mistake(400, "payload and title must be text")
    return _postback(world, person, _time(world, wish), title, payload)


def notify_me(world: World, person: Person, wish: Json) -> Act:
    """The person taps Notify Me: a new token, once for each request (OTN)."""
    message = person.thread.get(str(wish.get("mid")))
    if message is None or not message.is_request:
        raise Mistake(404, "that message is no permission request in this thread")
    if message.tapped:
        raise Mistake(409, "Notify Me was tapped already: one permission for each request")
    at_ms = _time(world, wish)
    token = Token(text=secrets.token_urlsafe(32), person=person, request_mid=message.mid, issued_ms=at_ms)
    message.tapped = True
    world.tokens[token.text] = token
    person.tokens.append(token)
    if world.settings.notify_me_opens_window:
        person.open_window(at_ms)
    payload = message.content["attachment"]["payload"]["payload"]
    event = events.opt_in(person, at_ms, payload, token.text)
    standby = person.thread_owner is ThreadOwner.OTHER and world.settings.optins_in_standby
    world.journal.add(
        Kind.PERSON,
        person.psid,
        page_id=person.page_id,
        did="notify_me",
        mid=message.mid,
        token_id=token.id,
        payload=payload,
    )
    return Act(webhook=world.outbox.post(replace(event, standby=standby)), token_id=token.id)


def react(world: World, person: Person, wish: Json) -> Act:
    """The person reacts to a message, which opens the window, or takes it back, which does not (SEND)."""
    message, action = _message(person, wish), wish.get("action", "react")
    told = {"mid": message.mid, "action": action}
    if action == "react":
        told.update(reaction=wish.get("reaction", "love"), emoji=wish.get("emoji", "\u2764\ufe0f"))
        message.reactions[:] = [str(told["emoji"])]
    elif action == "unreact":
        message.reactions.clear()
    else:
        raise Mistake(400, "action must be react or unreact")
    at_ms = _time(world, wish)
    if action == "react":
        person.open_window(at_ms)
    event = events.reaction(person, at_ms, told)
    return _act(world, person, action, event, mid=message.mid, reactions=list(message.reactions))


def refer(world: World, person: Person, wish: Json) -> Act:
    """The person follows an m.me link into the thread, which opens the window (SEND)."""
    told = {"source": "SHORTLINK", "type": "OPEN_THREAD"}
    told.update({name: wish[name] for name in ("ref", "source", "type") if wish.get(name) is not None})
    at_ms = _time(world, wish)
    person.open_window(at_ms)
    return _act(world, person, "referral", events.referral(person, at_ms, told), ref=told.get("ref"))


def read(world: World, person: Person, wish: Json) -> Act:
    """The person looks at the thread; this does not open the window (SEND)."""
    return _act(world, person, "read", events.read(person, _time(world, wish)))


def _say(
    world: World,
    person: Person,
    content: Json,
    *,
    at_ms: int,
    window_ms: int = WINDOW_MS,
    quick_reply: str | None = None,
) -> Act:
    message = Message(mid=new_mid(), at_ms=at_ms, direction=Direction.IN, content=content)
    person.keep(message)
    person.open_window(at_ms, window_ms)
    person.last_message_ms = max(at_ms, person.last_message_ms or 0)
    event = events.message(person, message, quick_reply)
    did = "message" if quick_reply is None else "quick_reply"
    return _act(world, person, did, event, mid=message.mid, message=content)


def _postback(world: World, person: Person, at_ms: int, title: str, payload: str) -> Act:
    """A tap on a button: shown as a bubble with the button's title."""
    mid, content = new_mid(), {"text": title}
    person.keep(Message(mid=mid, at_ms=at_ms, direction=Direction.IN, content=content))
    person.open_window(at_ms)
    event = events.postback(person, at_ms, mid, title, payload)
    return _act(world, person, "postback", event, mid=mid, message=content)


def _act(
    world: World, person: Person, did: str, event: Event, mid: str | None = None, **facts: object
) -> Act:
    """Write down what was done, with `facts` that whoever shows the thread needs, and tell the bot."""
    world.journal.add(
        Kind.PERSON,
        person.psid,
        page_id=person.page_id,
        did=did,
        mid=mid,
        timestamp=event.body["timestamp"],
        window_until=person.window_until_ms / 1000,
        **facts,
    )
    standby = person.thread_owner is ThreadOwner.OTHER
    return Act(webhook=world.outbox.post(replace(event, standby=standby)), mid=mid)


def _message(person: Person, wish: Json) -> Message:
    message = person.thread.get(str(wish.get("mid")))
    if message is None:
        raise Mistake(404, "no message in this thread has that mid")
    return message


def _window(world: World, content: Json) -> int:
    """POLICY: the first message after a click-to-Messenger ad may open the window for up to 7 days."""
    referral = content.get("referral")
    if isinstance(referral, dict) and referral.get("source") == "ADS":
        return world.settings.ad_window_days * DAY_MS
    return WINDOW_MS


def _time(world: World, wish: Json) -> int:
    """When it happened, in milliseconds: now, or earlier for events that arrive late (HOOKS)."""
    now_ms = world.clock.now_ms()
    at_ms = wish.get("timestamp", now_ms)
    if not isinstance(at_ms, int) or isinstance(at_ms, bool) or not 0 <= at_ms <= now_ms:
        raise Mistake(400, "timestamp must be whole milliseconds since the epoch, and not in the future")
    return at_ms
