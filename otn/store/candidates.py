"""Whom a broadcast could be meant for: who ever gave a permission or has an open window, and what is known of them.

Along an index and a few hundred at a time, so that a million people need no more memory than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.audience import Facts
from otn.models import Broadcast, Contact, DeliveryState, TokenCount, TokenState
from otn.store import contact_facts, contacts, tokens
from otn.store.broadcasts import covered_by, topic_ids
from otn.store.engine import Tx
from otn.store.members import end_of_look
from otn.store.schema import broadcast_psid, contact, delivery, otn_token, topic
from otn.store.tokens import TokenRow

_given = otn_token.alias("given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far the candidates are read: topic by topic and person by person, then on through open windows."""

    topic: int = 0
    contact: int = 0
    windows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A person, their tokens of the broadcast's topics, and what its conditions may ask for."""

    contact: Contact
    tokens: TokenCount
    facts: Facts


def next_ids(
    tx: Tx, planned: Broadcast, place: Place, now: datetime, *, window_too: bool, limit: int
) -> tuple[list[int], Place | None]:
    """The next candidates' contact ids, and the place after them: None at the end.

    May find nobody and still not be the end, so that one look stays short.
    """
    ids = topic_ids(tx, planned.topic)
    found: list[int] = []
    if not place.windows:
        for topic_id in (each for each in ids if each >= place.topic):
            after = place.contact if topic_id == place.topic else 0
            found += _with_permission(tx, planned, topic_id, after, limit - len(found))
            if len(found) == limit:
                return found, Place(topic=topic_id, contact=found[-1])
        return found, Place(windows=True) if window_too else None
    return _with_window_only(tx, planned, ids, place.contact, now, limit)


def look_at(tx: Tx, planned: Broadcast, contact_ids: Sequence[int], now: datetime) -> list[Candidate]:
    """What is known of these people, in the same order."""
    ids = topic_ids(tx, planned.topic)
    people = {each.id: each for each in contacts.several(tx, contact_ids)}
    held = tokens.of_contacts(tx, contact_ids, ids)
    known = _Known.of(tx, planned, contact_ids)
    return [
        Candidate(
            contact=people[each],
            tokens=tokens.counted([row for row in held.get(each, []) if _counts(row, planned)], now),
            facts=known.facts(people[each], held.get(each, [])),
        )
        for each in contact_ids
    ]


def permissions(planned: Broadcast, ids: Sequence[int], token: Any = otn_token) -> list[Any]:
    """What a row of `otn_token` has to fulfil to count: of these topics, and not given after the freezing began."""
    return [token.c.topic_id.in_(ids), *_up_to_watermark(planned, token)]


def gave_one(planned: Broadcast, ids: Sequence[int]) -> Any:
    """Whether the person of a row of `contact` ever gave such a permission, and was not erased since."""
    return sa.exists().where(
        _given.c.contact_id == contact.c.id, *permissions(planned, ids, _given), _not_erased_since(_given)
    )


def _up_to_watermark(planned: Broadcast, token: Any) -> list[Any]:
    return [] if planned.watermark is None else [token.c.id <= planned.watermark]


def _not_erased_since(token: Any) -> Any:
    return contact.c.erased_at.is_(None) | (token.c.opted_in_at > contact.c.erased_at)


def _counts(row: TokenRow, planned: Broadcast) -> bool:
    return planned.watermark is None or row.id <= planned.watermark


def _with_permission(tx: Tx, planned: Broadcast, topic_id: int, after: int, limit: int) -> list[int]:
    """People with a permission of this topic, and of none before it."""
    query = (
        sa.select(otn_token.c.contact_id)
        .select_from(otn_token.join(contact, contact.c.id == otn_token.c.contact_id))
        .where(*permissions(planned, [topic_id]), otn_token.c.contact_id > after)
        .where(_not_erased_since(otn_token))
        .distinct()
        .order_by(otn_token.c.contact_id)
        .limit(limit)
    )
    if planned.topic.endswith("*"):
        query = query.where(~_gave_an_earlier_one(planned, topic_id))
    return list(tx.execute(query).scalars())


def _gave_an_earlier_one(planned: Broadcast, topic_id: int) -> Any:
    """Whether the person gave a permission of a topic before this one. A family may have thousands."""
    earlier = topic.c.id < topic_id
    return (
        sa.exists()
        .select_from(_given.join(topic, topic.c.id == _given.c.topic_id))
        .where(_given.c.contact_id == contact.c.id, earlier, covered_by(planned.topic))
        .where(*_up_to_watermark(planned, _given), _not_erased_since(_given))
        .correlate(contact)
    )


def _with_window_only(
    tx: Tx, planned: Broadcast, ids: Sequence[int], after: int, now: datetime, limit: int
) -> tuple[list[int], Place | None]:
    """People of the next stretch of the table whose window is open, and who gave no permission."""
    end = end_of_look(tx, after)
    if end is None:
        return [], None
    query = (
        sa.select(contact.c.id)
        .where(contact.c.id > after, contact.c.id <= end, contact.c.window_until > now)
        .where(~gave_one(planned, ids))
        .order_by(contact.c.id)
        .limit(limit)
    )
    found = list(tx.execute(query).scalars())
    return found, Place(windows=True, contact=found[-1] if len(found) == limit else end)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What conditions may ask for, beside a person's own row."""

    tags: dict[int, set[str]]
    attributes: dict[int, dict[str, str]]
    messaged_at: dict[int, datetime]
    included: set[str]
    excluded: set[str]

    @classmethod
    def of(cls, tx: Tx, planned: Broadcast, contact_ids: Sequence[int]) -> _Known:
        return cls(
            tags=contact_facts.tags_of(tx, contact_ids),
            attributes=contact_facts.attributes_of(tx, contact_ids),
            messaged_at=_messaged_at(tx, contact_ids),
            included=_listed(tx, planned.id, contact_ids, excluded=False),
            excluded=_listed(tx, planned.id, contact_ids, excluded=True),
        )

    def facts(self, person: Contact, held: Sequence[TokenRow]) -> Facts:
        return Facts(
            page_id=person.page_id,
            locale=person.locale,
            time_zone=person.timezone,
            tags=frozenset(self.tags.get(person.id, ())),
            attributes=self.attributes.get(person.id, {}),
            active_at=person.window_opened_at,
            opted_in_at=tuple(row.opted_in_at for row in held if row.state is TokenState.AVAILABLE),
            messaged_at=self.messaged_at.get(person.id),
            is_included_by_list=person.psid in self.included,
            is_excluded_by_list=person.psid in self.excluded,
        )


def _messaged_at(tx: Tx, contact_ids: Sequence[int]) -> dict[int, datetime]:
    query = (
        sa.select(delivery.c.contact_id, sa.func.max(delivery.c.settled_at))
        .where(delivery.c.contact_id.in_(contact_ids), delivery.c.state == DeliveryState.SENT.value)
        .group_by(delivery.c.contact_id)
    )
    return {row[0]: row[1] for row in tx.execute(query)}


def _listed(tx: Tx, broadcast_id: int, contact_ids: Sequence[int], *, excluded: bool) -> set[str]:
    psids = sa.select(contact.c.psid).where(contact.c.id.in_(contact_ids))
    query = sa.select(broadcast_psid.c.psid).where(
        broadcast_psid.c.broadcast_id == broadcast_id,
        broadcast_psid.c.is_excluded == excluded,
        broadcast_psid.c.psid.in_(psids),
    )
    return set(tx.execute(query).scalars())
