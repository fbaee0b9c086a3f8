"""What the channel makes quicker of Rasa does the very same: the tracker's copies, and running a model's components."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasa.engine.exceptions import GraphRunError
from rasa.engine.graph import GraphComponent, GraphSchema, SchemaNode
from rasa.engine.runner.dask import DaskGraphRunner
from rasa.shared.core import events
from rasa.shared.core.slots import Slot, TextSlot
from rasa.shared.core.trackers import DialogueStateTracker

from channels.planned_runner import PlannedRunner
from channels.quick_tracker import QuickTracker
from tests.conversations import CONVERSATIONS, DOMAIN, MAKE, RULE_ONLY

PAST = ({}, {"omit_unset_slots": True}, {"ignore_rule_only_turns": True, "rule_only_data": RULE_ONLY})


def both(said: list[Any], **options: Any) -> tuple[QuickTracker, DialogueStateTracker]:
    quick = QuickTracker("7007", DOMAIN.slots, **options)
    slow = DialogueStateTracker("7007", DOMAIN.slots, **options)
    for each in said:
        quick.update(copy.deepcopy(each), DOMAIN)
        slow.update(copy.deepcopy(each), DOMAIN)
    return quick, slow


def state(tracker: DialogueStateTracker) -> dict[str, Any]:
    """Everything that it holds, slots with all their attributes."""
    held = {name: value for name, value in vars(tracker).items() if name not in {"_applied", "_memory"}}
    held["slots"] = {name: (type(slot), vars(slot)) for name, slot in tracker.slots.items()}
    held["events"] = [each.as_dict() for each in tracker.events]
    held["latest_message"] = tracker.latest_message.as_dict()
    held["latest_bot_utterance"] = tracker.latest_bot_utterance.as_dict()
    for each in (*held["events"], held["latest_message"], held["latest_bot_utterance"]):
        each.pop("timestamp", None)
    return held


@given(CONVERSATIONS)
def test_a_quick_tracker_holds_what_rasa_s_holds_after_any_conversation(said: list[Any]) -> None:
    quick, slow = both(said)
    assert state(quick) == state(slow)
    assert state(quick.init_copy()) == state(slow.init_copy())
    assert state(quick.copy()) == state(slow.copy())
    assert [state(each) for each, _ in _prior(quick)] == [state(each) for each, _ in _prior(slow)]


def _prior(tracker: DialogueStateTracker) -> list[tuple[DialogueStateTracker, bool]]:
    return [(each.copy(), hidden) for each, hidden in tracker.generate_all_prior_trackers()]


@given(CONVERSATIONS)
def test_policies_see_the_same_past_in_it(said: list[Any]) -> None:
    quick, slow = both(said)
    for options in PAST:
        assert quick.past_states(DOMAIN, **options) == slow.past_states(DOMAIN, **options)


@given(CONVERSATIONS, st.booleans(), st.lists(st.booleans(), min_size=30, max_size=30))
def test_policies_that_ask_again_and_write_into_what_they_got_see_the_same(
    said: list[Any], omit: bool, asked: list[bool]
) -> None:
    quick, slow = both([])
    for each, ask in zip(said, asked, strict=False):
        quick.update(copy.deepcopy(each))
        slow.update(copy.deepcopy(each))
        for hiding in ({}, {"ignore_rule_only_turns": True, "rule_only_data": RULE_ONLY}) if ask else ():
            told = quick.past_states(DOMAIN, omit, **hiding)
            assert told == slow.past_states(DOMAIN, omit, **hiding)
            for state in told:
                for part in state.values():
                    part.clear()


def test_what_an_event_that_was_taken_back_left_in_the_words_is_seen() -> None:
    quick, slow = both([make() for make in (MAKE[2], MAKE[0], MAKE[3])])
    assert quick.past_states(DOMAIN) == slow.past_states(DOMAIN)
    for each in (events.ActionExecuted("action_listen"), MAKE[-1](), events.ActionReverted()):
        quick.update(copy.deepcopy(each))
        slow.update(copy.deepcopy(each))
    assert slow.past_states(DOMAIN)[1]["user"]["entities"]
    assert quick.past_states(DOMAIN) == slow.past_states(DOMAIN)


def test_a_copy_s_events_that_change_the_words_are_seen_in_the_tracker_itself() -> None:
    quick, slow = both([make() for make in (MAKE[2], MAKE[0])])
    for tracker in (quick, slow):
        tracker.past_states(DOMAIN)
        tracker.copy().update(MAKE[-1]())
    assert quick.past_states(DOMAIN) == slow.past_states(DOMAIN)
    assert slow.past_states(DOMAIN)[1]["user"]["entities"]


class Broken(TextSlot):
    """A slot of somebody's bot that can't say for a moment what it means."""

    broken = False

    def _as_feature(self) -> list[float]:
        if Broken.broken:
            raise ValueError("not now")
        return [1.0]


def test_after_a_description_failed_the_next_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, slow = (kind("7007", [Broken("broken", [])]) for kind in (QuickTracker, DialogueStateTracker))
    for each in (tracker, slow):
        each.update(events.ActionExecuted("action_listen"))
    tracker.past_states(DOMAIN)
    for each in (tracker, slow):
        each.update(events.UserUttered("hi", {"name": "greet"}))
        each.update(events.ActionExecuted("action_greet"))
    monkeypatch.setattr(Broken, "broken", True)
    with pytest.raises(ValueError, match="not now"):
        tracker.past_states(DOMAIN)
    monkeypatch.setattr(Broken, "broken", False)
    assert tracker.past_states(DOMAIN) == slow.past_states(DOMAIN)


@given(CONVERSATIONS, st.sampled_from([None, 1, 5]))
def test_what_counts_of_a_conversation_is_what_counts_for_rasa_at_every_moment(
    said: list[Any], most: int | None
) -> None:
    quick, slow = both([], max_event_history=most)
    for each in said:
        quick.update(each)
        slow.update(each)
        assert quick.applied_events() == slow.applied_events()
        quick.applied_events().clear()  # whoever got it may do as they like


def test_a_copy_s_slots_are_its_own() -> None:
    tracker, _slow = both([events.SlotSet("colour", "red")])
    fresh = tracker.init_copy()
    fresh.update(events.SlotSet("colour", "green"))
    assert (tracker.get_slot("colour"), fresh.get_slot("colour")) == ("red", "green")
    assert tracker.init_copy().get_slot("colour") == "blue"


class Counted(TextSlot):
    """A slot of somebody's bot that has its own idea of a copy."""

    def __copy__(self) -> Slot:
        made = Counted(self.name, self.mappings)
        made.initial_value = "copied"
        return made


class Slotted(TextSlot):
    """One that keeps something beside `__dict__`."""

    __slots__ = ("beside",)


def test_a_slot_that_says_how_it_is_copied_is_copied_so() -> None:
    counted, slotted = Counted("counted", []), Slotted("slotted", [])
    slotted.beside = "kept"
    fresh = QuickTracker("7007", [counted, slotted]).init_copy()
    assert fresh.get_slot("counted") == "copied"
    assert fresh.slots["slotted"].beside == "kept"


# --- a model's components ---


class Node:
    """A component in a graph, as Rasa's runner holds it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs: list[Any] = []

    def __call__(self, *results: Any) -> tuple[str, Any]:
        self.runs.append(results)
        return self.name, [self.name, *results]


NEEDS = {"a": ["in"], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["a"]}


def needing(name: str) -> SchemaNode:
    needs = {f"input_{number}": each for number, each in enumerate(NEEDS[name])}
    return SchemaNode(
        needs=needs, uses=GraphComponent, constructor_name="load", fn="run", config={}, is_target=name == "d"
    )


def graph() -> tuple[PlannedRunner, DaskGraphRunner, dict[str, Node]]:
    slow = DaskGraphRunner.__new__(DaskGraphRunner)
    slow._graph_schema = GraphSchema({name: needing(name) for name in NEEDS})
    slow._instantiated_nodes = {name: Node(name) for name in NEEDS}
    slow._execution_context = None
    return PlannedRunner(slow), slow, slow._instantiated_nodes


def test_every_node_that_is_needed_runs_once_after_what_it_needs() -> None:
    planned, slow, nodes = graph()
    assert planned.run({"in": 1}) == slow.run({"in": 1})
    assert {name: len(node.runs) for name, node in nodes.items()} == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 0}
    assert planned.run({"in": 1}, ["e", "b"]) == slow.run({"in": 1}, ["e", "b"])


def test_what_is_given_stands_in_for_a_node() -> None:
    planned, slow, nodes = graph()
    assert planned.run({"b": 1, "in": 2}) == slow.run({"b": 1, "in": 2})
    assert not nodes["b"].runs
    assert planned.run({"a": 1}) == slow.run({"a": 1})  # another plan than with `in`


def test_what_nobody_gives_is_told_by_its_name_alone() -> None:
    planned, slow, nodes = graph()
    assert planned.run(targets=["a"]) == slow.run(targets=["a"])
    assert nodes["a"].runs == [("in",), ("in",)]


def test_a_value_that_is_the_name_of_a_node_is_refused_as_rasa_refuses_it() -> None:
    planned, slow, _nodes = graph()
    for runner in (planned, slow):
        with pytest.raises(GraphRunError):
            runner.run({"in": "a"})
