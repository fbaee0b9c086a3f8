"""The way to the bot: signed webhooks, in batches if wished, repeated until the bot says 200."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from simulator.config import Config
from simulator.events import Event
from simulator.faults import Fault, FaultKind, Faults, Target
from simulator.journal import Journal, Kind
from simulator.settings import Settings

# How many webhooks are on their way at the same time: Meta calls in parallel too, order is not promised (HOOKS).
CALLERS = 32
SIGNATURE_HEADER = "X-Hub-Signature-256"


class State(Protocol):
    """What the outbox needs to know of the world."""

    config: Config
    journal: Journal
    faults: Faults
    settings: Settings
    monotonic: Callable[[], float]

    def subscribed(self, page_id: str, field: str) -> bool:
        """Whether the app gets this kind of event from this Page."""

    def subscription(self, page_id: str) -> int:
        """Which of its subscriptions to this Page the app has, or had last: counted from 0."""

    def unsubscribe(self, page_id: str) -> None:
        """Take the app off the Page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the bot said to the first attempt; `status` is None when it said nothing, `note` tells why."""

    status: int | None
    attempts: int
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The answer as the control API shows it."""
        return {
            "status": self.status,
            "attempts": self.attempts,
            **({"note": self.note} if self.note else {}),
        }


Pending = asyncio.Future[Answer]


@dataclass(slots=True, kw_only=True)
class Parcel:
    """One webhook: the same bytes at every attempt."""

    number: int
    page_id: str
    events: list[Event]
    raw: bytes
    pending: list[Pending]
    epoch: int
    attempts: int = 0


@dataclass(slots=True)
class Batch:
    """Events of one Page that wait for company."""

    events: list[Event] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class Outbox:
    """Hands events to the bot. `post` never waits; what it returns resolves after the first attempt."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._session: ClientSession | None = None
        self._callers: list[asyncio.Task[None]] = []
        self._queue: asyncio.Queue[Parcel] = asyncio.Queue()
        self._batches: dict[str, Batch] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._held: list[tuple[Event, asyncio.TimerHandle]] = []
        # By Page and subscription: whoever subscribes again has another hour.
        self._failing_since: dict[tuple[str, int], float] = {}
        self._number = 0
        self._epoch = 0  # counts resets: what was on its way then is not repeated

    async def start(self) -> None:
        """Begin to call the bot."""
        self._session = ClientSession(connector=TCPConnector(limit=0), auto_decompress=True)
        self._callers = [asyncio.create_task(self._call_on()) for _ in range(CALLERS)]

    async def stop(self) -> None:
        """Drop what is left and close the connections."""
        self.clear()
        for caller in self._callers:
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def waiting(self) -> int:
        """How many webhooks wait for a first attempt or for a repetition, those held back included."""
        return self._queue.qsize() + len(self._timers) + len(self._held)

    def clear(self) -> None:
        """Drop everything that has not gone out yet, and do not repeat what has."""
        self._epoch += 1
        timers = [batch.timer for batch in self._batches.values() if batch.timer]
        for timer in [*self._timers, *timers, *(timer for _, timer in self._held)]:
            timer.cancel()
        for batch in self._batches.values():
            _resolve(batch.pending, Answer(status=None, attempts=0, note="the simulator was reset"))
        while not self._queue.empty():
            _resolve(
                self._queue.get_nowait().pending,
                Answer(status=None, attempts=0, note="the simulator was reset"),
            )
        self._timers.clear()
        self._batches.clear()
        self._held.clear()
        self._failing_since.clear()

    def post(self, event: Event) -> Pending:
        """Send an event to the bot, unless the app is not subscribed or a fault says otherwise."""
        if not self._state.subscribed(event.page_id, event.field):
            return _settled(f"the app is not subscribed to {event.field} of this Page")
        fault = self._state.faults.strike_webhook(
            Target(page_id=event.page_id, psid=event.psid, field=event.field, call="webhook")
        )
        pending = self._enqueue(event) if fault is None else self._misplace(event, fault)
        if self._held and (fault is None or fault.kind is not FaultKind.REORDER_WEBHOOK):
            # Only once the bot has answered: several webhooks are on their way at the same time.
            pending.add_done_callback(lambda _answered: self._release())
        return pending

    async def send_raw(self, raw: bytes, signature: str) -> tuple[int | None, str]:
        """POST bytes as they are, once, with a good, bad or no signature; the bot's status and text."""
        headers = {"Content-Type": "application/json"}
        if signature != "none":
            secret = self._state.config.app_secret if signature == "good" else "not the app secret"
            headers[SIGNATURE_HEADER] = sign(secret, raw)
        return await self._post(raw, headers)

    async def handshake(self, token: str | None, challenge: str) -> tuple[int | None, str]:
        """GET the webhook as Meta does when it is entered in the app's dashboard (HOOKS)."""
        query = {"hub.mode": "subscribe", "hub.challenge": challenge}
        if token is not None:
            query["hub.verify_token"] = token
        return await self._exchange("GET", params=query)

    # Details

    def _misplace(self, event: Event, fault: Fault) -> Pending:
        """Do to an event what the fault says."""
        self._state.journal.add(
            Kind.FAULT,
            event.psid,
            fault=fault.kind.value,
            fault_id=fault.id,
            field=event.field,
            page_id=event.page_id,
        )
        if fault.kind is FaultKind.DUPLICATE_WEBHOOK:
            self._enqueue(event)
            return self._enqueue(event)
        if fault.kind is FaultKind.DELAY_ECHO:
            self._later(fault.seconds, lambda: self._enqueue(event))
        if fault.kind is FaultKind.REORDER_WEBHOOK:
            timer = asyncio.get_running_loop().call_later(fault.seconds, self._release)
            self._held.append((event, timer))
        return _settled(f"the fault {fault.kind.value} struck")

    def _release(self) -> None:
        """Let held events go, after the one that overtook them."""
        held, self._held = self._held, []
        for event, timer in held:
            timer.cancel()
            self._enqueue(event)

    def _enqueue(self, event: Event) -> Pending:
        pending: Pending = asyncio.get_running_loop().create_future()
        size = self._state.settings.batch_size
        if size <= 1:
            self._queue.put_nowait(self._parcel([event], [pending]))
            return pending
        batch = self._batches.setdefault(event.page_id, Batch())
        batch.events.append(event)
        batch.pending.append(pending)
        if len(batch.events) >= size:
            self._flush(event.page_id)
        elif batch.timer is None:
            loop = asyncio.get_running_loop()
            batch.timer = loop.call_later(self._state.settings.batch_wait, self._flush, event.page_id)
        return pending

    def _flush(self, page_id: str) -> None:
        batch = self._batches.pop(page_id)
        if batch.timer is not None:
            batch.timer.cancel()
        self._queue.put_nowait(self._parcel(batch.events, batch.pending))

    def _parcel(self, events: list[Event], pending: list[Pending]) -> Parcel:
        self._number += 1
        page_id = events[0].page_id
        return Parcel(
            number=self._number,
            page_id=page_id,
            events=events,
            raw=_envelope(page_id, events),
            pending=pending,
            epoch=self._epoch,
        )

    async def _call_on(self) -> None:
        while True:
            await self._deliver(await self._queue.get())

    async def _deliver(self, parcel: Parcel) -> None:
        started = self._state.monotonic()
        subscription = parcel.page_id, self._state.subscription(parcel.page_id)
        headers = {
            "Content-Type": "application/json",
            SIGNATURE_HEADER: sign(self._state.config.app_secret, parcel.raw),
        }
        status, text = await self._post(parcel.raw, headers)
        parcel.attempts += 1
        note = None if status is not None else text
        self._note(parcel, status, note, self._state.monotonic() - started)
        _resolve(parcel.pending, Answer(status=status, attempts=parcel.attempts, note=note))
        if status == 200:
            self._failing_since.pop(subscription, None)
        elif parcel.epoch == self._epoch:
            self._try_again(parcel, subscription)
        else:
            self._give_up(parcel, "the simulator was reset")

    def _note(self, parcel: Parcel, status: int | None, note: str | None, seconds: float) -> None:
        self._state.journal.add(
            Kind.WEBHOOK,
            dict.fromkeys(event.psid for event in parcel.events),
            page_id=parcel.page_id,
            webhook=parcel.number,
            attempt=parcel.attempts,
            status=status,
            note=note,
            ms=round(seconds * 1000, 1),
            fields=[event.field for event in parcel.events],
            events=[event.journalled() for event in parcel.events],
            windows=[event.window for event in parcel.events if event.window] or None,
        )

    def _try_again(self, parcel: Parcel, subscription: tuple[str, int]) -> None:
        """Repeat later; give the parcel up after the last delay, and the app after an hour of failures (HOOKS)."""
        settings = self._state.settings
        since = self._failing_since.setdefault(subscription, self._state.monotonic())
        if self._state.monotonic() - since >= settings.unsubscribe_after:
            self._give_up(
                parcel,
                "failing for too long: the app was unsubscribed from the Page (HOOKS)",
                unsubscribed=True,
            )
            self._state.unsubscribe(parcel.page_id)
        elif parcel.attempts > len(settings.retry_delays):
            self._give_up(parcel, "no attempt is left")
        else:
            self._later(settings.retry_delays[parcel.attempts - 1], lambda: self._repeat(parcel))

    def _repeat(self, parcel: Parcel) -> None:
        if any(self._state.subscribed(event.page_id, event.field) for event in parcel.events):
            self._queue.put_nowait(parcel)
        else:
            self._give_up(parcel, "the app was unsubscribed from the Page")

    def _give_up(self, parcel: Parcel, note: str, *, unsubscribed: bool = False) -> None:
        psids = dict.fromkeys(event.psid for event in parcel.events)
        self._state.journal.add(
            Kind.WEBHOOK,
            psids,
            page_id=parcel.page_id,
            webhook=parcel.number,
            attempt=parcel.attempts,
            given_up=note,
            unsubscribed=unsubscribed or None,
            events=[event.journalled() for event in parcel.events],
        )

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(timer)

    async def _post(self, raw: bytes, headers: dict[str, str]) -> tuple[int | None, str]:
        return await self._exchange("POST", data=raw, headers=headers)

    async def _exchange(self, method: str, **what: Any) -> tuple[int | None, str]:
        """One HTTP exchange with the bot: status and text, or None and what went wrong."""
        if self._session is None:
            raise RuntimeError("the outbox is not started")
        timeout = ClientTimeout(total=self._state.settings.webhook_timeout or None)
        try:
            async with self._session.request(
                method, self._state.config.webhook_url, timeout=timeout, allow_redirects=False, **what
            ) as answer:
                return answer.status, (await answer.content.read(65536)).decode("utf-8", "replace")
        except asyncio.TimeoutError:
            return None, "the bot did not answer in time"
        except (ClientError, OSError) as problem:
            return None, f"the bot cannot be reached ({type(problem).__name__})"


def sign(app_secret: str, raw: bytes) -> str:
    """The signature header of a webhook: HMAC-SHA256 over the raw bytes (HOOKS)."""
    return "sha256=" + hmac.new(app_secret.encode(), raw, hashlib.sha256).hexdigest()


def _envelope(page_id: str, events: list[Event]) -> bytes:
    """The body of a webhook. `standby` holds events of threads that another app controls (HOOKS)."""
    entry: dict[str, Any] = {"id": page_id, "time": events[-1].body["timestamp"]}
    entry["messaging"] = [event.body for event in events if not event.standby]
    entry["standby"] = [event.body for event in events if event.standby]
    body = {"object": "page", "entry": [{key: value for key, value in entry.items() if value != []}]}
    return json.dumps(body, separators=(",", ":")).encode()


def _settled(note: str) -> Pending:
    pending: Pending = asyncio.get_running_loop().create_future()
    pending.set_result(Answer(status=None, attempts=0, note=note))
    return pending


def _resolve(pending: list[Pending], answer: Answer) -> None:
    for waiting in pending:
        if not waiting.done():
            waiting.set_result(answer)
