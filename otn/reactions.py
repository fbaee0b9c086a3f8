"""What one answer of Meta says about the whole page, or about the person, written down."""

from __future__ import annotations

from datetime import datetime

from otn.errors import SendError
from otn.models import Route
from otn.policy import pause_for, undeliverable_for
from otn.store import Tx, audit, contacts, pages


def affect_page_and_person(
    tx: Tx,
    page_id: str,
    contact_id: int,
    error: SendError,
    now: datetime,
    *,
    route: Route = Route.WINDOW,
    asked_at: datetime | None = None,
) -> None:
    """Pause the page, or mark the person as unreachable, if that is what the error says.

    `asked_at`: when the message was sent; who has written since can be reached.
    """
    if pause := pause_for(error, route):
        pages.pause(tx, page_id, pause.reason, now + pause.wait if pause.wait else None)
        audit.record(
            tx, who="meta", action="page.pause", subject=page_id, now=now, details={"reason": pause.reason}
        )
    if reason := undeliverable_for(error):
        contacts.mark_undeliverable(tx, contact_id, reason, asked_at=asked_at)
