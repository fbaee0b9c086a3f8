"""The demo shop's own actions: a small table of products stands in for a shop's database."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from rasa_sdk import Action, Tracker
from rasa_sdk.events import SlotSet
from rasa_sdk.executor import CollectingDispatcher

from otn_actions import OtnAction, as_if_nothing_was_said

logger = logging.getLogger(__name__)

Domain = dict[str, Any]
Events = list[dict[str, Any]]

RESTOCK, PRICE = "restock-", "price-"  # the families of topics
SHOP = "https://shop.example"
WANTS_A_PERSON = "wants-a-person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Something the shop sells; `slug` is its part of topic names and links, `price` is in whole euros.

    `sold_out` lists sizes; what has none is sold out in size "".
    """

    name: str
    slug: str
    price: int
    sizes: tuple[str, ...] = ()
    sold_out: tuple[str, ...] = ()

    def restock_topic(self, size: str = "") -> str:
        """The topic on which people are told that this is back."""
        return f"{RESTOCK}{self.slug}-{size}" if size else RESTOCK + self.slug

    @property
    def price_topics(self) -> str:
        """How the topics begin on which people are told that this costs less; the price of then follows."""
        return f"{PRICE}{self.slug}-"

    def link(self, size: str = "") -> str:
        """Where it can be ordered."""
        return f"{SHOP}/{self.slug}?size={size}" if size else f"{SHOP}/{self.slug}"


PRODUCTS = (
    Product(name="canvas backpack", slug="canvas-backpack", price=79, sold_out=("",)),
    Product(
        name="trail shoe",
        slug="trail-shoe",
        price=120,
        sizes=("38", "39", "40", "41", "42", "43", "44", "45"),
        sold_out=("42", "43"),
    ),
    Product(name="rain jacket", slug="rain-jacket", price=89),
    Product(name="wool scarf", slug="wool-scarf", price=35),
)
_BY_NAME = {product.name: product for product in PRODUCTS}


class ActionCheckStock(Action):  # type: ignore[misc] # rasa_sdk's classes are untyped for mypy
    """Look up the product, in the size that was named. Sets `stock` (in_stock, sold_out, which_size, unknown), and
    for what is sold out `otn_topic`, so that action_request_otn can follow.

    A message that names only a size means the product before it.
    """

    def name(self) -> str:
        return "action_check_stock"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        size = _named(tracker, "size") or ""
        product = _product(tracker, or_the_one_before=bool(size))
        if product is None:
            return [SlotSet("stock", "unknown")]
        named = SlotSet("product", product.name)
        if product.sizes and size not in product.sizes:
            return [named, SlotSet("stock", "which_size")]
        size = size if product.sizes else ""
        if size in product.sold_out:
            return [named, SlotSet("stock", "sold_out"), SlotSet("otn_topic", product.restock_topic(size))]
        return [named, SlotSet("stock", "in_stock"), SlotSet("order_link", product.link(size))]


class ActionCheckPrice(Action):  # type: ignore[misc] # as above
    """Look up what a product costs. Sets `price_check` (known, unknown), `price`, and as `otn_topic` that it should
    cost less than that: the price at sign-up is kept with the permission.

    A message that names no product means the one before.
    """

    def name(self) -> str:
        return "action_check_price"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        product = _product(tracker, or_the_one_before=True)
        if product is None:
            return [SlotSet("price_check", "unknown")]
        return [
            SlotSet("price_check", "known"),
            SlotSet("product", product.name),
            SlotSet("price", str(product.price)),
            SlotSet("otn_topic", f"{product.price_topics}{product.price}"),
        ]


class ActionComparePrice(OtnAction):
    """The step after `EXTERNAL_price_changed` (entities product, price, otn_event_id): has this person a permission
    with a higher price? Sets `otn_topic` to it, for action_send_otn_follow_up; else nothing has happened.

    Of several it takes the lowest that will do: a higher one is good for more prices to come.
    """

    action_name = "action_compare_price"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        product, price = _product(tracker), _named(tracker, "price") or ""
        if product is None or not price.isdecimal():
            logger.warning("%s: the trigger needs the entities product and price (whole)", self.action_name)
            return as_if_nothing_was_said()
        agreed = [_price_in(each.topic, product) for each in await self.agreements(tracker)]
        above = [each for each in agreed if each > int(price)]
        if not above:
            logger.info("%s: not below what anything was agreed at: nothing is said", self.action_name)
            return as_if_nothing_was_said()
        return [SlotSet("otn_topic", f"{product.price_topics}{min(above)}")]


class ActionFindOrderLink(Action):  # type: ignore[misc] # as above
    """Set `order_link` for what the follow-up in slot `otn_topic` was about."""

    def name(self) -> str:
        return "action_find_order_link"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        return [SlotSet("order_link", _link_of(tracker.get_slot("otn_topic") or ""))]


class ActionKeepFeedback(Action):  # type: ignore[misc] # as above
    """Take the feedback and make room for the next. A real shop would store it; here it is only counted."""

    def name(self) -> str:
        return "action_keep_feedback"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        logger.info("feedback of %d characters", len(tracker.get_slot("feedback") or ""))
        return [SlotSet("feedback", None)]


class ActionHandOver(Action):  # type: ignore[misc] # as above
    """Call a person: a tag for whoever looks at people (`otn contacts`), a line for whoever watches the log.

    They answer by `otn send --human-agent`, within 7 days.
    """

    def name(self) -> str:
        return "action_hand_over"

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain) -> Events:
        logger.warning("conversation %s wants a person", tracker.sender_id)
        dispatcher.utter_message(otn_tags=[WANTS_A_PERSON])
        return []


def _named(tracker: Tracker, entity: str) -> str | None:
    """What this message says of it. Of several the last: it is the later extractor's, as for a slot."""
    values = list(tracker.get_latest_entity_values(entity))
    return str(values[-1]) if values else None


def _price_in(topic: str, product: Product) -> int:
    """The price at which this permission was given; 0 if it is about something else."""
    price = topic.removeprefix(product.price_topics)
    return int(price) if price.isdecimal() else 0


def _product(tracker: Tracker, *, or_the_one_before: bool = False) -> Product | None:
    named = _named(tracker, "product")
    if named is None and or_the_one_before:
        named = tracker.get_slot("product")
    return _BY_NAME.get((named or "").lower())


def _link_of(topic: str) -> str:
    for product in PRODUCTS:
        if topic.startswith(product.price_topics):
            return product.link()
        for size in ("", *product.sizes):
            if topic == product.restock_topic(size):
                return product.link(size)
    return SHOP
