"""Rasa's tracker, quicker to copy and to look back on.

To predict what comes next, Rasa goes through a conversation again and again with copies of its tracker, twenty in a
turn. It copies every slot of the domain for each with `copy.copy`, which first asks an object for its ways, and
describes every moment anew for each policy and each prediction, though the past does not change.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rasa.shared.constants import DEFAULT_SENDER_ID
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import ActionExecuted, Event, UserUttered
from rasa.shared.core.slots import Slot
from rasa.shared.core.trackers import DialogueStateTracker

# What `copy.copy` asks for.
_WAYS_TO_COPY = {
    "__copy__",
    "__reduce__",
    "__reduce_ex__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__getstate__",
    "__setstate__",
}
State = dict[str, dict[str, Any]]
"""How a policy sees a moment: the user's words, the slots, the action before it, the loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A conversation before an action, or now: all that Rasa's domain asks of a tracker to describe it.

    `hidden`: whether the action belongs to a rule that policies which learn do not see.
    """

    state: State
    hidden: bool
    latest_action: dict[str, str] | None = None
    latest_action_name: str | None = None
    active_loop_name: str | None = None
    followup_action: str | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """The moments of a conversation, described, in place of a tracker."""

    moments: Sequence[Moment]

    def generate_all_prior_trackers(self) -> Iterator[tuple[Moment, bool]]:
        """As Rasa's domain asks a tracker."""
        for moment in self.moments:
            yield moment, moment.hidden

    def past_states(self, domain: Domain, **options: Any) -> list[State]:
        """As policies ask a tracker. `options` as Rasa's, but how to describe a moment, which is done."""
        described: Any = _Describing(domain)
        states: list[State] = type(domain).states_for_tracker_history(described, self, **options)
        return states


@dataclass(frozen=True, slots=True)
class _Describing:
    """A domain to which moments come that are described already."""

    _domain: Domain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    # Policies write into what they get, so both give copies.

    @staticmethod
    def get_active_state(moment: Moment, **_: Any) -> State:
        return {kind: dict(sub_state) for kind, sub_state in moment.state.items()}

    @staticmethod
    def _get_prev_action_sub_state(moment: Moment) -> dict[str, str] | None:
        return moment.latest_action and dict(moment.latest_action)


class QuickTracker(DialogueStateTracker):  # type: ignore[misc] # Rasa ships no types
    """A conversation's state. Differs from Rasa's own in nothing but the time that it takes."""

    # Of how many events, which of them is the last, and what counts of them.
    _applied: tuple[int, Event | None, list[Event]] | None = None
    _memory: _Memory | None = None

    def __init__(self, sender_id: str, slots: Iterable[Slot] | None, *options: Any, **more: Any) -> None:
        super().__init__(sender_id, None if slots is None else (), *options, **more)
        if slots is not None:
            self.slots = {slot.name: _unset(slot) for slot in slots}

    def applied_events(self) -> list[Event]:
        """The events that count: none that was taken back. Events are only ever appended, and none of them twice."""
        number, last = len(self.events), self.events[-1] if self.events else None
        if self._applied is None or self._applied[0] != number or self._applied[1] is not last:
            self._applied = number, last, super().applied_events()
        return list(self._applied[2])

    def init_copy(self) -> QuickTracker:
        """A tracker of the same conversation before its first event."""
        return type(self)(
            self.sender_id or DEFAULT_SENDER_ID,
            self.slots.values(),
            self._max_event_history,
            is_rule_tracker=self.is_rule_tracker,
        )

    def past_states(
        self,
        domain: Domain,
        omit_unset_slots: bool = False,
        ignore_rule_only_turns: bool = False,
        rule_only_data: dict[str, Any] | None = None,
    ) -> list[State]:
        """How policies see each moment before an action, and this one."""
        events = self.applied_events()
        memory, self._memory = self._memory, None  # nothing is remembered of what failed halfway
        if memory is None or not memory.leads_to(events, domain, omit_unset_slots):
            memory = _Memory(self.init_copy(), domain, omit_unset_slots)
        moments = memory.go_on(events)
        self._memory = memory
        return Past(moments).past_states(
            domain, ignore_rule_only_turns=ignore_rule_only_turns, rule_only_data=rule_only_data
        )


class _Memory:
    """The moments of a conversation until now, each described once.

    A slot's value that somebody writes into without an event (a list, say) stays as it was described.
    """

    def __init__(self, fresh: QuickTracker, domain: Domain, omit_unset_slots: bool) -> None:
        self._tracker = fresh
        self._seen_by = domain, omit_unset_slots
        self._events: list[Event] = []
        self._moments: list[Moment] = []
        self._words: list[_Words] = []  # that stand in the moments
        self._now: tuple[_Words, Moment] | None = None

    def leads_to(self, events: list[Event], domain: Domain, omit_unset_slots: bool) -> bool:
        """Whether these events go on from those known, and all that is known still holds."""
        return (
            self._seen_by == (domain, omit_unset_slots)
            and len(events) >= len(self._events)
            and all(old is event for old, event in zip(self._events, events, strict=False))
            and all(_words(said[0]) == said for said in self._words)
        )

    def go_on(self, events: list[Event]) -> list[Moment]:
        """The moments of these events, the present one last."""
        for event in events[len(self._events) :]:
            if isinstance(event, ActionExecuted):
                self._moments.append(self._describe(hidden=event.hide_rule_turn))
                self._words.append(_words(self._tracker.latest_message))
            self._tracker.update(event)
            self._now = None
        self._events = events
        words = _words(self._tracker.latest_message)
        if self._now is None or self._now[0] != words:
            self._now = words, self._describe(hidden=False)
        return [*self._moments, self._now[1]]

    def _describe(self, *, hidden: bool) -> Moment:
        tracker = self._tracker
        domain, omit_unset_slots = self._seen_by
        return Moment(
            state=domain.get_active_state(tracker, omit_unset_slots=omit_unset_slots),
            hidden=hidden,
            latest_action=tracker.latest_action,
            latest_action_name=tracker.latest_action_name,
            active_loop_name=tracker.active_loop_name,
            followup_action=tracker.followup_action,
        )


_Words = tuple[UserUttered, bool | None, int]


def _words(said: UserUttered) -> _Words:
    """Somebody's words, and what later events may still change of them, even such as are taken back."""
    return said, said.use_text_for_featurization, len(said.entities)


def _unset(slot: Slot) -> Slot:
    """A copy of a slot, with its first value."""
    kind: type = type(slot)
    if _is_plain(kind):
        made: Slot = object.__new__(kind)
        made.__dict__.update(slot.__dict__)
    else:
        made = copy.copy(slot)
    made.reset()
    return made


@functools.cache
def _is_plain(kind: type) -> bool:
    """Whether `copy.copy` makes of such an object one more with the same attributes, and that is all."""
    ancestors = [vars(each) for each in kind.__mro__ if each is not object]
    return not any(_WAYS_TO_COPY & each.keys() or each.get("__slots__") for each in ancestors)
