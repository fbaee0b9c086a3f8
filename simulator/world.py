"""The state of the simulated Messenger. In memory only; everything here happens on one event loop."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.clock import Clock
from simulator.config import Config, Page
from simulator.faults import Faults
from simulator.journal import Journal
from simulator.outbox import Outbox
from simulator.people import PROFILE_FIELDS, Json, Person, Token
from simulator.pulse import Pulse
from simulator.settings import Settings

# Every field an app can subscribe to that this simulator has events for (HOOKS).
ALL_FIELDS = frozenset(
    {
        "messages", "messaging_postbacks", "messaging_optins", "messaging_referrals", "message_reactions",
        "message_reads", "message_deliveries", "message_echoes",
    }
)  # fmt: skip


class Mistake(Exception):
    """The control API was asked for something impossible; `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class PageState:
    """What changes about a Page."""

    page: Page
    proof: str = field(repr=False)
    fields: frozenset[str] = ALL_FIELDS  # empty: the app is not subscribed
    subscription: int = 0  # how often it has subscribed again since the start
    messenger_profile: Json = field(default_factory=dict)
    calls: deque[float] = field(default_factory=deque)
    media_calls: deque[float] = field(default_factory=deque)
    attachments: set[str] = field(default_factory=set)


class World:
    """People, Pages, tokens, settings, faults, journal, and the way to the bot."""

    def __init__(
        self,
        config: Config,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.monotonic = monotonic
        self.pulse = Pulse(monotonic)
        self.clock = Clock(config.clock_file, wall)
        self.journal = Journal(self.clock.now)
        self.faults = Faults()
        self.settings = Settings()
        self.stopping = asyncio.Event()
        self._start_empty()
        self.outbox = Outbox(self)

    def _start_empty(self) -> None:
        self.people: dict[tuple[str, str], Person] = {}
        self.tokens: dict[str, Token] = {}
        self.counts: Counter[str] = Counter()
        self.pages = {
            page.id: PageState(page, _proof(self.config.app_secret, page.token)) for page in self.config.pages
        }
        self.pages_by_token = {state.page.token: state for state in self.pages.values()}

    def reset(self) -> None:
        """Forget everything but the configuration and the time (which others share)."""
        self.outbox.clear()
        self.faults.clear()
        self.journal.clear()
        self.settings = Settings()
        self._start_empty()

    def subscribed(self, page_id: str, field: str) -> bool:
        """Whether the app gets this kind of event from this Page (HOOKS)."""
        return field in self.pages[page_id].fields

    def subscription(self, page_id: str) -> int:
        """Which of its subscriptions to this Page the app has, or had last: counted from 0."""
        return self.pages[page_id].subscription

    def unsubscribe(self, page_id: str) -> None:
        """Take the app off a Page; POST /{page}/subscribed_apps brings it back."""
        self.pages[page_id].fields = frozenset()

    def person(self, psid: str, page_id: str | None = None) -> Person:
        """The person with that psid. Raises Mistake: nobody, or several while no Page is named."""
        if page_id is not None:
            found = [self.people[page_id, psid]] if (page_id, psid) in self.people else []
        else:
            found = [self.people[page, psid] for page in self.pages if (page, psid) in self.people]
        if not found:
            raise Mistake(404, f"nobody has the psid {psid}: POST /simulator/people makes people")
        if len(found) > 1:
            raise Mistake(409, f"the psid {psid} exists on several Pages: add ?page_id=")
        return found[0]

    def add_person(self, wish: Json) -> Person:
        """Make somebody from JSON. Raises Mistake."""
        page_id = wish.get("page_id", next(iter(self.pages)))
        psid = wish.get("psid", str(secrets.randbelow(9 * 10**16) + 10**16))
        if page_id not in self.pages:
            raise Mistake(404, f"there is no Page {page_id}: see SIMULATOR_PAGES")
        if not isinstance(psid, str) or not 0 < len(psid) <= 64 or not psid.isalnum():
            raise Mistake(400, "psid must be text of letters and digits, at most 64")
        if (page_id, psid) in self.people:
            raise Mistake(409, f"the psid {psid} is taken on Page {page_id}")
        profile = {name: wish[name] for name in PROFILE_FIELDS if wish.get(name) is not None}
        person = Person(psid=psid, page_id=page_id, profile=profile)
        self._remember(person, wish.get("wrote", False), wish.get("tokens", []))
        self.people[page_id, psid] = person
        return person

    def _remember(self, person: Person, wrote: object, texts: object) -> None:
        """What somebody has done before, without a webhook: whoever asks for it tells the bot.

        Thousands of people for a load test would else take a message, a request and an opt-in each.
        """
        if not isinstance(wrote, bool) or not isinstance(texts, list):
            raise Mistake(400, "wrote is true or false, tokens a list")
        if not all(isinstance(text, str) and text and text not in self.tokens for text in texts):
            raise Mistake(400, "tokens are texts that are not tokens already")
        now_ms = self.clock.now_ms()
        if wrote:
            person.open_window(now_ms)
            person.last_message_ms = now_ms
        for text in texts:
            token = Token(text=text, person=person, request_mid="", issued_ms=now_ms)
            self.tokens[text] = token
            person.tokens.append(token)

    def stats(self) -> Json:
        """Sums since the start or the last reset."""
        everybody = self.people.values()
        return {
            **dict.fromkeys(("delivered", "delivered_by_token", "refused", "lost_answer"), 0),
            **self.counts,
            "people": len(self.people),
            "delivered_max_per_psid": max((person.delivered for person in everybody), default=0),
            "delivered_by_token_max_per_psid": max(
                (person.delivered_by_token for person in everybody), default=0
            ),
            "requests_max_per_psid": max((person.requests for person in everybody), default=0),
            "tokens_issued": len(self.tokens),
            "tokens_used": sum(token.used for token in self.tokens.values()),
            "webhooks_waiting": self.outbox.waiting(),
            "journal_last": self.journal.last,
        }


def _proof(app_secret: str, access_token: str) -> str:
    """`appsecret_proof`: HMAC-SHA256 of the access token with the app secret, in hex (SEND)."""
    return hmac.new(app_secret.encode(), access_token.encode(), hashlib.sha256).hexdigest()
