"""What the channel makes quicker of Rasa's components gives what Rasa's give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasa.core.policies import memoization, rule_policy
from rasa.engine.storage.resource import Resource
from rasa.nlu.classifiers import logistic_regression_classifier as regression
from rasa.nlu.classifiers.logistic_regression_classifier import LogisticRegressionClassifier
from rasa.shared.core.constants import SHOULD_NOT_BE_SET
from rasa.shared.nlu.training_data.features import Features
from rasa.shared.nlu.training_data.message import Message
from scipy.sparse import coo_matrix

from channels.quick_components import quick, quick_node
from tests.conversations import DOMAIN, SOME_TURNS, made, tracker_of

# --- rules ---


def knowing(rules: list[list[Any]]) -> Any:
    """Rasa's own policy with a rule for each of these conversations' ends."""
    policy = made(rule_policy.RulePolicy)
    known: dict[str, str] = {}
    for number, rule in enumerate(rules):
        states = policy._prediction_states(tracker_of(rule), DOMAIN)
        for most in (1, 2):
            known[policy._create_feature_key(states[-most:])] = f"action_{number}"
    policy.lookup = {rule_policy.RULES: known, rule_policy.RULES_FOR_LOOP_UNHAPPY_PATH: dict(known)}
    return policy


@given(st.lists(SOME_TURNS, min_size=1, max_size=8), SOME_TURNS)
def test_the_same_rules_apply(rules: list[list[Any]], said: list[Any]) -> None:
    policy = knowing(rules)
    fast = quick(policy)
    states = policy._prediction_states(tracker_of(said), DOMAIN)
    for lookup in policy.lookup.values():
        applicable = policy._get_possible_keys(lookup, states)
        assert fast._get_possible_keys(lookup, states) == applicable


def test_a_rule_that_leaves_the_words_or_the_action_open_applies() -> None:
    policy = made(rule_policy.RulePolicy)
    keys = [
        policy._create_feature_key([state])
        for state in (
            {"prev_action": {"action_name": "action_greet"}},
            {"prev_action": {"action_name": "action_greet"}, "user": {"intent": SHOULD_NOT_BE_SET}},
            {"prev_action": {"action_name": "action_greet"}, "user": {"intent": "greet"}},
            {"prev_action": {"action_name": "action_listen"}, "user": {"intent": "greet"}},
            {"user": {"intent": "greet"}},
            {"slots": {"size": [0.0, 1.0]}},
        )
    ]
    policy.lookup = {rule_policy.RULES: dict.fromkeys(keys, "action_greet")}
    for state in (
        {"prev_action": {"action_name": "action_greet"}, "user": {"intent": "greet"}},
        {"prev_action": {"action_name": "action_greet"}},
        {"user": {"intent": "greet"}},
        {"slots": {"size": (0.0, 1.0)}},
        {},
    ):
        lookup = policy.lookup[rule_policy.RULES]
        assert quick(policy)._get_possible_keys(lookup, [state]) == policy._get_possible_keys(lookup, [state])


# --- intents ---

SPARSE = st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 3)), max_size=8)


def featured(parts: list[list[tuple[int, int]]], *, kind: Any = coo_matrix) -> Message:
    message = Message({"text": "hi"})
    for number, part in enumerate(parts):
        columns, values = [each for each, _ in part], [each for _, each in part]
        row = kind(coo_matrix((values, ([0] * len(part), columns)), shape=(1, 7 + number), dtype=np.int64))
        message.add_features(Features(row, "sentence", "text", f"featurizer {number}"))
        message.add_features(Features(row, "sequence", "text", f"featurizer {number}"))
        message.add_features(Features(row, "sentence", "action_text", f"featurizer {number}"))
    return message


def both_rows(message: Message) -> list[Any]:
    slow = LogisticRegressionClassifier({}, "regression", None, Resource("none"))
    return [each._create_X([message]).tocsr() for each in (slow, quick(slow))]


@given(st.lists(SPARSE, min_size=1, max_size=3))
def test_the_classifier_sees_the_same_features(parts: list[list[tuple[int, int]]]) -> None:
    slow, fast = both_rows(featured(parts))
    assert (fast.shape, fast.dtype) == (slow.shape, slow.dtype)
    for name in ("data", "indices", "indptr"):
        assert getattr(fast, name).tolist() == getattr(slow, name).tolist()


@pytest.mark.parametrize("kind", [lambda row: row.tocsr(), lambda row: row.toarray()])
def test_other_features_are_left_to_rasa(kind: Any) -> None:
    slow, fast = both_rows(featured([[(1, 2)], [(0, 1)]], kind=kind))
    assert fast.toarray().tolist() == slow.toarray().tolist()


# --- where they stand in ---


def test_they_bear_rasa_s_names_and_the_trained_component_s_values() -> None:
    for kind in (memoization.AugmentedMemoizationPolicy, rule_policy.RulePolicy):
        slow = made(kind)
        fast = quick(slow)
        assert type(fast) is not kind
        assert isinstance(fast, kind)
        assert type(fast).__name__ == kind.__name__
        assert vars(fast) == vars(slow)


def test_somebody_s_own_component_stays_as_it_is() -> None:
    class Theirs(memoization.AugmentedMemoizationPolicy):
        pass

    theirs = made(Theirs)
    assert quick(theirs) is theirs


def test_a_node_runs_the_quicker_component_and_the_model_s_own_stays() -> None:
    class Node:
        pass

    node: Any = Node()
    node._component = slow = LogisticRegressionClassifier({}, "regression", None, Resource("none"))
    node._fn_name, node._fn = "process", regression.LogisticRegressionClassifier.process
    faster = quick_node(node)
    assert node._component is slow
    assert type(faster._component) is type(quick(slow))
    assert faster._fn is type(quick(slow)).process
    node._component = None  # made anew for every run
    assert quick_node(node) is node
