"""What people see of a Page before they write: the greeting, the Get Started button, the menu.

Meta keeps it (Messenger Profile API); we set it and show it. Shapes: platform pages send-messages/persistent-menu
and reference/messenger-profile-api.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from otn.app import App
from otn.errors import InvalidInput
from otn.graph.protocol import HttpRequest, build_messenger_profile, build_show_messenger_profile
from otn.store import audit

GREETING, GET_STARTED, MENU = "greeting", "get_started", "persistent_menu"
FIELDS = (GREETING, GET_STARTED, MENU)

# Every domain has these of Rasa's, unlisted; a menu may want them.
RASAS_INTENTS = ("restart", "back", "session_start")

Profile = dict[str, Any]


class Graph(Protocol):
    """The way to Meta: a JSON object, or a SendError."""

    def get_json(self, request: HttpRequest) -> dict[str, Any]: ...


def profile_of(*, greeting: str | None, get_started: str | None, menu: Sequence[tuple[str, str]]) -> Profile:
    """The fields to set, in Messenger's own shape; what is not given stays as it is.

    A menu is a list of titles, each with the payload that a tap brings, or an address that it opens.
    """
    wish: Profile = {}
    if greeting is not None:
        wish[GREETING] = [{"locale": "default", "text": greeting}]
    if get_started is not None:
        wish[GET_STARTED] = {"payload": get_started}
    if menu:
        wish[MENU] = [{"locale": "default", "call_to_actions": [_item(*each) for each in menu]}]
    return wish


def require_known_intents(profile: Profile, intents: Collection[str]) -> None:
    """Raise InvalidInput for a payload that names an intent which the bot lacks: a tap on it would say nothing."""
    known = {name for name in (*intents, *RASAS_INTENTS) if not name.startswith("EXTERNAL_")}
    problems = [
        f"The domain has no intent {name} that a tap may name: {payload}"
        for payload in _payloads(profile)
        if payload.startswith("/") and (name := re.split("[{@]", payload[1:])[0].strip()) not in known
    ]
    if problems:
        raise InvalidInput(problems)


def show(app: App, graph: Graph, page_id: str | None) -> Profile:
    """What is set for the Page; fields that are not are missing. Raises a SendError."""
    answer = graph.get_json(build_show_messenger_profile(app.graph_config(page_id), FIELDS))
    found = answer.get("data")
    first = found[0] if isinstance(found, list) and found else {}
    return {name: first[name] for name in FIELDS if name in first}


def change(app: App, graph: Graph, page_id: str | None, profile: Profile, *, who: str) -> None:
    """Set these fields and put it on record. Raises a SendError, and nothing is set."""
    graph.get_json(build_messenger_profile(app.graph_config(page_id), profile))
    with app.store.begin() as tx:
        audit.record(
            tx,
            who=who,
            action="page.profile",
            subject=page_id or "",
            now=app.clock(),
            details={"set": sorted(profile)},
        )


def _item(title: str, target: str) -> Profile:
    if target.startswith(("http://", "https://")):
        return {"type": "web_url", "title": title, "url": target}
    return {"type": "postback", "title": title, "payload": target}


def _payloads(profile: Profile) -> Iterator[str]:
    yield profile.get(GET_STARTED, {}).get("payload", "")
    for menu in profile.get(MENU, []):
        yield from (item.get("payload", "") for item in menu["call_to_actions"])
