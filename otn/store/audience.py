"""The conditions of `otn.audience` in SQL; a test holds the two against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from otn.audience import Conditions, from_json
from otn.models import Broadcast, DeliveryState, TokenState
from otn.store.schema import (
    broadcast_psid,
    contact,
    contact_attribute,
    contact_tag,
    delivery,
    otn_token,
)


def conditions(planned: Broadcast, topic_ids: Sequence[int]) -> list[Any]:
    """What a row of `contact` has to fulfil to be meant; the tokens that count are those of these topics."""
    audience = from_json(planned.audience)
    included = _met(audience.include, planned.id, topic_ids, excluded=False)
    excluded = _met(audience.exclude, planned.id, topic_ids, excluded=True)
    return [*included, *(sa.not_(sa.func.coalesce(each, sa.false())) for each in excluded)]


def _met(wanted: Conditions, broadcast_id: int, topic_ids: Sequence[int], *, excluded: bool) -> Iterator[Any]:
    """An SQL condition for each that is set."""
    for column, values in (
        (contact.c.page_id, wanted.pages),
        (contact.c.locale, wanted.locales),
        (contact.c.timezone, wanted.time_zones),
    ):
        if values:
            yield column.in_(values)
    if wanted.tags:
        yield _of_contact(contact_tag, contact_tag.c.tag.in_(wanted.tags))
    if wanted.attributes:
        name, value = contact_attribute.c.name, contact_attribute.c.value
        yield _of_contact(
            contact_attribute,
            sa.or_(*((name == key) & (value == wanted_value) for key, wanted_value in wanted.attributes)),
        )
    yield from _times(wanted, topic_ids)
    if wanted.listed:
        yield sa.exists().where(
            broadcast_psid.c.broadcast_id == broadcast_id,
            broadcast_psid.c.is_excluded == excluded,
            broadcast_psid.c.psid == contact.c.psid,
        )


def _times(wanted: Conditions, topic_ids: Sequence[int]) -> Iterator[Any]:
    active, given = contact.c.window_opened_at, otn_token.c.opted_in_at
    if wanted.active_since:
        yield active.isnot(None) & (active >= wanted.active_since)
    if wanted.active_before:
        yield active.is_(None) | (active < wanted.active_before)
    available = otn_token.c.topic_id.in_(topic_ids) & (otn_token.c.state == TokenState.AVAILABLE.value)
    if wanted.opted_in_since:
        yield _of_contact(otn_token, available & (given >= wanted.opted_in_since))
    if wanted.opted_in_before:
        yield _of_contact(otn_token, available & (given < wanted.opted_in_before))
    if wanted.messaged_since:
        sent = delivery.c.state == DeliveryState.SENT.value
        yield _of_contact(delivery, sent & (delivery.c.settled_at >= wanted.messaged_since))


def _of_contact(table: sa.Table, condition: Any) -> Any:
    # The query around it may read the same table for a reason of its own.
    return sa.exists().where(table.c.contact_id == contact.c.id, condition).correlate(contact)
