"""Conversations of every kind, as Rasa's events, for a small domain; and Rasa's components, untrained."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

from hypothesis import strategies as st
from rasa.engine.graph import ExecutionContext, GraphSchema
from rasa.engine.storage.resource import Resource
from rasa.shared.core import events
from rasa.shared.core.domain import Domain

from channels.quick_tracker import QuickTracker

DOMAIN = Domain.from_yaml("""
version: "3.1"
intents: [greet, tell]
entities: [colour]
actions: [action_greet]
slots:
  colour: {type: text, initial_value: blue, mappings: [{type: custom}]}
  size: {type: categorical, values: [s, m], mappings: [{type: custom}]}
  stock: {type: text, mappings: [{type: custom}]}
  sizes: {type: list, influence_conversation: false, mappings: [{type: custom}]}
forms: {order_form: {required_slots: [size]}}
""")
MAKE = [
    lambda: events.UserUttered("hi", {"name": "greet", "confidence": 1.0}),
    lambda: events.UserUttered("a blue one", {"name": "tell"}, [{"entity": "colour", "value": "blue"}]),
    lambda: events.ActionExecuted("action_listen"),
    lambda: events.ActionExecuted("action_greet"),
    lambda: events.ActionExecuted("action_greet", hide_rule_turn=True),
    lambda: events.ActionExecuted("order_form"),
    lambda: events.ActiveLoop("order_form"),
    lambda: events.ActiveLoop(None),
    lambda: events.ActionExecutionRejected("order_form"),
    lambda: events.SlotSet("colour", "red"),
    lambda: events.SlotSet("size", "m"),
    lambda: events.SlotSet("sizes", ["s"]),
    lambda: events.SlotSet("stock", "out"),
    lambda: events.BotUttered("hello"),
    events.ActionReverted,
    events.UserUtteranceReverted,
    events.AllSlotsReset,
    events.Restarted,
    events.SessionStarted,
    lambda: events.FollowupAction("action_greet"),
    events.ConversationPaused,
    lambda: events.DefinePrevUserUtteredFeaturization(True),
    lambda: events.DefinePrevUserUtteredFeaturization(False),
    lambda: events.EntitiesAdded([{"entity": "colour", "value": "red"}]),
]
CONVERSATIONS = st.lists(st.sampled_from(MAKE), max_size=30).map(lambda each: [make() for make in each])

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
OUT_OF_STOCK = [events.SlotSet("stock", "out")]
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
    OUT_OF_STOCK,
    [events.SlotSet("stock", None)],
    [events.ActiveLoop("order_form"), events.ActionExecuted("order_form"), events.ActiveLoop(None)],
]
SOME_TURNS = st.lists(st.sampled_from(TURNS), min_size=1, max_size=10).map(
    lambda turns: list(chain.from_iterable(turns))
)

RULE_ONLY = {"rule_only_slots": ["size"], "rule_only_loops": ["order_form"]}
CONTEXT = ExecutionContext(GraphSchema({}))


def made(kind: Any, **config: Any) -> Any:
    return kind({**kind.get_default_config(), **config}, None, Resource("none"), CONTEXT)


def tracker_of(said: list[Any]) -> QuickTracker:
    tracker = QuickTracker("7007", DOMAIN.slots)
    for each in said:
        tracker.update(copy.deepcopy(each))
    return tracker
