"""Which of Rasa's components have quicker ones; of these, what knows rules and what tells intents apart.

They give what Rasa's give, from the same trained model, and stand in for them while a model runs; their names are
Rasa's, because predictions tell them. Tests hold each against Rasa's own.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import numpy as np
from rasa.core.policies import memoization, rule_policy
from rasa.nlu.classifiers import logistic_regression_classifier
from rasa.shared.core.constants import PREVIOUS_ACTION, SHOULD_NOT_BE_SET, USER
from rasa.shared.nlu.constants import ACTION_NAME, FEATURE_TYPE_SENTENCE, INTENT, TEXT
from rasa.shared.nlu.training_data.message import Message
from scipy.sparse import coo_matrix, csr_matrix

from channels.quick_memory import AugmentedMemoizationPolicy
from channels.quick_tracker import State

_Step = tuple[str | None, str | None]  # the action before a moment, and what the user wanted


def quick(component: Any) -> Any:
    """A quicker component that does the same; the same one where we know none."""
    kind = _QUICKER.get(type(component))
    if kind is None:
        return component
    made = object.__new__(kind)
    made.__dict__.update(component.__dict__)
    return made


def quick_node(node: Any) -> Any:
    """A node of Rasa's graph with a quicker component; the same node where we know none."""
    component = getattr(node, "_component", None)
    quicker = quick(component)
    if quicker is component:
        return node
    made = copy.copy(node)
    made._component = quicker
    made._fn = getattr(type(quicker), node._fn_name)
    return made


class RulePolicy(rule_policy.RulePolicy):  # type: ignore[misc] # Rasa ships no types
    """Looks at those rules alone whose last step can be the present one; Rasa compares it with all of them."""

    def _get_possible_keys(self, lookup: dict[str, str], states: list[State]) -> set[str]:
        step = _step(states[-1]) if states else (None, None)
        if lookup is self.lookup[rule_policy.RULES] and step[0]:
            lookup = {key: lookup[key] for each in _general(step) for key in self._by_last_step.get(each, ())}
        keys: set[str] = super()._get_possible_keys(lookup, states)
        return keys

    @cached_property
    def _by_last_step(self) -> dict[_Step, list[str]]:
        """The rules by action and intent of their last step; None for what they leave open."""
        found: dict[_Step, list[str]] = {}
        for key in self.lookup[rule_policy.RULES]:
            found.setdefault(_step(self._rule_key_to_state(key)[-1]), []).append(key)
        return found


class LogisticRegressionClassifier(logistic_regression_classifier.LogisticRegressionClassifier):  # type: ignore[misc] # Rasa ships no types
    """Lays a message's features side by side once; Rasa goes through seven sparse matrices for it."""

    def _create_X(self, messages: list[Message]) -> Any:  # noqa: N802 - Rasa's name
        row = _row(messages[0]) if len(messages) == 1 else None
        return super()._create_X(messages) if row is None else row


def _step(state: State) -> _Step:
    action, intent = state.get(PREVIOUS_ACTION, {}).get(ACTION_NAME), state.get(USER, {}).get(INTENT)
    return action or None, intent if intent and intent != SHOULD_NOT_BE_SET else None


def _general(step: _Step) -> set[_Step]:
    """What a rule for this step may say of it: all, or leave something open."""
    action, intent = step
    return {(action, intent), (action, None), (None, intent), (None, None)}


def _row(message: Message) -> Any | None:
    """The features of a message's whole text in one row; None where there are others than sparse ones."""
    parts = [
        each for each in message.features if each.attribute == TEXT and each.type == FEATURE_TYPE_SENTENCE
    ]
    if not parts or not all(
        isinstance(each.features, coo_matrix) and each.features.shape[0] == 1 for each in parts
    ):
        return None
    starts = np.cumsum([0, *(each.features.shape[1] for each in parts)])
    columns = np.concatenate([each.features.col + start for each, start in zip(parts, starts, strict=False)])
    values = np.concatenate([each.features.data for each in parts]).astype(np.float64)
    row = csr_matrix((values, columns, [0, len(values)]), shape=(1, starts[-1]))
    row.sum_duplicates()  # and sorts: the sums of a prediction are added up in this order
    return row


_QUICKER = {
    memoization.AugmentedMemoizationPolicy: AugmentedMemoizationPolicy,
    rule_policy.RulePolicy: RulePolicy,
    logistic_regression_classifier.LogisticRegressionClassifier: LogisticRegressionClassifier,
}
