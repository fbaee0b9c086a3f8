"""Estimate and explain say the same of everybody, and what they say is what the freezing does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otn import audience, broadcasts, delivery, estimates, scheduler
from otn.audience import Audience, Conditions, Facts, left_out_by
from otn.broadcasts import Plan, Timetable
from otn.errors import NotFound
from otn.estimates import Estimate, Explained, Lapsing
from otn.models import Broadcast, BroadcastState, Route, TokenState
from otn.policy import Reason
from otn.store import Store, candidates, contacts, members, pages
from otn.store import broadcasts as stored
from otn.store.audience import conditions
from otn.store.broadcasts import Cursor
from otn.store.schema import contact as contact_table
from otn.store.schema import delivery as delivery_table
from otn.store.schema import metadata

NOW = datetime(2026, 10, 1, 12, tzinfo=timezone.utc)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
START = NOW + HOUR
TOPICS = ("offers", "restock-blue", "restock-red", "restock-*")  # by id, from 1 on
FAMILY = (2, 3)

# --- any small population, and any broadcast to it ---

AROUND_NOW = st.sampled_from([-2 * DAY, -HOUR, -SECOND, timedelta(), SECOND, HOUR, HOUR + SECOND, 2 * DAY])
BEFORE_NOW = st.sampled_from([-400 * DAY, -3 * DAY, -2 * DAY, -HOUR, -SECOND])
MAYBE_BEFORE = st.none() | BEFORE_NOW
RARELY = st.sampled_from([False] * 3 + [True])
TAGS, COLOURS = ("vip", "new"), ("red", "blue")


@dataclass(frozen=True)
class Token:
    topic_id: int | None
    state: str
    given: timedelta
    expires: timedelta


@dataclass(frozen=True)
class Person:
    page: str
    locale: str | None
    zone: str | None
    opened: timedelta | None
    until: timedelta | None
    tags: frozenset[str]
    colour: str | None
    undeliverable: bool
    to_erase: bool
    erased: timedelta | None
    tokens: tuple[Token, ...]
    sent: tuple[tuple[str, timedelta], ...]
    included: bool
    excluded: bool


@dataclass(frozen=True)
class World:
    people: tuple[Person, ...]
    paused: dict[str, timedelta | None]  # pages, and until when: None for ever
    topic: str
    meant: Audience
    newest: int | None  # how many tokens the watermark leaves


TOKENS = st.builds(
    Token,
    topic_id=st.sampled_from([1, 2, 2, 2, 2, 3, 3, None]),
    state=st.sampled_from([*(state.value for state in TokenState), TokenState.AVAILABLE.value]),
    given=BEFORE_NOW,
    expires=AROUND_NOW,
)


def as_erased(one: Person) -> Person:
    """An erasure leaves of the permissions before it only what was used, as a receipt."""
    left = tuple(
        replace(token, state="invalid")
        if one.erased is not None and token.given <= one.erased and token.state != "used"
        else token
        for token in one.tokens
    )
    return replace(one, tokens=left)


PEOPLE = st.builds(
    Person,
    page=st.sampled_from(["1001", "2002"]),
    locale=st.sampled_from([None, "de_DE", "en_US"]),
    zone=st.sampled_from([None, "Europe/Berlin", "2"]),
    opened=MAYBE_BEFORE,
    until=st.none() | AROUND_NOW,
    tags=st.frozensets(st.sampled_from(TAGS)),
    colour=st.none() | st.sampled_from(COLOURS),
    undeliverable=RARELY,
    to_erase=RARELY,
    erased=st.none() | st.none() | BEFORE_NOW,
    tokens=st.lists(TOKENS, max_size=4).map(tuple),
    sent=st.lists(st.tuples(st.sampled_from(["sent", "refused", "skipped"]), BEFORE_NOW), max_size=2).map(
        tuple
    ),
    included=st.booleans(),
    excluded=RARELY,
).map(as_erased)
MOMENT = BEFORE_NOW.map(lambda ago: NOW + ago)


def some(*values: Any) -> Any:
    return st.lists(st.sampled_from(values), min_size=1, unique=True).map(tuple)


VALUES = {
    "pages": some("1001", "2002"),
    "locales": some("de_DE", "fr_FR"),
    "time_zones": some("Europe/Berlin", "2"),
    "tags": some(*TAGS),
    "attributes": some(("colour", "red"), ("colour", "green"), ("size", "red")),
    "active_since": MOMENT,
    "active_before": MOMENT,
    "opted_in_since": MOMENT,
    "opted_in_before": MOMENT,
    "messaged_since": MOMENT,
    "listed": st.just(True),
}
assert VALUES.keys() == {one.name for one in fields(Conditions)}
CONDITIONS = st.just(Conditions()) | st.lists(
    st.sampled_from(sorted(VALUES)), max_size=2, unique=True
).flatmap(lambda names: st.builds(Conditions, **{name: VALUES[name] for name in names}))
WORLDS = st.builds(
    World,
    people=st.lists(PEOPLE, min_size=1, max_size=8).map(tuple),
    paused=st.dictionaries(st.sampled_from(["2002"]), st.none() | AROUND_NOW),
    topic=st.sampled_from(["restock-blue", "restock-*"]),
    meant=st.builds(Audience, include=CONDITIONS, exclude=CONDITIONS, window_too=st.booleans()),
    newest=st.none() | st.integers(0, 8),
)


def settle(store: Store, world: World) -> Broadcast:
    """Put the population into an empty database, and the broadcast as a draft or as one that has begun."""
    tables = metadata.tables
    with store.begin() as tx:
        for page_id in ("1001", "2002"):
            pages.ensure(tx, page_id, NOW)
        for page_id, until in world.paused.items():
            pages.pause(tx, page_id, "test", None if until is None else NOW + until)
        limits = {"ask_while_available": False, "min_interval_seconds": 0, "weekly_cap": 5}
        for number, name in enumerate(TOPICS, 1):
            values = {"id": number, "name": name, "title": "t", "kind": "k", "created_at": NOW}
            tx.execute(tables["topic"].insert(), values | limits | {"is_family": name.endswith("*")})
        for name, rows in rows_of(world).items():
            if rows:
                tx.execute(tables[name].insert(), rows)
        plan = Plan(
            topic=world.topic,
            message={"text": "It is back"},
            audience=world.meant,
            included_psids=[f"p{n}" for n, one in enumerate(world.people, 1) if one.included],
            excluded_psids=[f"p{n}" for n, one in enumerate(world.people, 1) if one.excluded],
            created_by="ada",
        )
        made = broadcasts.create(tx, plan, NOW)
        if world.newest is not None:
            running = {"started_at": NOW, "watermark": world.newest}
            assert stored.move(tx, made.id, (BroadcastState.DRAFT,), BroadcastState.RUNNING, **running)
        return stored.get(tx, made.id)


def rows_of(world: World) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("contact", "contact_tag", "contact_attribute", "otn_token", "delivery")
    }
    for number, one in enumerate(world.people, 1):
        rows["contact"].append(
            {
                "id": number,
                "page_id": one.page,
                "psid": f"p{number}",
                "locale": one.locale,
                "timezone": one.zone,
                "window_opened_at": at(one.opened),
                "window_until": at(one.until),
                "undeliverable_reason": "gone" if one.undeliverable else None,
                "erase_requested_at": NOW if one.to_erase else None,
                "erased_at": at(one.erased),
                "created_at": NOW,
            }
        )
        rows["contact_tag"] += [{"contact_id": number, "tag": tag} for tag in one.tags]
        if one.colour:
            rows["contact_attribute"].append({"contact_id": number, "name": "colour", "value": one.colour})
        for token in one.tokens:
            rows["otn_token"].append(
                {
                    "id": len(rows["otn_token"]) + 1,
                    "contact_id": number,
                    "topic_id": token.topic_id,
                    "token_hash": f"h{len(rows['otn_token'])}",
                    "opted_in_at": at(token.given),
                    "expires_at": at(token.expires),
                    "state": token.state,
                    "created_at": NOW,
                }
            )
        for state, settled in one.sent:
            key = f"k{len(rows['delivery'])}"
            blank = dict.fromkeys(("human_agent", "doubtful", "window_refused"), False)
            ids = {"dedupe_key": key, "message_hash": key, "wire_id": key, "fence": 0, "attempts": 0}
            rows["delivery"].append(
                {
                    "contact_id": number,
                    "state": state,
                    "settled_at": at(settled),
                    "origin": "cli",
                    "created_at": NOW,
                }
                | ids
                | blank
            )
    return rows


def at(ago: timedelta | None) -> datetime | None:
    return None if ago is None else NOW + ago


# --- what a reader of the rules would say, from the population alone ---


@dataclass(frozen=True)
class Read:
    """One person, as far as the broadcast is concerned."""

    psid: str
    facts: Facts
    tokens: tuple[Token, ...]  # that count
    person: Person
    gave_one: bool

    @property
    def available(self) -> tuple[Token, ...]:
        return tuple(one for one in self.tokens if one.state == "available" and one.expires > timedelta())

    @property
    def is_open(self) -> bool:
        return self.person.until is not None and self.person.until > timedelta()


def read(world: World) -> Iterator[Read]:
    ids = (2,) if world.topic == "restock-blue" else FAMILY
    before = 0
    for number, one in enumerate(world.people, 1):
        mine = [(before + n, token) for n, token in enumerate(one.tokens, 1) if token.topic_id in ids]
        before += len(one.tokens)
        count = tuple(token for n, token in mine if world.newest is None or n <= world.newest)
        given = tuple(sorted(NOW + token.given for _, token in mine if token.state == "available"))
        facts = Facts(
            page_id=one.page,
            locale=one.locale,
            time_zone=one.zone,
            tags=one.tags,
            attributes={"colour": one.colour} if one.colour else {},
            active_at=at(one.opened),
            opted_in_at=given,
            messaged_at=max((NOW + settled for state, settled in one.sent if state == "sent"), default=None),
            is_included_by_list=one.included,
            is_excluded_by_list=one.excluded,
        )
        gave_one = any(one.erased is None or token.given > one.erased for token in count)
        yield Read(f"p{number}", facts, count, one, gave_one)


def is_paused(world: World, page: str) -> bool:
    return page in world.paused and ((until := world.paused[page]) is None or until > timedelta())


def is_candidate(world: World, one: Read) -> bool:
    return one.gave_one or (world.meant.window_too and one.is_open)


def is_member(world: World, one: Read) -> bool:
    """Whether it becomes a delivery."""
    meant = bool(one.available) or (world.meant.window_too and one.is_open)
    return meant and not one.person.to_erase and left_out_by(world.meant, one.facts) is None


def lapsing(world: World) -> Lapsing:
    tokens = people = 0
    for one in read(world):
        if is_member(world, one) and not one.person.undeliverable and not is_paused(world, one.person.page):
            lapses = [token for token in one.available if token.expires <= HOUR]
            tokens += len(lapses)
            people += bool(lapses) and len(lapses) == len(one.available)
    return Lapsing(tokens=tokens, people=people)


# --- and what the code says ---


def check(store: Store, world: World) -> None:
    planned = settle(store, world)
    lines = list(estimates.explain(store, planned, NOW))
    with store.read() as tx:
        counted = estimates.estimate(tx, planned, NOW, start_at=START)
    everybody = list(read(world))
    assert sorted(line.psid for line in lines) == sorted(
        one.psid for one in everybody if is_candidate(world, one)
    ), "not everybody is explained once"
    assert summed(lines) == summed_up(counted), "the estimate is not the sum of what is explained"
    assert counted.total == len(lines)
    assert counted.expiring_before_start == lapsing(world)
    assert left_out_in_sql(store, planned) == {
        one.psid for one in everybody if left_out_by(world.meant, one.facts)
    }, "a condition says one thing in SQL and another in Python"
    assert facts_of(store, planned) == {one.psid: one.facts for one in everybody}
    expected = {one.psid for one in everybody if is_member(world, one)}
    assert members_of(store, planned) == expected, "others become deliveries than those who are explained"
    said = {line.psid for line in lines if line.would}
    waiting = sum(counted.waiting.values())
    assert said <= expected
    assert len(said) + waiting == len(expected)


def summed(lines: list[Explained]) -> Counter[str]:
    return Counter((line.would or line.reason).value for line in lines if line.would or line.reason)


def summed_up(found: Estimate) -> Counter[str]:
    sums = {"token": found.would_send_by_token, "window": found.would_send_by_window, **found.left_out}
    return Counter({name: number for name, number in sums.items() if number})


def left_out_in_sql(store: Store, planned: Broadcast) -> set[str]:
    with store.read() as tx:
        ids = stored.topic_ids(tx, planned.topic)
        met = sa.select(contact_table.c.psid).where(*conditions(planned, ids))
        everybody = tx.execute(sa.select(contact_table.c.psid)).scalars()
        return set(everybody) - set(tx.execute(met).scalars())


def facts_of(store: Store, planned: Broadcast) -> dict[str, Facts]:
    with store.read() as tx:
        found = candidates.look_at(tx, planned, [one.id for one in contacts.every(tx)], NOW)
    return {
        one.contact.psid: replace(one.facts, opted_in_at=tuple(sorted(one.facts.opted_in_at)))
        for one in found
    }


def members_of(store: Store, planned: Broadcast) -> set[str]:
    """Whom the freezing takes up."""
    found: set[int] = set()
    with store.begin() as tx:
        if planned.watermark is None:
            stored.change(tx, planned.id, watermark=members.newest_token(tx))
        begun = stored.get(tx, planned.id)
        place = Cursor()
        while True:
            some_of_them, after = members.next_by_token(tx, begun, place, NOW, 2)
            if after is None and audience.from_json(begun.audience).window_too:
                some_of_them, after = members.next_by_window(tx, begun, place, NOW, 2)
            found |= {one.contact_id for one in some_of_them}
            if after is None:
                return {contacts.get(tx, contact_id).psid for contact_id in found}
            place = after


def hold(fresh: Callable[[], Store], examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(world=WORLDS)
    def holds(world: World) -> None:
        check(fresh(), world)

    holds()


def test_the_estimate_is_the_sum_of_what_is_explained_on_sqlite(
    sqlite_store: Store, empty: Callable[[Store], Store]
) -> None:
    def hurry(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")  # nobody pulls the plug here

    sa.event.listen(sqlite_store.engine, "connect", hurry)
    hold(lambda: empty(sqlite_store), examples=150)


def test_the_estimate_is_the_sum_of_what_is_explained_on_postgresql(
    postgresql_store: Store, empty: Callable[[Store], Store]
) -> None:
    hold(lambda: empty(postgresql_store), examples=40)


# --- and at every edge, for certain ---

TOKEN = Token(topic_id=2, state="available", given=-3 * DAY, expires=2 * DAY)
ADA = Person(
    page="1001",
    locale=None,
    zone=None,
    opened=None,
    until=None,
    tags=frozenset(),
    colour=None,
    undeliverable=False,
    to_erase=False,
    erased=None,
    tokens=(TOKEN,),
    sent=(),
    included=False,
    excluded=False,
)
EDGES = (-SECOND, timedelta(), SECOND)
USED_THEN_AGAIN = replace(ADA, tokens=(replace(TOKEN, state="used"), TOKEN))
EVERYBODY = (
    USED_THEN_AGAIN,  # the first, so that a watermark of one token splits what they gave
    ADA,
    *(replace(ADA, page=page, to_erase=erase) for page in ("1001", "2002") for erase in (False, True)),
    *(replace(ADA, locale=locale) for locale in ("de_DE", "en_US")),
    *(replace(ADA, zone=zone) for zone in ("Europe/Berlin", "2")),
    *(replace(ADA, tags=frozenset(tags)) for tags in (["vip"], ["new"], TAGS)),
    *(replace(ADA, colour=colour) for colour in COLOURS),
    *(replace(ADA, opened=edge - HOUR) for edge in EDGES),
    *(replace(ADA, sent=((state, edge - HOUR),)) for edge in EDGES for state in ("sent", "refused")),
    *(replace(ADA, included=included, excluded=not included) for included in (False, True)),
    *(replace(ADA, until=edge, tokens=gave) for edge in EDGES for gave in ((), (TOKEN,))),
    *(replace(ADA, until=edge, tokens=USED_THEN_AGAIN.tokens[:1]) for edge in EDGES),
    *(replace(ADA, undeliverable=True, tokens=gave) for gave in ((), (TOKEN,), USED_THEN_AGAIN.tokens[:1])),
    *(replace(ADA, tokens=(replace(TOKEN, given=edge - HOUR),)) for edge in EDGES),
    *(replace(ADA, tokens=(replace(TOKEN, expires=edge),)) for edge in EDGES),
    *(
        replace(ADA, page=page, tokens=(replace(TOKEN, expires=HOUR + edge),))
        for edge in EDGES
        for page in ("1001", "2002")
    ),
    *(
        replace(ADA, tokens=(replace(TOKEN, expires=HOUR), replace(TOKEN, expires=HOUR + edge)))
        for edge in EDGES
    ),
    *(
        replace(ADA, tokens=(replace(TOKEN, state=one.value), replace(TOKEN, state=other.value)))
        for one in TokenState
        for other in TokenState
    ),
    *(replace(ADA, tokens=(replace(TOKEN, topic_id=topic_id),)) for topic_id in (1, 3, None)),
    *(
        replace(ADA, tokens=(replace(TOKEN, topic_id=one, given=-HOUR), replace(TOKEN, topic_id=other)))
        for one, other in ((2, 3), (3, 2))
    ),
    *(as_erased(replace(ADA, until=SECOND, erased=edge - 3 * DAY)) for edge in EDGES),
    as_erased(replace(USED_THEN_AGAIN, erased=-HOUR)),
)
AT_THE_EDGE = {
    "pages": ("1001",),
    "locales": ("de_DE",),
    "time_zones": ("2",),
    "tags": ("vip",),
    "attributes": (("colour", "red"), ("size", "blue")),
    "active_since": NOW - HOUR,
    "active_before": NOW - HOUR,
    "opted_in_since": NOW - HOUR,
    "opted_in_before": NOW - HOUR,
    "messaged_since": NOW - HOUR,
    "listed": True,
}
MEANT = {
    "everybody": Audience(),
    "open windows too": Audience(window_too=True),
    **{
        f"{side} {name}": Audience(**{side: Conditions(**{name: value})}, window_too=True)
        for name, value in AT_THE_EDGE.items()
        for side in ("include", "exclude")
    },
}


@pytest.mark.parametrize("name", MEANT)
@pytest.mark.parametrize("topic", ["restock-blue", "restock-*"])
def test_both_say_the_same_at_every_edge(store: Store, topic: str, name: str) -> None:
    check(store, World(EVERYBODY, {}, topic, MEANT[name], None))


@pytest.mark.parametrize("until", [None, *EDGES])
def test_both_say_the_same_of_a_paused_page(store: Store, until: timedelta | None) -> None:
    check(store, World(EVERYBODY, {"2002": until}, "restock-*", Audience(window_too=True), None))


@pytest.mark.parametrize("newest", [0, 1, 2, 3])
def test_both_say_the_same_of_permissions_given_since(store: Store, newest: int) -> None:
    check(store, World(EVERYBODY, {}, "restock-*", Audience(window_too=True), newest))


# --- the same in examples ---


def planned(store: Store, topic: str = "restock", **meant: Any) -> Broadcast:
    with store.begin() as tx:
        plan = Plan(topic=topic, message={"text": "It is back"}, audience=Audience(**meant), created_by="ada")
        return broadcasts.create(tx, plan, NOW)


def explained(store: Store, broadcast: Broadcast) -> dict[str, Explained]:
    return {line.psid: line for line in estimates.explain(store, broadcast, NOW)}


def counted(store: Store, broadcast: Broadcast, **more: Any) -> Estimate:
    with store.read() as tx:
        return estimates.estimate(tx, broadcast, NOW, **more)


def test_each_line_says_the_route_or_the_reason_in_the_sender_s_own_words(store: Store, make: Any) -> None:
    topic = make.topic()
    make.token(make.out_of_window("pays"), topic)
    make.token(make.in_window("writes"), topic)
    make.token(make.out_of_window("got it"), topic, state=TokenState.USED)
    make.token(make.in_window("got it, and writes"), topic, state=TokenState.USED)
    make.in_window("never agreed")
    found = explained(store, planned(store))
    assert {psid: (line.would, line.reason) for psid, line in found.items()} == {
        "pays": (Route.TOKEN, None),
        "writes": (Route.WINDOW, None),
        "got it": (None, Reason.TOKEN_USED),
        "got it, and writes": (None, Reason.TOKEN_USED),
    }
    with store.read() as tx:
        for psid in ("pays", "writes", "got it"):
            decision = delivery.decide(tx, psid=psid, topic="restock", now=NOW)
            assert found[psid].sentence == getattr(decision, "rule", getattr(decision, "sentence", None))
    assert "window is open, but only people with an unused permission" in found["got it, and writes"].sentence


def test_people_with_nothing_but_an_open_window_are_meant_if_asked_for(store: Store, make: Any) -> None:
    make.token(make.out_of_window("pays"), make.topic())
    make.in_window("writes")
    found = explained(store, planned(store, window_too=True))
    assert {psid: line.would for psid, line in found.items()} == {"pays": Route.TOKEN, "writes": Route.WINDOW}


def test_who_is_left_out_by_a_condition_is_told_which(store: Store, make: Any) -> None:
    make.token(make.out_of_window(), make.topic())
    wanted = Conditions(locales=("de_DE", "fr_FR"))
    assert explained(store, planned(store, include=wanted))["7007"] == Explained(
        psid="7007",
        page_id="1001",
        would=None,
        reason=Reason.FILTERED,
        sentence="The person is not among those with locale de_DE, fr_FR.",
    )


def test_a_long_list_is_explained_completely_in_short_looks(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.topic("restock-*", is_family=True)
    blue, red = make.topic("restock-blue"), make.topic("restock-red")
    for number in range(7):
        person = make.out_of_window(f"p{number}")
        for _ in range(3):
            make.token(person, blue if number % 2 else red)
        make.token(person, red)
        make.in_window(f"w{number}")
    monkeypatch.setattr(estimates, "A_LOOK", 2)
    monkeypatch.setattr(members, "CONTACTS_A_LOOK", 3)
    lines = list(estimates.explain(store, planned(store, "restock-*", window_too=True), NOW))
    assert sorted(line.psid for line in lines) == [f"{kind}{n}" for kind in "pw" for n in range(7)]


def test_what_is_given_after_the_freezing_began_is_not_meant(store: Store, make: Any) -> None:
    topic = make.topic()
    make.token(make.out_of_window("early"), topic)
    broadcast = planned(store)
    with store.begin() as tx:
        broadcasts.schedule(tx, broadcast.id, Timetable(), who="ada", now=NOW)
        assert scheduler.start_due(tx, NOW) == 1
    make.token(make.out_of_window("late"), topic)
    assert counted(store, broadcast).would_send_by_token == 2
    with store.read() as tx:
        begun = stored.get(tx, broadcast.id)
    assert counted(store, begun).would_send_by_token == 1
    assert list(explained(store, begun)) == ["early"]


def test_a_wait_for_the_start_names_who_loses_the_last_permission_by_then(store: Store, make: Any) -> None:
    topic, year = make.topic(), timedelta(days=365)
    one, two = make.out_of_window("one"), make.out_of_window("two")
    for person in (one, two):
        make.token(person, topic, opted_in_at=NOW - year + HOUR)
    make.token(two, topic)
    broadcast = planned(store)
    assert counted(store, broadcast).expiring_before_start == Lapsing()
    for start, expected in ((NOW + HOUR - SECOND, (0, 0)), (NOW + HOUR, (2, 1)), (NOW - DAY, (0, 0))):
        lapses = counted(store, broadcast, start_at=start).expiring_before_start
        assert (lapses.tokens, lapses.people) == expected


def test_whom_a_paused_page_keeps_waiting_is_told_apart_from_who_is_not_meant(
    store: Store, make: Any
) -> None:
    topic, soon = make.topic(), NOW - timedelta(days=365) + HOUR
    make.token(make.out_of_window("waits"), topic, opted_in_at=soon)
    make.token(make.out_of_window("got it"), topic, state=TokenState.USED)
    goes = make.out_of_window("goes")
    make.token(goes, topic, opted_in_at=soon)
    with store.begin() as tx:
        contacts.request_erasure(tx, goes.id, NOW)
        pages.pause(tx, "1001", "test", None)
    broadcast = planned(store)
    found = counted(store, broadcast, start_at=START)
    assert (found.left_out, found.waiting) == ({"page_paused": 3}, {"page_paused": 1})
    assert found.expiring_before_start == Lapsing()
    with store.begin() as tx:
        pages.resume(tx, "1001")
    found = counted(store, broadcast, start_at=START)
    assert (found.would_send_by_token, found.left_out) == (1, {"erased": 1, "token_used": 1})
    assert found.expiring_before_start == Lapsing(tokens=1, people=1)


def test_a_condition_on_permissions_looks_at_the_whole_family(store: Store, make: Any) -> None:
    make.topic("restock-*", is_family=True)
    person = make.out_of_window()
    make.token(person, make.topic("restock-blue"), opted_in_at=NOW - HOUR)
    make.token(person, make.topic("restock-red"), opted_in_at=NOW - 3 * DAY)
    lately = Conditions(opted_in_since=NOW - DAY)
    assert members_of(store, planned(store, "restock-*", exclude=lately)) == set()
    assert members_of(store, planned(store, "restock-*", include=lately)) == {"7007"}


# --- afterwards ---


def test_drift_sets_what_was_estimated_against_what_it_came_to(store: Store, make: Any) -> None:
    topic = make.topic()
    for psid in ("pays", "loses it", "refused", "open"):
        make.token(make.out_of_window(psid), topic)
    gone = make.out_of_window("gone")
    make.token(gone, topic)
    make.token(make.out_of_window("got it"), topic, state=TokenState.USED)
    with store.begin() as tx:
        contacts.mark_undeliverable(tx, gone.id, "blocked us")
    broadcast = planned(store)
    kept = json.loads(json.dumps(estimates.to_json(counted(store, broadcast))))
    assert (kept["total"], kept["left_out"], kept["waiting"]) == (
        6,
        {"undeliverable": 1, "token_used": 1},
        {"undeliverable": 1},
    )
    with store.begin() as tx:
        assert estimates.drift(tx, broadcast) == []
        broadcasts.schedule(tx, broadcast.id, Timetable(), who="ada", now=NOW, estimate=kept)
        scheduler.start_due(tx, NOW)
        begun = stored.get(tx, broadcast.id)
        place, found, after = scheduler.next_members(tx, begun, NOW)
        assert scheduler.freeze(tx, begun, place, found, after, NOW)
        became = {
            "pays": {"state": "sent", "route": "window"},
            "loses it": {"state": "skipped", "reason": "token_used"},
            "refused": {"state": "refused", "route": "token", "reason": "bad_request"},
            "open": {"state": "unknown", "route": "token", "reason": "outcome_unknown"},
            "gone": {"state": "skipped", "reason": "undeliverable"},
        }
        for psid, values in became.items():
            mine = sa.select(contact_table.c.id).where(contact_table.c.psid == psid).scalar_subquery()
            tx.execute(delivery_table.update().where(delivery_table.c.contact_id == mine).values(**values))
        lines = estimates.drift(tx, begun)
    assert [(line.what, line.estimated, line.result) for line in lines] == [
        ("token", 4, 0),
        ("window", 0, 1),
        ("undeliverable", 1, 1),
        ("bad_request", 0, 1),
        ("token_used", 0, 1),
        ("unknown", 0, 1),
    ]


# --- forecast ---


def test_a_forecast_counts_what_lapses_by_topic(store: Store, make: Any) -> None:
    person, year = make.out_of_window(), timedelta(days=365)
    make.topic("restock-*", is_family=True)
    blue, offers = make.topic("restock-blue"), make.topic("offers")
    make.topic("restock-red")
    for days in (0, 7, 8, 30, 90, 91):
        make.token(person, blue, opted_in_at=NOW - year + timedelta(days=days))
    make.token(person, blue, opted_in_at=NOW - year + DAY, state=TokenState.USED)
    make.token(person, offers)
    make.token(person, None)

    def rows(topic: str | None = None) -> list[tuple[Any, ...]]:
        with store.read() as tx:
            found = estimates.forecast(tx, NOW, topic)
        return [
            (one.topic, one.available, one.within_7_days, one.within_30_days, one.within_90_days)
            for one in found
        ]

    blue_s, red_s = ("restock-blue", 5, 1, 3, 4), ("restock-red", 0, 0, 0, 0)
    assert rows() == [("offers", 1, 0, 0, 0), blue_s, red_s, (None, 1, 0, 0, 0)]
    assert rows("restock-*") == [blue_s, red_s]
    assert rows("restock-blue") == [blue_s]
    assert rows("restock-never-used") == []
    with pytest.raises(NotFound):
        rows("nonsense")
