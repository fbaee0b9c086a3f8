"""The quicker policy remembers the stories that Rasa's remembers, of every conversation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, target
from hypothesis import strategies as st
from rasa.core.featurizers.tracker_featurizers import MaxHistoryTrackerFeaturizer
from rasa.core.policies import memoization
from rasa.shared.core import events

from channels.quick_components import quick
from tests.conversations import (
    BLUE,
    CONVERSATIONS,
    DOMAIN,
    GREETED,
    GREETED_BY_RULE,
    HI,
    OUT_OF_STOCK,
    RULE_ONLY,
    SIZED,
    SOME_TURNS,
    made,
    tracker_of,
)


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


def test_memory_goes_on_where_a_form_s_slots_are_not_the_story_s() -> None:
    policy = remembering([[*HI, *HI]], max_history=2)
    said = [*HI, *OUT_OF_STOCK, *HI, *HI]
    fast = quick(policy)
    tracker = tracker_of(said)
    forms = list(fast._candidates(tracker.applied_events(), DOMAIN, RULE_ONLY))
    recalled = [
        fast._recall_states(fast._prediction_states(tracker_of(form), DOMAIN, rule_only_data=RULE_ONLY))
        for form in forms
    ]
    assert recalled == [None, "action_greet"]
    slow_told, fast_told = predictions(policy, said)
    assert fast_told == slow_told
    assert max(slow_told[0]) == 1.0


def test_memory_does_not_take_other_slots_for_the_story_s() -> None:
    policy = remembering([[*OUT_OF_STOCK, *HI]], max_history=2)
    slow, fast = predictions(policy, [*GREETED, *HI])
    assert fast == slow
    assert max(slow[0]) < 1.0


def test_memory_looks_only_at_forms_whose_words_and_actions_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = remembering([greeted([])], max_history=5)
    looks: list[Any] = []
    recall = memoization.AugmentedMemoizationPolicy._recall_states

    def notice(chosen: Any, states: Any) -> Any:
        looks.append(states)
        return recall(chosen, states)

    monkeypatch.setattr(memoization.AugmentedMemoizationPolicy, "_recall_states", notice)
    for said, forms in (
        ([*HI, *GREETED, *BLUE], 0),
        ([*HI, *GREETED_BY_RULE], 0),
        (greeted([*SIZED, *GREETED]), 1),
        (greeted([*SIZED, *HI, *GREETED]), 1),
    ):
        looks.clear()
        quick(policy).predict_action_probabilities(tracker_of(said), DOMAIN, RULE_ONLY)
        assert len(looks) == 1 + forms, said  # the whole conversation first, as Rasa does


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
