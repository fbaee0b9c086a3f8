"""The channel on the air: a real Sanic server, a real tracker store, Rasa's own processor, Graph simulated.

async with on_air(tmp_path) as air:
    psid = air.person()
    air.bot.say("hi")                       # what the bot answers from now on
    assert (await air.deliver(message(psid, "hello"))).status == 200
    await air.quiet()                       # every turn has ended
    assert air.heard(psid) == ["hi"]

Only the model is a stand-in: a script instead of NLU and policies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import aiohttp
import sqlalchemy as sa
import structlog
from cryptography.fernet import Fernet
from rasa.core.actions.action import Action, ActionListen, create_bot_utterance
from rasa.core.agent import Agent
from rasa.core.channels.channel import register
from rasa.core.policies.policy import PolicyPrediction
from rasa.core.processor import MessageProcessor
from rasa.core.tracker_store import InMemoryTrackerStore, SQLTrackerStore
from rasa.shared.core.domain import Domain
from rasa.shared.core.training_data.story_reader.yaml_story_reader import YAMLStoryReader
from rasa.shared.data import TrainingType
from rasa.shared.nlu.training_data.message import Message
from sanic import Sanic

from channels.messenger import MessengerInput
from channels.turns import Pace
from otn.app import App, compose
from otn.events import sign
from otn.models import Topic
from otn.settings import PageCredentials, Secret, Settings
from otn.store import schema, topics
from simulator.config import DEFAULT_PAGE_ID
from simulator.people import Person
from simulator.testing import APP_SECRET, PAGE_TOKEN, VERIFY_TOKEN, Running, made_up_config, running

Sanic.test_mode = True
# Outside of `rasa run` nobody sets it up, and it tells everything.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

PAGE = DEFAULT_PAGE_ID
ENCRYPTION_KEY = Fernet.generate_key().decode()
HASH_KEY = "a hash key that is never rotated, in tests"

# Nothing happens by the clock: tests sweep, renew and wait themselves.
HAND_PACE = Pace(turns_at_once=8, lease=30, sweep=3600, pause_after_failure=0, typing_after=3600, drain=5)

DOMAIN = """
version: "3.1"
intents: [say, greet, otn_opted_in, otn_referral, otn_reaction, otn_attachment, EXTERNAL_otn_follow_up, EXTERNAL_x]
entities: [product, otn_opted_topic, otn_opted_kind, otn_ref, otn_emoji, otn_attachment_type, otn_topic, otn_event_id]
slots:
  otn_topic: {type: text, influence_conversation: false, mappings: [{type: custom}]}
  otn_kind: {type: categorical, values: [restock, news], mappings: [{type: custom}]}
  otn_request_decision: {type: categorical, values: [asked, too_soon], mappings: [{type: custom}]}
  otn_follow_up_decision: {type: categorical, values: [allowed], mappings: [{type: custom}]}
actions: [action_scripted, action_send_otn_follow_up]
session_config: {session_expiration_time: 60, carry_over_slots_to_new_session: true}
"""

Response = dict[str, Any]


class Bot:
    """What the stand-in model does: `answer` gets the tracker and gives responses, or raises."""

    def __init__(self) -> None:
        self.answer: Callable[[Any], Any] = lambda _tracker: []
        self.events: list[Any] = []  # of every turn: slots, say

    def say(self, *responses: str | Response) -> None:
        """Answer every turn with these."""
        given = [{"text": each} if isinstance(each, str) else each for each in responses]
        self.answer = lambda _tracker: given


class ActionScripted(Action):
    """The script's turn."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot

    def name(self) -> str:
        return "action_scripted"

    async def run(self, _output: Any, _nlg: Any, tracker: Any, _domain: Any) -> list[Any]:
        found = self._bot.answer(tracker)
        responses = await found if asyncio.iscoroutine(found) else found
        return [*(create_bot_utterance(dict(each)) for each in responses), *self._bot.events]


class ScriptedProcessor(MessageProcessor):
    """Rasa's processor with a script where the model would be."""

    def __init__(self, bot: Bot, domain: Domain, **more: Any) -> None:
        self._bot = bot
        self._domain = domain
        super().__init__(model_path="scripted", **more)

    def _load_model(self, _path: Any) -> Any:
        metadata = SimpleNamespace(
            domain=self._domain,
            training_type=TrainingType.BOTH,
            assistant_id="scripted",
            model_id="scripted",
        )
        return "scripted", metadata, None

    def _parse_message_with_graph(self, message: Any, _tracker: Any, _only: bool = True) -> dict[str, Any]:
        read = YAMLStoryReader.unpack_regex_message(
            Message({"text": message.text}), self._domain, "RegexMessageHandler"
        )
        found = {"text": message.text, "intent": {"name": "say", "confidence": 1.0}, "entities": []}
        return {**found, **read.as_dict(only_output_properties=True)}

    def predict_next_with_tracker_if_should(self, tracker: Any) -> Any:
        if tracker.latest_action_name != "action_listen":
            return ActionListen(), PolicyPrediction.for_action_name(self._domain, "action_listen")
        action = ActionScripted(self._bot)
        if isinstance(failure := getattr(self._bot, "failure", None), Exception):
            raise failure
        return action, PolicyPrediction.for_action_name(self._domain, action.name())


@dataclass(kw_only=True)
class Reply:
    """An HTTP answer."""

    status: int
    text: str


@dataclass(kw_only=True)
class OnAir:
    """A running channel, the simulated Graph, and everything that a test looks at."""

    url: str
    app: App
    bot: Bot
    agent: Agent
    channel: MessengerInput
    simulated: Running
    session: aiohttp.ClientSession = field(repr=False)

    @property
    def line(self) -> Any:
        """The channel's inside."""
        return self.channel._line

    # --- people ---

    def person(self, psid: str = "7007", *, page_id: str = PAGE, window: bool = True) -> str:
        """Somebody whom Graph knows, with an open window there."""
        world = self.simulated.world
        person: Person = world.add_person({"psid": psid, "page_id": page_id})
        if window:
            person.open_window(world.clock.now_ms())
        return psid

    def heard(self, psid: str) -> list[Any]:
        """What was really delivered to a person: texts, or whole messages where there is none."""
        person = self.simulated.world.person(psid)
        out = [dict(each.content) for each in person.thread.values() if each.direction.value == "out"]
        assert all(content.pop("metadata").startswith("otn:") for content in out)
        return [content.get("text", content) for content in out]

    def topic(self, name: str = "restock-blue", **more: Any) -> None:
        """A topic."""
        values = {"title": "Back in stock", "kind": "restock", **more}
        with self.app.store.begin() as tx:
            topics.add(tx, Topic(id=0, name=name, **values), self.app.clock())

    # --- the webhook ---

    async def deliver(self, *events: Any, page_id: str = PAGE, **more: Any) -> Reply:
        """Deliver events of one Page as Meta does, signed."""
        entry = {"id": page_id, "time": 1, "messaging": list(events), **more}
        return await self.post(json.dumps({"object": "page", "entry": [entry]}).encode())

    async def post(self, body: bytes, signature: str | None = "good", **headers: str) -> Reply:
        """Post any body; `signature` None sends none."""
        signed = sign(body, APP_SECRET) if signature == "good" else signature
        if signed is not None:
            headers["X-Hub-Signature-256"] = signed
        async with self.session.post(f"{self.url}/webhook", data=body, headers=headers) as answer:
            return Reply(status=answer.status, text=await answer.text())

    async def get(self, path: str, **params: str) -> Reply:
        """Get something below the channel's address."""
        async with self.session.get(f"{self.url}{path}", params=params) as answer:
            return Reply(status=answer.status, text=await answer.text())

    async def quiet(self) -> None:
        """Wait until every turn has ended and every echo has come in."""
        outbox = self.simulated.world.outbox
        while self.line.turns._leaders or outbox.waiting():
            await self.line.turns.finish()
            await asyncio.sleep(0)
        for beside in (self.line.turns.profiles, self.line.turns.read_marks):
            await beside.errands.finish()

    async def sweep(self) -> None:
        """Let the channel look for what waits, and finish it."""
        await self.line.turns.sweep()
        await self.quiet()

    # --- what is kept ---

    def rows(self, table: str, *columns: str) -> list[Any]:
        """Rows of a table, in order: tuples of the columns, or single values."""
        found = schema.metadata.tables[table]
        query = sa.select(*(found.c[name] for name in columns)).order_by(next(iter(found.primary_key)))
        with self.app.store.read() as tx:
            rows = [tuple(row) for row in tx.execute(query)]
        return [row[0] for row in rows] if len(columns) == 1 else rows

    def change(self, statement: str, **values: Any) -> None:
        """Change the database behind everybody's back."""
        with self.app.store.begin() as tx:
            tx.execute(sa.text(statement), values)

    async def events(self, psid: str) -> list[Any]:
        """Everything in a person's tracker, all sessions."""
        tracker = await self.agent.tracker_store.retrieve_full_tracker(psid)
        return list(tracker.events) if tracker else []

    async def user_events(self, psid: str) -> list[Any]:
        """What the person's turns began with."""
        return [event for event in await self.events(psid) if event.type_name == "user"]


def settings_for(folder: Path, graph_url: str, **more: Any) -> Settings:
    """Settings as `rasa run` would read them."""
    values: dict[str, Any] = {
        "root": folder,
        "database_url": f"sqlite:///{folder / 'otn.db'}",
        "queue_url": "",
        "graph_url": graph_url,
        "api_version": "v26.0",
        "clock_file": None,
        "pages": (PageCredentials(page_id=PAGE, access_token=Secret(PAGE_TOKEN)),),
        "app_secrets": (Secret(APP_SECRET), Secret("an older app secret")),
        "verify_token": Secret(VERIFY_TOKEN),
        "encryption_keys": (Secret(ENCRYPTION_KEY),),
        "hash_key": Secret(HASH_KEY),
        "notify_key": Secret(),
    }
    return Settings(**{**values, **more})


def make_agent(folder: Path, bot: Bot, trackers: str = "sql") -> Agent:
    """Rasa's agent over a tracker store in a file; another one over the same file is another process's."""
    domain = Domain.from_yaml(DOMAIN)
    in_file = trackers == "sql"
    agent = Agent(
        domain=domain,
        tracker_store=SQLTrackerStore(domain, db=str(folder / "tracker.db"))
        if in_file
        else InMemoryTrackerStore(domain),
    )
    agent.processor = ScriptedProcessor(
        bot, domain, tracker_store=agent.tracker_store, lock_store=agent.lock_store, generator=agent.nlg
    )
    return agent


@asynccontextmanager
async def on_air(
    folder: Path,
    *,
    pace: Pace = HAND_PACE,
    graph: Running | None = None,
    trackers: str = "sql",
    **settings: Any,
) -> AsyncIterator[OnAir]:
    """Serve the channel on a free port until the block ends; the same folder again is a restart."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/webhooks/messenger"
        async with _graph(graph, url) as simulated, aiohttp.ClientSession() as session:
            app = compose(settings_for(folder, simulated.url, **settings))
            bot, channel = Bot(), MessengerInput(app, pace)
            agent = make_agent(folder, bot, trackers)
            async with _serving(channel, agent, listening):
                yield OnAir(
                    url=url,
                    app=app,
                    bot=bot,
                    agent=agent,
                    channel=channel,
                    simulated=simulated,
                    session=session,
                )


@asynccontextmanager
async def _graph(graph: Running | None, url: str) -> AsyncIterator[Running]:
    if graph is not None:
        yield graph
        return
    async with running(made_up_config(f"{url}/webhook")) as simulated:
        yield simulated


@asynccontextmanager
async def _serving(channel: MessengerInput, agent: Agent, listening: socket.socket) -> AsyncIterator[None]:
    sanic = Sanic(f"on_air_{uuid4().hex}", configure_logging=False)
    register([channel], sanic, route="/webhooks/")
    sanic.ctx.agent = agent
    server = await sanic.create_server(sock=listening, return_asyncio_server=True, access_log=False)
    switch_seconds = sys.getswitchinterval()
    await server.startup()
    await server.before_start()
    await server.after_start()
    try:
        yield
    finally:
        await server.before_stop()
        server.close()
        await server.after_stop()
        sys.setswitchinterval(switch_seconds)  # which is the whole process's


# --- events as Meta sends them ---


def message(psid: str, text: str | None = None, *, mid: str | None = None, at: int = 0, **more: Any) -> Any:
    """A message of a person's."""
    said = {"mid": mid or f"m_{uuid4().hex}", **({"text": text} if text is not None else {}), **more}
    return {"sender": {"id": psid}, "recipient": {"id": PAGE}, "timestamp": at or now_ms(), "message": said}


def opt_in(psid: str, token: str, payload: str = "otn:restock-blue", *, at: int = 0) -> Any:
    """A tap on Notify Me."""
    optin = {"type": "one_time_notif_req", "payload": payload, "one_time_notif_token": token}
    return {"sender": {"id": psid}, "recipient": {"id": PAGE}, "timestamp": at or now_ms(), "optin": optin}


def event(psid: str, kind: str, *, at: int = 0, **value: Any) -> Any:
    """Any other event of a person's."""
    return {"sender": {"id": psid}, "recipient": {"id": PAGE}, "timestamp": at or now_ms(), kind: value}


def now_ms() -> int:
    """The real time, in milliseconds."""
    import time

    return int(time.time() * 1000)
