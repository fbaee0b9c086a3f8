"""What is to be said, as options: a text or a response of the bot, and how loudly it arrives."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from otn.cli.session import root
from otn.cli.terminal import say


class PushType(str, Enum):
    """How loudly a message arrives (SEND)."""

    REGULAR = "REGULAR"
    SILENT_PUSH = "SILENT_PUSH"
    NO_PUSH = "NO_PUSH"


Text = Annotated[
    str | None, typer.Option("--text", metavar="TEXT", help="One message: under 2000 characters.")
]
Response = Annotated[
    str | None,
    typer.Option(
        "--response", metavar="utter_x", help="Or a response of the domain, if it makes one message."
    ),
]
Variation = Annotated[
    int | None,
    typer.Option(
        "--variation", min=1, metavar="N", help="Which of its variations.  [default: the first fitting]"
    ),
]
Push = Annotated[
    PushType | None, typer.Option("--notification-type", case_sensitive=False, help="How loudly it arrives.")
]


def said(
    context: typer.Context, text: str | None, response: str | None, variation: int | None
) -> dict[str, Any]:
    """The one message that was typed or named. Raises InvalidInput."""
    from otn import messages, responses

    if (text is None) == (response is None):
        raise typer.BadParameter("say what is to be sent: --text or --response")
    if text is not None:
        return messages.text(text)
    made = responses.render(root(context), str(response), variation)
    if made.note and variation is None:
        say(made.note)
    return made.message
