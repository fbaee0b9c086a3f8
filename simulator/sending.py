"""Carrying out a call that was accepted: the message is on the phone, and webhooks tell of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from simulator import events
from simulator.call import Call
from simulator.journal import Kind
from simulator.law import Accepted
from simulator.people import Direction, Message, Person, ThreadOwner
from simulator.refusal import Refusal
from simulator.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The facts of an answer: to whom, and the message's id (None for a sender action)."""

    psid: str
    mid: str | None = None


def new_mid() -> str:
    """A message id nobody can guess."""
    return "m_" + secrets.token_urlsafe(24)


def carry_out(world: World, call: Call, accepted: Accepted) -> Sent:
    """Deliver the message, spend the token, tell the bot. In one go: nothing may be awaited since the decision."""
    person = accepted.person
    if call.message is None:
        world.journal.add(Kind.GRAPH, person.psid, rule=accepted.rule, **call.facts())
        return Sent(psid=person.psid)
    message = Message(
        mid=new_mid(),
        at_ms=world.clock.now_ms(),
        direction=Direction.OUT,
        content=call.message,
        by_token=accepted.token is not None,
    )
    person.keep(message)
    # OTN: void once a message was sent successfully, inside the window too (FAQ).
    if accepted.token is not None:
        accepted.token.used = True
    _count(world, call, person)
    world.journal.add(
        Kind.DELIVERED,
        person.psid,
        mid=message.mid,
        token_id=accepted.token.id if accepted.token else None,
        rule=accepted.rule,
        **call.facts(),
    )
    _tell(world, person, message)
    return Sent(psid=person.psid, mid=message.mid)


def note_refusal(world: World, call: Call, refusal: Refusal, person: Person | None) -> None:
    """Write down a call that broke a rule, and which."""
    token = world.tokens.get(call.token or "")
    world.counts["refused"] += 1
    world.journal.add(
        Kind.REFUSED,
        person.psid if person else call.psid or "",
        rule=refusal.rule,
        code=refusal.code.code,
        subcode=refusal.code.subcode,
        status=refusal.http_status,
        token_id=token.id if token else None,
        **call.facts(),
    )


def _count(world: World, call: Call, person: Person) -> None:
    world.counts["delivered"] += 1
    person.delivered += 1
    if call.token is not None:
        world.counts["delivered_by_token"] += 1
        person.delivered_by_token += 1
    if call.is_request:
        world.counts["permission_requests"] += 1
        person.requests += 1


def _tell(world: World, person: Person, message: Message) -> None:
    """Echo and delivery events, each in a webhook of its own."""
    told = []
    if world.settings.echoes:
        told.append(events.echo(person, message))
    if world.settings.deliveries:
        told.append(events.delivery(person, message.at_ms, message.mid))
    for event in told:
        world.outbox.post(replace(event, standby=person.thread_owner is ThreadOwner.OTHER))
