"""Meta's rules on who may be written to, when, and by which right. Decides, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.call import Call
from simulator.content import broken_rules
from simulator.people import Person, ThreadOwner, Token
from simulator.refusal import (
    BAD_PARAMETER,
    CANNOT_RECEIVE,
    NO_PERMISSION,
    NO_SUCH_PERSON,
    NOT_THREAD_OWNER,
    Code,
    Refusal,
)
from simulator.world import World

# SEND.
MESSAGING_TYPES = ("RESPONSE", "UPDATE", "MESSAGE_TAG")
NOTIFICATION_TYPES = ("REGULAR", "SILENT_PUSH", "NO_PUSH")
SENDER_ACTIONS = ("typing_on", "typing_off", "mark_seen")
# POLICY: these tags get error 100 since 27 April 2026.
DEAD_TAGS = ("CONFIRMED_EVENT_UPDATE", "ACCOUNT_UPDATE", "POST_PURCHASE_UPDATE")
HUMAN_AGENT = "HUMAN_AGENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The call may be carried out: to whom, with which token spent, and by which rule."""

    person: Person
    rule: str
    token: Token | None = None


def judge(world: World, call: Call) -> Accepted | Refusal:
    """Decide a call of the Send API. The caller carries the decision out before it awaits anything."""
    refusal = _envelope(world, call) or _content(world, call)
    if refusal is not None:
        return refusal
    return _by_token(world, call) if call.token is not None else _by_psid(world, call)


def person_of(world: World, call: Call) -> Person | None:
    """Whom a call is for, as far as that can be told."""
    if call.token is None:
        return world.people.get((call.page_id, call.psid or ""))
    token = world.tokens.get(call.token)
    return token.person if token is not None and token.person.page_id == call.page_id else None


def _envelope(world: World, call: Call) -> Refusal | None:
    if call.message is None and call.action not in SENDER_ACTIONS:
        return Refusal(rule=f"sender_action must be one of {', '.join(SENDER_ACTIONS)} (SEND)")
    if call.messaging_type is not None and call.messaging_type not in MESSAGING_TYPES:
        return Refusal(rule=f"messaging_type must be one of {', '.join(MESSAGING_TYPES)} (SEND)")
    if call.notification_type is not None and call.notification_type not in NOTIFICATION_TYPES:
        return Refusal(rule=f"notification_type must be one of {', '.join(NOTIFICATION_TYPES)} (SEND)")
    return _token_envelope(world, call) if call.token is not None else _tag(world, call)


def _token_envelope(world: World, call: Call) -> Refusal | None:
    if call.action is not None:
        return Refusal(rule="a sender_action goes to a psid, not to a token (SEND)")
    if call.tag is not None or call.messaging_type == "MESSAGE_TAG":
        return Refusal(rule="a send to a One-Time Notification token carries no tag (OTN)")
    if call.messaging_type is not None and not world.settings.messaging_type_with_token:
        return Refusal(rule="setting messaging_type_with_token: a token send carries no messaging_type (OTN)")
    return None


def _tag(world: World, call: Call) -> Refusal | None:
    if (call.messaging_type == "MESSAGE_TAG") != (call.tag is not None):
        return Refusal(rule="messaging_type MESSAGE_TAG and a tag go together (SEND)")
    if call.tag in DEAD_TAGS:
        return Refusal(rule=f"the tag {call.tag} is refused since 27 April 2026 (POLICY)")
    if call.tag not in (None, HUMAN_AGENT):
        return Refusal(rule="there is no such tag (POLICY)")
    if call.tag == HUMAN_AGENT and not world.settings.human_agent_allowed:
        return Refusal(rule="HUMAN_AGENT needs its own permission (POLICY)", code=NO_PERMISSION)
    return None


def _content(world: World, call: Call) -> Refusal | None:
    if call.message is None:
        return None
    broken = next(broken_rules(call.message, world.settings.request_payload_limit), None)
    if broken is not None:
        return Refusal(rule=broken.rule, code=broken.code, message=f"(#{broken.code.code}) {broken.rule}")
    if call.is_request and not world.settings.otn_allowed:
        return Refusal(rule="this Page may not use One-Time Notification (OTN)", code=NO_PERMISSION)
    return _attachment_id(world, call)


def _attachment_id(world: World, call: Call) -> Refusal | None:
    """A saved attachment belongs to the Page that uploaded it (SEND)."""
    payload = (call.message or {}).get("attachment", {}).get("payload", {})
    known = world.pages[call.page_id].attachments
    if "attachment_id" in payload and payload["attachment_id"] not in known:
        return Refusal(rule="the Page has no attachment with that attachment_id (SEND)")
    return None


def _by_psid(world: World, call: Call) -> Accepted | Refusal:
    person = person_of(world, call)
    if person is None:
        return Refusal(rule="nobody on this Page has that psid (ERR)", code=NO_SUCH_PERSON)
    refusal = _reach(world, person)
    if refusal is None and person.thread_owner is ThreadOwner.OTHER:
        refusal = Refusal(rule="another app controls the thread (ERR)", code=NOT_THREAD_OWNER)
    return refusal or _in_time(world, call, person)


def _in_time(world: World, call: Call, person: Person) -> Accepted | Refusal:
    now_ms = world.clock.now_ms()
    if person.window_is_open(now_ms):
        return Accepted(person=person, rule="the 24 h window is open (SEND)")
    if call.tag == HUMAN_AGENT and not call.is_request:
        if person.human_agent_may_write(now_ms):
            return Accepted(
                person=person, rule="HUMAN_AGENT, within 7 days of the person's last message (POLICY)"
            )
        return _outside(world, "HUMAN_AGENT ends 7 days after the person's last message (POLICY)")
    if call.is_request:
        return _outside(world, "a permission request may only be sent while the 24 h window is open (FAQ)")
    return _outside(world, "the 24 h window is closed, and the send carries no permission (SEND)")


def _by_token(world: World, call: Call) -> Accepted | Refusal:
    token = world.tokens.get(call.token or "")
    refusal = _usable(world, call, token)
    if refusal is not None or token is None:
        return refusal or _bad_token(world.settings.invalid_token_error, "")
    person = token.person
    refusal = _reach(world, person)
    if (
        refusal is None
        and person.thread_owner is ThreadOwner.OTHER
        and world.settings.token_send_needs_thread
    ):
        rule = "setting token_send_needs_thread: another app controls the thread (ERR)"
        refusal = Refusal(rule=rule, code=NOT_THREAD_OWNER)
    if refusal is None and call.is_request and not person.window_is_open(world.clock.now_ms()):
        refusal = _outside(world, "a permission request may only be sent while the 24 h window is open (FAQ)")
    return refusal or Accepted(
        person=person, token=token, rule="a One-Time Notification token is spent (OTN)"
    )


def _usable(world: World, call: Call, token: Token | None) -> Refusal | None:
    settings = world.settings
    if not settings.otn_allowed:
        return Refusal(rule="this Page may not use One-Time Notification (OTN)", code=NO_PERMISSION)
    if token is None or token.person.page_id != call.page_id:
        return _bad_token(
            settings.invalid_token_error, "no such One-Time Notification token on this Page (OTN)"
        )
    if token.used:
        return _bad_token(settings.used_token_error, "the token was used: one token, one message (OTN)")
    if token.has_expired(world.clock.now_ms()):
        return _bad_token(settings.expired_token_error, "the token is older than a year (OTN)")
    return None


def _reach(world: World, person: Person) -> Refusal | None:
    if person.blocked:
        return Refusal(
            rule="the person blocked the Page (ERR)", code=Code.parse(world.settings.blocked_person_error)
        )
    if person.unreachable:
        return Refusal(rule="the person can't receive messages right now (ERR)", code=CANNOT_RECEIVE)
    return None


def _bad_token(code: str, rule: str) -> Refusal:
    parsed = Code.parse(code)
    message = "(#100) Invalid parameter" if parsed.code == BAD_PARAMETER.code else None
    return Refusal(rule=rule, code=parsed, message=message)


def _outside(world: World, rule: str) -> Refusal:
    return Refusal(rule=rule, code=Code.parse(world.settings.outside_window_error))
