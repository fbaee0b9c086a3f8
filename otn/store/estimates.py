"""What a broadcast would come to, counted: the rules of `otn.policy.choose_route` in SQL, for everybody at once.

A test holds the sums against `otn.estimates.explain`, which asks the rules themselves, person by person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from otn.audience import from_json
from otn.models import Broadcast, Route, TokenState
from otn.policy import Reason
from otn.store.audience import conditions
from otn.store.broadcasts import topic_ids
from otn.store.candidates import gave_one, permissions
from otn.store.engine import Tx
from otn.store.schema import contact, otn_token

# A person's tokens in one number, the best of them: an available one, or else why there is none. Above it, what
# counts before the tokens do; a MEMBER becomes a delivery all the same, since the reason may be over by then.
_AVAILABLE, _RESERVED, _SUSPECT, _USED, _EXPIRED, _NONE = range(6)
_FILTERED, _PAUSED, _PAUSED_MEMBER, _ERASED, _UNDELIVERABLE, _UNDELIVERABLE_MEMBER, _WINDOW = range(6, 13)

_CLASSES: dict[int, Route | Reason] = {
    _AVAILABLE: Route.TOKEN,
    _RESERVED: Reason.TOKEN_RESERVED,
    _SUSPECT: Reason.TOKEN_SUSPECT,
    _USED: Reason.TOKEN_USED,
    _EXPIRED: Reason.TOKEN_EXPIRED,
    _NONE: Reason.NO_TOKEN,
    _FILTERED: Reason.FILTERED,
    _PAUSED: Reason.PAGE_PAUSED,
    _PAUSED_MEMBER: Reason.PAGE_PAUSED,
    _ERASED: Reason.ERASED,
    _UNDELIVERABLE: Reason.UNDELIVERABLE,
    _UNDELIVERABLE_MEMBER: Reason.UNDELIVERABLE,
    _WINDOW: Route.WINDOW,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """People by class: a route, or a reason; everybody is in one. `waiting`: of these, who becomes a delivery."""

    by_class: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)


def count(tx: Tx, planned: Broadcast, now: datetime, *, paused: Collection[str]) -> Sums:
    """Count the candidates of a broadcast by class. `paused`: the Pages that nothing may leave now."""
    sums = Sums()
    for rows in _rows(tx, planned, now, paused):
        # OFFSET keeps the databases from working out a row once for each sum. Sums, since GROUP BY would sort.
        word = rows.offset(0).subquery().c.word
        found = tx.execute(sa.select(*(sa.func.count().filter(word == each) for each in _CLASSES))).one()
        for (each, its_class), number in zip(_CLASSES.items(), found, strict=True):
            sums.by_class[its_class.value] += number
            if each in (_PAUSED_MEMBER, _UNDELIVERABLE_MEMBER):
                sums.waiting[its_class.value] += number
    return sums


def lapsing(
    tx: Tx, planned: Broadcast, now: datetime, *, until: datetime, paused: Collection[str]
) -> tuple[int, int]:
    """Available tokens, of people who would be sent to, that lapse in this time; people who then have none left."""
    ids = topic_ids(tx, planned.topic)
    later = otn_token.alias()
    available = TokenState.AVAILABLE.value
    has_another = sa.exists().where(
        later.c.contact_id == contact.c.id,
        *permissions(planned, ids, later),
        later.c.state == available,
        later.c.expires_at > until,
    )
    query = (
        sa.select(sa.func.count(), sa.func.count(sa.distinct(sa.case((~has_another, contact.c.id)))))
        .select_from(otn_token.join(contact, contact.c.id == otn_token.c.contact_id))
        .where(*permissions(planned, ids), otn_token.c.state == available)
        .where(otn_token.c.expires_at > now, otn_token.c.expires_at <= until)
        .where(contact.c.page_id.not_in(paused), contact.c.erase_requested_at.is_(None))
        .where(contact.c.undeliverable_reason.is_(None), *conditions(planned, ids))
    )
    tokens, people = tx.execute(query).one()
    return tokens, people


def _rows(tx: Tx, planned: Broadcast, now: datetime, paused: Collection[str]) -> list[Any]:
    """Selects of one class a person: of those who gave a permission, and of those with nothing but a window."""
    ids = topic_ids(tx, planned.topic)
    window_too = from_json(planned.audience).window_too
    best = (  # read along the index by topic, person by person
        sa.select(otn_token.c.contact_id, sa.func.min(_worth(now)).label("best"))
        .where(*permissions(planned, ids))
        .group_by(otn_token.c.contact_id)
        .subquery()
    )
    is_open = contact.c.window_until > now
    has_one = best.c.best == _AVAILABLE
    filters = conditions(planned, ids)
    rows = [
        _classified(best.c.best, has_one | is_open if window_too else has_one, is_open, filters, paused)
        .select_from(best.join(contact, contact.c.id == best.c.contact_id))
        .where(contact.c.erased_at.is_(None) | gave_one(planned, ids))
    ]
    if window_too:
        others = _classified(sa.literal(_NONE), sa.true(), sa.true(), filters, paused)
        rows.append(others.where(is_open, ~gave_one(planned, ids)))
    return rows


def _worth(now: datetime) -> Any:
    """What one token is worth; the order is that of `otn.policy`."""
    available = sa.case((otn_token.c.expires_at > now, _AVAILABLE), else_=_EXPIRED)
    worth = {
        TokenState.AVAILABLE.value: available,
        TokenState.USED.value: _USED,
        TokenState.RESERVED.value: _RESERVED,
        TokenState.SUSPECT.value: _SUSPECT,
    }
    return sa.case(*((otn_token.c.state == state, each) for state, each in worth.items()), else_=_NONE)


def _classified(best: Any, member: Any, is_open: Any, filters: list[Any], paused: Collection[str]) -> Any:
    """One class a person. `member`: would be taken up, as far as tokens and window go."""
    erased = contact.c.erase_requested_at.isnot(None)
    whens: list[tuple[Any, Any]] = []
    if filters:
        whens.append((~sa.func.coalesce(sa.and_(*filters), sa.false()), _FILTERED))
    if paused:
        taken_up = sa.case((member & ~erased, _PAUSED_MEMBER), else_=_PAUSED)
        whens.append((contact.c.page_id.in_(paused), taken_up))
    whens += [
        (erased, _ERASED),
        (
            contact.c.undeliverable_reason.isnot(None),
            sa.case((member, _UNDELIVERABLE_MEMBER), else_=_UNDELIVERABLE),
        ),
        (is_open & member, _WINDOW),
    ]
    return sa.select(sa.case(*whens, else_=best).label("word"))
