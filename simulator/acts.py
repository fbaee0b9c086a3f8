"""What a person can do: write, tap, react, follow a link, read. Each act becomes a webhook."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from simulator import events
from simulator.content import postback_buttons, quick_replies
from simulator.events import Event
from simulator.journal import Kind
from simulator.outbox import Pending
from simulator.people import DAY_MS, HOUR_MS, WINDOW_MS, Direction, Json, Message, Person, ThreadOwner, Token
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
    at_ms = _time(world, wish)
    return _say(world, person, content, at_ms=at_ms, window=_opened_by_message(world, person, at_ms, content))


def tap(world: World, person: Person, wish: Json) -> Act:
    """The person taps a button or a quick reply of a message; both open the window (SEND)."""
    message, payload, at_ms = _message(person, wish), wish.get("payload"), _time(world, wish)
    if message.direction is Direction.OUT and isinstance(payload, str):
        if (title := postback_buttons(message.content).get(payload)) is not None:
            return _postback(world, person, at_ms, title, payload)
        if (title := quick_replies(message.content).get(payload)) is not None:
            window = _opened(person, at_ms, "a tap on a quick reply")
            return _say(world, person, {"text": title}, at_ms=at_ms, window=window, quick_reply=payload)
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
    window = _after_notify_me(world, person, at_ms)
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
        window=window,
    )
    told = replace(event, standby=standby, window=window)
    return Act(webhook=world.outbox.post(told), token_id=token.id)


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
    window = (
        _opened(person, at_ms, "a reaction")
        if action == "react"
        else _left("taking a reaction back does not open the window (SEND)")
    )
    event = events.reaction(person, at_ms, told)
    return _act(world, person, action, event, window, mid=message.mid, reactions=list(message.reactions))


def refer(world: World, person: Person, wish: Json) -> Act:
    """The person follows an m.me link into an existing thread, which opens the window (SEND)."""
    if not person.thread and person.last_message_ms is None:
        raise Mistake(
            409,
            "there is no thread with the Page yet, and an m.me link opens the window only in an existing one: "
            "write first, or tap Get Started",
        )
    told = {"source": "SHORTLINK", "type": "OPEN_THREAD"}
    told.update({name: wish[name] for name in ("ref", "source", "type") if wish.get(name) is not None})
    at_ms = _time(world, wish)
    window = _opened(person, at_ms, "an m.me link into the thread")
    event = events.referral(person, at_ms, told)
    return _act(world, person, "referral", event, window, ref=told.get("ref"))


def read(world: World, person: Person, wish: Json) -> Act:
    """The person looks at the thread; this does not open the window (SEND)."""
    window = _left("reading does not open the window (SEND)")
    return _act(world, person, "read", events.read(person, _time(world, wish)), window)


def _say(
    world: World,
    person: Person,
    content: Json,
    *,
    at_ms: int,
    window: Json,
    quick_reply: str | None = None,
) -> Act:
    message = Message(mid=new_mid(), at_ms=at_ms, direction=Direction.IN, content=content)
    person.keep(message)
    person.last_message_ms = max(at_ms, person.last_message_ms or 0)
    event = events.message(person, message, quick_reply)
    did = "message" if quick_reply is None else "quick_reply"
    return _act(world, person, did, event, window, mid=message.mid, message=content)


def _postback(world: World, person: Person, at_ms: int, title: str, payload: str) -> Act:
    """A tap on a button: shown as a bubble with the button's title."""
    mid, content = new_mid(), {"text": title}
    person.keep(Message(mid=mid, at_ms=at_ms, direction=Direction.IN, content=content))
    window = _opened(person, at_ms, "a tap on a button")
    event = events.postback(person, at_ms, mid, title, payload)
    return _act(world, person, "postback", event, window, mid=mid, message=content)


def _act(
    world: World,
    person: Person,
    did: str,
    event: Event,
    window: Json,
    mid: str | None = None,
    **facts: object,
) -> Act:
    """Write down what was done, with `facts` that whoever shows the thread needs, and tell the bot."""
    world.journal.add(
        Kind.PERSON,
        person.psid,
        page_id=person.page_id,
        did=did,
        mid=mid,
        timestamp=event.body["timestamp"],
        window=window,
        **facts,
    )
    standby = person.thread_owner is ThreadOwner.OTHER
    return Act(webhook=world.outbox.post(replace(event, standby=standby, window=window)), mid=mid)


def _message(person: Person, wish: Json) -> Message:
    message = person.thread.get(str(wish.get("mid")))
    if message is None:
        raise Mistake(404, "no message in this thread has that mid")
    return message


# What becomes of the window, for the journal: the rule and, where the act opens it, until when.


def _opened(
    person: Person, at_ms: int, what: str, length_ms: int = WINDOW_MS, source: str = " (SEND)"
) -> Json:
    """Open the window. `until` is the window's end, which another act may have set later."""
    person.open_window(at_ms, length_ms)
    rule = f"{what} opens the window for {length_ms // HOUR_MS} hours{source}"
    return {"rule": rule, "until": person.window_until_ms / 1000}


def _opened_by_message(world: World, person: Person, at_ms: int, content: Json) -> Json:
    """POLICY: the first message after a click-to-Messenger ad may open the window for up to 7 days."""
    referral = content.get("referral")
    if isinstance(referral, dict) and referral.get("source") == "ADS":
        length_ms = world.settings.ad_window_days * DAY_MS
        return _opened(person, at_ms, "a message after an ad", length_ms, " (POLICY)")
    return _opened(person, at_ms, "a message")


def _after_notify_me(world: World, person: Person, at_ms: int) -> Json:
    """FAQ: Notify Me is not among the actions that open the window. That it opens none is our reading of it."""
    if world.settings.notify_me_opens_window:
        return _opened(person, at_ms, "setting notify_me_opens_window: a tap on Notify Me", source="")
    return _left("a tap on Notify Me is not on the list of actions that open the window (FAQ)")


def _left(rule: str) -> Json:
    return {"rule": rule}


def _time(world: World, wish: Json) -> int:
    """When it happened, in milliseconds: now, or earlier for events that arrive late (HOOKS)."""
    now_ms = world.clock.now_ms()
    at_ms = wish.get("timestamp", now_ms)
    if not isinstance(at_ms, int) or isinstance(at_ms, bool) or not 0 <= at_ms <= now_ms:
        raise Mistake(400, "timestamp must be whole milliseconds since the epoch, and not in the future")
    return at_ms
