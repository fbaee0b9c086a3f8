"""`otn worker`: what has to be done outside of conversations."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from otn.cli.session import opened
from otn.cli.terminal import say

if TYPE_CHECKING:
    from otn.app import App

METRICS_PORT = 9464


def worker(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Stop when nothing is due.")] = False,
    metrics_port: Annotated[
        int,
        typer.Option(
            envvar="OTN_METRICS_PORT",
            min=0,
            max=65535,
            help="Where Prometheus finds /metrics on 127.0.0.1; 0 for nowhere.",
        ),
    ] = METRICS_PORT,
) -> None:
    """Send broadcasts and whatever else is due, retry, clean up. Runs until stopped.

    Any number of workers may run, on any number of machines. Ctrl-C or SIGTERM stops it after the messages that are
    being sent.

    \b
    Examples:
      otn worker
      otn worker --once
    """
    from otn import worker as jobs
    from otn.graph.sync import SyncGraph
    from otn.queue import Queue

    with (
        _logging_to_stderr(),
        opened(context, to_send=True) as app,
        _stopped_by_signals() as stop,
    ):
        if once:
            with SyncGraph() as graph:
                number = jobs.run_once(app, graph, stop)
            say(f"Nothing is due any more; {number} messages were taken up." if number else "Nothing is due.")
            return
        if metrics_port:
            _serve_metrics(app, metrics_port)
        logging.getLogger("otn.worker").info("worker %d works on %r", os.getpid(), app.store)
        Queue(app, stop).work()
        logging.getLogger("otn.worker").info("worker %d has stopped", os.getpid())


def _serve_metrics(app: App, port: int) -> None:
    from otn import metrics

    try:
        metrics.serve(app, port)
    except OSError as problem:  # another worker of this machine answers there
        logging.getLogger("otn.worker").warning("no metrics: port %d: %s", port, problem.strerror)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set. A second one of them ends the process as usual."""
    stop = threading.Event()

    def request(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """What `otn` logs goes to stderr, each line once; afterwards logging is as it was."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("otn")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
