"""Conversations of every kind, as Rasa's events, for a small domain."""

from __future__ import annotations

from hypothesis import strategies as st
from rasa.shared.core import events
from rasa.shared.core.domain import Domain

DOMAIN = Domain.from_yaml("""
version: "3.1"
intents: [greet, tell]
entities: [colour]
actions: [action_greet]
slots:
  colour: {type: text, initial_value: blue, mappings: [{type: custom}]}
  size: {type: categorical, values: [s, m], mappings: [{type: custom}]}
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
