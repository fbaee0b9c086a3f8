"""Permissions: kept once, drawn once, soonest to expire first, never shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from otn.models import TokenCount, TokenState
from otn.store import Store, Tx, tokens
from otn.store.schema import otn_token as table
from otn.store.tokens import NewToken

HOUR, DAY, YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)


def state_of(store: Store, token_id: int) -> str:
    with store.read() as tx:
        return str(tx.execute(sa.select(table.c.state).where(table.c.id == token_id)).scalar_one())


def secret_of(store: Store, token_id: int) -> bytes | None:
    with store.read() as tx:
        return tokens.sealed(tx, token_id)[0]


def test_one_token_is_one_row_however_often_and_by_whomever_it_is_told(
    store: Store, make: Any, vault: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    contact, topic = make.contact(), make.topic()
    for number in range(5):

        def keep(tx: Tx, secret: str = f"secret {number}") -> int:
            given = NewToken(
                contact_id=contact.id,
                topic_id=topic.id,
                permission_request_id=None,
                token_hash=vault.token_hash(secret),
                ciphertext=vault.seal(secret.encode()),
                payload=None,
                opted_in_at=now,
                expires_at=now + YEAR,
                created_at=now,
            )
            return len(tokens.keep(tx, [given, given]))

        assert sorted(at_once(keep, keep, keep)) == [0, 0, 1]
        with store.begin() as tx:
            assert keep(tx) == 0
    with store.read() as tx:
        assert tokens.count(tx, contact.id, topic.id, now).available == 5


def test_tokens_are_counted_by_state_and_expiry(store: Store, make: Any, now: datetime) -> None:
    contact, topic = make.contact(), make.topic()
    with store.read() as tx:
        assert tokens.count(tx, contact.id, topic.id, now) == TokenCount()
    for state in TokenState:
        make.token(contact, topic, state=state)
    soonest = now - YEAR + timedelta(seconds=1)
    make.token(contact, topic, opted_in_at=soonest)
    make.token(contact, topic, opted_in_at=now - YEAR)
    make.token(contact, topic, opted_in_at=now - YEAR - DAY)
    make.token(contact, make.topic("other"))
    make.token(make.contact("8"), topic)
    spent = make.token(contact, topic)
    with store.begin() as tx:
        tokens.use_up(tx, spent, now - HOUR)
        assert tokens.count(tx, contact.id, topic.id, now) == TokenCount(
            available=2,
            reserved=1,
            used=2,
            suspect=1,
            invalid=1,
            expired=2,
            soonest_expiry=soonest + YEAR,
            last_used_at=now - HOUR,
        )


def test_the_token_that_expires_soonest_is_drawn_first_and_no_expired_one(
    store: Store, make: Any, now: datetime
) -> None:
    contact, topic = make.contact(), make.topic()
    late = make.token(contact, topic, opted_in_at=now - DAY)
    soon = make.token(contact, topic, opted_in_at=now - YEAR + timedelta(seconds=1))
    make.token(contact, topic, opted_in_at=now - YEAR)  # lapses at this second
    make.token(contact, None)
    make.token(contact, topic, state=TokenState.SUSPECT)
    with store.begin() as tx:
        drawn = [tokens.reserve_soonest(tx, contact.id, topic.id, now) for _ in range(3)]
    assert drawn == [soon, late, None]


def test_many_who_draw_at_once_get_each_token_once(
    store: Store, make: Any, now: datetime, at_once: Callable[..., list[Any]]
) -> None:
    contact, topic = make.contact(), make.topic()
    made = {make.token(contact, topic) for _ in range(5)}

    def draw(tx: Tx) -> int | None:
        return tokens.reserve_soonest(tx, contact.id, topic.id, now)

    drawn = [one for one in at_once(*[draw] * 8) if one is not None]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) <= made
    with store.begin() as tx:  # whoever met a locked row may have gone without: the rest is still there
        rest = [draw(tx) for _ in range(5 - len(drawn))]
        assert set(drawn) | set(rest) == made
        assert draw(tx) is None


def test_a_token_moves_only_from_the_state_that_was_named(store: Store, make: Any) -> None:
    token = make.token(make.contact(), make.topic())
    with store.begin() as tx:
        assert not tokens.move(tx, token, TokenState.RESERVED, TokenState.AVAILABLE)
        assert tokens.move(tx, token, TokenState.AVAILABLE, TokenState.SUSPECT, "in doubt")
        assert not tokens.move(tx, token, TokenState.AVAILABLE, TokenState.RESERVED)
    assert state_of(store, token) == "suspect"


@pytest.mark.parametrize("state", [state for state in TokenState if state is not TokenState.USED])
def test_a_spent_token_is_spent_for_good_and_its_secret_is_destroyed(
    store: Store, make: Any, now: datetime, state: TokenState
) -> None:
    token = make.token(make.contact(), make.topic(), state=state)
    with store.begin() as tx:
        assert tokens.use_up(tx, token, now)
        assert not tokens.use_up(tx, token, now + HOUR)
    assert state_of(store, token) == "used"
    assert secret_of(store, token) is None


def test_the_secrets_of_lapsed_tokens_are_destroyed_but_not_of_one_that_is_on_its_way(
    store: Store, make: Any, now: datetime
) -> None:
    contact, topic = make.contact(), make.topic()
    lapsed = [make.token(contact, topic, opted_in_at=now - YEAR) for _ in range(3)]
    reserved = make.token(contact, topic, opted_in_at=now - YEAR, state=TokenState.RESERVED)
    alive = make.token(contact, topic, opted_in_at=now - YEAR + timedelta(seconds=1))
    with store.begin() as tx:
        assert [tokens.destroy_lapsed(tx, now, limit=2) for _ in range(3)] == [2, 1, 0]
    assert [secret_of(store, one) for one in lapsed] == [None] * 3
    assert secret_of(store, reserved)
    assert secret_of(store, alive)


def test_a_token_without_a_topic_can_be_given_one_once(store: Store, make: Any, now: datetime) -> None:
    contact, topic, other = make.contact(), make.topic(), make.topic("other")
    token = make.token(contact, None)
    with store.begin() as tx:
        assert tokens.assign(tx, token, topic.id)
        assert not tokens.assign(tx, token, other.id)
        assert not tokens.assign(tx, 4711, topic.id)
        assert tokens.per_topic(tx, contact.id, now) == [(topic.id, 1, now - 2 * DAY + YEAR)]
        (found,) = tokens.every(tx, psid=contact.psid, topic_name="restock")
        assert (found.id, found.topic, found.payload) == (token, "restock", "something else")
        assert tokens.every(tx, after=token) == []


def test_an_erasure_destroys_what_was_agreed_to_before_it(store: Store, make: Any, now: datetime) -> None:
    contact, topic = make.contact(), make.topic()
    old, used = make.token(contact, topic), make.token(contact, topic, state=TokenState.USED)
    since = make.token(contact, topic, opted_in_at=now + HOUR)
    foreign = make.token(make.contact("8"), topic)
    with store.begin() as tx:
        tokens.erase(tx, contact.id, now)
    assert [state_of(store, one) for one in (old, used, since, foreign)] == [
        "invalid",
        "used",
        "available",
        "available",
    ]
    assert [secret_of(store, one) is None for one in (old, used, since, foreign)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_rotation_walks_through_every_secret_and_no_other_row(store: Store, make: Any, vault: Any) -> None:
    contact, topic = make.contact(), make.topic()
    ids = [make.token(contact, topic, secret=f"secret {number}") for number in range(5)]
    with store.begin() as tx:
        tokens.use_up(tx, ids[1], make.now)
        walked, after = [], 0
        while rows := tokens.to_reseal(tx, after, 2):
            for row in rows:
                tokens.reseal(tx, row.id, vault.reseal(row.ciphertext))
                walked.append(row.id)
            after = rows[-1].id
    assert walked == [ids[0], *ids[2:]]
    secret = secret_of(store, ids[4])
    assert secret is not None
    assert vault.open(secret) == b"secret 4"
