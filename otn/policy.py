"""The law: what Meta allows and what we promised, as pure functions of facts and `now`.

A decision is a value, `Allow` or `Deny`, with a sentence that can be shown to a person. Nothing here
reads a clock, a database or a network. Sources are pages of Meta's documentation, named as in
the README: OTN, FAQ, SEND, HOOKS, ERR, RATE, POLICY.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple

from otn.errors import Kept, OutcomeUnknown, Refusal, Refused, SendError, Throttled, Unreachable
from otn.events import WindowOpening
from otn.models import AskingHistory, Contact, Page, Route, TokenCount, TokenState, Topic

STANDARD_WINDOW = timedelta(hours=24)  # POLICY: 24 h from the person's last action
AD_WINDOW = timedelta(days=7)  # POLICY: the first message after a click-to-Messenger ad
HUMAN_AGENT_WINDOW = timedelta(days=7)  # POLICY: tag HUMAN_AGENT, written by a person
TOKEN_LIFE = timedelta(days=365)  # OTN: one year from creation
ASK_PAUSE = timedelta(hours=24)  # after Meta answered "too many requests" (ERR 613/1893016 and kin)
CAPPED_PERIOD = timedelta(days=7)  # a topic's weekly cap counts requests in this long
UNCONFIRMED_AFTER = timedelta(hours=24)  # a window send without an echo is given up after this long
CANNOT_RECEIVE_PAUSE = timedelta(hours=1)  # between tries of a token in doubt (ERR 10/2018108, 2018300)
MAX_TRIES = 5  # of a send that never left us
# Of a token send that may have arrived: with the waits below they take a day, as long as a window send's echo is
# waited for. Somebody who can't receive messages for weeks would else keep a broadcast from ever finishing.
MAX_ASKED = 16
FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(hours=6)
# Messages a second and Page. What we aim at is lower, so that no second comes to have more.
MOST_SENDS_PER_SECOND = 300.0  # RATE: text, links and templates
SENDS_PER_SECOND = 290.0  # unless OTN_SENDS_PER_SECOND says less
MOST_MEDIA_PER_SECOND = 10.0  # RATE: audio and video
MEDIA_PER_SECOND = 9.6

_WINDOW_LENGTH = {WindowOpening.AD: AD_WINDOW}


class Reason(str, Enum):
    """Why not. The first six are also the values of the slot `otn_request_decision`."""

    ALREADY_PERMITTED = "already_permitted"
    WINDOW_CLOSED = "window_closed"
    TOO_SOON = "too_soon"
    UNKNOWN_TOPIC = "unknown_topic"
    PAGE_PAUSED = "page_paused"
    NOT_MESSENGER = "not_messenger"
    UNKNOWN_CONTACT = "unknown_contact"
    UNDELIVERABLE = "undeliverable"
    ERASED = "erased"
    NO_TOKEN = "no_token"  # noqa: S105 - a word, not a password
    TOKEN_USED = "token_used"  # noqa: S105
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    TOKEN_RESERVED = "token_reserved"  # noqa: S105
    TOKEN_SUSPECT = "token_suspect"  # noqa: S105
    NOT_ONE_MESSAGE = "not_one_message"
    FILTERED = "filtered"
    MISSED_TIME = "missed_time"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """Yes: by which route, and the rule that allows it in a sentence."""

    route: Route
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """No: why, as a word for machines and a sentence for people."""

    reason: Reason
    sentence: str


Decision = Allow | Deny

UNKNOWN_CONTACT = Deny(
    reason=Reason.UNKNOWN_CONTACT,
    sentence="This person has never written to the page, so nothing may be sent.",
)


def window_until(opening: WindowOpening, at: datetime) -> datetime:
    """When the messaging window that this action opened at `at` closes (exclusive)."""
    return at + _WINDOW_LENGTH.get(opening, STANDARD_WINDOW)


def token_expiry(opted_in_at: datetime) -> datetime:
    """When a token given at `opted_in_at` lapses (exclusive)."""
    return opted_in_at + TOKEN_LIFE


def window_is_open(contact: Contact, now: datetime) -> bool:
    """Whether a standard message may be sent now: until, but not at, the window's end."""
    return contact.window_until is not None and now < contact.window_until


def may_reply(contact: Contact | None, page: Page, now: datetime) -> Decision:
    """May an ordinary message of the conversation go out?"""
    if blocked := _blocked(contact, page, now):
        return blocked
    assert contact is not None  # noqa: S101 - _blocked refuses a missing contact
    if window_is_open(contact, now):
        return _by_window(contact)
    return _window_closed(contact)


def may_ask(
    contact: Contact | None,
    page: Page,
    topic: Topic | None,
    tokens: TokenCount,
    history: AskingHistory,
    now: datetime,
) -> Decision:
    """May we ask this person for permission to write about this topic? (OTN, FAQ: inside the window, no spam)"""
    if topic is None or topic.archived_at is not None:
        return Deny(reason=Reason.UNKNOWN_TOPIC, sentence="There is no such topic, or it is archived.")
    reply = may_reply(contact, page, now)
    if isinstance(reply, Deny):
        return reply
    if tokens.available and not topic.ask_while_available:
        return Deny(
            reason=Reason.ALREADY_PERMITTED,
            sentence=f"The person already agreed to '{topic.title}'; that permission is still unused.",
        )
    if page.otn_denied_reason is not None:
        return Deny(
            reason=Reason.PAGE_PAUSED,
            sentence=f"The page may not use One-Time Notifications: {page.otn_denied_reason}.",
        )
    assert contact is not None  # noqa: S101 - may_reply refuses a missing contact
    return _asked_too_often(contact, topic, history, now) or reply


def choose_route(
    contact: Contact | None, page: Page, tokens: TokenCount, now: datetime, *, human_agent: bool = False
) -> Decision:
    """How may a follow-up reach this person now?

    Inside the window as a standard message, the token is kept (FAQ: a token used inside the window is
    consumed all the same); outside it by a token of the topic; by HUMAN_AGENT only on a person's word.
    """
    if blocked := _blocked(contact, page, now):
        return blocked
    assert contact is not None  # noqa: S101 - _blocked refuses a missing contact
    if window_is_open(contact, now):
        return _by_window(contact)
    if human_agent:
        return _by_human_agent(contact, now)
    if tokens.available:
        return Allow(
            route=Route.TOKEN,
            rule="The messaging window is closed; one unused permission of the topic pays for this message.",
        )
    return _no_token(tokens)


def _blocked(contact: Contact | None, page: Page, now: datetime) -> Deny | None:
    if pause := pause_of(page, now):
        end = f"until {_when(pause.until)}" if pause.until else pause.end
        return Deny(reason=Reason.PAGE_PAUSED, sentence=f"The page is paused {end}: {pause.reason}.")
    if contact is None:
        return UNKNOWN_CONTACT
    if contact.erase_requested_at is not None:
        return Deny(reason=Reason.ERASED, sentence="The person asked to be forgotten; nothing more is sent.")
    if contact.undeliverable_reason is not None:
        return Deny(
            reason=Reason.UNDELIVERABLE,
            sentence=f"The person can't be reached: {contact.undeliverable_reason}.",
        )
    return None


class Pause(NamedTuple):
    """Why nothing may leave a page, and until when; without a time, until somebody ends it."""

    reason: str
    until: datetime | None
    by_webhook: bool = False  # Meta's block, which another webhook ends

    @property
    def end(self) -> str:
        """Until when, where there is no time."""
        return "until Meta unblocks it" if self.by_webhook else "until it is resumed"

    def todo(self, page_id: str) -> str:
        """What somebody has to do to end it, where there is no time."""
        if self.by_webhook:
            return "see in the Page's settings what Meta objects to; the block ends by itself once Meta unblocks it"
        return f"see to the reason, then `otn page resume {page_id}`"


def pause_of(page: Page, now: datetime) -> Pause | None:
    """What keeps everything on this page now, if anything does: Meta's block (HOOKS) before a pause of ours."""
    return next(iter(pauses_of(page, now)), None)


def pauses_of(page: Page, now: datetime) -> list[Pause]:
    """Everything that keeps this page now: each ends for itself."""
    found = []
    if page.blocked_reason is not None:
        found.append(Pause(page.blocked_reason, None, by_webhook=True))
    if page.paused_reason is not None and (page.paused_until is None or now < page.paused_until):
        found.append(Pause(page.paused_reason, page.paused_until))
    return found


def page_is_paused(page: Page, now: datetime) -> bool:
    """Whether nothing may leave this page now."""
    return pause_of(page, now) is not None


def _by_window(contact: Contact) -> Allow:
    return Allow(
        route=Route.WINDOW,
        rule=f"The messaging window is open until {_when(contact.window_until)}; no permission is spent.",
    )


def _window_closed(contact: Contact) -> Deny:
    if contact.window_until is None:
        sentence = "The messaging window was never open: the person has not written yet."
    else:
        sentence = f"The messaging window closed at {_when(contact.window_until)}."
    return Deny(reason=Reason.WINDOW_CLOSED, sentence=sentence)


def _by_human_agent(contact: Contact, now: datetime) -> Decision:
    last = contact.last_message_at
    if last is not None and now < last + HUMAN_AGENT_WINDOW:
        return Allow(
            route=Route.HUMAN_AGENT,
            rule=f"A person wrote this within 7 days of the last message at {_when(last)} (tag HUMAN_AGENT).",
        )
    return Deny(
        reason=Reason.WINDOW_CLOSED,
        sentence="A person may write within 7 days of the last message; that time is over.",
    )


def _no_token(tokens: TokenCount) -> Deny:
    closed = "The messaging window is closed and "
    if tokens.reserved:
        return Deny(
            reason=Reason.TOKEN_RESERVED,
            sentence=closed + "the permission is held by another message on its way.",
        )
    if tokens.suspect:
        return Deny(
            reason=Reason.TOKEN_SUSPECT,
            sentence=closed + "Meta refused the last permission in a way that leaves it in doubt.",
        )
    if tokens.used:
        used = f" (used at {_when(tokens.last_used_at)})" if tokens.last_used_at else ""
        return Deny(
            reason=Reason.TOKEN_USED,
            sentence=closed
            + f"the permission for this topic is already used{used}: one permission, one message.",
        )
    if tokens.expired:
        return Deny(
            reason=Reason.TOKEN_EXPIRED,
            sentence=closed + "the permission is older than a year and has lapsed.",
        )
    return Deny(reason=Reason.NO_TOKEN, sentence=closed + "the person gave no permission for this topic.")


def _asked_too_often(contact: Contact, topic: Topic, history: AskingHistory, now: datetime) -> Deny | None:
    if contact.do_not_ask_until is not None and now < contact.do_not_ask_until:
        return _too_soon(f"Meta asked us not to ask this person before {_when(contact.do_not_ask_until)}")
    last = history.last_asked_at
    if last is not None and now < last + topic.min_interval:
        return _too_soon(
            f"This topic was asked for at {_when(last)}; again from {_when(last + topic.min_interval)}"
        )
    if history.asked_this_week >= topic.weekly_cap:
        return _too_soon(f"The person was asked {history.asked_this_week} times within seven days")
    return None


def _too_soon(sentence: str) -> Deny:
    return Deny(reason=Reason.TOO_SOON, sentence=sentence + ".")


def _when(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC") if moment else "an unknown time"


class Fate(str, Enum):
    """What an unsuccessful answer means for the delivery that asked for it."""

    REFUSED = "refused"  # final, nothing was sent
    DECIDE_AGAIN = "decide_again"  # nothing was sent; the window is closed after all
    RETRY = "retry"  # nothing was sent; the same delivery may be tried again later
    UNKNOWN = "unknown"  # it may have been sent
    UNCONFIRMED = "unconfirmed"  # it may have been sent and nothing will tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What to do with delivery and token after an answer that was not a "yes".

    `token` is None where no token is involved. `wait` is the time until the next try, None for none.
    """

    fate: Fate
    token: TokenState | None = None
    wait: timedelta | None = None


_PASSING = {  # true of the page or the moment, not of this token: the same token may be tried again
    Refusal.CANNOT_RECEIVE_NOW,
    Refusal.THREAD_CONTROL,
    Refusal.PAGE_RESTRICTED,
    Refusal.PERMISSION_MISSING,
    Refusal.BAD_ACCESS_TOKEN,
    Refusal.TOO_MANY_REQUESTS,
}
# ERR documents no code for a used, expired or invalid token: these may mean the token or the message.
_MAY_MEAN_THE_TOKEN = {Refusal.BAD_REQUEST, Refusal.OUTSIDE_WINDOW}


def react(
    error: SendError, *, route: Route, attempts: int, doubtful: bool, window_refused: bool = False
) -> Reaction:
    """What an error means, by the table of ERR.

    `doubtful`: an earlier attempt of this delivery may have arrived. `attempts` counts this one.
    `window_refused`: it was already decided again once.
    """
    if isinstance(error, Kept):
        return _as_before(route, doubtful)
    if route is Route.TOKEN:
        return _react_token(error, attempts, doubtful)
    # What a person wrote by hand was decided as outside the window already.
    return _react_psid(error, attempts, window_refused or route is Route.HUMAN_AGENT)


def _as_before(route: Route, doubtful: bool) -> Reaction:
    """We did not even try: it is due as it was."""
    if route is not Route.TOKEN:
        return Reaction(fate=Fate.RETRY, wait=timedelta())
    if doubtful:
        return Reaction(fate=Fate.UNKNOWN, token=TokenState.RESERVED, wait=timedelta())
    return Reaction(fate=Fate.RETRY, token=TokenState.AVAILABLE, wait=timedelta())


def _react_psid(error: SendError, attempts: int, window_refused: bool) -> Reaction:
    if isinstance(error, OutcomeUnknown):
        return Reaction(fate=Fate.UNKNOWN)  # a psid send is never retried on its own
    if isinstance(error, Throttled | Unreachable):
        return _retry(error, attempts, None)
    if isinstance(error, Refused) and error.refusal is Refusal.OUTSIDE_WINDOW and not window_refused:
        return Reaction(fate=Fate.DECIDE_AGAIN)
    return Reaction(fate=Fate.REFUSED)


def _react_token(error: SendError, attempts: int, doubtful: bool) -> Reaction:
    if isinstance(error, OutcomeUnknown) and not (doubtful and attempts >= MAX_ASKED):
        return Reaction(fate=Fate.UNKNOWN, token=TokenState.RESERVED, wait=backoff(attempts))
    if doubtful:
        return _react_doubtful(error, attempts)
    if isinstance(error, Throttled | Unreachable):
        return _retry(error, attempts, TokenState.AVAILABLE)
    if may_mean_the_token(error):
        return Reaction(fate=Fate.REFUSED, token=TokenState.SUSPECT)
    return Reaction(fate=Fate.REFUSED, token=TokenState.AVAILABLE)


def may_mean_the_token(error: SendError) -> bool:
    """Whether a refused token send may have been refused because the token is used, expired or invalid."""
    return isinstance(error, Refused) and error.refusal in _MAY_MEAN_THE_TOKEN


def _react_doubtful(error: SendError, attempts: int) -> Reaction:
    """After an attempt that may have arrived, no refusal proves that nothing was sent."""
    if isinstance(error, Refused) and error.refusal in _PASSING and attempts < MAX_ASKED:
        wait = max(CANNOT_RECEIVE_PAUSE, backoff(attempts))
        return Reaction(fate=Fate.UNKNOWN, token=TokenState.RESERVED, wait=wait)
    if isinstance(error, Throttled):
        return Reaction(
            fate=Fate.UNKNOWN, token=TokenState.RESERVED, wait=timedelta(seconds=error.retry_after)
        )
    if isinstance(error, Unreachable):
        return Reaction(fate=Fate.UNKNOWN, token=TokenState.RESERVED, wait=backoff(attempts))
    return Reaction(fate=Fate.UNCONFIRMED, token=TokenState.SUSPECT)


def _retry(error: SendError, attempts: int, token: TokenState | None) -> Reaction:
    if isinstance(error, Throttled):
        return Reaction(fate=Fate.RETRY, token=token, wait=timedelta(seconds=error.retry_after))
    if attempts >= MAX_TRIES:
        return Reaction(fate=Fate.REFUSED, token=token)
    return Reaction(fate=Fate.RETRY, token=token, wait=backoff(attempts))


def backoff(attempts: int) -> timedelta:
    """How long to wait after the given number of tries: doubling from 5 s up to 6 h."""
    doublings: int = 2 ** min(attempts - 1, 20)
    return min(FIRST_BACKOFF * doublings, LONGEST_BACKOFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePause:
    """Nothing may leave the page; without `wait`, until an operator resumes it."""

    reason: str
    wait: timedelta | None = None


BLOCKED, RESTRICTED = "Meta blocked the page", "Meta restricted the page"  # what "unblock" takes back (HOOKS)
RESTRICTED_PROBE = timedelta(hours=6)  # probe slowly while Meta restricts the page (ERR 368)


def pause_for(error: SendError, route: Route = Route.WINDOW) -> PagePause | None:
    """What an error says about the whole page (ERR: rate limits, 190, 10, 200, 368).

    HUMAN_AGENT needs a permission of its own (POLICY): its lack says nothing about other messages.
    """
    if isinstance(error, Throttled):
        return PagePause(
            reason=f"Meta limits our calls ({error.code})", wait=timedelta(seconds=error.retry_after)
        )
    if not isinstance(error, Refused):
        return None
    if error.refusal is Refusal.PAGE_RESTRICTED:
        return PagePause(reason=f"{RESTRICTED} ({error.code})", wait=RESTRICTED_PROBE)
    if error.refusal is Refusal.PERMISSION_MISSING and route is not Route.HUMAN_AGENT:
        return PagePause(reason=f"the page lacks a permission ({error.code}: {error.detail})")
    if error.refusal is Refusal.BAD_ACCESS_TOKEN:
        return PagePause(reason="the page access token is not valid any more (190); connect the page again")
    return None


def undeliverable_for(error: SendError) -> str | None:
    """Why this person can't be reached any more, if that is what the error says (ERR 551, 100/2018001)."""
    if isinstance(error, Refused) and error.refusal is Refusal.PERSON_UNAVAILABLE:
        return "the person blocked the page or left Messenger"
    if isinstance(error, Refused) and error.refusal is Refusal.NO_SUCH_PERSON:
        return "Meta knows no such person on this page"
    return None
