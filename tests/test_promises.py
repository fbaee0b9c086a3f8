"""The promises, whatever happens in whatever order: hypothesis plays people, Meta, crashes and time.

`Meta` below is the judge. It knows nothing of otn: it sees what goes over the wire, and applies the rules
of the platform notes by the times at which things happened. After every step the promises must hold:

1. every opt-in that was accepted is in the store, usable or with a reason;
2. nobody got a follow-up or a request twice, no token went out for two messages;
3. nothing that the rules forbid was even tried, and every decision has its reason or its rule.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from otn import asking, delivery, privacy
from otn.delivery import Order
from otn.errors import Refusal, Refused, SendError, Throttled, Unreachable
from otn.events import parse
from otn.graph.protocol import GraphConfig, Sent, build_send, classify, lost, with_metadata
from otn.intake import record, seal
from otn.messages import permission_request
from otn.models import AskAttempt, Attempt, InboxState, Origin, Route, Topic
from otn.policy import Allow, Deny
from otn.store import Store, contacts, deliveries, pages, tokens, topics
from otn.store.schema import contact as contact_table
from otn.store.schema import delivery as delivery_table
from otn.store.schema import otn_token
from otn.vault import Vault

START = datetime(2026, 10, 1, 12, 0, tzinfo=timezone.utc)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
PAGE, PEOPLE, TOPICS = "1001", ("ada", "bob"), ("restock", "offers")
CONFIG = GraphConfig(base_url="http://localhost", api_version="v26.0", page_id=PAGE, access_token="t")

# --- the judge ---


@dataclass
class Person:
    """What Meta knows of somebody. `window` is by their actions, `closed` by Meta's own whim."""

    window: datetime = START
    closed: datetime | None = None
    last_message: datetime | None = None
    requests: list[tuple[datetime, str]] = field(default_factory=list)

    def acts(self, at: datetime, length: timedelta) -> None:
        self.window = max(self.window, at + length)
        self.closed = None


@dataclass
class Token:
    """A permission that Meta gave out."""

    psid: str
    topic: str | None
    given: datetime
    used: bool = False


class Meta:
    """The platform, by its notes: delivers what the rules allow, once a token, and says no to the rest."""

    def __init__(self, void_error: tuple[int, int | None]) -> None:
        self.void_error = void_error  # not documented: one of the two possibilities
        self.people = {psid: Person() for psid in PEOPLE}
        self.tokens: dict[str, Token] = {}
        self.delivered: Counter[tuple[str, str]] = Counter()  # psid and what was said
        self.wire_ids: dict[str, str] = {}  # of what was delivered: to whom
        self.tapped: set[str] = set()

    def receive(self, body: dict[str, Any], now: datetime, refuse: Any) -> tuple[int, bytes]:
        """One call of the Send API: the answer's status and body."""
        error = refuse or self._rules(body, now)
        if error is not None:
            code, subcode = error
            told = {"message": "no", "code": code, **({"error_subcode": subcode} if subcode else {})}
            return 400, json.dumps({"error": told}).encode()
        psid, token = self._person(body), body["recipient"].get("one_time_notif_token")
        if token is not None:
            self.tokens[token].used = True
        self.delivered[psid, said(body["message"])] += 1
        self.wire_ids[body["message"]["metadata"]] = psid
        if is_request(body["message"]):
            self.people[psid].requests.append((now, said(body["message"])))
        return 200, json.dumps({"message_id": f"m_{secrets.token_hex(4)}"}).encode()

    def _person(self, body: dict[str, Any]) -> str:
        token = body["recipient"].get("one_time_notif_token")
        return self.tokens[token].psid if token else str(body["recipient"]["id"])

    def _rules(self, body: dict[str, Any], now: datetime) -> tuple[int, int | None] | None:
        token = self.tokens.get(body["recipient"].get("one_time_notif_token", ""))
        if said(body["message"]).startswith("bad"):
            return 100, None
        if token is not None:
            return self.void_error if token.used or now >= token.given + 365 * DAY else None
        person = self.people[self._person(body)]
        open_until = min(person.window, person.closed or person.window)
        if body.get("tag") == "HUMAN_AGENT":
            spoke = person.last_message
            return None if spoke is not None and now < spoke + 7 * DAY else (10, 2018278)
        return None if now < open_until else (10, 2018278)


def is_request(message: dict[str, Any]) -> bool:
    return "attachment" in message


def said(message: dict[str, Any]) -> str:
    return str(message["attachment"]["payload"]["payload"] if is_request(message) else message["text"])


# --- what can happen to a call ---

LOST, VANISHED, UNREACHABLE, FALSE_ERROR = "answer lost", "vanished", "unreachable", "false error"
REFUSALS: list[tuple[int, int | None]] = [
    (613, None),
    (613, 1893016),
    (10, 2018278),
    (10, 2018278),
    (10, 2018108),
    (368, None),
    (10, None),
    (190, None),
    (551, None),
    (100, 2018001),
    (100, 2018008),
    (10, 2018300),
]
faults = st.one_of(
    st.none(),
    st.none(),
    st.sampled_from([LOST, LOST, VANISHED, VANISHED, UNREACHABLE, FALSE_ERROR]),
    st.sampled_from(REFUSALS),
)
# What becomes of the process between the answer and its recording.
ends = st.sampled_from(["settled", "settled", "settled", "late", "dead"])
people, topic_names = st.sampled_from(PEOPLE), st.sampled_from(TOPICS)
mostly = st.sampled_from([True, True, True, False])
rarely = st.sampled_from([False, False, False, True])
SPANS = [SECOND, HOUR, HOUR, DAY - SECOND, DAY, DAY + HOUR, 7 * DAY, 364 * DAY]


@dataclass
class Flight:
    """A call that was made and whose answer is not recorded yet."""

    attempt: Attempt | AskAttempt
    psid: str
    posted: datetime
    outcome: Sent | SendError
    leased: bool = True


@dataclass
class Known:
    """What the bot has been told so far, and must therefore respect."""

    stopped_until: datetime | None = None
    stopped: bool = False
    may_not_ask: bool = False
    ask_not_before: dict[str, datetime] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    acted: dict[str, datetime] = field(default_factory=dict)  # when an opening action was last recorded
    echoed: set[str] = field(default_factory=set)  # what Meta has told to have arrived, by wire id
    forget: dict[str, datetime] = field(default_factory=dict)  # marked, not erased yet
    forgotten: dict[str, datetime] = field(default_factory=dict)


LIMITS: dict[str, dict[str, Any]] = {
    "restock": {"ask_while_available": True, "min_interval": DAY, "weekly_cap": 3},
    "offers": {"ask_while_available": True, "min_interval": timedelta(0), "weekly_cap": 3},
}
DELIVERIES = sa.select(delivery_table, contact_table.c.psid).join(
    contact_table, contact_table.c.id == delivery_table.c.contact_id
)


class Promises(RuleBasedStateMachine):
    """The bot between people and Meta."""

    store: Store
    vault: Vault
    fresh: Callable[[], Store]

    @initialize(
        void_error=st.sampled_from([(100, None), (10, 2018278)]), ago=st.sampled_from([HOUR, 2 * DAY])
    )
    def everybody_agrees(self, void_error: tuple[int, int | None], ago: timedelta) -> None:
        """Everybody has written once, and agreed to each topic."""
        self.store = type(self).fresh()
        self.now = START
        self.meta = Meta(void_error)
        self.known = Known()
        self.webhooks: list[dict[str, Any]] = []
        self.flights: list[Flight] = []
        self.accepted: dict[str, datetime] = {}  # tokens that a webhook brought, and when they were given
        self.holder: dict[str, str] = {}  # token -> the one message it may be out with
        self.replies = 0
        self.opened: dict[bytes, str] = {}
        self.asked: set[tuple[str, str, int]] = set()
        with self.store.begin() as tx:
            pages.ensure(tx, PAGE, self.now)
            for name in TOPICS:
                topics.add(tx, Topic(id=0, title=name, name=name, kind=name, **LIMITS[name]), self.now)
        for psid in PEOPLE:
            self.a_person_acts(psid, "message", arrives=True)
            for name in TOPICS:
                self._give(psid, f"otn:{name}", arrives=True)
        self.now += ago

    # --- people ---

    @rule(psid=people, kind=st.sampled_from(["message", "postback", "reaction", "ad"]), arrives=mostly)
    def a_person_acts(self, psid: str, kind: str, arrives: bool) -> None:
        mid = secrets.token_hex(8)
        event: dict[str, Any] = {
            "message": {"message": {"mid": mid, "text": "hi"}},
            "ad": {"message": {"mid": mid, "text": "hi", "referral": {"source": "ADS"}}},
            "postback": {"postback": {"mid": mid, "title": "Go", "payload": "GO"}},
            "reaction": {"reaction": {"mid": mid, "action": "react", "reaction": "love"}},
        }[kind]
        person = self.meta.people[psid]
        person.acts(self.now, 7 * DAY if kind == "ad" else DAY)
        if "message" in event:
            person.last_message = self.now
        self._tell(psid, event, arrives)

    @rule(psid=people, data=st.data(), arrives=mostly)
    def a_person_taps_notify_me(self, psid: str, data: st.DataObject, arrives: bool) -> None:
        cards = [card for _, card in self.meta.people[psid].requests if card not in self.meta.tapped]
        card = data.draw(st.sampled_from([*cards, "otn:restock", "otn:offers", "what another bot asked"]))
        if card in cards:
            self.meta.tapped.add(card)
        self._give(psid, card, arrives)

    def _give(self, psid: str, card: str, arrives: bool) -> None:
        token = f"token-{secrets.token_hex(8)}"
        named = card.split(":")[1] if card.startswith("otn:") else None
        self.meta.tokens[token] = Token(psid, named, self.now)
        optin = {"type": "one_time_notif_req", "payload": card, "one_time_notif_token": token}
        self._tell(psid, {"optin": optin}, arrives)

    def _tell(self, psid: str, event: dict[str, Any], arrives: bool = False) -> None:
        """A webhook: it arrives at once, or some time, and perhaps again."""
        item = {"sender": {"id": psid}, "recipient": {"id": PAGE}, **event}
        item["timestamp"] = int(self.now.timestamp() * 1000)
        self.webhooks.append(item)
        if arrives:
            self._receive(item)

    @precondition(lambda self: self.webhooks)
    @rule(data=st.data(), dies=st.booleans())
    def a_webhook_comes_in(self, data: st.DataObject, dies: bool) -> None:
        """In any order, perhaps once more; if we die before the commit, Meta tries again."""
        item = data.draw(st.sampled_from(self.webhooks[-8:]))
        if dies:
            self._receive(item, dies=True)
        self._receive(item)

    def _receive(self, item: dict[str, Any], dies: bool = False) -> None:
        body = {"object": "page", "entry": [{"id": PAGE, "messaging": [item]}]}
        (event,) = events = parse(json.dumps(body).encode(), self.now)
        try:
            with self.store.begin() as tx, tx.begin_nested():
                (recorded,) = record(tx, self.vault, seal(self.vault, events), own_pages={PAGE}, now=self.now)
                if dies:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            return
        psid = str(event.psid)
        forgotten = self.known.forget.get(psid) or self.known.forgotten.get(psid)
        before_that = forgotten is not None and event.at <= forgotten
        assert (recorded.state is InboxState.IGNORED) is before_that, "only an erasure makes it ignored"
        if before_that:
            return
        if "optin" in item:
            self.accepted.setdefault(item["optin"]["one_time_notif_token"], event.at)
        elif "is_echo" in item.get("message", {}):
            self.known.echoed.add(str(event.metadata))
        elif recorded.is_new:
            self.known.acted[psid] = max(event.at, self.known.acted.get(psid, START))
            self.known.unreachable.discard(psid)

    # --- the bot speaks ---

    @rule(psid=people, fault=faults, end=ends)
    def the_bot_replies(self, psid: str, fault: Any, end: str) -> None:
        with self.store.begin() as tx:
            allowed = delivery.may_say(tx, page_id=PAGE, psid=psid, now=self.now)
        if isinstance(allowed, Deny):
            return
        self.replies += 1
        wire_id = f"otn:reply-{self.replies}"
        message = with_metadata({"text": f"reply {self.replies}"}, wire_id)
        outcome = self._post({"id": psid}, message, psid, fault, messaging_type="RESPONSE")
        if isinstance(outcome, SendError) and end != "dead":
            with self.store.begin() as tx:
                delivery.record_unsent_reply(
                    tx,
                    page_id=PAGE,
                    psid=psid,
                    message=message,
                    wire_id=wire_id,
                    why=outcome,
                    now=self.now,
                    sent_at=self.now,
                )
            self._learn(outcome, psid, self.now)

    @rule(psid=people, topic=topic_names, turn=st.integers(0, 9), fault=faults, end=ends)
    def the_bot_asks(self, psid: str, topic: str, turn: int, fault: Any, end: str) -> None:
        with self.store.begin() as tx:
            begun = asking.begin(
                tx, page_id=PAGE, psid=psid, topic=topic, dedupe_key=f"{psid}:{topic}:{turn}", now=self.now
            )
        if isinstance(begun, AskAttempt):
            assert (psid, topic, turn) not in self.asked, "a key asked twice"
            self.asked.add((psid, topic, turn))
            assert not self.known.may_not_ask, "asked on a page that may not ask"
            assert self.now >= self.known.ask_not_before.get(psid, START), "asked too soon for Meta"
            message = with_metadata(permission_request(begun.title, begun.payload), begun.wire_id)
            outcome = self._post({"id": psid}, message, psid, fault, messaging_type="RESPONSE")
            self._end(Flight(begun, psid, self.now, outcome), end)

    @rule(topic=topic_names, campaign=st.integers(0, 7), fault=faults, end=ends)
    def everybody_gets_the_same_follow_up(self, topic: str, campaign: int, fault: Any, end: str) -> None:
        for psid, goes_wrong in zip(PEOPLE, (None, fault), strict=True):
            self.somebody_sends_a_follow_up(psid, topic, campaign, False, False, goes_wrong, end)

    @rule(
        psid=people,
        topic=topic_names,
        campaign=st.integers(0, 7),
        bad=rarely,
        by_hand=rarely,
        fault=faults,
        end=ends,
    )
    def somebody_sends_a_follow_up(
        self, psid: str, topic: str, campaign: int, bad: bool, by_hand: bool, fault: Any, end: str
    ) -> None:
        text = f"{'bad' if bad else 'good'} news {campaign} on {topic}"
        order = Order(
            page_id=PAGE,
            psid=psid,
            topic=topic,
            message={"text": text},
            dedupe_key=f"{psid}:{text}",
            origin=Origin.CONSOLE if by_hand else Origin.CLI,
            human_agent=by_hand,
        )
        with self.store.read() as tx:
            is_new = deliveries.by_key(tx, order.dedupe_key) is None
            foretold = delivery.decide(
                tx, psid=psid, topic=topic, now=self.now, page_id=PAGE, human_agent=by_hand
            )
        with self.store.begin() as tx:
            begun = delivery.begin(tx, self.vault, order, self.now)
        if isinstance(begun, Deny):
            assert begun == foretold
        elif isinstance(begun, Attempt):
            assert is_new, "a key was decided twice"
            assert isinstance(foretold, Allow)
            assert foretold.route is begun.route
            self._carry_out(begun, psid, fault, end)
        else:
            assert not is_new

    @rule(fault=faults, end=ends, early=st.booleans())
    def the_worker_goes_on(self, fault: Any, end: str, early: bool) -> None:
        with self.store.read() as tx:
            due = deliveries.due(tx, self.now + (100 * DAY if early else timedelta(0)), limit=2)
        for delivery_id in due:
            self._resume(delivery_id, fault, end)

    def _resume(self, delivery_id: int, fault: Any, end: str) -> None:
        with self.store.begin() as tx:
            resumed = delivery.resume(tx, self.vault, delivery_id, self.now)
            psid = deliveries.get(tx, delivery_id).psid
        if isinstance(resumed, Attempt):
            self._carry_out(resumed, psid, fault, end)

    def _carry_out(self, attempt: Attempt, psid: str, fault: Any, end: str) -> None:
        key = said(attempt.message)
        token = attempt.recipient.get("one_time_notif_token")
        if token is not None:
            given = self.meta.tokens[token]
            assert (given.psid, given.topic) == (psid, key.rpartition(" ")[2]), "another one's permission"
            assert self.now < given.given + 365 * DAY, "a token that has lapsed"
            assert self.holder.setdefault(token, key) == key, "one token went out for two messages"
        outcome = self._post(
            attempt.recipient,
            attempt.message,
            psid,
            fault,
            messaging_type=attempt.messaging_type,
            tag=attempt.tag,
        )
        self._end(Flight(attempt, psid, self.now, outcome), end)

    def _post(
        self, recipient: dict[str, str], message: dict[str, Any], psid: str, fault: Any, **more: Any
    ) -> Sent | SendError:
        """Over the wire and back, with what can go wrong. What may not leave us must not get here."""
        self._require_allowed(recipient, psid, more.get("tag"))
        request = build_send(CONFIG, recipient=recipient, message=message, **more)
        assert request.body is not None
        if fault == UNREACHABLE:
            return Unreachable("connection refused")
        if fault == VANISHED:
            return lost(request, written=True, reason="reset")
        status, answer = self._delivered(json.loads(request.body), psid, fault)
        if fault == LOST:
            return lost(request, written=True, reason="time-out")
        if fault == FALSE_ERROR and status == 200:
            status, answer = 400, b'{"error": {"message": "oops", "code": 1, "error_subcode": 1357046}}'
        try:
            return classify(status, {}, answer)
        except SendError as error:
            return error

    def _delivered(self, body: dict[str, Any], psid: str, fault: Any) -> tuple[int, bytes]:
        refuse = fault if isinstance(fault, tuple) else None
        if refuse == (10, 2018278) and body.get("messaging_type") in (None, "MESSAGE_TAG"):
            refuse = None  # by token it would be a lie about the token, which the rules have to believe
        elif refuse == (10, 2018278):
            self.meta.people[psid].closed = self.now
        status, answer = self.meta.receive(body, self.now, refuse)
        if status == 200:
            echo = {"mid": secrets.token_hex(4), "is_echo": True, "metadata": body["message"]["metadata"]}
            self._tell(psid, {"sender": {"id": PAGE}, "recipient": {"id": psid}, "message": echo})
        return status, answer

    def _require_allowed(self, recipient: dict[str, str], psid: str, tag: str | None) -> None:
        known, person = self.known, self.meta.people[psid]
        assert not known.stopped, "the page is stopped"
        assert known.stopped_until is None or self.now >= known.stopped_until, "Meta limits the page"
        assert psid not in known.unreachable, "the person can't be reached"
        assert psid not in known.forget, "the person asked to be forgotten"
        if tag == "HUMAN_AGENT":
            spoke = person.last_message
            assert spoke is not None, "written by hand to somebody who never wrote"
            assert self.now < spoke + 7 * DAY, "written by hand after seven days"
        elif "id" in recipient:
            assert self.now < person.window, "by psid outside the window"

    # --- answers ---

    def _end(self, flight: Flight, end: str) -> None:
        if end == "settled":
            self._settle(flight)
        elif end == "late":
            self.flights.append(flight)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def a_late_answer_is_recorded(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from(self.flights))
        self.flights.remove(flight)
        self._settle(flight)

    def _settle(self, flight: Flight) -> None:
        attempt = flight.attempt
        with self.store.begin() as tx:
            if isinstance(attempt, AskAttempt):
                asking.settle(tx, attempt, flight.outcome, self.now)
            else:
                delivery.settle(tx, attempt, flight.outcome, self.now)
        if isinstance(flight.outcome, SendError):
            route = None if isinstance(attempt, AskAttempt) else attempt.route
            self._learn(flight.outcome, flight.psid, flight.posted, route, isinstance(attempt, AskAttempt))
        self._free_tokens()

    def _free_tokens(self) -> None:
        """A token that the store counts as available is free for another message, if Meta agrees."""
        with self.store.read() as tx:
            free = {
                self._open(row.ciphertext)
                for row in tx.execute(sa.select(otn_token).where(otn_token.c.state == "available"))
                if row.ciphertext is not None
            }
        for token in free & self.holder.keys():
            assert not self.meta.tokens[token].used, "a spent token counts as available"
            del self.holder[token]

    def _learn(
        self, error: SendError, psid: str, posted: datetime, route: Route | None = None, ask: bool = False
    ) -> None:
        """What an answer obliges the bot to from now on."""
        if isinstance(error, Throttled):
            self._stop_until(self.now + timedelta(seconds=error.retry_after))
        elif isinstance(error, Refused) and error.refusal is Refusal.PAGE_RESTRICTED:
            self._stop_until(self.now + 6 * HOUR)
        elif isinstance(error, Refused):
            self._obey(error.refusal, psid, posted, route, ask)

    def _obey(self, refusal: Refusal, psid: str, posted: datetime, route: Route | None, ask: bool) -> None:
        known, denied = self.known, refusal is Refusal.PERMISSION_MISSING
        if ask and refusal is Refusal.TOO_MANY_REQUESTS:
            known.ask_not_before[psid] = self.now + DAY
        if ask and denied:
            known.may_not_ask = True
        elif refusal is Refusal.BAD_ACCESS_TOKEN or (denied and route is not Route.HUMAN_AGENT):
            known.stopped = True
        gone = refusal in (Refusal.PERSON_UNAVAILABLE, Refusal.NO_SUCH_PERSON)
        if gone and known.acted.get(psid, START) <= posted:
            known.unreachable.add(psid)

    def _stop_until(self, until: datetime) -> None:
        self.known.stopped_until = max(until, self.known.stopped_until or until)

    # --- operators, deaths, time ---

    @rule(late_ones_too=st.booleans(), fault=faults, end=ends)
    def leases_run_out_and_the_worker_finds_it(self, late_ones_too: bool, fault: Any, end: str) -> None:
        self._leases_run_out(late_ones_too=late_ones_too)
        self.the_worker_goes_on(fault, end, early=False)

    def _leases_run_out(self, *, late_ones_too: bool) -> None:
        for flight in self.flights if late_ones_too else []:
            flight.leased = False
        alive = [flight.attempt.wire_id for flight in self.flights if flight.leased]
        over = delivery_table.c.wire_id.not_in(alive)
        with self.store.begin() as tx:
            tx.execute(delivery_table.update().where(over).values(lease_until=1.0))
            deliveries.lapse_leases(tx, self.now)

    @rule()
    def the_house_is_kept(self) -> None:
        with self.store.begin() as tx:
            deliveries.give_up_unconfirmed(tx, self.now)
            tokens.destroy_lapsed(tx, self.now)
            for contact in contacts.to_erase(tx):
                if privacy.erase(tx, contact.id, self.now):
                    # What has arrived is not on its way, even while somebody repeats it with its spent token.
                    alive = [
                        one
                        for one in self.flights
                        if one.leased
                        and isinstance(one.attempt, Attempt)
                        and one.attempt.wire_id not in self.known.echoed
                    ]
                    assert contact.psid not in {one.psid for one in alive}, "erased while it was sent"
                    self.known.forgotten[contact.psid] = self.known.forget.pop(contact.psid)

    @precondition(lambda self: self.known.stopped or self.known.stopped_until or self.known.may_not_ask)
    @rule()
    def an_operator_resumes_the_page(self) -> None:
        with self.store.begin() as tx:
            pages.resume(tx, PAGE)
        self.known = replace(self.known, stopped=False, stopped_until=None, may_not_ask=False)

    @rule(psid=people, sure=rarely, comes_back=st.booleans())
    def a_person_wants_to_be_forgotten(self, psid: str, sure: bool, comes_back: bool) -> None:
        if not sure:
            return
        with self.store.begin() as tx:
            contact = contacts.find(tx, PAGE, psid)
            if contact is not None:
                privacy.request_erasure(tx, contact, who="test", now=self.now)
                self.known.forget[psid] = self.now
        if comes_back:
            self.now += SECOND
            self._give(psid, "otn:restock", arrives=True)

    @rule(span=st.sampled_from(SPANS), fault=faults, end=ends)
    def time_passes_and_the_worker_works(self, span: timedelta, fault: Any, end: str) -> None:
        self.now += span
        self.the_worker_goes_on(fault, end, early=False)

    # --- the promises ---

    @invariant()
    def the_promises_hold(self) -> None:
        with self.store.read() as tx:
            kept = tx.execute(sa.select(otn_token)).all()
            rows = tx.execute(DELIVERIES).all()
        self._no_permission_is_lost({row.token_hash: row for row in kept})
        self._nobody_gets_anything_twice()
        self._nobody_is_asked_too_often()
        for row in rows:
            self._is_true_and_explained(row)
        # Every reserved token is held by one delivery that is on its way, and no other token is.
        held = [row.token_id for row in rows if row.token_id and row.state in ("sending", "unknown")]
        assert Counter(held) == Counter(row.id for row in kept if row.state == "reserved")

    def _no_permission_is_lost(self, kept: dict[str, Any]) -> None:
        for token, given in self.accepted.items():
            row, told = kept.get(self.vault.token_hash(token)), self.meta.tokens[token]
            assert row is not None, "an accepted opt-in is not in the store"
            if row.state == "used":
                assert told.used, "an unused permission counts as used"
            elif row.state == "invalid":
                assert given <= self.known.forgotten.get(told.psid, START - DAY), "invalid without an erasure"
            elif self.now < given + 365 * DAY:
                assert row.ciphertext is not None, "a living permission without its secret"
                assert self._open(row.ciphertext) == token
            if row.state == "available":
                assert not told.used, "a spent permission counts as available"

    def _open(self, sealed: bytes) -> str:
        if sealed not in self.opened:
            self.opened[sealed] = self.vault.open(sealed).decode()
        return self.opened[sealed]

    def _nobody_gets_anything_twice(self) -> None:
        twice = {what: times for what, times in self.meta.delivered.items() if times > 1}
        assert not twice, twice

    def _nobody_is_asked_too_often(self) -> None:
        for person in self.meta.people.values():
            for at, card in person.requests:
                topic = card.split(":")[1]
                same = [other for other, its in person.requests if its.split(":")[1] == topic]
                if topic == "restock":
                    assert sum(at - DAY < other <= at for other in same) == 1, "asked twice within a day"
                assert sum(at - 7 * DAY < other <= at for other, _ in person.requests) <= 3, "too often"

    def _is_true_and_explained(self, row: Any) -> None:
        out = self.meta.wire_ids.get(row.wire_id)
        assert out in (None, row.psid), "somebody else got it"
        if row.state == "sent":
            assert out, "called sent, and nobody got it"
            assert row.rule or row.origin == "reply", "sent by no rule"
        elif row.state in ("queued", "skipped", "refused"):
            assert not out, f"called {row.state}, and somebody got it"
        if row.state not in ("sent", "sending", "queued"):
            assert row.reason, f"{row.state} without a reason"

    def teardown(self) -> None:
        """When all is calm again, nothing stays open: Meta is well, every webhook comes in, time passes."""
        if not hasattr(self, "flights"):
            return
        for flight in self.flights:
            self._settle(flight)
        self._leases_run_out(late_ones_too=True)
        for _ in range(3):
            self.an_operator_resumes_the_page()
            while self.webhooks:
                self._receive(self.webhooks.pop())
            with self.store.read() as tx:
                due = deliveries.due(tx, self.now)
            for delivery_id in due:
                self._resume(delivery_id, None, "settled")
            self.now += DAY
            self.the_house_is_kept()
        with self.store.read() as tx:
            rows = tx.execute(DELIVERIES).all()
        for row in rows:
            assert row.state not in ("queued", "sending", "unknown"), "something stays open for ever"
            if row.wire_id in self.meta.wire_ids and row.psid not in self.known.forgotten:
                assert row.state == "sent", "the echo is here, and nobody believes it"
        self.the_promises_hold()


def play(fresh: Callable[[], Store], vault: Vault, examples: int) -> None:
    machine = type("Bound", (Promises,), {"fresh": staticmethod(fresh), "vault": vault})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=120,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_promises_hold_whatever_happens_on_sqlite(
    sqlite_store: Store, empty: Callable[[Store], Store], vault: Vault
) -> None:
    sa.event.listen(sqlite_store.engine, "connect", hurry)
    play(lambda: empty(sqlite_store), vault, examples=25)


def hurry(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")  # nobody pulls the plug here


def test_the_promises_hold_whatever_happens_on_postgresql(
    postgresql_store: Store, empty: Callable[[Store], Store], vault: Vault
) -> None:
    play(lambda: empty(postgresql_store), vault, examples=5)
