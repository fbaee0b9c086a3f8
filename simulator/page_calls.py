"""Graph calls that send nothing: the Page, its subscription, its profile, its saved media, and people's profiles."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from simulator.config import APP_ID
from simulator.content import broken_rules
from simulator.people import PROFILE_FIELDS, Json
from simulator.refusal import NO_SUCH_PERSON, Refusal
from simulator.sending import Sent
from simulator.world import ALL_FIELDS, PageState, World


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a Graph call came to: the body of the answer, or a refusal."""

    body: Json | None = None
    refusal: Refusal | None = None
    sent: Sent | None = None


Work = Callable[[PageState, Json], Outcome]


def show_page(state: PageState, found: Json) -> Outcome:
    """GET /me or /{page-id}."""
    return Outcome({"id": state.page.id, "name": state.page.name})


def show_person(world: World, state: PageState, found: Json, psid: str) -> Outcome:
    """GET /{psid}: the fields that were asked for and are known; any may be missing (User Profile API)."""
    person = world.people.get((state.page.id, psid))
    if person is None:
        return _refuse(Refusal(rule="nobody on this Page has that psid (ERR)", code=NO_SUCH_PERSON))
    fields = str(found.get("fields") or "first_name,last_name,profile_pic").split(",")
    for name in fields:
        if name not in (*PROFILE_FIELDS, "id"):
            return _refuse(Refusal(rule=f"a person has no field {name!r} (SEND)"))
    known = {name: person.profile[name] for name in fields if name in person.profile}
    return Outcome({**known, "id": psid})


def show_subscription(state: PageState, found: Json) -> Outcome:
    """GET /{page}/subscribed_apps: the bot's app, if it is subscribed (HOOKS)."""
    app = {"id": str(APP_ID), "name": "The bot's app", "subscribed_fields": sorted(state.fields)}
    return Outcome({"data": [app] if state.fields else []})


def subscribe(state: PageState, found: Json) -> Outcome:
    """POST /{page}/subscribed_apps. Without `subscribed_fields`: to everything, as older clients expect."""
    wanted = found.get("subscribed_fields")
    names = wanted.split(",") if isinstance(wanted, str) else wanted
    if names is not None and not _are_names(names):
        return _refuse(Refusal(rule="subscribed_fields must be a list of names (HOOKS)"))
    state.subscription += not state.fields
    state.fields = frozenset(name.strip() for name in names) if names else ALL_FIELDS
    return Outcome({"success": True})


def unsubscribe(state: PageState, found: Json) -> Outcome:
    """DELETE /{page}/subscribed_apps."""
    state.fields = frozenset()
    return Outcome({"success": True})


def show_messenger_profile(state: PageState, found: Json) -> Outcome:
    """GET /me/messenger_profile?fields=."""
    names = str(found.get("fields", "")).split(",")
    known = {name: state.messenger_profile[name] for name in names if name in state.messenger_profile}
    return Outcome({"data": [known] if known else []})


def change_messenger_profile(state: PageState, found: Json) -> Outcome:
    """POST /me/messenger_profile: greeting, get_started, persistent_menu, …"""
    credentials = ("access_token", "appsecret_proof")
    new = {name: value for name, value in found.items() if name not in credentials}
    if not new:
        return _refuse(Refusal(rule="there is nothing to set (SEND)"))
    state.messenger_profile.update(new)
    return Outcome({"result": "success"})


def delete_messenger_profile(state: PageState, found: Json) -> Outcome:
    """DELETE /me/messenger_profile with `fields`."""
    names = found.get("fields")
    if not _are_names(names):
        return _refuse(Refusal(rule="fields must be a list of names (SEND)"))
    for name in names or ():
        state.messenger_profile.pop(name, None)
    return Outcome({"result": "success"})


def save_attachment(state: PageState, found: Json) -> Outcome:
    """POST /me/message_attachments: keep media for later sends by attachment_id (SEND)."""
    message = found.get("message")
    if not isinstance(message, dict) or "attachment" not in message:
        return _refuse(Refusal(rule="message must hold an attachment (SEND)"))
    broken = next(broken_rules(message), None)
    if broken is not None:
        return _refuse(Refusal(rule=broken.rule, code=broken.code))
    attachment_id = str(secrets.randbelow(9 * 10**14) + 10**14)
    state.attachments.add(attachment_id)
    return Outcome({"attachment_id": attachment_id})


def _are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _refuse(refusal: Refusal) -> Outcome:
    return Outcome(refusal=refusal)
