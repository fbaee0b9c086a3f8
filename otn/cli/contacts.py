"""`otn contacts …`: people, what they allow, what they got."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otn.cli.session import Json, Limit, Page, Psid, Yes, commands, confirm, opened, user
from otn.cli.terminal import in_words, print_json, print_json_list, print_line, print_table, say

if TYPE_CHECKING:
    from otn.app import App
    from otn.models import Contact, Delivery
    from otn.policy import Decision
    from otn.store import Tx

app = commands("People: what they allow and what they got.")

BATCH = 500
SHOWN_DELIVERIES = 20
MOST_TOKENS = 1000  # of one person


@app.command("list")
def list_contacts(
    context: typer.Context,
    page: Annotated[str | None, typer.Option("--page", metavar="PAGE", help="Of this Page only.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List the people who have written to us.

    \b
    Examples:
      otn contacts list
      otn contacts list --json | jq -r '.[] | select(.window_open) | .psid'
    """
    with opened(context) as app:
        now = app.clock()
        found = _everybody(app, page, now)
        if json:
            print_json_list(islice(found, limit))
            return
        people = list(islice(found, (limit or 100) + 1))
    headings = ["psid", "page", "name", "window", "tags", "note"]
    rows = [
        [
            each["psid"],
            each["page_id"],
            each["name"],
            each["window"],
            " ".join(each["tags"]) or None,
            each["note"],
        ]
        for each in people
    ]
    print_table(headings, rows[: limit or 100], nothing="Nobody has written yet.")
    if len(people) > (limit or 100):
        say(f"There are more than these {limit or 100}: --limit shows more of them, --json all.")


@app.command()
def show(context: typer.Context, psid: Psid, page: Page = None, json: Json = False) -> None:
    """Show one person: the window, permissions, what was sent, and what the rules say to a send now.

    \b
    Example:
      otn contacts show 7007
    """
    with opened(context) as app, app.store.read() as tx:
        contact = known(tx, psid, page)
        now = app.clock()
        shown = {
            **_people(tx, [contact], now)[0],
            "tokens": _tokens(tx, contact, now),
            "deliveries": _deliveries(tx, contact),
            "sends": _sends(tx, contact, now),
        }
    if json:
        print_json(shown)
    else:
        _print(shown)


@app.command()
def erase(context: typer.Context, psid: Psid, page: Page = None, yes: Yes = False) -> None:
    """Forget a person: conversation, permissions, profile, events. Nothing brings them back.

    \b
    Example:
      otn contacts erase 7007
    """
    from otn import privacy

    with opened(context) as app:
        with app.store.read() as tx:
            contact = known(tx, psid, page)
        confirm(f"Forget {psid} on page {contact.page_id}, permissions included, for good?", yes)
        with app.store.begin() as tx:
            privacy.request_erasure(tx, contact, who=user(), now=app.clock())
    say(
        "Marked: from now on nothing is sent to this person. `rasa run` carries it out within seconds, since the "
        "conversation is Rasa's to delete; if it does not run, when it starts."
    )


def known(tx: Tx, psid: str, page: str | None) -> Contact:
    """The person with this psid. Raises NotFound with what to type."""
    from otn.errors import NotFound
    from otn.store import contacts

    found = contacts.by_psid(tx, psid, page)
    if found is None:
        whom = "us" if page is None else f"page {page}"
        raise NotFound(f"nobody with the psid {psid} has written to {whom}; see `otn contacts list`")
    return found


def _everybody(app: App, page: str | None, now: datetime) -> Iterator[dict[str, Any]]:
    from otn.store import contacts

    after = 0
    while True:
        with app.store.read() as tx:
            batch = contacts.every(tx, page_id=page, after=after, limit=BATCH)
            shown = _people(tx, batch, now)
        yield from shown
        if len(batch) < BATCH:
            return
        after = batch[-1].id


def _people(tx: Tx, several: Sequence[Contact], now: datetime) -> list[dict[str, Any]]:
    from otn.store import contact_facts

    ids = [contact.id for contact in several]
    tags, attributes = contact_facts.tags_of(tx, ids), contact_facts.attributes_of(tx, ids)
    return [
        {
            **_person(contact, now),
            "tags": sorted(tags.get(contact.id, ())),
            "attributes": dict(sorted(attributes.get(contact.id, {}).items())),
        }
        for contact in several
    ]


def _person(contact: Contact, now: datetime) -> dict[str, Any]:
    from otn.policy import window_is_open

    values = asdict(contact)
    del values["id"]
    name = " ".join(part for part in (contact.first_name, contact.last_name) if part)
    return {
        **values,
        "name": name or None,
        "window_open": window_is_open(contact, now),
        "window": _window(contact, now),
        "note": _note(contact),
    }


def _window(contact: Contact, now: datetime) -> str:
    from otn.policy import window_is_open

    if contact.window_until is None:
        return "never open"
    until = in_words(contact.window_until)
    return f"open until {until}" if window_is_open(contact, now) else f"closed since {until}"


def _note(contact: Contact) -> str | None:
    if contact.erase_requested_at is not None:
        return "is being forgotten"
    if contact.undeliverable_reason is not None:
        return contact.undeliverable_reason
    return "was forgotten once" if contact.erased_at is not None else None


def _tokens(tx: Tx, contact: Contact, now: datetime) -> list[dict[str, Any]]:
    from otn.cli.tokens import for_programs
    from otn.store import tokens

    mine = tokens.every(tx, psid=contact.psid, page_id=contact.page_id, limit=MOST_TOKENS)
    return [for_programs(token, now) for token in mine]


def _deliveries(tx: Tx, contact: Contact) -> list[dict[str, Any]]:
    from otn.store import deliveries

    return [_for_programs(each) for each in deliveries.recent(tx, contact.id, SHOWN_DELIVERIES)]


def _for_programs(delivery: Delivery) -> dict[str, Any]:
    names = (
        "id state topic origin route rule reason error error_code error_subcode attempts token_id message_id "
        "created_at settled_at next_attempt_at"
    )
    return {name: getattr(delivery, name) for name in names.split()}


def _sends(tx: Tx, contact: Contact, now: datetime) -> list[dict[str, Any]]:
    """What the sender's own rule says to a follow-up now, by topic; None stands for any other topic."""
    from otn import delivery, models
    from otn.policy import choose_route
    from otn.store import pages, tokens

    mine = tokens.every(tx, psid=contact.psid, page_id=contact.page_id, limit=MOST_TOKENS)
    names = sorted({token.topic for token in mine if token.topic})
    page = pages.find(tx, contact.page_id) or models.Page(page_id=contact.page_id)
    return [
        *(
            _answer(
                name, delivery.decide(tx, psid=contact.psid, topic=name, now=now, page_id=contact.page_id)
            )
            for name in names
        ),
        _answer(None, choose_route(contact, page, models.TokenCount(), now)),
    ]


def _answer(topic: str | None, decision: Decision) -> dict[str, Any]:
    from otn.policy import Allow

    if isinstance(decision, Allow):
        said = {"allowed": True, "route": decision.route, "reason": None, "sentence": decision.rule}
    else:
        said = {"allowed": False, "route": None, "reason": decision.reason, "sentence": decision.sentence}
    return {"topic": topic, **said}


def _print(shown: dict[str, Any]) -> None:
    print_line(f"Person      {shown['psid']} on page {shown['page_id']}: {shown['name'] or 'name not known'}")
    opened_by = f" (opened by {shown['window_opened_by']})" if shown["window_opened_by"] else ""
    print_line(f"Window      {shown['window']}{opened_by}")
    if shown["tags"]:
        print_line(f"Tags        {' '.join(shown['tags'])}")
    for name, value in shown["attributes"].items():
        print_line(f"Attribute   {name} = {value}")
    if shown["note"]:
        print_line(f"Note        {shown['note']}")
    for each in shown["sends"]:
        print_line(f"A send now  about {each['topic'] or 'any other topic'}: {_yes_or_no(each)}")
    print_line("")
    columns = ["id", "topic", "state", "opted_in_at", "expires_at", "used_at"]
    rows = [[token[column] for column in columns] for token in shown["tokens"]]
    print_table(["token", "topic", "state", "given", "lapses", "used"], rows, nothing="No permissions.")
    print_line("")
    columns = ["id", "created_at", "topic", "state", "route", "error"]
    rows = [[delivery[column] for column in columns] for delivery in shown["deliveries"]]
    print_table(["delivery", "at", "topic", "state", "route", "why not"], rows, nothing="Nothing was sent.")


def _yes_or_no(send: dict[str, Any]) -> str:
    return f"{'yes' if send['allowed'] else 'no'}. {send['sentence']}"
