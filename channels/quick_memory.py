"""Rasa's policy that remembers stories, quicker to see which of them a conversation may be.

It bears Rasa's name, because predictions tell it.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from types import SimpleNamespace
from typing import Any, NamedTuple

from rasa.core.constants import POLICY_MAX_HISTORY
from rasa.core.featurizers.tracker_featurizers import MaxHistoryTrackerFeaturizer
from rasa.core.policies import memoization
from rasa.shared.core.constants import (
    ACTION_LISTEN_NAME,
    ACTION_UNLIKELY_INTENT_NAME,
    PREVIOUS_ACTION,
    USER,
)
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import (
    ActionExecuted,
    BotUttered,
    DefinePrevUserUtteredFeaturization,
    Event,
    SlotSet,
    UserUttered,
)
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.constants import ACTION_NAME, ACTION_TEXT, INTENT, TEXT

from channels.quick_tracker import Moment, Past, State

_ACTION = f"{PREVIOUS_ACTION}: "  # begins the text of a state that has no slots; words may follow
# A state's slots in the text of what is remembered, with the comma that they leave behind.
_SLOTS = re.compile(r", slots: \{[^{}]*\}|slots: \{[^{}]*\}(, )?")


class AugmentedMemoizationPolicy(memoization.AugmentedMemoizationPolicy):  # type: ignore[misc] # Rasa ships no types
    """Looks only at those shortened forms of a conversation that a story may be remembered for.

    Where no story goes as a conversation went, Rasa leaves out its beginning, bit by bit, and looks again; slots that
    were set before are forgotten with it. Each time it goes through the conversation twice. Here words and actions
    alone are compared first, which needs no tracker. Only where those are remembered, slots can matter.
    """

    def _recall_using_truncation(
        self,
        old_states: list[State],
        tracker: DialogueStateTracker,
        domain: Domain,
        rule_only_data: dict[str, Any] | None,
    ) -> str | None:
        most = memoization._get_max_applied_events_for_max_history(tracker, self.config[POLICY_MAX_HISTORY])
        events = tracker.applied_events()[-(most or 0) :]
        if self._slotless is None or not self._is_known(events):
            action: str | None = super()._recall_using_truncation(old_states, tracker, domain, rule_only_data)
            return action
        # Rasa skips a form that looks like the one before (`old_states`), which was looked up in vain: no difference.
        for shortened in self._candidates(events, domain, rule_only_data):
            past = _replayed(tracker, shortened)
            action = self._recall_states(self._prediction_states(past, domain, rule_only_data=rule_only_data))
            if action is not None:
                return action
        return None

    def _candidates(
        self, events: Sequence[Event], domain: Domain, rule_only_data: dict[str, Any] | None
    ) -> Iterator[Sequence[Event]]:
        """Those shortened forms, longest first, that a story is remembered for if the slots are the story's."""
        if not any(self._is_an_end(end) for end in _ends(events, domain)):
            return
        for start, past in _shortened(events, domain):
            states = self._prediction_states(past, domain, rule_only_data=rule_only_data)
            if _as_text(states) in (self._slotless or ()):
                yield events[start:]

    def _is_known(self, events: Sequence[Event]) -> bool:
        """Whether what follows is right for these events: whatever else there may be is Rasa's to work out."""
        return type(self.featurizer) is MaxHistoryTrackerFeaturizer and _are_plain(events)

    def _is_an_end(self, end: str) -> bool:
        """Whether something that is remembered may end so."""
        return end in self._remembered_ends or end.count(_ACTION) > 1  # somebody said it

    @cached_property
    def _remembered_ends(self) -> set[str]:
        return {each[each.rfind(_ACTION) :] for each in self._slotless or ()}

    @cached_property
    def _slotless(self) -> set[str] | None:
        """What is remembered, without slots; None if it can't be told apart from what was said."""
        kept = {_without_slots(self._told(key)) for key in self.lookup}
        return None if any("slots: " in each for each in kept) else kept

    def _told(self, key: str) -> str:
        if not self.config["enable_feature_string_compression"]:
            return key
        return zlib.decompress(base64.b64decode(key)).decode()


def _ends(events: Sequence[Event], domain: Domain) -> Iterator[str]:
    """How a shortened form of it may end, as text: an action of its own, and words of its own or none.

    Which of them Rasa takes hangs on the turns that it hides; but words that were just said are the last.
    """
    steps = [event for event in events if isinstance(event, ActionExecuted | UserUttered)]
    told = [_words(step, domain) for step in steps if isinstance(step, UserUttered)]
    users = {""}
    if _were_just_said(steps) and told[-1]:
        told, users = told[-1:], set()
    for words in told:
        # Rasa leaves out the text of words whose intent it knows, and of the last ones.
        without = {kind: part for kind, part in words.items() if kind != TEXT}
        users |= {
            f", {_part({USER: each})}" for each in ((without,) if INTENT in words else (words, without))
        }
    actions = {
        _part({PREVIOUS_ACTION: step.as_sub_state()}) for step in steps if isinstance(step, ActionExecuted)
    }
    return (f"{action}{user}}}]" for action, user in product(actions, users))


def _were_just_said(steps: Sequence[Event]) -> bool:
    """Whether the last of these, words, are what is answered now."""
    match steps[-2:]:
        case [ActionExecuted(action_name=name), UserUttered()]:
            return bool(name == ACTION_LISTEN_NAME)
    return False


def _are_plain(events: Sequence[Event]) -> bool:
    """Whether none of them does more than `_shortened` takes of it."""
    acted = False  # since the last words
    for event in events:
        kind = type(event)
        if kind is ActionExecuted:
            acted = True
            if event.action_name == ACTION_UNLIKELY_INTENT_NAME:
                return False  # Rasa takes this one out afterwards, and the conversation ends elsewhere
        elif kind is UserUttered:
            acted = False
        elif kind is DefinePrevUserUtteredFeaturization:
            if acted:
                return False  # it changes the words that the action followed
        elif kind not in {BotUttered, SlotSet}:
            return False
    return True


def _part(state: State) -> str:
    """Of a state as text, what is within its braces."""
    return _as_text([state])[2:-2]


def _words(said: UserUttered, domain: Domain) -> dict[str, Any]:
    words: dict[str, Any] = domain._get_user_sub_state(SimpleNamespace(latest_message=said))
    return words


def _replayed(tracker: DialogueStateTracker, events: Sequence[Event]) -> DialogueStateTracker:
    """A tracker of the same conversation in which nothing but these happened."""
    replayed = tracker.init_copy()
    for event in events:
        replayed.update(event)
    return replayed


def _shortened(events: Sequence[Event], domain: Domain) -> Iterator[tuple[int, Past]]:
    """The conversation from its first action on, from its second, and so on, without slots; and where each begins."""
    said = -1
    words: dict[str, Any] = {}
    action: dict[str, str] = {}
    begun: list[_Begun] = []
    for place, event in enumerate(events):
        if isinstance(event, ActionExecuted):
            begun.append(_Begun(place, said, _moment(words, action, hidden=event.hide_rule_turn)))
            action = event.as_sub_state()
        elif isinstance(event, UserUttered):
            said, words = place, _words(event, domain)
    now = _Begun(len(events), said, _moment(words, action, hidden=False))
    for number, first in enumerate(begun):
        start = _moment({}, {}, hidden=first.before.hidden)
        later = [*begun[number + 1 :], now]
        moments = [each.before if each.said > first.place else _unsaid(each.before) for each in later]
        yield first.place, Past([start, *moments])


class _Begun(NamedTuple):
    """An action, by the places of its event and of the last words before it, and the moment before it."""

    place: int
    said: int
    before: Moment


def _moment(words: dict[str, Any], action: dict[str, str], *, hidden: bool) -> Moment:
    return Moment(
        state={kind: part for kind, part in ((USER, words), (PREVIOUS_ACTION, action)) if part},
        hidden=hidden,
        latest_action=action or None,
        latest_action_name=action.get(ACTION_NAME) or action.get(ACTION_TEXT),
    )


def _unsaid(moment: Moment) -> Moment:
    """The same without the words: they were said before the conversation began."""
    return replace(moment, state={kind: part for kind, part in moment.state.items() if kind != USER})


def _as_text(states: list[State]) -> str:
    """As Rasa writes down what it remembers."""
    return _without_slots(json.dumps(states, sort_keys=True).replace('"', ""))


def _without_slots(states: str) -> str:
    return _SLOTS.sub("", states)
