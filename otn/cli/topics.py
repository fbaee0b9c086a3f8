"""`otn topics …`: what people can agree to hear about."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otn.cli.session import Json, commands, opened, parse_duration, root, user
from otn.cli.terminal import print_json, print_table, say

if TYPE_CHECKING:
    from otn.models import Topic

app = commands("What people can agree to hear about.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The topic, or a family like 'restock-*'.")]
Kind = Annotated[
    str | None,
    typer.Option("--kind", metavar="KIND", help="What stories branch on: a value of slot otn_kind."),
]
MinInterval = Annotated[
    str | None,
    typer.Option("--min-interval", metavar="24h", help="Least time between two requests to one person."),
]
WeeklyCap = Annotated[
    int | None, typer.Option("--weekly-cap", metavar="5", help="Most requests to one person in seven days.")
]
Note = Annotated[str | None, typer.Option("--note", help="A note to yourselves.")]


@app.command("list")
def list_topics(
    context: typer.Context,
    archived: Annotated[bool, typer.Option("--archived", help="The archived ones too.")] = False,
    json: Json = False,
) -> None:
    """List the topics.

    \b
    Example:
      otn topics list
    """
    from otn.store import topics

    with opened(context) as app, app.store.read() as tx:
        found = topics.every(tx, archived=archived)
    if json:
        print_json([_for_programs(topic) for topic in found])
        return
    headings = ["name", "kind", "title", "asks again", "not before", "per week", "archived"]
    rows = [
        [
            topic.name,
            topic.kind,
            topic.title,
            topic.ask_while_available,
            topic.min_interval,
            topic.weekly_cap,
            topic.archived_at,
        ]
        for topic in found
    ]
    print_table(headings, rows, nothing="There are no topics yet: `otn topics add NAME --title TEXT`.")


@app.command()
def add(
    context: typer.Context,
    name: Name,
    title: Annotated[
        str, typer.Option("--title", metavar="TEXT", help="Shown above Notify Me: 65 characters at most.")
    ],
    kind: Kind = None,
    ask_while_available: Annotated[
        bool, typer.Option("--ask-while-available", help="Ask again while a permission is unused.")
    ] = False,
    min_interval: MinInterval = None,
    weekly_cap: WeeklyCap = None,
    note: Note = None,
    json: Json = False,
) -> None:
    """Add a topic. Its name is permanent: it stands in the payload of every request.

    A family (a name that ends in -*) gives title, kind and limits to every topic whose name begins so.
    `{name}` in its title stands for the rest of the name: "Back in stock: {name}".

    \b
    Examples:
      otn topics add spring-sale --title "Our spring sale" --kind news
      otn topics add 'restock-*' --title "Back in stock" --kind restock --min-interval 7d
    """
    from otn import catalogue, project

    interval = parse_duration(min_interval) if min_interval else None
    wish = catalogue.topic_of(
        name,
        title,
        kind,
        ask_while_available=ask_while_available,
        min_interval=interval,
        weekly_cap=weekly_cap,
        note=note,
    )
    new = catalogue.planned(wish, project.kinds(root(context)))
    with opened(context) as app, app.store.begin() as tx:
        catalogue.add(tx, new, who=user(), now=app.clock())
    say(f"Added the {'family' if new.is_family else 'topic'} '{new.name}', kind {new.kind}.")
    if json:
        print_json(_for_programs(new))


@app.command()
def edit(
    context: typer.Context,
    name: Name,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="The new title.")] = None,
    kind: Kind = None,
    ask_while_available: Annotated[
        bool | None,
        typer.Option("--ask-while-available/--no-ask-while-available", help="Ask again while one is unused."),
    ] = None,
    min_interval: MinInterval = None,
    weekly_cap: WeeklyCap = None,
    note: Note = None,
    json: Json = False,
) -> None:
    """Change a topic: only what is named. Topics that a family made already keep what they have.

    \b
    Example:
      otn topics edit spring-sale --title "Our spring sale 2027" --weekly-cap 2
    """
    from otn import catalogue, project

    wishes: dict[str, Any] = {
        "title": title,
        "kind": kind,
        "ask_while_available": ask_while_available,
        "min_interval": parse_duration(min_interval) if min_interval else None,
        "weekly_cap": weekly_cap,
        "note": note,
    }
    changes = {key: value for key, value in wishes.items() if value is not None}
    if not changes:
        raise typer.BadParameter("name what shall change, for instance --title")
    with opened(context) as app, app.store.begin() as tx:
        changed = catalogue.edit(tx, name, changes, project.kinds(root(context)), who=user(), now=app.clock())
    say(f"Changed {', '.join(changes).replace('_', ' ')} of '{name}'.")
    if json:
        print_json(_for_programs(changed))


@app.command()
def archive(context: typer.Context, name: Name) -> None:
    """Ask nobody for this topic any more. Permissions stay, and taps on older requests are still recorded.

    \b
    Example:
      otn topics archive spring-sale
    """
    from otn import catalogue

    with opened(context) as app, app.store.begin() as tx:
        catalogue.archive(tx, name, who=user(), now=app.clock())
    say(f"Archived '{name}'. `otn topics unarchive {name}` brings it back.")


@app.command()
def unarchive(context: typer.Context, name: Name) -> None:
    """Bring an archived topic back.

    \b
    Example:
      otn topics unarchive spring-sale
    """
    from otn import catalogue

    with opened(context) as app, app.store.begin() as tx:
        catalogue.unarchive(tx, name, who=user(), now=app.clock())
    say(f"'{name}' is back.")


@app.command()
def forecast(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Only this topic, or those of a family like 'restock-*'."),
    ] = None,
    json: Json = False,
) -> None:
    """Count the unused permissions of each topic, and how many of them lapse within 7, 30 and 90 days.

    \b
    Examples:
      otn topics forecast
      otn topics forecast 'restock-*' --json
    """
    from otn import estimates

    with opened(context) as app, app.store.read() as tx:
        found = [asdict(each) for each in estimates.forecast(tx, app.clock(), name)]
    if json:
        print_json(found)
        return
    headings = ["topic", "available", "in 7 days", "in 30 days", "in 90 days"]
    rows = [[each["topic"] or "(of no topic)", *list(each.values())[1:]] for each in found]
    print_table(headings, rows, nothing="Nobody has agreed to it yet.")


def _for_programs(topic: Topic) -> dict[str, Any]:
    values = asdict(topic)
    values["min_interval_seconds"] = values.pop("min_interval").total_seconds()
    del values["id"]
    return values
