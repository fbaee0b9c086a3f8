"""A project in a temporary folder, its Page simulated on loopback, and people who use it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from cryptography.fernet import Fernet

from otn import intake
from otn.app import SENDING, App, open_app
from otn.events import WindowOpening, parse
from otn.policy import token_expiry, window_until
from otn.store import Store, contacts, pages, tokens, topics
from otn.store.contacts import Opening
from otn.store.tokens import NewToken
from simulator.testing import (
    APP_SECRET,
    PAGE_TOKEN,
    VERIFY_TOKEN,
    Running,
    made_up_config,
    running,
)

KEY = Fernet.generate_key().decode()
HASH_KEY = "h" * 43
NOTIFY_KEY = "n" * 43
TOPIC = "restock-blue"


@contextmanager
def simulator(clock_file: Path, webhook_url: str, **more: Any) -> Iterator[Running]:
    """The simulator in a thread of its own; `more` are fields of its Config."""
    config = made_up_config(webhook_url, clock_file=clock_file, **more)
    loop, started, found = asyncio.new_event_loop(), threading.Event(), []

    async def serve() -> None:
        async with running(config) as simulated:
            found.append((simulated, stop := asyncio.Event()))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    simulated, stop = found[0]
    try:
        yield simulated
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextmanager
def receiver(record: Callable[[bytes], None]) -> Iterator[str]:
    """An address that hands every webhook's body to `record` before it answers 200."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            record(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass(frozen=True)
class Project:
    """A project's folder and the Messenger around it."""

    root: Path
    url: str
    world: Any

    @property
    def clock_file(self) -> Path:
        return self.root / ".otn" / "clock"

    @property
    def page_id(self) -> str:
        return next(iter(self.world.pages))

    def open(self) -> App:
        """The project's parts; close the store afterwards."""
        return open_app(self.root, {}, need=SENDING)

    @contextmanager
    def opened(self) -> Iterator[App]:
        app = self.open()
        try:
            yield app
        finally:
            app.store.close()

    def control(self, path: str, body: object = None, method: str = "POST") -> Any:
        """Call the simulator's control API."""
        answer = requests.request(method, f"{self.url}/simulator{path}", json=body, timeout=40)
        assert answer.ok, answer.text
        return answer.json()

    def pass_time(self, length: timedelta) -> None:
        """Let time pass for everybody."""
        self.control("/clock", {"advance": length.total_seconds()})

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(seconds=float(self.clock_file.read_text()))

    def fault(self, kind: str, **more: object) -> None:
        """Let the next send go wrong."""
        self.control("/faults", {"kind": kind, **more})

    def person(self, psid: str = "7007", *, permissions: int = 0, topic: str = TOPIC) -> str:
        """Somebody who has just written, and agreed so many times to the topic."""
        self.control("/people", {"psid": psid})
        self.control(f"/people/{psid}/message", {"text": "hello"})
        for _ in range(permissions):
            self.agree(psid, topic)
        return psid

    def people(self, app: App, number: int, *, topic: str = TOPIC, first: int = 7000) -> list[str]:
        """Many who have just written and agreed once to the topic, without a webhook for each."""
        wish = [
            {"psid": str(psid), "wrote": True, "tokens": [f"token of {psid}"]}
            for psid in range(first, first + number)
        ]
        self.control("/people", wish)
        now, vault = app.clock(), app.require_vault()
        with app.store.begin() as tx:
            pages.ensure(tx, self.page_id, now)
            about = topics.use(tx, topic, now)
            assert about is not None
            for one in wish:
                found = contacts.ensure(tx, self.page_id, str(one["psid"]), now)
                until = window_until(WindowOpening.MESSAGE, now)
                opening = Opening(contact_id=found.id, opened_by="message", at=now, until=until)
                contacts.open_windows(tx, [opening])
                (secret,) = one["tokens"]  # type: ignore[misc]
                given = NewToken(
                    contact_id=found.id,
                    topic_id=about.id,
                    permission_request_id=None,
                    token_hash=vault.token_hash(secret),
                    ciphertext=vault.seal(secret.encode()),
                    payload=f"otn:{topic}",
                    opted_in_at=now,
                    expires_at=token_expiry(now),
                    created_at=now,
                )
                tokens.keep(tx, [given])
        return [str(one["psid"]) for one in wish]

    def agree(self, psid: str, topic: str = TOPIC) -> None:
        """The person is asked for permission and taps Notify Me."""
        payload = {"template_type": "one_time_notif_req", "title": "Back in stock", "payload": f"otn:{topic}"}
        asked = requests.post(
            f"{self.url}/v26.0/me/messages",
            headers={"Authorization": f"Bearer {PAGE_TOKEN}"},
            json={
                "recipient": {"id": psid},
                "message": {"attachment": {"type": "template", "payload": payload}},
            },
            timeout=10,
        )
        assert asked.ok, asked.text
        self.control(f"/people/{psid}/notify-me", {"mid": asked.json()["message_id"]})

    def heard(self, psid: str = "7007") -> list[str]:
        """What reached the person, in order, without permission requests."""
        thread = self.control(f"/people/{psid}/thread", method="GET")
        said = [message["content"] for message in thread if message["direction"] == "out"]
        return [content["text"] for content in said if "text" in content]

    def secrets(self) -> list[str]:
        """Everything that must never be seen."""
        return [PAGE_TOKEN, APP_SECRET, VERIFY_TOKEN, KEY, HASH_KEY, NOTIFY_KEY, *self.world.tokens]


def write_project(root: Path, graph_url: str, **more: str) -> None:
    """The files of a small project; `otn init` makes the rest. `more` are variables of its environment."""
    (root / ".otn").mkdir()
    (root / ".otn" / "clock").write_text("0")
    (root / ".env").write_text(
        f"MESSENGER_VERIFY_TOKEN={VERIFY_TOKEN}\nMESSENGER_APP_SECRET={APP_SECRET}\n"
        f"MESSENGER_PAGE_ACCESS_TOKEN={PAGE_TOKEN}\nMESSENGER_GRAPH_URL={graph_url}\n"
        f"OTN_CLOCK_FILE=.otn/clock\nOTN_ENCRYPTION_KEYS={KEY}\nOTN_HASH_KEY={HASH_KEY}\n"
        f"OTN_NOTIFY_KEY={NOTIFY_KEY}\n" + "".join(f"{name}={value}\n" for name, value in more.items())
    )
    (root / ".env").chmod(0o600)


@contextmanager
def project(root: Path, store: Store | None = None, **simulated_by: Any) -> Iterator[Project]:
    """A project with one topic, whose webhooks are recorded as the channel would.

    `store`: an empty database that is no file of the project. `simulated_by` are fields of the simulator's Config:
    `pages`, for instance.
    """
    database = {} if store is None else {"OTN_DATABASE_URL": str(store.engine.url)}
    recorder = _Recorder(root)
    clock_file = root / ".otn" / "clock"
    with receiver(recorder) as webhook_url, simulator(clock_file, webhook_url, **simulated_by) as simulated:
        write_project(root, simulated.url, **database)
        found = Project(root, simulated.url, simulated.world)
        # What an echo tells, the tests tell themselves, when they want to.
        found.control("/settings", {"echoes": False, "deliveries": False}, "PATCH")
        with found.opened() as app:
            recorder.app = app
            with app.store.begin() as tx:
                from otn.models import Topic

                new = Topic(id=0, name="restock-*", title="Back in stock", kind="restock", is_family=True)
                topics.add(tx, new, app.clock())
            yield found


class _Recorder:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.app: App | None = None

    def __call__(self, body: bytes) -> None:
        assert self.app is not None
        now = self.app.clock()
        own = {entry["id"] for entry in json.loads(body)["entry"]}
        vault = self.app.require_vault()
        with self.app.store.begin() as tx:
            intake.record(tx, vault, intake.seal(vault, parse(body, now)), own_pages=own, now=now)


def contact_id(app: App, psid: str = "7007") -> int:
    with app.store.read() as tx:
        found = contacts.by_psid(tx, psid)
    assert found is not None
    return found.id


def environment() -> dict[str, str]:
    """This machine's environment without anything of ours, for commands that are started."""
    ours = ("MESSENGER_", "OTN_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}
