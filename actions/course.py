"""The packing course: which part comes next. What the parts say stands in data/course.yml."""

from __future__ import annotations

from typing import Any

from rasa_sdk import Action, Tracker
from rasa_sdk.events import SlotSet
from rasa_sdk.executor import CollectingDispatcher

from otn_actions import intent_of

Domain = dict[str, Any]
Events = list[dict[str, Any]]

TOPICS = "course-"  # the family; the part's number follows
PARTS = 3


class ActionFindNextPart(Action):  # type: ignore[misc] # rasa_sdk's classes are untyped for mypy
    """Set `course` (more, finished), and `otn_topic` to the part after the one that was read last.

    That is the first for whoever begins, and the one in slot `otn_topic` for whom a follow-up told.
    """

    def name(self) -> str:
        return "action_find_next_part"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        part = 1 if intent_of(tracker) == "start_course" else _part(tracker)
        if part >= PARTS:
            return [SlotSet("course", "finished")]
        return [SlotSet("course", "more"), SlotSet("otn_topic", f"{TOPICS}{part + 1}")]


def _part(tracker: Tracker) -> int:
    number = (tracker.get_slot("otn_topic") or "").removeprefix(TOPICS)
    return int(number) if number.isdecimal() else 1
