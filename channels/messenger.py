"""MessengerInput: Messenger's webhook, answered when everything in it is durable, talked about afterwards.

In credentials.yml: `channels.messenger.MessengerInput: {}`. Under /webhooks/messenger/ are `webhook` (Meta's
handshake and events), `deletion` (Meta's data-deletion callback and its page), `notify` (for a shop's system)
and the health check.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

from rasa.core.channels.channel import InputChannel, UserMessage
from sanic import Blueprint, Sanic, response
from sanic.request import Request
from sanic.response import HTTPResponse

from channels import body, deletion, notify
from channels.doors import Doors, fault
from channels.output import NAME, MessengerOutput
from channels.own_pages import OwnPages
from channels.quick_start import hasten_skops
from channels.turns import Pace, Turns
from otn import intake
from otn.app import App, compose
from otn.errors import ConfigError, InvalidSignature, MalformedPayload, StoreUnavailable
from otn.events import Event, parse, verify_signature
from otn.intake import Recorded, Sealed
from otn.models import InboxState
from otn.settings import settings_from_channel
from otn.store import Tx, health

logger = logging.getLogger(__name__)

LARGEST_BODY = 1024 * 1024  # bytes; Meta's own bodies have a few thousand
# How long the writer waits for Python's lock, after each statement, while a turn computes: Python's five milliseconds
# would be up to forty for a webhook. Turns take no longer for it.
SWITCH_SECONDS = 0.0005


class MessengerInput(InputChannel):  # type: ignore[misc] # Rasa ships no types
    """Receives what people do on our Pages, and leads the conversations."""

    @classmethod
    def name(cls) -> str:
        """The same as the output channel's, so that responses and `trigger_intent` find it."""
        return NAME

    @classmethod
    def from_credentials(cls, credentials: Mapping[str, Any] | None) -> MessengerInput:
        """Make the channel from its block of credentials.yml, the environment and `.env`.

        Ends the process with exit code 2 and every problem listed: Rasa would call some errors a missing
        class, and show a traceback for the rest.
        """
        for name in ("channels", "otn"):
            # Of their own, as Rasa's loggers: while the model loads, some library silences the root.
            logging.getLogger(name).setLevel(os.environ.get("LOG_LEVEL", "INFO"))
        hasten_skops()  # Rasa loads the model after its channels
        try:
            app = compose(settings_from_channel(credentials))
        except (ConfigError, StoreUnavailable) as exc:
            _give_up(exc)
        if health.server(app.store).journal_mode not in (None, "wal"):
            logger.warning(
                "messenger: webhooks wait whenever somebody writes to the database: type `otn init`"
            )
        app.store.close()  # Rasa forks after this; connections do not survive it
        return cls(app)

    def __init__(self, app: App, pace: Pace | None = None) -> None:
        self._app = app
        self._pace = pace or Pace()
        self._line: _Line | None = None

    def blueprint(self, on_new_message: Callable[[UserMessage], Awaitable[Any]]) -> Blueprint:
        """The routes, and what has to be opened and closed with the server.

        `on_new_message` goes unused: a turn has more to do under the conversation's lock than that allows.
        """

        async def open_line(sanic: Sanic, _loop: Any) -> None:
            self._line = _Line(self._app, lambda: getattr(sanic.ctx, "agent", None), self._pace)
            await self._line.pages.recall()

        async def start(_sanic: Sanic, _loop: Any) -> None:
            # What is loaded by now, Rasa's model above all, stays: to walk over it again and again in search of
            # garbage makes every webhook wait for a third of a second.
            gc.collect()
            gc.freeze()
            sys.setswitchinterval(SWITCH_SECONDS)
            self._opened().start()

        async def drain(_sanic: Sanic, _loop: Any) -> None:
            await self._opened().drain()

        async def close(_sanic: Sanic, _loop: Any) -> None:
            await self._opened().doors.close()

        blueprint = Blueprint("messenger_webhook")
        self._add_routes(blueprint)
        # In the server's own process; once Rasa has loaded its model; before its tasks are cancelled; when the
        # last connection is closed, since webhooks are taken until then.
        blueprint.listener("before_server_start")(open_line)
        blueprint.listener("after_server_start")(start)
        blueprint.listener("before_server_stop")(drain)
        blueprint.listener("after_server_stop")(close)
        return blueprint

    def _add_routes(self, blueprint: Blueprint) -> None:
        async def health(_request: Request) -> HTTPResponse:
            return self._opened().health()

        async def handshake(request: Request) -> HTTPResponse:
            return self._shake_hands(request)

        async def webhook(request: Request) -> HTTPResponse:
            return await self._opened().receive(request)

        async def delete(request: Request) -> HTTPResponse:
            return await deletion.receive(self._opened().doors, request)

        async def deleted(request: Request) -> HTTPResponse:
            return await deletion.show(self._opened().doors, request)

        async def notified(request: Request) -> HTTPResponse:
            return await notify.receive(self._opened().doors, request)

        blueprint.add_route(health, "/", methods=["GET"])
        blueprint.add_route(handshake, "/webhook", methods=["GET"])
        blueprint.add_route(webhook, "/webhook", methods=["POST"], stream=True)
        blueprint.add_route(delete, "/deletion", methods=["POST"], stream=True)
        blueprint.add_route(deleted, "/deletion", methods=["GET"])
        blueprint.add_route(notified, "/notify", methods=["POST"], stream=True)

    def get_output_channel(self) -> MessengerOutput | None:
        """For turns that no message of a person's starts (`trigger_intent`, reminders)."""
        return MessengerOutput(self._line.doors) if self._line is not None else None

    def _opened(self) -> _Line:
        assert self._line is not None  # noqa: S101 - opened before the server listens
        return self._line

    def _shake_hands(self, request: Request) -> HTTPResponse:
        """Meta asks whether this is the webhook that somebody configured (HOOKS)."""
        claimed = str(request.args.get("hub.verify_token") or "").encode("utf-8", "replace")
        genuine = hmac.compare_digest(claimed, self._app.settings.verify_token.reveal().encode())
        if request.args.get("hub.mode") != "subscribe" or not genuine:
            logger.warning("messenger: a handshake with another verify token was refused")
            return response.text("The verify token is not MESSENGER_VERIFY_TOKEN.", status=403)
        return response.text(str(request.args.get("hub.challenge") or ""))


class _Line:
    """The channel in one server process, from its start to its stop."""

    def __init__(self, app: App, agent: Callable[[], Any | None], pace: Pace) -> None:
        self.doors = Doors.open(app)
        self.pages = OwnPages(self.doors)
        self.turns = Turns(self.doors, agent, pace)
        self._agent = agent
        self._secrets = [secret.reveal() for secret in app.settings.app_secrets]
        self._strangers: set[str] = set()
        self._learning: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._learning = asyncio.create_task(self.pages.learn())
        self.turns.start()
        self.doors.debits.start()

    async def drain(self) -> None:
        if self._learning is not None:
            self._learning.cancel()
        await self.turns.stop()
        await self.doors.debits.stop()

    def health(self) -> HTTPResponse:
        """200 as soon as webhooks are taken and answered by turns."""
        agent = self._agent()
        missing = [] if agent is not None and agent.is_ready() else ["Rasa has no model"]
        missing += [] if self.pages.known else ["Graph has not said yet whose access token this is"]
        if missing:
            return response.json({"status": "waiting", "for": missing}, status=503)
        return response.json({"status": "ok"})

    async def receive(self, request: Request) -> HTTPResponse:
        """Meta delivers events. 200 means that all of them are durable; talking comes later."""
        content = await body.read(request, LARGEST_BODY)
        if content is None:
            return response.text(f"More than {LARGEST_BODY} bytes.", status=413)
        try:
            verify_signature(content, request.headers.get("X-Hub-Signature-256"), self._secrets)
            events = parse(content, self.doors.now())
            recorded = await self._record(events)
        except InvalidSignature as exc:
            logger.warning("messenger: a webhook was refused: %s", exc)
            return response.text("The signature is not ours.", status=403)
        except MalformedPayload as exc:
            logger.warning("messenger: a webhook was refused: %s", exc)
            return response.text(str(exc), status=400)
        except StoreUnavailable as exc:
            logger.error("messenger: a webhook has to come again: %s", exc)
            return response.text("Not recorded: deliver it again.", status=503)
        for contact_id in {each.contact_id: None for each in recorded if each.contact_id is not None}:
            self.turns.wake(contact_id)
        return response.text("EVENT_RECEIVED")

    async def _record(self, events: list[Event]) -> list[Recorded]:
        if any(self.pages.is_undecided(event.page_id) for event in events):
            raise StoreUnavailable("Graph has not said yet whose access token this is (GET /me)")
        recorded = []
        outcomes = await self.doors.writer.run_all(self._keep, intake.seal(self.doors.vault, events))
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, StoreUnavailable):
                raise outcome
            if isinstance(outcome, Exception):
                outcome = await self._keep_broken(event, fault(outcome))
            else:
                self._tell(event, outcome)
            recorded.append(outcome)
        return recorded

    def _keep(self, tx: Tx, events: Sequence[Sealed]) -> list[Recorded]:
        doors = self.doors
        return intake.record(tx, doors.vault, events, own_pages=self.pages.ids, now=doors.now())

    async def _keep_broken(self, event: Event, why: str) -> Recorded:
        """What an event makes the database say, whatever it is, costs its neighbours nothing; it is kept."""
        doors = self.doors
        logger.error("messenger: event %s is broken: %s", event.key, why)
        return await doors.write(lambda tx: intake.record_broken(tx, doors.vault, event, why, doors.now()))

    def _tell(self, event: Event, recorded: Recorded) -> None:
        if event.broken is not None:
            if recorded.is_new:
                logger.warning("messenger: event %s is broken: %s", event.key, event.broken)
        elif recorded.state is InboxState.FOREIGN and event.page_id not in self._strangers:
            self._strangers.add(event.page_id)
            logger.warning(
                "messenger: events of page %s are kept and not answered: there is no access token for it",
                event.page_id,
            )


def _give_up(problem: ConfigError | StoreUnavailable) -> NoReturn:
    problems = problem.problems if isinstance(problem, ConfigError) else (str(problem),)
    print("The Messenger channel cannot start:", *problems, sep="\n- ", file=sys.stderr)
    raise SystemExit(2 if isinstance(problem, ConfigError) else 1) from None
