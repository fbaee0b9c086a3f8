"""Table `otn_token`: the permissions. A lost row is a lost permission, nothing can bring it back (FAQ)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Row

from otn.errors import NotFound
from otn.models import OtnToken, TokenCount, TokenState
from otn.store.engine import Tx
from otn.store.schema import contact, delivery, otn_token, topic
from otn.store.statements import insert_new

_AVAILABLE = TokenState.AVAILABLE.value


class NewToken(NamedTuple):
    """A permission that a person gave, as the row that is kept of it."""

    contact_id: int
    topic_id: int | None
    permission_request_id: int | None
    token_hash: str
    ciphertext: bytes
    payload: str | None
    opted_in_at: datetime
    expires_at: datetime
    created_at: datetime
    state: str = _AVAILABLE


def keep(tx: Tx, given: Sequence[NewToken]) -> dict[str, int]:
    """Keep tokens; ids of those that were not here yet, by their hashes."""
    new = insert_new(tx, otn_token, NewToken._fields, given, ["token_hash"])
    return {token_hash: key for (token_hash,), key in new.items()}


def count(tx: Tx, contact_id: int, topic_id: int, now: datetime) -> TokenCount:
    """How many tokens this person has for this topic, by state."""
    lapsed = otn_token.c.expires_at <= now
    unused = otn_token.c.state == _AVAILABLE
    query = (
        sa.select(
            otn_token.c.state,
            (unused & lapsed).label("expired"),
            sa.func.count().label("number"),
            sa.func.min(otn_token.c.expires_at).label("soonest"),
            sa.func.max(otn_token.c.used_at).label("last_used"),
        )
        .where(otn_token.c.contact_id == contact_id, otn_token.c.topic_id == topic_id)
        .group_by(otn_token.c.state, (unused & lapsed))
    )
    counts: dict[str, Any] = {}
    for row in tx.execute(query):
        counts["expired" if row.expired else row.state] = row.number
        if row.state == _AVAILABLE and not row.expired:
            counts["soonest_expiry"] = row.soonest
        if row.state == TokenState.USED.value:
            counts["last_used_at"] = row.last_used
    return TokenCount(**counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token as the sender of a batch needs it."""

    id: int
    contact_id: int
    topic_id: int
    state: TokenState
    opted_in_at: datetime
    expires_at: datetime
    used_at: datetime | None
    ciphertext: bytes | None = field(repr=False)


_OF_CONTACTS = (
    sa.select(*(otn_token.c[name] for name in TokenRow.__dataclass_fields__))
    .where(otn_token.c.contact_id.in_(sa.bindparam("contacts", expanding=True)))
    .where(otn_token.c.topic_id.in_(sa.bindparam("topics", expanding=True)))
    .order_by(otn_token.c.expires_at, otn_token.c.id)
)


def of_contacts(tx: Tx, contact_ids: Sequence[int], topic_ids: Sequence[int]) -> dict[int, list[TokenRow]]:
    """The tokens of these people for these topics, by person, the soonest to expire first."""
    found: dict[int, list[TokenRow]] = {}
    if contact_ids and topic_ids:
        values = {"contacts": list(contact_ids), "topics": list(topic_ids)}
        for row in tx.execute(_OF_CONTACTS, values):
            token = TokenRow(**{**row._mapping, "state": TokenState(row.state)})
            found.setdefault(token.contact_id, []).append(token)
    return found


def counted(rows: Sequence[TokenRow], now: datetime) -> TokenCount:
    """One person's tokens by state, as `count` counts them."""
    states = Counter("expired" if _is_lapsed(row, now) else row.state.value for row in rows)
    used = [row.used_at for row in rows if row.state is TokenState.USED and row.used_at]
    next_one = soonest(rows, now)
    return TokenCount(
        **states,
        soonest_expiry=next_one.expires_at if next_one else None,
        last_used_at=max(used, default=None),
    )


def soonest(rows: Sequence[TokenRow], now: datetime) -> TokenRow | None:
    """Of one person's tokens in their order, the one that is drawn next."""
    return next((row for row in rows if row.state is TokenState.AVAILABLE and not _is_lapsed(row, now)), None)


def _is_lapsed(row: TokenRow, now: datetime) -> bool:
    return row.state is TokenState.AVAILABLE and row.expires_at <= now


def reserve_all(tx: Tx, token_ids: Sequence[int]) -> bool:
    """Reserve these; False if one of them is not available any more: roll back then."""
    query = (
        otn_token.update()
        .where(otn_token.c.id.in_(token_ids), otn_token.c.state == _AVAILABLE)
        .values(state=TokenState.RESERVED.value, state_reason=None)
    )
    return int(tx.execute(query).rowcount) == len(token_ids)


_USE_UP_OF_DELIVERY = (
    otn_token.update()
    .where(
        otn_token.c.id
        == sa.select(delivery.c.token_id)
        .where(delivery.c.id == sa.bindparam("of_delivery"))
        .scalar_subquery()
    )
    .where(otn_token.c.state != TokenState.USED.value)
    .values(
        state=TokenState.USED.value,
        used_at=sa.bindparam("at", type_=otn_token.c.used_at.type),
        ciphertext=None,
        state_reason=None,
    )
)


def use_up_all(tx: Tx, delivery_ids: Sequence[int], at: datetime) -> None:
    """Mark the tokens that paid for these deliveries as spent."""
    if delivery_ids:
        tx.execute(_USE_UP_OF_DELIVERY, [{"of_delivery": each, "at": at} for each in delivery_ids])


def reserve_soonest(tx: Tx, contact_id: int, topic_id: int, now: datetime) -> int | None:
    """Reserve this person's soonest-to-expire token of the topic; its id, or None if there is none."""
    query = (
        sa.select(otn_token.c.id)
        .where(otn_token.c.state == _AVAILABLE)
        .where(otn_token.c.contact_id == contact_id, otn_token.c.topic_id == topic_id)
        .where(otn_token.c.expires_at > now)
        .order_by(otn_token.c.expires_at, otn_token.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    token_id: int | None = tx.execute(query).scalar_one_or_none()
    if token_id is None or not move(tx, token_id, TokenState.AVAILABLE, TokenState.RESERVED):
        return None
    return token_id


def move(tx: Tx, token_id: int, old: TokenState, new: TokenState, reason: str | None = None) -> bool:
    """Change a token's state if it is still in the old one."""
    moved = tx.execute(
        otn_token.update()
        .where(otn_token.c.id == token_id, otn_token.c.state == old.value)
        .values(state=new.value, state_reason=reason)
    )
    return bool(moved.rowcount)


def use_up(tx: Tx, token_id: int, at: datetime) -> bool:
    """Mark a token as spent and destroy its secret; the hash stays as the receipt."""
    used = tx.execute(
        otn_token.update()
        .where(otn_token.c.id == token_id, otn_token.c.state != TokenState.USED.value)
        .values(state=TokenState.USED.value, used_at=at, ciphertext=None, state_reason=None)
    )
    return bool(used.rowcount)


def sealed(tx: Tx, token_id: int) -> tuple[bytes | None, datetime]:
    """The token's ciphertext, if it is still there, and when it lapses."""
    query = sa.select(otn_token.c.ciphertext, otn_token.c.expires_at).where(otn_token.c.id == token_id)
    row = tx.execute(query).one()
    return row.ciphertext, row.expires_at


def assign(tx: Tx, token_id: int, topic_id: int) -> bool:
    """Give a token without a topic its topic; False if it has one or does not exist."""
    assigned = tx.execute(
        otn_token.update()
        .where(otn_token.c.id == token_id, otn_token.c.topic_id.is_(None))
        .values(topic_id=topic_id)
    )
    return bool(assigned.rowcount)


def per_topic(tx: Tx, contact_id: int, now: datetime) -> list[tuple[int, int, datetime]]:
    """For each topic this person has unused tokens of: topic id, how many, the soonest expiry."""
    query = (
        sa.select(otn_token.c.topic_id, sa.func.count(), sa.func.min(otn_token.c.expires_at))
        .where(otn_token.c.contact_id == contact_id, otn_token.c.topic_id.isnot(None))
        .where(otn_token.c.state == _AVAILABLE, otn_token.c.expires_at > now)
        .group_by(otn_token.c.topic_id)
    )
    return [(row[0], row[1], row[2]) for row in tx.execute(query)]


def get(tx: Tx, token_id: int) -> OtnToken:
    """The token with this id, without its secret. Raises NotFound."""
    row = tx.execute(_select().where(otn_token.c.id == token_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no token {token_id}; see `otn tokens list`")
    return _token(row)


def every(
    tx: Tx,
    *,
    psid: str | None = None,
    page_id: str | None = None,
    topic_name: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[OtnToken]:
    """Tokens by id, a page of them at a time, without their secrets."""
    query = _select().where(otn_token.c.id > after).order_by(otn_token.c.id).limit(limit)
    if psid is not None:
        query = query.where(contact.c.psid == psid)
    if page_id is not None:
        query = query.where(contact.c.page_id == page_id)
    if topic_name is not None:
        query = query.where(topic.c.name == topic_name)
    return [_token(row) for row in tx.execute(query)]


def to_reseal(tx: Tx, after: int, limit: int) -> Sequence[Row[Any]]:
    """Rows (id, ciphertext) that still hold a secret, by id: what a key rotation walks through."""
    query = (
        sa.select(otn_token.c.id, otn_token.c.ciphertext)
        .where(otn_token.c.id > after, otn_token.c.ciphertext.isnot(None))
        .order_by(otn_token.c.id)
        .limit(limit)
    )
    return list(tx.execute(query))


def count_sealed(tx: Tx) -> int:
    """How many rows still hold a secret."""
    query = sa.select(sa.func.count()).select_from(otn_token).where(otn_token.c.ciphertext.isnot(None))
    return int(tx.execute(query).scalar_one())


def void(tx: Tx, token_id: int, reason: str) -> bool:
    """Give up a suspect token and destroy its secret; False if it is not suspect."""
    voided = tx.execute(
        otn_token.update()
        .where(otn_token.c.id == token_id, otn_token.c.state == TokenState.SUSPECT.value)
        .values(state=TokenState.INVALID.value, state_reason=reason, ciphertext=None)
    )
    return bool(voided.rowcount)


def reseal(tx: Tx, token_id: int, ciphertext: bytes) -> None:
    """Replace a ciphertext that is still there."""
    tx.execute(
        otn_token.update()
        .where(otn_token.c.id == token_id, otn_token.c.ciphertext.isnot(None))
        .values(ciphertext=ciphertext)
    )


def destroy_lapsed(tx: Tx, now: datetime, limit: int = 500) -> int:
    """Destroy the secrets of tokens that lapsed while nobody used them."""
    ids = (
        sa.select(otn_token.c.id)
        .where(otn_token.c.expires_at <= now, otn_token.c.ciphertext.isnot(None))
        .where(otn_token.c.state.in_([_AVAILABLE, TokenState.SUSPECT.value, TokenState.INVALID.value]))
        .order_by(otn_token.c.expires_at)
        .limit(limit)
    )
    destroyed = tx.execute(otn_token.update().where(otn_token.c.id.in_(ids)).values(ciphertext=None))
    return int(destroyed.rowcount)


def erase(tx: Tx, contact_id: int, until: datetime) -> None:
    """Destroy this person's secrets; unused tokens become invalid, hashes stay as receipts.

    What the person agreed to after that moment is a new permission, and stays.
    """
    mine = (otn_token.c.contact_id == contact_id) & (otn_token.c.opted_in_at <= until)
    tx.execute(otn_token.update().where(mine).values(ciphertext=None, payload=None))
    tx.execute(
        otn_token.update()
        .where(mine, otn_token.c.state != TokenState.USED.value)
        .values(state=TokenState.INVALID.value, state_reason="the person asked to be forgotten")
    )


def _select() -> Any:
    return sa.select(
        otn_token.c.id,
        otn_token.c.contact_id,
        contact.c.page_id,
        contact.c.psid,
        topic.c.name.label("topic"),
        otn_token.c.state,
        otn_token.c.opted_in_at,
        otn_token.c.expires_at,
        otn_token.c.permission_request_id,
        otn_token.c.payload,
        otn_token.c.used_at,
        otn_token.c.state_reason,
    ).select_from(otn_token.join(contact).outerjoin(topic, topic.c.id == otn_token.c.topic_id))


def _token(row: Row[Any]) -> OtnToken:
    return OtnToken(**{**row._mapping, "state": TokenState(row.state)})
