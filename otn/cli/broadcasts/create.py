"""`otn broadcasts create`."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otn.cli.broadcasts.plans import foresee
from otn.cli.message import Push, Response, Text, Variation
from otn.cli.session import Json, breathe, opened, root, user
from otn.cli.terminal import in_words, print_json, print_line, say
from otn.filters import FILTERS

if TYPE_CHECKING:
    from otn.models import Broadcast


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each of FILTERS, and one that leaves out by it; they arrive as `filters`."""
    options = [*_options("", "Only those"), *_options("exclude-", "Not those")]

    def carry_out(**given: Any) -> None:
        command(filters={each.name: given.pop(each.name) for each in options}, **given)

    own = [each for each in signature(command, eval_str=True).parameters.values() if each.name != "filters"]
    carry_out.__doc__ = command.__doc__
    carry_out.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]  # what Typer reads
    carry_out.__annotations__ = {each.name: each.annotation for each in (*own, *options)}
    return carry_out


def _options(prefix: str, opening: str) -> list[Parameter]:
    found = []
    for key, known in FILTERS.items():
        name = f"{prefix}{key}"
        kind: Any = list[str] | None if known.several else str | None
        told = typer.Option(f"--{name}", metavar=known.metavar, help=f"{opening} {known.sentence}.")
        found.append(
            Parameter(
                name.replace("-", "_"),
                Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind, told],
            )
        )
    return found


@with_filters
def create(
    context: typer.Context,
    *,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="T", help="What they agreed to: a topic, or a family.")
    ] = None,
    text: Text = None,
    response: Response = None,
    variation: Variation = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", metavar="plan.yml", exists=True, dir_okay=False, help="A file with these options."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="For yourselves.")] = None,
    notification_type: Push = None,
    key: Annotated[
        str | None, typer.Option("--id", metavar="KEY", help="Your own id: the same id is one broadcast.")
    ] = None,
    window_too: Annotated[
        bool | None,
        typer.Option("--window-too", help="Also those without a permission whom we may write to."),
    ] = None,
    filters: dict[str, Any],
    json: Json = False,
) -> None:
    """Plan a broadcast; nothing is sent yet.

    Prints the number of the draft, and how many people it would reach. The message is checked and kept now.
    In a text, {first_name|there} is the person's first name, or "there"; last_name, locale and attributes of
    contacts work likewise.

    An option for people may be given several times where any of the values will do. WHEN is a day (2026-12-01), a
    time in UTC (2026-12-01T09:00) or an age (30d). ZONE is Europe/Berlin or hours from UTC.

    A file holds the same names as keys, and what is typed beside it counts more:

    \b
      topic: spring-sale
      text: "Hi {first_name|there}, our spring sale begins today."
      tag: [vip, regular]
      attribute: {city: Berlin}
      not-messaged-since: 7d
      exclude-psids: staff.txt

    \b
    Examples:
      otn broadcasts create --topic spring-sale --text "Our spring sale begins today."
      otn broadcasts create --topic 'restock-*' --response utter_otn_follow_up_restock --active-before 7d
      otn broadcasts create --file plan.yml --id spring-2026 --json
    """
    from otn import plans

    typed = {
        "topic": topic,
        "text": text,
        "response": response,
        "variation": variation,
        "name": name,
        "notification-type": notification_type.value if notification_type else None,
        "id": key,
        "window-too": window_too,
        **{name.replace("_", "-"): value for name, value in filters.items()},
    }
    with opened(context) as app:
        now = app.clock()
        wishes = _beside(plans.read_file(file) if file else {}, typed)
        draft = plans.draft(root(context), wishes, who=user(), now=now)
        planned = plans.create(app.store, draft, now, breathe)
        for note in draft.notes:
            say(note)
        if json:
            print_json({"id": planned.id})
        else:
            print_line(str(planned.id))
        if planned.created_at != now:
            _tell_of_earlier(planned)
        if planned.state.value != "draft":
            return
        foresee(app, planned)
    say(f"`otn broadcasts explain {planned.id}` names them; `otn broadcasts schedule {planned.id}` sends.")


def _tell_of_earlier(made: Broadcast) -> None:
    say(
        f"Broadcast {made.id} was made under this id at {in_words(made.created_at)}; it is {in_words(made.state)} "
        f"now, for the people and times named then. `otn broadcasts show {made.id}` tells them."
    )


def _beside(in_file: dict[str, Any], typed: dict[str, Any]) -> dict[str, Any]:
    """What is typed counts more than what the file says."""
    said = {key: value for key, value in typed.items() if value not in (None, [])}
    if said.keys() & {"text", "response"}:
        in_file = {
            key: value for key, value in in_file.items() if key not in ("text", "response", "variation")
        }
    return {**in_file, **said}
