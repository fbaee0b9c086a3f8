"""The survey after a purchase: what counts as a score, and what an answer leads to."""

from __future__ import annotations

from typing import Any

from rasa_sdk import Action, FormValidationAction, Tracker
from rasa_sdk.events import SlotSet
from rasa_sdk.executor import CollectingDispatcher

from otn.remembering import VALUE_MAX
from otn_actions import intent_of

Domain = dict[str, Any]
Events = list[dict[str, Any]]

SCORES = ("1", "2", "3", "4", "5")
BAD = ("1", "2")


class ValidateSurveyForm(FormValidationAction):  # type: ignore[misc] # rasa_sdk's classes are untyped for mypy
    """Accept scores from 1 to 5, and "no" for an empty comment."""

    def name(self) -> str:
        return "validate_survey_form"

    def validate_survey_score(
        self, value: object, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> dict[str, str | None]:
        """Of "4 out of 5" the first number counts; the form asks again for what is no score."""
        named = [each for each in tracker.latest_message["entities"] if each["entity"] == "score"]
        named.sort(key=lambda each: each.get("start", 0))  # several extractors, each in its own order
        score = named[0]["value"] if named else value
        return {"survey_score": score if score in SCORES else None}

    def validate_survey_comment(
        self, value: object, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> dict[str, object]:
        """Take any words; a "no", said or tapped, means that there are none."""
        return {"survey_comment": "" if intent_of(tracker) == "deny" else value}


class ActionKeepSurvey(Action):  # type: ignore[misc] # as above
    """Keep the answer as attributes of the person, `survey_score` and `survey_comment`: the channel writes them.

    Sets `survey_result` (good, bad), and makes room for the next answer.
    """

    def name(self) -> str:
        return "action_keep_survey"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        score, comment = tracker.get_slot("survey_score"), tracker.get_slot("survey_comment") or ""
        answer = {"survey_score": score, "survey_comment": comment[:VALUE_MAX] or None}
        dispatcher.utter_message(otn_remember=answer)
        return [
            SlotSet("survey_result", "bad" if score in BAD else "good"),
            SlotSet("survey_score", None),
            SlotSet("survey_comment", None),
        ]
