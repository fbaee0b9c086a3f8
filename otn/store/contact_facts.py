"""Tables `contact_attribute` and `contact_tag`, read for many people at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from otn.store.engine import Tx
from otn.store.schema import contact_attribute

_ATTRIBUTES = (
    sa.select(contact_attribute.c.contact_id, contact_attribute.c.name, contact_attribute.c.value)
    .where(contact_attribute.c.contact_id.in_(sa.bindparam("contacts", expanding=True)))
    .where(contact_attribute.c.name.in_(sa.bindparam("names", expanding=True)))
)


def attributes_of(tx: Tx, contact_ids: Sequence[int], names: Collection[str]) -> dict[int, dict[str, str]]:
    """These attributes of these people."""
    found: dict[int, dict[str, str]] = {}
    if contact_ids:
        for row in tx.execute(_ATTRIBUTES, {"contacts": list(contact_ids), "names": list(names)}):
            found.setdefault(row.contact_id, {})[row.name] = row.value
    return found
