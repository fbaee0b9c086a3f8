"""Makes an agent of Rasa's quicker, in nothing but time: whatever it says, it would have said without.

Where its runner is not built as we know it, it stays as it is. How answers are checked is the whole process's.
"""

from __future__ import annotations

from typing import Any

from rasa.core.tracker_store import FailSafeTrackerStore
from rasa.engine.runner.dask import DaskGraphRunner

from channels.planned_runner import PlannedRunner
from channels.quick_checks import check_quickly
from channels.quick_tracker import QuickTracker
from channels.tracker_store import QuickSQLTrackerStore


def quicken(processor: Any) -> None:
    """Let Rasa's message processor do once what it does for every message; again after a new model was loaded."""
    runner = getattr(processor, "graph_runner", None)
    if type(runner) is DaskGraphRunner and {"_graph_schema", "_instantiated_nodes"} <= vars(runner).keys():
        processor.graph_runner = PlannedRunner(runner)
        _remember_whether_empty(processor.domain)
        _let_begin(processor.tracker_store)
        check_quickly()


def _remember_whether_empty(domain: Any) -> None:
    """Rasa asks it for every message, and makes an empty domain each time to compare."""
    empty = domain.is_empty()
    domain.is_empty = lambda: empty


def _let_begin(store: Any) -> None:
    """Conversations that begin get our tracker too: what Rasa wraps our tracker store in makes Rasa's own."""
    if type(store) is FailSafeTrackerStore and type(store._tracker_store) is QuickSQLTrackerStore:
        store.init_tracker = lambda sender_id: QuickTracker(
            sender_id, store.domain.slots, max_event_history=store.max_event_history
        )
