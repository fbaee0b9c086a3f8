"""Forgetting one person."""

from __future__ import annotations

import secrets
from datetime import datetime

from otn.models import Contact
from otn.store import Tx, audit, contact_facts, contacts, deletions, deliveries, inbox, requests, tokens
from otn.vault import Vault


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


def record_deletion_request(tx: Tx, vault: Vault, app_scoped_id: str, now: datetime) -> str:
    """Record that somebody asked Meta to have their data deleted; the confirmation code, the same every time.

    Meta names the person by an id of its own (app-scoped) that leads to no psid, and so to no conversation:
    kept is a keyed hash of it, which tells only that the same person asks again.
    """
    return deletions.record(tx, secrets.token_hex(12), vault.user_hash(app_scoped_id), now)
