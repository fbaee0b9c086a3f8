"""Messages per second whose turn runs a custom action, through our channel and Rasa's rest channel.

Most of what such a bot says follows a custom action. Here an action server answers at once: what is measured is
Rasa's part. A person asks for a product, the action looks whether it is in stock, a response says so.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from functools import partial

from benchmarks import programs
from benchmarks.channel import Round, compare, on_air
from benchmarks.results import Finding

QUESTION = "do you have the canvas backpack?"
IN_STOCK = {
    "events": [{"event": "slot", "timestamp": None, "name": "stock", "value": "in_stock"}],
    "responses": [],
}


def run(*, quick: bool) -> Finding:
    """Measure."""
    rounds, people = (1, 10) if quick else (5, 100)
    with ExitStack() as stack:
        graph = stack.enter_context(programs.helper("graph"))
        actions = stack.enter_context(programs.helper("reply", "0", json.dumps(IN_STOCK)))
        contender = partial(on_air, stack, graph, people=people, says=QUESTION, actions=actions.url)
        contenders = [
            contender("messenger"),
            contender("rest", credentials=programs.REST, store=programs.RASAS_TRACKER_STORE),
        ]
        return _finding(compare(graph, contenders, rounds), rounds)


def _finding(middles: dict[str, Round], rounds: int) -> Finding:
    ours = middles["messenger"]
    return Finding(
        name="action",
        columns=["channel", "messages/s", "ours is", "CPU ms per message: rasa"],
        rows=[
            [name, f"{each.rate:.1f}", f"{ours.rate / each.rate:.2f} times", f"{each.rasa_ms:.1f}"]
            for name, each in middles.items()
        ],
        says=[
            f"Medians of {rounds} interleaved rounds; one rasa process each, {os.cpu_count()} cores for everything."
        ],
    )
