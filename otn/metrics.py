"""What Prometheus may ask a worker, on loopback: what it sent, and what waits in the database."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from otn.app import App
from otn.errors import StoreUnavailable
from otn.models import DeliveryState
from otn.store import figures

ADDRESS = "127.0.0.1"  # nobody is asked for a password here

_registry = CollectorRegistry()
_settled = Counter(
    "otn_deliveries",
    "Follow-ups that this worker has dealt with, by the state that they came to",
    ["state"],
    registry=_registry,
)


def count(state: DeliveryState, number: int = 1) -> None:
    """Count deliveries that came to a state."""
    _settled.labels(state.value).inc(number)


def serve(app: App, port: int) -> None:
    """Answer at http://127.0.0.1:PORT/metrics until the process ends. Raises OSError if the port is taken."""
    server, _thread = start_http_server(port, ADDRESS, _registry)
    try:
        _registry.register(_Waiting(app))
    except BaseException:
        server.shutdown()
        raise


class _Waiting(Collector):
    """What the database holds at the moment at which somebody asks."""

    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        """The gauges; without a database only that it does not answer."""
        try:
            with self._app.store.read() as tx:
                found = figures.waiting(tx, self._app.clock())
        except StoreUnavailable:
            yield GaugeMetricFamily("otn_database_up", "Whether the database answers", value=0)
            return
        yield GaugeMetricFamily("otn_database_up", "Whether the database answers", value=1)
        for name, (sentence, value) in {
            "otn_tokens_available": ("Permissions that are unused and not lapsed", found.tokens_available),
            "otn_tokens_suspect": ("Permissions that Meta left in doubt", found.tokens_suspect),
            "otn_inbox_waiting": ("Events that wait for their turn", found.inbox_waiting),
            "otn_inbox_oldest_seconds": (
                "How long the oldest of them has waited",
                found.inbox_oldest_seconds,
            ),
            "otn_pages_paused": ("Pages that nothing may leave", found.pages_paused),
            "otn_broadcasts_running": ("Broadcasts that are being sent", found.broadcasts_running),
            "otn_broadcasts_halted": ("Broadcasts that wait for somebody to look", found.broadcasts_halted),
        }.items():
            yield GaugeMetricFamily(name, sentence, value=value)
