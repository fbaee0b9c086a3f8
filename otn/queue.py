"""Hands the worker's jobs to threads by huey: an SQLite file, or Redis.

SQL is the truth, and a message in the queue is a hint that somebody should look. So nothing is lost with the queue:
every worker looks every two seconds anyway, and a hint that comes twice finds nothing to do. Messages are JSON with
integers: whoever can write into the queue can make workers look, and nothing else.
"""

from __future__ import annotations

import json
import logging
import threading
from datetime import datetime
from typing import Any

from huey import Huey, crontab
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import RedisStorage, SqliteStorage

from otn import worker
from otn.app import App
from otn.graph.sync import SyncGraph
from otn.settings import sqlite_file

SENDERS = 2  # chunks that one worker sends at once, so that the end of one is not the other's pause
STOP_SECONDS = 30.0  # for what is being sent to be recorded: more than one POST may take

log = logging.getLogger(__name__)


class Queue:
    """The queue, and the jobs that one worker process does from it."""

    def __init__(self, app: App, stop: threading.Event) -> None:
        self._app, self._stop = app, stop
        self._senders = threading.Semaphore(SENDERS)
        self._huey = open_huey(app.settings.queue_url)
        self._tick = self._huey.task(name="tick")(self._do_tick)
        self._send = self._huey.task(name="send_chunk")(self._do_send)
        self._huey.periodic_task(crontab(), name="keep_house")(self._do_keep_house)

    def work(self) -> None:
        """Do what is due until told to stop; what is being sent at that moment is sent and recorded first."""
        consumer = _Consumer(
            self._huey,
            workers=SENDERS + 1,
            initial_delay=0.05,
            max_delay=1.0,
            shutdown_timeout=STOP_SECONDS,
        )
        worker.survives(lambda: worker.keep_house(self._app, self._stop))
        consumer.start()
        while not self._stop.is_set():
            self._look()
            consumer.check_worker_health()
            self._stop.wait(worker.TICK.total_seconds())
        consumer.stop(graceful=True)

    def _look(self) -> None:
        """Ask for a tick, unless somebody has already; a queue that broke is opened anew."""
        try:
            if not self._huey.pending_count():
                self._tick()
        except Exception as exc:  # noqa: BLE001 - each kind of queue has errors of its own
            log.error("the queue does not answer (%s); opening it anew", type(exc).__name__)
            worker.survives(self._reopen)

    def _reopen(self) -> None:
        self._huey.storage = self._huey.create_storage()

    def _do_tick(self) -> None:
        worker.survives(self._tick_and_hint)

    def _tick_and_hint(self) -> None:
        with SyncGraph() as graph:
            moved = worker.tick(self._app, graph, self._stop)
        for chunk_id in moved.chunks[: SENDERS if self._huey.pending_count() < SENDERS else 0]:
            self._send(chunk_id)
        if moved.is_busy:
            self._tick()

    def _do_send(self, chunk_id: int) -> None:
        """Send, unless as many do so as may: they go on with whatever is due, and one thread is left for ticks."""
        if not self._senders.acquire(blocking=False):
            return
        try:
            worker.survives(lambda: worker.send(self._app, self._stop, chunk_id))
        finally:
            self._senders.release()

    def _do_keep_house(self) -> None:
        worker.survives(lambda: worker.keep_house(self._app, self._stop))


def open_huey(url: str) -> Huey:
    """The queue behind an address: `sqlite:///file` or `redis://…`."""
    common: dict[str, Any] = {"results": False, "serializer": JsonSerializer()}
    path = sqlite_file(url)
    if path is None:
        return Huey("otn", storage_class=RedisStorage, url=url, **common)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Losing it loses nothing, so it need not wait for the disk.
    return Huey("otn", storage_class=SqliteStorage, filename=str(path), fsync=False, **common)


class JsonSerializer(Serializer):  # type: ignore[misc] # huey has no types
    """Tasks as JSON: huey's own pickles would let whoever writes the queue run code."""

    def _serialize(self, data: Any) -> bytes:
        if not isinstance(data, Message):
            raise TypeError("only tasks travel through the queue")
        return json.dumps(data._asdict(), default=_moment).encode()

    def _deserialize(self, data: bytes) -> Message:
        values = json.loads(data)
        if not all(type(each) is int for each in values["args"]) or values["kwargs"]:
            raise ValueError("a task takes whole numbers only")
        known = {name: values[name] for name in ("id", "name", "retries", "retry_delay", "priority")}
        return Message(**known, args=tuple(values["args"]), kwargs={})


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} does not travel through the queue")


class _Consumer(Consumer):  # type: ignore[misc] # huey has no types
    """huey's threads, without its signal handlers: `otn worker` has its own."""

    def _set_signal_handlers(self) -> None:
        pass
