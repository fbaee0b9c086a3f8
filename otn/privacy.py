"""One person's data: all of it handed out, or forgotten."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from datetime import datetime
from typing import Any

from otn.models import Contact
from otn.store import Tx, audit, contact_facts, contacts, deletions, deliveries, inbox, requests, tokens
from otn.vault import Vault

EVERYTHING = 2**31 - 1  # rows


def request_erasure(tx: Tx, contact: Contact, *, who: str, now: datetime) -> None:
    """Mark a person as one to forget. Nothing new is sent from this commit on; `rasa run` does the rest,
    because the conversation is Rasa's to delete, under the conversation's lock."""
    contacts.request_erasure(tx, contact.id, now)
    audit.record(tx, who=who, action="contact.erase", subject=f"contact {contact.id}", now=now)


def erase(tx: Tx, contact_id: int, now: datetime) -> bool:
    """Destroy tokens, profile, attributes, tags, inbox and words; False while a message to them is on its way.

    Delivery rows stay without what was said, so that sums and uniqueness hold. Events older than the
    wish do not bring the person back; what the person did since it was uttered stays.
    """
    contact = contacts.lock(tx, contact_id)
    if contact.erase_requested_at is None:
        return True
    if deliveries.being_sent(tx, contact_id):
        return False
    deliveries.erase(tx, contact_id, now)
    tokens.erase(tx, contact_id, contact.erase_requested_at)
    requests.erase(tx, contact_id)
    inbox.erase(tx, contact_id, contact.erase_requested_at)
    contact_facts.erase(tx, contact_id)
    contacts.erase(tx, contact, now)
    return True


def export(tx: Tx, vault: Vault, contact: Contact, now: datetime) -> dict[str, Any]:
    """Everything that is kept on a person here, without secrets. The conversation is in Rasa's tracker store."""
    person = asdict(contact)
    contact_id = person.pop("id")
    return {
        "exported_at": now,
        "person": person,
        "tags": sorted(contact_facts.tags_of(tx, [contact_id]).get(contact_id, ())),
        "attributes": contact_facts.attributes_of(tx, [contact_id]).get(contact_id, {}),
        "permissions": [
            asdict(each)
            for each in tokens.every(tx, psid=contact.psid, page_id=contact.page_id, limit=EVERYTHING)
        ],
        "permission_requests": requests.of_contact(tx, contact_id),
        "deliveries": [asdict(each) for each in deliveries.recent(tx, contact_id, EVERYTHING)],
        "events": [
            {**each, "event": _opened(vault, sealed)} for each, sealed in inbox.of_contact(tx, contact_id)
        ],
        "changes": [
            asdict(each) for each in audit.recent(tx, subject=f"contact {contact_id}", limit=EVERYTHING)
        ],
    }


def _opened(vault: Vault, sealed: bytes | None) -> Any:
    """What Meta told, as far as it can be shown."""
    if sealed is None:
        return None
    try:
        return json.loads(vault.open(sealed))
    except ValueError:
        return None


def record_deletion_request(tx: Tx, vault: Vault, app_scoped_id: str, now: datetime) -> str:
    """Record that somebody asked Meta to have their data deleted; the confirmation code, the same every time.

    Meta names the person by an id of its own (app-scoped) that leads to no psid, and so to no conversation:
    kept is a keyed hash of it, which tells only that the same person asks again.
    """
    return deletions.record(tx, secrets.token_hex(12), vault.user_hash(app_scoped_id), now)
