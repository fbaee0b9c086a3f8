"""Table `contact`: who may be written to, and the messaging window of each."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.errors import NotFound
from otn.events import WindowOpening
from otn.models import Contact, Page
from otn.store import pages
from otn.store.engine import Source, Tx
from otn.store.schema import contact, page
from otn.store.statements import Lookup, insert_new, made_of

COLUMNS = tuple(contact.c[name] for name in Contact.__dataclass_fields__)
"""What a Contact is made of."""

# Built once, since every event and every reply asks: building takes longer than running.
_ON_PAGE = sa.select(*COLUMNS).where(
    contact.c.page_id == sa.bindparam("page"), contact.c.psid == sa.bindparam("person")
)
_WITH_PAGE = Lookup(
    sa.select(*COLUMNS, *pages.COLUMNS)
    .select_from(contact.join(page, page.c.page_id == contact.c.page_id))
    .where(contact.c.page_id == sa.bindparam("page"), contact.c.psid == sa.bindparam("person"))
)
# Nobody changes a person's id: whoever only refers to it (FOR KEY SHARE, as a foreign key does) need not wait.
_SEVERAL_LOCKED = (
    sa.select(*COLUMNS)
    .where(contact.c.page_id == sa.bindparam("page"))
    .where(contact.c.psid.in_(sa.bindparam("people", expanding=True)))
    .order_by(contact.c.id)
    .with_for_update(key_share=True)
)
_ON_ANY_PAGE = sa.select(*COLUMNS).where(contact.c.psid == sa.bindparam("person")).order_by(contact.c.page_id)
_THIS = contact.c.id == sa.bindparam("contact")
_BY_ID = sa.select(*COLUMNS).where(_THIS)
_FOUND = Lookup(_BY_ID)
_LOCKED = _BY_ID.with_for_update(key_share=True)
_AT = sa.bindparam("at", type_=contact.c.last_message_at.type)
_UNTIL = sa.bindparam("until", type_=contact.c.window_until.type)
_OPENED = {
    contact.c.window_opened_at: _AT,
    contact.c.window_opened_by: sa.bindparam("opened_by"),
    contact.c.window_until: _UNTIL,
}
_IS_LONGER = contact.c.window_until.is_(None) | (contact.c.window_until < _UNTIL)
_OPEN_WINDOW = contact.update().where(_THIS, _IS_LONGER).values(_OPENED)
_IS_LAST_MESSAGE = contact.c.last_message_at.is_(None) | (contact.c.last_message_at < _AT)
# A message does both, each by a condition of its own.
_OPEN_WINDOW_BY_MESSAGE = (
    contact.update()
    .where(_THIS, _IS_LONGER | _IS_LAST_MESSAGE)
    .values({column: sa.case((_IS_LONGER, value), else_=column) for column, value in _OPENED.items()})
    .values(last_message_at=sa.case((_IS_LAST_MESSAGE, _AT), else_=contact.c.last_message_at))
)


def ensure(tx: Tx, page_id: str, psid: str, now: datetime) -> Contact:
    """The contact's row, made on first sight, locked until the transaction ends."""
    return ensure_all(tx, page_id, [psid], now)[psid]


def ensure_all(tx: Tx, page_id: str, psids: Collection[str], now: datetime) -> dict[str, Contact]:
    """The contacts' rows by psid, made on first sight, locked until the transaction ends.

    Locked, so that what a person did does not slip past an erasure that is being carried out; all in one
    order, so that two transactions that need the same people wait for each other instead of in a circle.
    """
    found = _locked(tx, page_id, psids)
    if strangers := sorted(set(psids) - found.keys()):
        rows = [(page_id, psid, now) for psid in strangers]
        new = insert_new(tx, contact, ("page_id", "psid", "created_at"), rows, ["page_id", "psid"])
        for (_page, psid), contact_id in new.items():
            found[psid] = Contact(id=contact_id, page_id=page_id, psid=psid)
        found |= _locked(tx, page_id, set(strangers) - found.keys())  # somebody else was quicker
    return found


def _locked(tx: Tx, page_id: str, psids: Collection[str]) -> dict[str, Contact]:
    if not psids:
        return {}
    rows = tx.execute(_SEVERAL_LOCKED, {"page": page_id, "people": list(psids)})
    return {row.psid: Contact(**row._mapping) for row in rows}


def find(tx: Tx, page_id: str, psid: str) -> Contact | None:
    """The person on this page, if known."""
    return _one(tx, _ON_PAGE, {"page": page_id, "person": psid})


def with_page(where: Source, page_id: str, psid: str) -> tuple[Contact, Page] | None:
    """The person on this page, if known, and the page."""
    for row in _WITH_PAGE.rows(where, page=page_id, person=psid):
        return made_of(Contact, row[: len(COLUMNS)]), made_of(Page, row[len(COLUMNS) :])
    return None


def get(tx: Tx, contact_id: int) -> Contact:
    """The contact with this id. Raises NotFound."""
    for row in _FOUND.rows(tx, contact=contact_id):
        return made_of(Contact, row)
    raise NotFound(f"there is no contact {contact_id}")


def several(tx: Tx, contact_ids: Sequence[int]) -> list[Contact]:
    """The contacts with these ids."""
    query = sa.select(*COLUMNS).where(contact.c.id.in_(contact_ids))
    return [Contact(**row._mapping) for row in tx.execute(query)]


def lock(tx: Tx, contact_id: int) -> Contact:
    """The contact, locked until the transaction ends: decisions about one person are taken one by one."""
    return Contact(**tx.execute(_LOCKED, {"contact": contact_id}).one()._mapping)


def with_psids(tx: Tx, psids: Collection[str]) -> list[Contact]:
    """The people with these psids, on whichever Page."""
    query = sa.select(*COLUMNS).where(contact.c.psid.in_(list(psids)))
    return [Contact(**row._mapping) for row in tx.execute(query)]


def lock_free(tx: Tx, contact_ids: Collection[int]) -> list[Contact]:
    """Those of these people whom nobody else has locked, locked: nobody waits here, so nobody waits in a circle."""
    query = sa.select(*COLUMNS).where(contact.c.id.in_(list(contact_ids))).order_by(contact.c.id)
    return [
        Contact(**row._mapping) for row in tx.execute(query.with_for_update(key_share=True, skip_locked=True))
    ]


def by_psid(tx: Tx, psid: str, page_id: str | None = None) -> Contact | None:
    """The person with this psid, on the named page or on the only page that knows them.

    Raises NotFound, with their ids, if several pages know this psid and none was named.
    """
    if page_id is not None:
        return find(tx, page_id, psid)
    rows = tx.execute(_ON_ANY_PAGE, {"person": psid}).all()
    if len(rows) > 1:
        known = ", ".join(row.page_id for row in rows)
        raise NotFound(f"psid {psid} is known on several pages ({known}); name one with --page")
    return Contact(**rows[0]._mapping) if rows else None


def every(tx: Tx, *, page_id: str | None = None, after: int = 0, limit: int = 100) -> list[Contact]:
    """Contacts by id, a page of them at a time."""
    query = sa.select(*COLUMNS).where(contact.c.id > after).order_by(contact.c.id).limit(limit)
    if page_id is not None:
        query = query.where(contact.c.page_id == page_id)
    return [Contact(**row._mapping) for row in tx.execute(query)]


_MESSAGES = {WindowOpening.MESSAGE.value, WindowOpening.AD.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Something that a person did, which opens the window."""

    contact_id: int
    opened_by: str
    at: datetime
    until: datetime


def open_windows(tx: Tx, openings: Sequence[Opening]) -> None:
    """Open windows, or lengthen them. An older event never shortens one: events arrive out of order.

    Only messages count as the last message, from which a person may answer by hand for seven days (POLICY).
    """
    alike: dict[bool, list[dict[str, Any]]] = {}
    for each in openings:
        row = {"contact": each.contact_id, "at": each.at, "opened_by": each.opened_by, "until": each.until}
        alike.setdefault(each.opened_by in _MESSAGES, []).append(row)
    for by_message, rows in alike.items():
        tx.execute(_OPEN_WINDOW_BY_MESSAGE if by_message else _OPEN_WINDOW, rows)


def close_window(tx: Tx, contact_id: int, at: datetime, *, asked_at: datetime | None = None) -> None:
    """Believe Meta when it says that the window is closed; not what was opened after we asked (`asked_at`)."""
    tx.execute(
        contact.update()
        .where(contact.c.id == contact_id, contact.c.window_until > at)
        .where(contact.c.window_opened_at <= (asked_at or at))
        .values(window_until=at)
    )


def mark_read(tx: Tx, contact_id: int, at: datetime) -> None:
    """Remember how far the person has read."""
    tx.execute(_later(contact.c.read_at), {"contact": contact_id, "at": at})


@functools.cache
def _later(column: sa.Column[datetime]) -> Any:
    at = sa.bindparam("at", type_=column.type)
    return contact.update().where(_THIS, column.is_(None) | (column < at)).values({column: at})


def mark_undeliverable(
    tx: Tx, contact_id: int, reason: str | None, *, asked_at: datetime | None = None
) -> None:
    """Remember that messages can't reach this person; None: they can again.

    Whoever wrote to us after we asked (`asked_at`) can be reached.
    """
    query = contact.update().where(contact.c.id == contact_id)
    if asked_at is not None:
        query = query.where(contact.c.window_opened_at.is_(None) | (contact.c.window_opened_at <= asked_at))
    tx.execute(query.values(undeliverable_reason=reason))


def keep_profile(tx: Tx, contact_id: int, profile: Mapping[str, str], asked_at: datetime) -> None:
    """Keep what Graph told of a person when it was asked; nothing of one who wanted to be forgotten since."""
    not_since = contact.c.erased_at.is_(None) | (contact.c.erased_at < asked_at)
    tx.execute(
        contact.update()
        .where(contact.c.id == contact_id, contact.c.erase_requested_at.is_(None), not_since)
        .values(profile_asked_at=asked_at, **profile)
    )


def set_profiles(tx: Tx, profiles: Mapping[int, Mapping[str, str | None]]) -> None:
    """Set what is given of these people's profiles: first_name, last_name, locale, timezone."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for contact_id, profile in profiles.items():
        row = {"of": contact_id, **{f"new_{name}": value for name, value in profile.items()}}
        alike.setdefault(tuple(profile), []).append(row)
    for names, rows in alike.items():
        values = {name: sa.bindparam(f"new_{name}") for name in names}
        tx.execute(contact.update().where(contact.c.id == sa.bindparam("of")).values(values), rows)


def do_not_ask_before(tx: Tx, contact_id: int, until: datetime) -> None:
    """Remember that Meta asked us not to send this person permission requests for a while."""
    tx.execute(contact.update().where(contact.c.id == contact_id).values(do_not_ask_until=until))


def request_erasure(tx: Tx, contact_id: int, now: datetime) -> None:
    """Mark the person as one who wants to be forgotten: from this commit on, nothing new is sent.

    Who asks again means everything up to now.
    """
    tx.execute(
        contact.update()
        .where(contact.c.id == contact_id)
        .where(contact.c.erase_requested_at.is_(None) | (contact.c.erase_requested_at < now))
        .values(erase_requested_at=now)
    )


def to_erase(tx: Tx, limit: int = 20) -> list[Contact]:
    """People who are marked and not yet erased."""
    query = sa.select(*COLUMNS).where(contact.c.erase_requested_at.isnot(None)).limit(limit)
    return [Contact(**row._mapping) for row in tx.execute(query)]


def erase(tx: Tx, person: Contact, now: datetime) -> None:
    """Forget everything about the person but the row that keeps sums and uniqueness.

    What they did after asking to be forgotten is theirs to have done: a window opened since stays open.
    """
    keep = {"id", "page_id", "psid", "created_at", "turn_owner", "turn_lease_until", "undeliverable_reason"}
    asked_at = person.erase_requested_at or now
    if any(at is not None and at > asked_at for at in (person.window_opened_at, person.last_message_at)):
        keep |= {"window_opened_at", "window_opened_by", "window_until", "last_message_at"}
    values: dict[str, object] = {column.name: None for column in contact.c if column.name not in keep}
    values["erased_at"] = asked_at
    tx.execute(contact.update().where(contact.c.id == person.id).values(**values))


def _one(tx: Tx, query: Any, values: dict[str, Any]) -> Contact | None:
    row = tx.execute(query, values).one_or_none()
    return Contact(**row._mapping) if row else None
