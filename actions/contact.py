"""Custom actions that remember something about the person, for broadcasts: attributes and tags.

They say nothing. What they found is a wish, an extra key of an utterance without words (`otn_remember`, `otn_tags`):
the channel checks it and keeps it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from rasa_sdk import Tracker
from rasa_sdk.executor import CollectingDispatcher

from otn import project
from otn_actions import Domain, Events, OtnAction

logger = logging.getLogger(__name__)


class ActionRememberContact(OtnAction):
    """Copy the slots that endpoints.yml names (`otn_contact: {slots: …}`) into the person's attributes.

    A slot without a value changes nothing: it may be unset only because a session began anew.
    """

    action_name = "action_remember_contact"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        slots = await asyncio.to_thread(self._slots)
        missing = sorted(slots.keys() - tracker.slots.keys())
        if missing or not slots:
            named = ", ".join(missing) or "none is named"
            logger.warning("%s: no such slots (endpoints.yml: otn_contact): %s", self.action_name, named)
        values = {attribute: _as_text(tracker.get_slot(slot)) for slot, attribute in slots.items()}
        if found := {name: value for name, value in values.items() if value}:
            dispatcher.utter_message(otn_remember=found)
        return []

    def _slots(self) -> dict[str, str]:
        return project.remembered_slots(self._app().settings.root)


class ActionTagContact(OtnAction):
    """Tag the person with what the entity or the slot `otn_tag` says: a tag, several with commas, or a list."""

    action_name = "action_tag_contact"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        said = next(tracker.get_latest_entity_values("otn_tag"), None) or tracker.get_slot("otn_tag")
        words = said.split(",") if isinstance(said, str) else said
        tags = [_as_text(word) for word in words] if isinstance(words, list) else []
        if found := [tag for tag in tags if tag]:
            dispatcher.utter_message(otn_tags=found)
        else:
            logger.warning("%s: set the slot otn_tag before it, there is no tag", self.action_name)
        return []


def _as_text(value: Any) -> str:
    """A slot's value in words, empty if it has none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return ", ".join(filter(None, map(_as_text, value)))
    return str(value).strip() if isinstance(value, str | int | float) else ""
