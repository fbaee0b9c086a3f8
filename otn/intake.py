"""An event arrives: record it, once, together with everything that follows from it.

The inbox row and its effects (window, token, echo, receipts) are one transaction, so that a 200 means
that nothing in the body can be lost, and a re-delivery changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from otn.asking import topic_in
from otn.delivery import settle_as_sent
from otn.events import Event, EventKind, opens_window, restore
from otn.models import Contact, InboxState
from otn.policy import BLOCKED, RESTRICTED, token_expiry, window_until
from otn.store import Tx, audit, contacts, deliveries, inbox, keys, pages, receipts, requests, tokens, topics
from otn.store.contacts import Opening
from otn.store.inbox import NewEvent
from otn.store.tokens import NewToken
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


class SealedToken(NamedTuple):
    """A token as it is kept, and the hash that tells it from others."""

    ciphertext: bytes
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """An event that is ready to be recorded: what nobody may read is encrypted."""

    event: Event
    raw: bytes = field(repr=False)
    token: SealedToken | None = field(default=None, repr=False)  # of an OTN opt-in


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """An event, whose doing it is, and what the inbox is to call it."""

    sealed: Sealed
    contact: Contact | None
    state: InboxState

    @property
    def event(self) -> Event:
        return self.sealed.event


def seal(vault: Vault, events: Iterable[Event]) -> list[Sealed]:
    """Make events ready to be recorded. Before the transaction, for which others wait: it takes as long."""
    return [
        Sealed(event=event, raw=vault.seal(event.raw), token=_sealed_token(vault, event)) for event in events
    ]


def record(
    tx: Tx, vault: Vault, events: Sequence[Sealed], *, own_pages: Collection[str], now: datetime
) -> list[Recorded]:
    """Record events and their effects, all with the same few statements; what became of each, in order.

    Run it in a SAVEPOINT: if it raises, nothing of it may stay. One event at a time then shows which is to
    blame, and costs its neighbours nothing. At most a few hundred at once.
    """
    people = _people(tx, [each.event for each in events if _is_ours(each.event, own_pages)], now)
    drafts = [_draft(sealed, people, own_pages) for sealed in events]
    new = _insert(tx, vault, drafts, now)
    recorded, effective = [], []
    for draft in drafts:
        key = (draft.event.page_id, draft.event.key)
        is_new = draft.state is not InboxState.IGNORED and key in new
        if is_new:
            del new[key]  # told twice at once, it is new once
            effective.append(draft)
        recorded.append(_recorded(draft, is_new=is_new))
    _take_effect(tx, effective, now)
    return recorded


def record_broken(tx: Tx, vault: Vault, event: Event, why: str, now: datetime) -> Recorded:
    """Keep an event whose recording failed, so that somebody can look at it; of an opt-in the token too."""
    contact = contacts.find(tx, event.page_id, event.psid) if event.psid else None
    (whole,) = seal(vault, [replace(event, raw=_with_token(event), broken=why)])
    draft = _Draft(sealed=whole, contact=contact, state=_state(event, contact, InboxState.BROKEN))
    return _recorded(draft, is_new=bool(_insert(tx, vault, [draft], now)))


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


def _sealed_token(vault: Vault, event: Event) -> SealedToken | None:
    if event.kind is not EventKind.OPTIN_OTN:
        return None
    assert event.token is not None  # noqa: S101 - an OTN opt-in without a token is a broken event
    return SealedToken(vault.seal(event.token.encode()), vault.token_hash(event.token))


def _is_ours(event: Event, own_pages: Collection[str]) -> bool:
    return event.page_id in own_pages and event.kind is not EventKind.BROKEN


def _people(tx: Tx, events: Sequence[Event], now: datetime) -> dict[tuple[str, str], Contact]:
    """Whose doing these events are, by Page and psid; the Pages and people we did not know are made."""
    psids: dict[str, set[str]] = {event.page_id: set() for event in events}
    for event in events:
        if event.psid:
            psids[event.page_id].add(event.psid)
    found = {}
    for page_id in sorted(psids):
        pages.ensure(tx, page_id, now)
        for psid, contact in contacts.ensure_all(tx, page_id, psids[page_id], now).items():
            found[page_id, psid] = contact
    return found


def _draft(sealed: Sealed, people: Mapping[tuple[str, str], Contact], own_pages: Collection[str]) -> _Draft:
    event = sealed.event
    if not _is_ours(event, own_pages):
        state = InboxState.BROKEN if event.page_id in own_pages else InboxState.FOREIGN
        return _Draft(sealed=sealed, contact=None, state=state)
    contact = people[event.page_id, event.psid] if event.psid else None
    turn = event.kind in _STARTS_A_TURN and not event.standby and contact is not None
    state = _state(event, contact, InboxState.NEW if turn else InboxState.DONE)
    return _Draft(sealed=sealed, contact=contact, state=state)


def _state(event: Event, contact: Contact | None, otherwise: InboxState) -> InboxState:
    """What happened before an erasure does not bring the person back."""
    forgotten_at = contact and (contact.erase_requested_at or contact.erased_at)
    return InboxState.IGNORED if forgotten_at and event.at <= forgotten_at else otherwise


def _recorded(draft: _Draft, *, is_new: bool) -> Recorded:
    # Known already, it may still wait for its turn, so the caller may as well wake the conversation.
    waits = draft.contact is not None and draft.state is InboxState.NEW
    contact_id = draft.contact.id if draft.contact and waits else None
    return Recorded(state=draft.state, is_new=is_new, contact_id=contact_id)


def _insert(tx: Tx, vault: Vault, drafts: Sequence[_Draft], now: datetime) -> dict[tuple[str, str], int]:
    """Put into the inbox what is not to be ignored; ids by Page and key of what was not there."""
    kept = [draft for draft in drafts if draft.state is not InboxState.IGNORED]
    if kept:
        keys.note_use(tx, vault)
    return inbox.record(
        tx,
        [
            NewEvent(
                page_id=draft.event.page_id,
                event_key=draft.event.key,
                kind=draft.event.kind.value,
                contact_id=draft.contact.id if draft.contact else None,
                event_at=draft.event.at,
                received_at=now,
                raw=draft.sealed.raw,
                standby=draft.event.standby,
                state=draft.state.value,
                error=draft.event.broken,
            )
            for draft in kept
        ],
    )


def _take_effect(tx: Tx, drafts: Sequence[_Draft], now: datetime) -> None:
    done = [(draft.event, draft.contact) for draft in drafts if draft.contact]
    _open_windows(tx, done)
    _keep_tokens(tx, drafts, now)
    for event, contact in done:
        if effect := _EFFECTS.get(event.kind):
            effect(tx, event, contact, now)
    _note_answers(tx, done)  # after the echoes, which may tell what was sent
    for draft in drafts:
        by_meta = draft.event.kind is EventKind.POLICY_ENFORCEMENT and draft.contact is None
        if by_meta and draft.state is not InboxState.FOREIGN:
            _enforce_policy(tx, draft.event, now)


def _open_windows(tx: Tx, done: Sequence[tuple[Event, Contact]]) -> None:
    openings = []
    for event, contact in done:
        if opening := opens_window(event):
            until = window_until(opening, event.at)
            openings.append(Opening(contact_id=contact.id, opened_by=opening.value, at=event.at, until=until))
            if contact.undeliverable_reason:
                contacts.mark_undeliverable(tx, contact.id, None)
    contacts.open_windows(tx, openings)


def _keep_tokens(tx: Tx, drafts: Sequence[_Draft], now: datetime) -> None:
    """Keep the tokens. A payload that is not ours leaves the topic open."""
    taps = [
        (draft.event, draft.contact, draft.sealed.token)
        for draft in drafts
        if draft.contact and draft.sealed.token
    ]
    named = [topic_in(event.payload) or (None, None) for event, _contact, _token in taps]
    found = {name: topics.use(tx, name, now) for name in sorted({name for name, _ in named if name})}
    went_to = requests.went_to(tx, {request for _, request in named if request is not None})
    given = []
    for (event, contact, token), (name, request) in zip(taps, named, strict=True):
        topic = found[name] if name else None
        given.append(
            NewToken(
                contact_id=contact.id,
                topic_id=topic.id if topic else None,
                permission_request_id=request if request and went_to.get(request) == contact.id else None,
                token_hash=token.hash,
                ciphertext=token.ciphertext,
                payload=event.payload,
                opted_in_at=event.at,
                expires_at=token_expiry(event.at),
                created_at=now,
            )
        )
    tokens.keep(tx, given)


def _note_answers(tx: Tx, done: Sequence[tuple[Event, Contact]]) -> None:
    """A quick reply is a tap and a message that the person sends; whoever taps a button (a postback) said nothing."""
    replies = [one for one in done if one[0].kind is EventKind.MESSAGE]
    taps = [one for one in replies if one[0].quick_reply_payload is not None]
    taps += [one for one in done if one[0].kind is EventKind.POSTBACK]
    for column, answers in (("replied_at", replies), ("tapped_at", taps)):
        receipts.mark_answered(tx, column, [(contact.id, event.at) for event, contact in answers])


def _settle_by_echo(tx: Tx, event: Event, contact: Contact, now: datetime) -> None:
    """Whatever we put into `metadata` comes back in the echo: proof that the message went out (ECHO)."""
    if not event.metadata or not event.metadata.startswith("otn:"):
        return
    if found := deliveries.sent_by_echo(tx, contact.id, event.metadata):
        settle_as_sent(tx, found.id, event.mid, now)
    else:
        requests.settle_by_echo(tx, contact.id, event.metadata, event.mid, now)


def _note_read(tx: Tx, event: Event, contact: Contact, now: datetime) -> None:
    if event.watermark is not None:
        contacts.mark_read(tx, contact.id, event.watermark)
        receipts.mark_reached(tx, contact.id, "read_at", event.watermark, now)


def _note_delivery(tx: Tx, event: Event, contact: Contact, now: datetime) -> None:
    if event.watermark is not None:
        receipts.mark_reached(tx, contact.id, "delivered_at", event.watermark, now)


_EFFECTS: dict[EventKind, Callable[[Tx, Event, Contact, datetime], None]] = {
    EventKind.ECHO: _settle_by_echo,
    EventKind.READ: _note_read,
    EventKind.DELIVERY: _note_delivery,
}


def _enforce_policy(tx: Tx, event: Event, now: datetime) -> None:
    """Meta warns, blocks or unblocks the page (HOOKS): a blocked page sends nothing until it is unblocked.

    The newest word counts, whatever the order of arrival, and neither ends nor hides a pause of anybody else's.
    """
    if not inbox.has_newer(tx, event.page_id, event.kind.value, event.at):
        if event.action == "block":
            pages.block(tx, event.page_id, f"{BLOCKED}: {event.reason or 'no reason given'}")
        elif event.action == "unblock":
            pages.unblock(tx, event.page_id)
            pages.resume_after(tx, event.page_id, [RESTRICTED])
    audit.record(
        tx,
        who="meta",
        action=f"page.{event.action or 'policy'}",
        subject=event.page_id,
        now=now,
        details={"reason": event.reason},
    )
