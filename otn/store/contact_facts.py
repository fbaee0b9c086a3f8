"""Tables `contact_attribute` and `contact_tag`: what the shop knows of a person, read for many at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from otn.store.engine import Tx
from otn.store.schema import contact_attribute, contact_tag
from otn.store.statements import insert_new

_ATTRIBUTES = sa.select(
    contact_attribute.c.contact_id, contact_attribute.c.name, contact_attribute.c.value
).where(contact_attribute.c.contact_id.in_(sa.bindparam("contacts", expanding=True)))
_NAMED = _ATTRIBUTES.where(contact_attribute.c.name.in_(sa.bindparam("names", expanding=True)))
_TAGS = sa.select(contact_tag.c.contact_id, contact_tag.c.tag).where(
    contact_tag.c.contact_id.in_(sa.bindparam("contacts", expanding=True))
)

_FORGET = contact_attribute.delete().where(
    contact_attribute.c.contact_id == sa.bindparam("of"), contact_attribute.c.name == sa.bindparam("called")
)
ROWS = 500  # a statement


def attributes_of(
    tx: Tx, contact_ids: Sequence[int], names: Collection[str] | None = None
) -> dict[int, dict[str, str]]:
    """The attributes of these people: those with these names, or all."""
    found: dict[int, dict[str, str]] = {}
    if contact_ids:
        query = _ATTRIBUTES if names is None else _NAMED
        values = {"contacts": list(contact_ids), **({} if names is None else {"names": list(names)})}
        for row in tx.execute(query, values):
            found.setdefault(row.contact_id, {})[row.name] = row.value
    return found


def tags_of(tx: Tx, contact_ids: Sequence[int]) -> dict[int, set[str]]:
    """The tags of these people."""
    found: dict[int, set[str]] = {}
    if contact_ids:
        for row in tx.execute(_TAGS, {"contacts": list(contact_ids)}):
            found.setdefault(row.contact_id, set()).add(row.tag)
    return found


def tag(tx: Tx, contact_id: int, tags: Collection[str]) -> None:
    """Add tags; one that is there stays."""
    tag_all(tx, [(contact_id, each) for each in tags])


def tag_all(tx: Tx, tags: Sequence[tuple[int, str]]) -> None:
    """Add tags to several people."""
    key = ("contact_id", "tag")
    for first in range(0, len(tags), ROWS):
        insert_new(tx, contact_tag, key, tags[first : first + ROWS], key)


def untag(tx: Tx, contact_id: int, tags: Collection[str]) -> None:
    """Take tags away; one that is not there is no matter."""
    tx.execute(
        contact_tag.delete().where(contact_tag.c.contact_id == contact_id, contact_tag.c.tag.in_(list(tags)))
    )


def set_attributes(tx: Tx, contact_id: int, values: Mapping[str, str | None]) -> None:
    """Give attributes these values; None takes one away."""
    set_all(tx, {(contact_id, name): value for name, value in values.items()})


def set_all(tx: Tx, values: Mapping[tuple[int, str], str | None]) -> None:
    """Give attributes of several people, by person and name, these values; None takes one away."""
    if values:
        tx.execute(_FORGET, [{"of": contact_id, "called": name} for contact_id, name in values])
    rows = [(*key, value) for key, value in values.items() if value is not None]
    for first in range(0, len(rows), ROWS):
        names = ("contact_id", "name", "value")
        insert_new(tx, contact_attribute, names, rows[first : first + ROWS], names[:2])


def erase(tx: Tx, contact_id: int) -> None:
    """Forget what is known of this person."""
    for table in (contact_attribute, contact_tag):
        tx.execute(table.delete().where(table.c.contact_id == contact_id))
