"""`otn send`: one follow-up to one person."""

from __future__ import annotations

import threading
from dataclasses import asdict
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import uuid4

import typer

from otn.cli.message import Push, Response, Text, Variation, said
from otn.cli.session import Json, Page, Psid, opened
from otn.cli.terminal import in_words, print_json, print_line, say

if TYPE_CHECKING:
    from otn.app import App
    from otn.asking import Agreement
    from otn.delivery import Order
    from otn.sending import Report

LONGEST_ID = 200


def send(
    context: typer.Context,
    psid: Psid,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="T", help="The topic the person agreed to.")
    ] = None,
    text: Text = None,
    response: Response = None,
    variation: Variation = None,
    page: Page = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="KEY", help="Your own id: the same id is sent once, however often asked."
        ),
    ] = None,
    human_agent: Annotated[
        bool,
        typer.Option(
            "--human-agent",
            help="A person wrote this: up to 7 days after their last message; needs no --topic.",
        ),
    ] = False,
    notification_type: Push = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen and why; send and record nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Send one follow-up: as a standard message while the window is open, by a permission after that.

    Says first what the person agreed to; without --topic or --human-agent that is all. In a response,
    {first_name|there} is the person's first name, or "there". Exit code 0: it was sent. 1: it was not, and why.

    \b
    Examples:
      otn send 7007
      otn send 7007 --topic restock-blue --text "The blue one is back." --dry-run
      otn send 7007 --topic restock-blue --text "The blue one is back." --id restock-blue-2026-10
      otn send 7007 --topic restock-blue --response utter_otn_follow_up_restock
      otn send 7007 --human-agent --text "This is Mia. I found your parcel."
    """
    if not topic and not human_agent:
        with opened(context) as app:
            _ask_for_a_topic(psid, _agreements(app, psid, page))
    message = said(context, text, response, variation)
    with opened(context, to_send=not dry_run) as app:
        from otn.delivery import Order
        from otn.models import Origin

        _tell(psid, _agreements(app, psid, page))
        page_id = _page_of(app, psid, page)
        order = Order(
            page_id=page_id,
            psid=psid,
            topic=topic,
            message=_filled(app, page_id, psid, message) if response else message,
            dedupe_key=f"cli:{_checked(key) or uuid4()}",
            origin=Origin.CLI,
            human_agent=human_agent,
            notification_type=notification_type.value if notification_type else None,
        )
        report = _foresee(app, order) if dry_run else _send(app, order)
    _show(report, topic, json)
    if not report.is_good:
        raise typer.Exit(1)


def _agreements(app: App, psid: str, page: str | None) -> list[Agreement]:
    from otn import asking

    with app.store.read() as tx:
        return asking.agreements(tx, psid=psid, page_id=page, now=app.clock())


def _tell(psid: str, agreements: list[Agreement]) -> None:
    if not agreements:
        say(f"{psid} has no unused permission.")
    for each in agreements:
        number = "one message" if each.available == 1 else f"{each.available} messages"
        say(f"{psid} agreed to '{each.topic}': {number}, until {in_words(each.soonest_expiry)}")


def _ask_for_a_topic(psid: str, agreements: list[Agreement]) -> NoReturn:
    _tell(psid, agreements)
    topic = agreements[0].topic if agreements else "TOPIC"
    say(f'Name the topic: `otn send {psid} --topic {topic} --text "…"`')
    raise typer.Exit(2)


def _filled(app: App, page_id: str, psid: str, message: dict[str, Any]) -> dict[str, Any]:
    """The message as this person reads it."""
    from otn import placeholders
    from otn.store import contact_facts, contacts

    with app.store.read() as tx:
        person = contacts.find(tx, page_id, psid)
        if person is None:
            return message
        names = placeholders.names(message)
        known = contact_facts.attributes_of(tx, [person.id], names).get(person.id, {}) if names else {}
    return placeholders.fill(message, placeholders.values_of(person, known))


def _foresee(app: App, order: Order) -> Report:
    from otn import sending

    return sending.foresee(app, order)


def _send(app: App, order: Order) -> Report:
    from otn import sending
    from otn.graph.sync import SyncGraph

    with SyncGraph() as graph:
        return sending.send(app, graph, order, _wait)


def _wait(length: timedelta) -> None:
    say(f"No definite answer yet; the next try is in {ceil(length.total_seconds())} s.")
    threading.Event().wait(length.total_seconds())


def _page_of(app: App, psid: str, page: str | None) -> str:
    """The Page to send from: the one named, else the one that knows this person. Raises NotFound."""
    from otn.store import contacts

    with app.store.read() as tx:
        found = contacts.by_psid(tx, psid, page)
    return found.page_id if found else page or ""


def _checked(key: str | None) -> str | None:
    if key is not None and not (0 < len(key) <= LONGEST_ID and key.isprintable()):
        raise typer.BadParameter(f"an id has 1 to {LONGEST_ID} printable characters", param_hint="--id")
    return key


def _show(report: Report, topic: str | None, json: bool) -> None:
    if json:
        print_json(asdict(report))
        return
    print_line(f"{_OPENING.get(report.state, '')}{report.sentence}")
    if report.rule and report.rule != report.sentence:
        print_line(f"Why: {report.rule}")
    if topic and (report.delivery_id is not None or report.state in ("would_send", "would_skip")):
        print_line(f"Permissions left for '{topic}': {report.tokens_left}")
    if report.reason in _NEXT:
        say(_NEXT[report.reason])


_OPENING = {"skipped": "Not sent: ", "would_send": "Would be sent: ", "would_skip": "Would not be sent: "}
_NEXT = {
    "unknown_topic": "`otn topics list` lists the topics.",
    "unknown_contact": "`otn contacts list` lists everybody who has written.",
    "page_paused": "`otn page list` shows the Pages; `otn page resume PAGE` lets messages leave again.",
    "token_suspect": "`otn tokens list --state suspect`, then `otn tokens release ID` or `otn tokens void ID`.",
}
