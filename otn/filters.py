"""The conditions on people that an operator can write, by name: options and plan files have the same. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A condition: which field of `Conditions` it sets, what is written behind it, and what it says."""

    field: str
    metavar: str
    sentence: str
    several: bool = False


FILTERS = {
    "page": Filter(field="pages", metavar="PAGE", sentence="on this Page", several=True),
    "locale": Filter(field="locales", metavar="en_US", sentence="with this locale", several=True),
    "time-zone": Filter(field="time_zones", metavar="ZONE", sentence="in this time zone", several=True),
    "tag": Filter(field="tags", metavar="TAG", sentence="who have this tag", several=True),
    "attribute": Filter(
        field="attributes", metavar="NAME=VALUE", sentence="with this attribute", several=True
    ),
    "active-since": Filter(field="active_since", metavar="WHEN", sentence="who wrote or tapped since"),
    "active-before": Filter(field="active_before", metavar="WHEN", sentence="who did nothing since"),
    "opted-in-since": Filter(field="opted_in_since", metavar="WHEN", sentence="who agreed since"),
    "opted-in-before": Filter(field="opted_in_before", metavar="WHEN", sentence="who agreed before"),
    "not-messaged-since": Filter(
        field="messaged_since", metavar="WHEN", sentence="who got no follow-up since"
    ),
    "psids": Filter(field="listed", metavar="FILE", sentence="whose psid is a line of this file"),
}
