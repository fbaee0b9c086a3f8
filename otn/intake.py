"""An event arrives: record it, once, together with everything that follows from it.

The inbox row and its effects (window, token, echo, receipts) are one transaction, so that a 200 means
that nothing in the body can be lost, and a re-delivery changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from otn.asking import topic_in
from otn.delivery import settle_as_sent
from otn.events import Event, EventKind, opens_window, restore
from otn.models import Contact, InboxState, Topic
from otn.policy import BLOCKED, RESTRICTED, token_expiry, window_until
from otn.store import Tx, audit, contacts, deliveries, inbox, keys, pages, requests, tokens, topics
from otn.vault import Vault

INBOX_KEPT = timedelta(days=7)

_STARTS_A_TURN = {
    EventKind.MESSAGE,
    EventKind.POSTBACK,
    EventKind.OPTIN_OTN,
    EventKind.REFERRAL,
    EventKind.REACTION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What recording an event came to. `contact_id` is set if the person's conversation has work to do."""

    state: InboxState
    is_new: bool
    contact_id: int | None = None


def record(tx: Tx, vault: Vault, event: Event, *, own_pages: Collection[str], now: datetime) -> Recorded:
    """Record an event and its effects. Run it in a SAVEPOINT: what it raises must cost no neighbour."""
    if event.page_id not in own_pages:
        return _record_only(tx, vault, event, InboxState.FOREIGN, now)
    if event.kind is EventKind.BROKEN:
        return _record_only(tx, vault, event, InboxState.BROKEN, now)
    pages.ensure(tx, event.page_id, now)
    contact = contacts.ensure(tx, event.page_id, event.psid, now) if event.psid else None
    if contact is not None and _is_forgotten(contact, event):
        return Recorded(state=InboxState.IGNORED, is_new=False)
    turn = event.kind in _STARTS_A_TURN and not event.standby and contact is not None
    state = InboxState.NEW if turn else InboxState.DONE
    if _insert(tx, vault, event, contact, state, now) is None:
        # Known already. It may still wait for its turn, so the caller may as well wake the conversation.
        return Recorded(state=state, is_new=False, contact_id=contact.id if turn and contact else None)
    if contact is not None:
        _take_effect(tx, vault, event, contact, now)
    elif event.kind is EventKind.POLICY_ENFORCEMENT:
        _enforce_policy(tx, event, now)
    return Recorded(state=state, is_new=True, contact_id=contact.id if turn and contact else None)


def record_broken(tx: Tx, vault: Vault, event: Event, why: str, now: datetime) -> Recorded:
    """Keep an event whose recording failed, so that somebody can look at it; of an opt-in the token too."""
    contact = contacts.find(tx, event.page_id, event.psid) if event.psid else None
    if contact is not None and _is_forgotten(contact, event):
        return Recorded(state=InboxState.IGNORED, is_new=False)
    whole = replace(event, raw=_with_token(event))
    row = _insert(tx, vault, whole, contact, InboxState.BROKEN, now, why)
    return Recorded(state=InboxState.BROKEN, is_new=row is not None)


def _with_token(event: Event) -> bytes:
    """The raw event as Meta sent it; it is sealed before it is kept."""
    if event.kind is not EventKind.OPTIN_OTN:
        return event.raw
    told = json.loads(event.raw)
    return json.dumps({**told, "optin": {**told["optin"], "one_time_notif_token": event.token}}).encode()


def reread(vault: Vault, row: inbox.InboxRow) -> Event:
    """The event of an inbox row again (an opt-in's token is not in it: that is in the token store)."""
    return restore(
        vault.open(row.sealed),
        page_id=row.page_id,
        key=row.event_key,
        at=row.event_at,
        received_at=row.received_at,
        standby=row.standby,
    )


def _record_only(tx: Tx, vault: Vault, event: Event, state: InboxState, now: datetime) -> Recorded:
    row = _insert(tx, vault, event, None, state, now, event.broken)
    return Recorded(state=state, is_new=row is not None)


def _insert(
    tx: Tx,
    vault: Vault,
    event: Event,
    contact: Contact | None,
    state: InboxState,
    now: datetime,
    error: str | None = None,
) -> int | None:
    keys.note_use(tx, vault)
    return inbox.record(
        tx,
        page_id=event.page_id,
        event_key=event.key,
        kind=event.kind.value,
        contact_id=contact.id if contact else None,
        event_at=event.at,
        received_at=now,
        sealed=vault.seal(event.raw),
        standby=event.standby,
        state=state,
        error=error,
    )


def _is_forgotten(contact: Contact, event: Event) -> bool:
    """What happened before an erasure does not bring the person back."""
    forgotten_at = contact.erase_requested_at or contact.erased_at
    return forgotten_at is not None and event.at <= forgotten_at


def _take_effect(tx: Tx, vault: Vault, event: Event, contact: Contact, now: datetime) -> None:
    if opening := opens_window(event):
        until = window_until(opening, event.at)
        contacts.open_window(tx, contact.id, opened_by=opening.value, at=event.at, until=until)
        if contact.undeliverable_reason:
            contacts.mark_undeliverable(tx, contact.id, None)
    if effect := _EFFECTS.get(event.kind):
        effect(tx, vault, event, contact, now)


def _keep_token(tx: Tx, vault: Vault, event: Event, contact: Contact, now: datetime) -> None:
    assert event.token is not None  # noqa: S101 - an OTN opt-in without a token is a broken event
    topic, request_id = _asked_for(tx, event, contact, now)
    tokens.keep(
        tx,
        contact_id=contact.id,
        topic_id=topic.id if topic else None,
        permission_request_id=request_id,
        token_hash=vault.token_hash(event.token),
        ciphertext=vault.seal(event.token.encode()),
        payload=event.payload,
        opted_in_at=event.at,
        expires_at=token_expiry(event.at),
        now=now,
    )


def _asked_for(tx: Tx, event: Event, contact: Contact, now: datetime) -> tuple[Topic | None, int | None]:
    """Topic and request that an opt-in answers; a payload that is not ours leaves the topic open."""
    named = topic_in(event.payload)
    if named is None:
        return None, None
    name, request_id = named
    if request_id is not None and not requests.belongs_to(tx, request_id, contact.id):
        request_id = None
    return topics.use(tx, name, now), request_id


def _settle_by_echo(tx: Tx, _vault: Vault, event: Event, contact: Contact, now: datetime) -> None:
    """Whatever we put into `metadata` comes back in the echo: proof that the message went out (ECHO)."""
    if not event.metadata or not event.metadata.startswith("otn:"):
        return
    if found := deliveries.sent_by_echo(tx, contact.id, event.metadata):
        settle_as_sent(tx, found.id, event.mid, now)
    else:
        requests.settle_by_echo(tx, contact.id, event.metadata, event.mid, now)


def _note_read(tx: Tx, _vault: Vault, event: Event, contact: Contact, now: datetime) -> None:
    if event.watermark is not None:
        contacts.mark_read(tx, contact.id, event.watermark)
        deliveries.mark_reached(tx, contact.id, "read_at", event.watermark, now)


def _note_delivery(tx: Tx, _vault: Vault, event: Event, contact: Contact, now: datetime) -> None:
    if event.watermark is not None:
        deliveries.mark_reached(tx, contact.id, "delivered_at", event.watermark, now)


def _note_reply(tx: Tx, _vault: Vault, event: Event, contact: Contact, _now: datetime) -> None:
    """A quick reply is both: a tap, and a message that the person sends."""
    deliveries.mark_answered(tx, "replied_at", [(contact.id, event.at)])
    if event.quick_reply_payload is not None:
        deliveries.mark_answered(tx, "tapped_at", [(contact.id, event.at)])


def _note_tap(tx: Tx, _vault: Vault, event: Event, contact: Contact, _now: datetime) -> None:
    """A postback: whoever taps a button said nothing."""
    deliveries.mark_answered(tx, "tapped_at", [(contact.id, event.at)])


_EFFECTS: dict[EventKind, Callable[[Tx, Vault, Event, Contact, datetime], None]] = {
    EventKind.MESSAGE: _note_reply,
    EventKind.POSTBACK: _note_tap,
    EventKind.OPTIN_OTN: _keep_token,
    EventKind.ECHO: _settle_by_echo,
    EventKind.READ: _note_read,
    EventKind.DELIVERY: _note_delivery,
}


def _enforce_policy(tx: Tx, event: Event, now: datetime) -> None:
    """Meta warns, blocks or unblocks the page (HOOKS): a blocked page sends nothing until it is unblocked.

    The newest word counts, whatever the order of arrival, and undoes no pause of anybody else's.
    """
    if not inbox.has_newer(tx, event.page_id, event.kind.value, event.at):
        if event.action == "block":
            pages.pause(tx, event.page_id, f"{BLOCKED}: {event.reason or 'no reason given'}", None)
        elif event.action == "unblock":
            pages.resume_after(tx, event.page_id, [BLOCKED, RESTRICTED])
    audit.record(
        tx,
        who="meta",
        action=f"page.{event.action or 'policy'}",
        subject=event.page_id,
        now=now,
        details={"reason": event.reason},
    )
