"""What Prometheus is told: true sums, on loopback, without a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from cli import forget_environment
from simulated import Project, project
from test_broadcasts import DAY_AND_HOUR, planned, work

from otn import metrics
from otn.dev.processes import free_port
from otn.store import pages


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    with project(tmp_path) as found:
        yield found


def test_a_worker_tells_what_it_sent_and_what_waits(shop: Project) -> None:
    for psid in ("7001", "7002"):
        shop.person(psid, permissions=2)
    shop.pass_time(DAY_AND_HOUR)
    with shop.opened() as app:
        port = free_port()
        metrics.serve(app, port)
        before = told(port)
        planned(app)
        work(app)
        with app.store.begin() as tx:
            pages.pause(tx, shop.page_id, "by hand", app.clock() + timedelta(hours=1))
        after = told(port)
        assert (
            after['otn_deliveries_total{state="sent"}'] - before.get('otn_deliveries_total{state="sent"}', 0)
            == 2
        )
        assert (before["otn_tokens_available"], after["otn_tokens_available"]) == (4, 2)
        assert (before["otn_pages_paused"], after["otn_pages_paused"]) == (0, 1)
        assert after["otn_inbox_waiting"] == 6  # a message and two taps each
        assert after["otn_database_up"] == 1
        with pytest.raises(OSError, match="in use"):
            metrics.serve(app, port)


def told(port: int) -> dict[str, float]:
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    assert "7001" not in text
    return {
        name: float(value)
        for name, value in re.findall(r"^(\w+(?:\{.*?\})?) ([\d.e+-]+)$", text, re.MULTILINE)
    }
