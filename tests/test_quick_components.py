"""What the channel makes quicker of Rasa's components gives what Rasa's give."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st
from rasa.core.featurizers.tracker_featurizers import MaxHistoryTrackerFeaturizer
from rasa.core.policies import memoization, rule_policy
from rasa.engine.graph import ExecutionContext, GraphSchema
from rasa.engine.storage.resource import Resource
from rasa.nlu.classifiers import logistic_regression_classifier as regression
from rasa.nlu.classifiers.logistic_regression_classifier import LogisticRegressionClassifier
from rasa.shared.core import events
from rasa.shared.core.constants import SHOULD_NOT_BE_SET
from rasa.shared.nlu.training_data.features import Features
from rasa.shared.nlu.training_data.message import Message
from scipy.sparse import coo_matrix

from channels.quick_components import quick, quick_node
from channels.quick_tracker import QuickTracker
from tests.conversations import CONVERSATIONS, DOMAIN

CONTEXT = ExecutionContext(GraphSchema({}))
RULE_ONLY = {"rule_only_slots": ["size"], "rule_only_loops": ["order_form"]}


def made(kind: Any, **config: Any) -> Any:
    return kind({**kind.get_default_config(), **config}, None, Resource("none"), CONTEXT)


def tracker_of(said: list[Any]) -> QuickTracker:
    tracker = QuickTracker("7007", DOMAIN.slots)
    for each in said:
        tracker.update(copy.deepcopy(each))
    return tracker


def remembering(stories: list[list[Any]], **config: Any) -> Any:
    """Rasa's own policy, for which each story goes on with an action."""
    policy = made(memoization.AugmentedMemoizationPolicy, **config)
    for number, story in enumerate(stories):
        states = policy._prediction_states(tracker_of(story), DOMAIN, rule_only_data=RULE_ONLY)
        policy.lookup[policy._create_feature_key(states)] = ["action_greet", "action_listen"][number % 2]
    return policy


def predictions(policy: Any, said: list[Any]) -> list[Any]:
    told = []
    for chosen in (policy, quick(policy)):
        prediction = chosen.predict_action_probabilities(tracker_of(said), DOMAIN, RULE_ONLY)
        told.append((prediction.probabilities, prediction.policy_name))
    return told


HI = [events.ActionExecuted("action_listen"), events.UserUttered("hi", {"name": "greet"})]
BLUE = [
    events.ActionExecuted("action_listen"),
    events.UserUttered("blue", {"name": "tell"}, [{"entity": "colour", "value": "blue"}]),
    events.SlotSet("colour", "blue"),
    events.DefinePrevUserUtteredFeaturization(False),
]
GREETED = [events.ActionExecuted("action_greet"), events.BotUttered("hello")]
GREETED_BY_RULE = [events.ActionExecuted("action_greet", hide_rule_turn=True)]
SIZED = [events.SlotSet("size", "m")]
TURNS = [
    HI,
    BLUE,
    GREETED,
    GREETED_BY_RULE,
    SIZED,
    [events.ActionExecuted("action_listen"), events.UserUttered("only words", None)],
    [events.ActionExecuted("action_listen", hide_rule_turn=True), events.UserUttered("", {"name": None})],
    [events.ActionExecuted("action_listen"), events.UserUttered('er sagt: "ü"', {"name": "tell"})],
    [events.DefinePrevUserUtteredFeaturization(True)],
    [events.ActionExecuted("action_unlikely_intent")],
    [events.ActionExecuted(action_text="Hello there")],
    [events.SlotSet("size", None)],
    [events.ActiveLoop("order_form"), events.ActionExecuted("order_form"), events.ActiveLoop(None)],
]
SOME_TURNS = st.lists(st.sampled_from(TURNS), min_size=1, max_size=10).map(
    lambda turns: list(chain.from_iterable(turns))
)


@given(st.lists(SOME_TURNS, min_size=1, max_size=4), SOME_TURNS, st.data(), st.booleans())
def test_memory_recalls_what_rasa_s_recalls_of_shortened_conversations(
    stories: list[list[Any]], before: list[Any], data: Any, compressed: bool
) -> None:
    policy = remembering(
        stories,
        max_history=data.draw(st.sampled_from([None, 2, 5])),
        enable_feature_string_compression=compressed,
    )
    said = before + data.draw(st.sampled_from([*stories, []]))
    slow, fast = predictions(policy, said)
    target(max(slow[0]))  # look for conversations of which something is recalled
    assert fast == slow


@given(CONVERSATIONS, CONVERSATIONS)
def test_memory_recalls_what_rasa_s_recalls_of_any_conversation(story: list[Any], said: list[Any]) -> None:
    slow, fast = predictions(remembering([story], max_history=5), said + story)
    assert fast == slow


def greeted(before: list[Any]) -> list[Any]:
    """Recalled only if what came before is left out: the story had no slot."""
    return [*before, *HI, *GREETED, *HI]


def test_memory_finds_a_story_behind_slots_that_were_set_before_it() -> None:
    policy = remembering([greeted([])], max_history=5)
    said = greeted([events.SlotSet("size", "m"), *GREETED])
    slow, fast = predictions(policy, said)
    assert fast == slow
    assert max(slow[0]) == 1.0
    assert quick(policy)._recall_states(quick(policy)._prediction_states(tracker_of(said), DOMAIN)) is None


def test_memory_asks_rasa_only_where_words_and_actions_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = remembering([greeted([])], max_history=5)
    asked: list[Any] = []
    shorten = memoization.AugmentedMemoizationPolicy._recall_using_truncation

    def notice(*given: Any, **named: Any) -> Any:
        asked.append(given)
        return shorten(*given, **named)

    monkeypatch.setattr(memoization.AugmentedMemoizationPolicy, "_recall_using_truncation", notice)
    fast = quick(policy)
    for other in ([*HI, *GREETED, *BLUE], [*HI, *GREETED_BY_RULE]):
        fast.predict_action_probabilities(tracker_of(other), DOMAIN, RULE_ONLY)
    assert not asked
    fast.predict_action_probabilities(tracker_of(greeted([*SIZED, *GREETED])), DOMAIN, RULE_ONLY)
    assert asked


def test_memory_leaves_it_to_rasa_where_words_look_like_slots() -> None:
    odd = [events.ActionExecuted("action_listen"), events.UserUttered("hi", {"name": "slots: {a: {b}}"})]
    policy = remembering([odd], max_history=5)
    assert quick(policy)._slotless is None
    slow, fast = predictions(policy, [*SIZED, *GREETED, *odd])
    assert fast == slow


def test_memory_leaves_it_to_rasa_where_somebody_s_own_code_sees_the_conversation() -> None:
    class Theirs(MaxHistoryTrackerFeaturizer):
        def prediction_states(self, trackers: Any, *given: Any, **named: Any) -> Any:
            assert all(tracker.events for tracker in trackers)
            return super().prediction_states(trackers, *given, **named)

    policy = remembering([greeted([])], max_history=5)
    policy._Policy__featurizer = Theirs(max_history=5)
    slow, fast = predictions(policy, greeted([*SIZED, *GREETED]))
    assert fast == slow
    assert max(slow[0]) == 1.0


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


def featured(parts: list[list[tuple[int, int]]], *, kind: Any = coo_matrix, of: str = "sentence") -> Message:
    message = Message({"text": "hi"})
    for number, part in enumerate(parts):
        columns, values = [each for each, _ in part], [each for _, each in part]
        row = kind(coo_matrix((values, ([0] * len(part), columns)), shape=(1, 7 + number), dtype=np.int64))
        message.add_features(Features(row, of, "text", f"featurizer {number}"))
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
