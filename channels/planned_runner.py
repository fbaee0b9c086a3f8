"""Rasa's components one after the other, as Rasa runs them, without asking a scheduler each time.

For every message Rasa has dask work out three times what must run after what. It is the same each time, one thread
runs it all, and the asking takes a sixth of a turn. Here it is worked out once for a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rasa.engine.exceptions import GraphRunError
from rasa.engine.runner.dask import DaskGraphRunner
from rasa.engine.runner.interface import GraphRunner

from channels.quick_components import quick_node

# What runs after what: a node's name, the node, and whose results it takes.
_Plan = list[tuple[str, Any, list[str]]]


class PlannedRunner(GraphRunner):  # type: ignore[misc] # Rasa ships no types
    """Runs the nodes of a runner of Rasa's: same nodes, same inputs, same results."""

    def __init__(self, runner: DaskGraphRunner) -> None:
        self._schema = runner._graph_schema
        self._nodes = {name: quick_node(node) for name, node in runner._instantiated_nodes.items()}
        self._plans: dict[tuple[frozenset[str], tuple[str, ...]], _Plan] = {}

    @classmethod
    def create(cls, *given: Any, **named: Any) -> PlannedRunner:
        """A runner for a graph, from what Rasa's own is made of."""
        return cls(DaskGraphRunner.create(*given, **named))

    def run(self, inputs: dict[str, Any] | None = None, targets: list[str] | None = None) -> dict[str, Any]:
        """The targets' results by name. `inputs` stand in for the nodes of their names.

        Raises GraphRunError, and what the components raise.
        """
        wanted = targets or self._schema.target_names
        given = inputs or {}
        for name, value in given.items():
            if isinstance(value, str) and value in self._schema.nodes:
                raise GraphRunError(f"the input {name} has the name of a node, {value}, for its value")
        results = {name: (name, value) for name, value in given.items()}
        for name, node, needs in self._plan(frozenset(given), tuple(wanted)):
            # A node is told the name alone of what nobody gives, and warns of it.
            results[name] = node(*(results.get(need, need) for need in needs))
        return dict(results[name] for name in wanted)

    def _plan(self, given: frozenset[str], wanted: tuple[str, ...]) -> _Plan:
        if (given, wanted) not in self._plans:
            plan: _Plan = []
            self._add(wanted, set(given), plan)
            self._plans[given, wanted] = plan
        return self._plans[given, wanted]

    def _add(self, names: Sequence[str], known: set[str], plan: _Plan) -> None:
        """Add nodes to a plan, each behind those whose results it takes."""
        for name in names:
            if name not in known and name in self._nodes:
                known.add(name)
                needs = list(self._schema.nodes[name].needs.values())
                self._add(needs, known, plan)
                plan.append((name, self._nodes[name], needs))
