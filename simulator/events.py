"""What happens, in the words of webhooks. Pure: each function builds one event of `entry[].messaging[]` (HOOKS)."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.config import APP_ID
from simulator.people import Json, Message, Person, token_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event on its way to the bot. `field` is the subscription it belongs to.

    `window`: what the act did to the messaging window, for the journal; the bot is not told.
    """

    page_id: str
    psid: str
    field: str
    body: Json
    standby: bool = False
    window: Json | None = None

    def journalled(self) -> Json:
        """The event without its credential, for the journal."""
        optin = self.body.get("optin")
        if optin is None:
            return self.body
        return {**self.body, "optin": redacted(optin)}


def message(person: Person, said: Message, quick_reply: str | None = None) -> Event:
    """The person wrote, sent something, or tapped a quick reply."""
    body: Json = {"mid": said.mid, **said.content}
    if quick_reply is not None:
        body["quick_reply"] = {"payload": quick_reply}
    return _from_person(person, said.at_ms, "messages", {"message": body})


def postback(person: Person, at_ms: int, mid: str, title: str, payload: str) -> Event:
    """The person tapped a button, Get Started, or the persistent menu."""
    return _from_person(
        person, at_ms, "messaging_postbacks", {"postback": {"mid": mid, "title": title, "payload": payload}}
    )


def opt_in(person: Person, at_ms: int, payload: str, token: str) -> Event:
    """The person tapped Notify Me (OTN). There is no mid, no title, no expiry."""
    optin = {"type": "one_time_notif_req", "payload": payload, "one_time_notif_token": token}
    return _from_person(person, at_ms, "messaging_optins", {"optin": optin})


def referral(person: Person, at_ms: int, told: Json) -> Event:
    """The person followed an m.me link into the thread."""
    return _from_person(person, at_ms, "messaging_referrals", {"referral": told})


def reaction(person: Person, at_ms: int, told: Json) -> Event:
    """The person reacted to a message, or took the reaction back."""
    return _from_person(person, at_ms, "message_reactions", {"reaction": told})


def read(person: Person, at_ms: int) -> Event:
    """The person has seen everything up to now."""
    return _from_person(person, at_ms, "message_reads", {"read": {"watermark": at_ms}})


def delivery(person: Person, at_ms: int, mid: str) -> Event:
    """A message has arrived on the person's phone."""
    return _from_person(
        person, at_ms, "message_deliveries", {"delivery": {"mids": [mid], "watermark": at_ms}}
    )


def echo(person: Person, said: Message) -> Event:
    """What the Page sent comes back, with the metadata of the send (ECHO): sender is the Page."""
    content = dict(said.content)
    attachment = content.pop("attachment", None)
    if attachment is not None:
        content["attachments"] = [attachment]
    body: Json = {"is_echo": True, "app_id": APP_ID, "mid": said.mid, **content}
    return Event(
        page_id=person.page_id,
        psid=person.psid,
        field="message_echoes",
        body={
            "sender": {"id": person.page_id},
            "recipient": {"id": person.psid},
            "timestamp": said.at_ms,
            "message": body,
        },
    )


def redacted(optin: Json) -> Json:
    """An opt-in with its token replaced by the token's SHA-256."""
    kept = dict(optin)
    token = kept.pop("one_time_notif_token", None)
    if isinstance(token, str):
        kept["token_id"] = token_id(token)
    return kept


def _from_person(person: Person, at_ms: int, field: str, what: Json) -> Event:
    return Event(
        page_id=person.page_id,
        psid=person.psid,
        field=field,
        body={"sender": {"id": person.psid}, "recipient": {"id": person.page_id}, "timestamp": at_ms, **what},
    )
