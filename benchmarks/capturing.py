"""The two servers that take opt-ins, without a model behind them (`python -m benchmarks.capturing WHICH PORT`).

`messenger` is our channel as Rasa would register it; nobody talks, so that only the capture is measured. `bare` is
the least that could be called capture: a handler that writes one row an event, one transaction a request.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

import sqlalchemy as sa
from sanic import Sanic, response
from sanic.request import Request
from sanic.response import HTTPResponse

from benchmarks.graph import PAGE_ID
from otn.app import open_app
from otn.settings import EVERYTHING, READING

captured = sa.Table(
    "benchmark_capture",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("psid", sa.String(64), nullable=False),
    sa.Column("token", sa.Text, nullable=False, unique=True),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("received_at", sa.DateTime, nullable=False),
)


def main() -> None:
    """Serve in the project of the current folder until told to stop."""
    which, port = sys.argv[1], int(sys.argv[2])
    app = Sanic("capturing", configure_logging=False)
    {"messenger": serve_channel, "bare": serve_bare}[which](app)
    app.run(host="127.0.0.1", port=port, access_log=False, motd=False)


def serve_channel(app: Sanic) -> None:
    """Our channel."""
    from rasa.core.channels.channel import register

    from channels.messenger import MessengerInput

    token = open_app(Path.cwd(), need=EVERYTHING).settings.pages[0].access_token.reveal()
    register([MessengerInput.from_credentials({"pages": {PAGE_ID: token}})], app, route="/webhooks/")


def serve_bare(app: Sanic) -> None:
    """The peer: same database, same engine, same durability; no signature, no keys, no questions asked."""
    store = open_app(Path.cwd(), need=READING).store
    captured.metadata.create_all(store.engine)
    insert = captured.insert()

    async def webhook(request: Request) -> HTTPResponse:
        now = datetime.now(timezone.utc)
        events = [event for entry in json.loads(request.body)["entry"] for event in entry["messaging"]]
        rows = [
            {
                "psid": event["sender"]["id"],
                "token": event["optin"]["one_time_notif_token"],
                "payload": event["optin"]["payload"],
                "received_at": now,
            }
            for event in events
        ]
        with store.begin() as tx:
            tx.execute(insert, rows)
        return response.text("EVENT_RECEIVED")

    app.add_route(webhook, "/webhooks/messenger/webhook", methods=["POST"])


if __name__ == "__main__":
    main()
