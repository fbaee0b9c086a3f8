"""`otn notify`: something happened, and everyone who agreed to hear about it is told."""

from __future__ import annotations

from typing import Annotated

import typer

from otn.cli.message import Push, Response, Text, Variation, said
from otn.cli.session import Json, opened, user
from otn.cli.terminal import print_json, print_line, say


def notify(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="What they agreed to: a topic, or a family.")],
    event_id: Annotated[
        str, typer.Option("--event-id", metavar="ID", help="Of what happened: the same id is told once.")
    ],
    text: Text = None,
    response: Response = None,
    variation: Variation = None,
    notification_type: Push = None,
    json: Json = False,
) -> None:
    """Tell everyone who agreed about an event.

    At once: a broadcast is made and scheduled in one go. Prints its number. The same event again prints the
    same number and sends nothing again. Asks nothing: it is for a shop's system, which may as well POST to
    /webhooks/messenger/notify.

    \b
    Examples:
      otn notify restock-blue --event-id delivery-4711 --text "The blue one is back."
      otn notify spring-sale --event-id spring-2026 --response utter_otn_follow_up_news --json
    """
    from otn.notify import notify as tell

    message = said(context, text, response, variation)
    with opened(context) as app, app.store.begin() as tx:
        made = tell(
            tx,
            topic=topic,
            event_id=event_id,
            message=message,
            response=response,
            notification_type=notification_type.value if notification_type else None,
            who=user(),
            now=app.clock(),
        )
    if json:
        print_json({"id": made.id, "state": made.state.value})
    else:
        print_line(str(made.id))
    say(f"Broadcast {made.id} is {made.state.value}; `otn broadcasts watch {made.id}` shows how it goes.")
