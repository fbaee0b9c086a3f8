"""Table `page`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.models import Page
from otn.store.engine import Tx
from otn.store.schema import page
from otn.store.statements import insert_if_new

COLUMNS = tuple(page.c[name] for name in Page.__dataclass_fields__)
_BY_ID = sa.select(*COLUMNS).where(page.c.page_id == sa.bindparam("page"))


def ensure(tx: Tx, page_id: str, now: datetime, name: str | None = None) -> Page:
    """The page's row, made on first sight; a name given replaces the old one."""
    found = find(tx, page_id)
    if found is not None and (name is None or name == found.name):
        return found
    if found is None:
        insert_if_new(tx, page, {"page_id": page_id, "name": name, "created_at": now}, ["page_id"])
    else:
        tx.execute(page.update().where(page.c.page_id == page_id).values(name=name))
    return find(tx, page_id) or Page(page_id=page_id, name=name)


def find(tx: Tx, page_id: str) -> Page | None:
    """The page, if it is known."""
    row = tx.execute(_BY_ID, {"page": page_id}).one_or_none()
    return Page(**row._mapping) if row else None


def every(tx: Tx) -> list[Page]:
    """All pages, by id."""
    return [Page(**row._mapping) for row in tx.execute(sa.select(*COLUMNS).order_by(page.c.page_id))]


def paused(now: datetime) -> Any:
    """The condition that nothing may leave a page, as `policy.pause_of` has it, for a query over table `page`."""
    endless = page.c.paused_until.is_(None)
    by_us = page.c.paused_reason.isnot(None) & (endless | (page.c.paused_until > now))
    return page.c.blocked_reason.isnot(None) | by_us


def block(tx: Tx, page_id: str, reason: str) -> None:
    """Meta has blocked the page: nothing leaves it until Meta unblocks it, whatever we pause and resume meanwhile."""
    tx.execute(page.update().where(page.c.page_id == page_id).values(blocked_reason=reason))


def unblock(tx: Tx, page_id: str) -> None:
    """Meta has unblocked the page; our own pauses stay."""
    tx.execute(page.update().where(page.c.page_id == page_id).values(blocked_reason=None))


def pause(tx: Tx, page_id: str, reason: str, until: datetime | None) -> bool:
    """Let nothing leave the page, until a time or until resumed. Of two pauses the longer one stays.

    False if a longer one was there, or no such page.
    """
    paused, endless = page.c.paused_reason.isnot(None), page.c.paused_until.is_(None)
    longer = paused & (endless if until is None else endless | (page.c.paused_until >= until))
    values = {"paused_reason": reason, "paused_until": until}
    return bool(tx.execute(page.update().where(page.c.page_id == page_id, ~longer).values(**values)).rowcount)


def resume_after(tx: Tx, page_id: str, reasons: Sequence[str]) -> bool:
    """End a pause whose reason begins like one of these; False if the page is not paused for any of them."""
    ours = sa.or_(*(page.c.paused_reason.startswith(reason, autoescape=True) for reason in reasons))
    ended = page.update().where(page.c.page_id == page_id, ours)
    return bool(tx.execute(ended.values(paused_reason=None, paused_until=None)).rowcount)


def resume(tx: Tx, page_id: str, *, unblock: bool = True) -> bool:
    """Let messages leave the page again, permission requests included; False if there is no such page.

    Without `unblock`, a block of Meta's stays, also one that was made a moment ago.
    """
    cleared = dict.fromkeys(("paused_reason", "paused_until", "otn_denied_reason"))
    if unblock:
        cleared["blocked_reason"] = None
    return bool(tx.execute(page.update().where(page.c.page_id == page_id).values(**cleared)).rowcount)


def deny_otn(tx: Tx, page_id: str, reason: str) -> None:
    """Remember that Meta lets this page send no permission requests."""
    tx.execute(page.update().where(page.c.page_id == page_id).values(otn_denied_reason=reason))


def set_time_zone(tx: Tx, page_id: str, name: str | None) -> bool:
    """The local time of people who told us none; False if there is no such page."""
    return bool(tx.execute(page.update().where(page.c.page_id == page_id).values(time_zone=name)).rowcount)
