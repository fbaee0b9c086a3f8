"""The demo shop's own actions: a small table of products stands in for a shop's database."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from rasa_sdk import Action, Tracker
from rasa_sdk.events import SlotSet
from rasa_sdk.executor import CollectingDispatcher

logger = logging.getLogger(__name__)

Domain = dict[str, Any]
Events = list[dict[str, Any]]

TOPIC_FAMILY = "restock-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Something the shop sells; `slug` is its part of topic names and links."""

    name: str
    slug: str
    in_stock: bool

    @property
    def topic(self) -> str:
        """The topic on which people are told that this is back."""
        return TOPIC_FAMILY + self.slug

    @property
    def link(self) -> str:
        """Where it can be ordered."""
        return f"https://shop.example/{self.slug}"


PRODUCTS = (
    Product(name="canvas backpack", slug="canvas-backpack", in_stock=False),
    Product(name="trail shoe", slug="trail-shoe", in_stock=False),
    Product(name="rain jacket", slug="rain-jacket", in_stock=True),
    Product(name="wool scarf", slug="wool-scarf", in_stock=True),
)
_BY_NAME = {product.name: product for product in PRODUCTS}
_BY_TOPIC = {product.topic: product for product in PRODUCTS}


class ActionCheckStock(Action):  # type: ignore[misc] # rasa_sdk's classes are untyped for mypy
    """Look up the product of this message. Sets `stock` (in_stock, sold_out, unknown), and for a product that
    is sold out `otn_topic`, so that action_request_otn can follow.
    """

    def name(self) -> str:
        return "action_check_stock"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        # The last extractor's word counts, as it does for the slot.
        named = list(tracker.get_latest_entity_values("product"))
        product = _BY_NAME.get(str(named[-1]).lower()) if named else None
        if product is None:
            return [SlotSet("stock", "unknown")]
        found = [SlotSet("product", product.name), SlotSet("order_link", product.link)]
        if product.in_stock:
            return [*found, SlotSet("stock", "in_stock")]
        return [*found, SlotSet("stock", "sold_out"), SlotSet("otn_topic", product.topic)]


class ActionFindOrderLink(Action):  # type: ignore[misc] # as above
    """Set `order_link` for the product that the follow-up in slot `otn_topic` was about."""

    def name(self) -> str:
        return "action_find_order_link"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        product = _BY_TOPIC.get(tracker.get_slot("otn_topic") or "")
        return [SlotSet("order_link", product.link if product else "https://shop.example")]


class ActionKeepFeedback(Action):  # type: ignore[misc] # as above
    """Take the feedback and make room for the next. A real shop would store it; here it is only counted."""

    def name(self) -> str:
        return "action_keep_feedback"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        logger.info("feedback of %d characters", len(tracker.get_slot("feedback") or ""))
        return [SlotSet("feedback", None)]
