"""`otn contacts tag | set | import | export`: what is known of people, by hand or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otn.cli.contacts import known
from otn.cli.session import Json, Page, Psid, opened, user
from otn.cli.terminal import print_json, print_table, progress, say

if TYPE_CHECKING:
    from otn.importing import Result
    from otn.people import Wish

SHOWN_PROBLEMS = 100


def tag(
    context: typer.Context,
    psid: Psid,
    tags: Annotated[list[str], typer.Argument(metavar="TAG…", help="Words that audiences can ask for.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take them away.")] = False,
    page: Page = None,
) -> None:
    """Tag a person, so that a broadcast can be for those with the tag, or for those without.

    \b
    Examples:
      otn contacts tag 7007 vip berlin
      otn contacts tag 7007 vip --remove
    """
    from otn import people

    wish = people.Wish(untags=tuple(tags)) if remove else _wish({}, tags)
    _change(context, psid, page, wish)
    say(f"{'Untagged' if remove else 'Tagged'} {psid}: {', '.join(tags)}.")


def set_values(
    context: typer.Context,
    psid: Psid,
    pairs: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE…", help="An empty value takes the attribute away.")
    ],
    page: Page = None,
) -> None:
    """Set attributes of a person: audiences can ask for them, and texts can name them as {name|…}.

    first_name, last_name, locale and timezone are the person's profile.

    \b
    Examples:
      otn contacts set 7007 shoe_size=42 timezone=Europe/Berlin
      otn contacts set 7007 shoe_size=
    """
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, equals, _) in zip(pairs, split, strict=True) if not (name and equals)]:
        raise typer.BadParameter(f"write NAME=VALUE instead of {', '.join(wrong)}")
    _change(context, psid, page, _wish({name: value for name, _, value in split}))
    say(f"Set for {psid}: {', '.join(name for name, _, _ in split)}.")


def import_file(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv", exists=True, dir_okay=False, help="UTF-8, with a first line of names."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    json: Json = False,
) -> None:
    """Import tags, attributes and profiles of people who have written already.

    Columns: psid; page, if several Pages know a psid; tags, with blanks between them; first_name, last_name, locale,
    timezone; any other name is an attribute. An empty cell changes nothing. A line with a problem changes nothing
    and is named with its number; all others are carried out, and importing the file again does no harm.

    \b
    Examples:
      otn contacts import people.csv --dry-run
      otn contacts import people.csv
    """
    from otn import importing

    done = 0
    with opened(context) as app, progress("Importing", _lines(file)) as advance:

        def tell(result: Result) -> None:
            nonlocal done
            advance(result.rows - done)
            done = result.rows

        result = importing.run(app.store, file, who=user(), clock=app.clock, dry_run=dry_run, told=tell)
    problems = [{"line": problem.line, "why": problem.why} for problem in result.problems]
    if json:
        print_json({"rows": result.rows, "changed": result.changed, "problems": problems})
    elif problems:
        rows = [[problem["line"], problem["why"]] for problem in problems[:SHOWN_PROBLEMS]]
        print_table(["line", "problem"], rows, nothing="")
        if len(problems) > SHOWN_PROBLEMS:
            say(f"There are more than these {SHOWN_PROBLEMS}: --json shows all.")
    would = "would change" if dry_run else "changed"
    say(f"{result.rows} rows: {result.changed} {would} somebody, {len(problems)} have a problem.")
    if problems:
        raise typer.Exit(1)


def export(context: typer.Context, psid: Psid, page: Page = None) -> None:
    """Print everything that is kept on a person as JSON; of permissions all but the secret.

    The conversation itself is in Rasa's tracker store.

    \b
    Example:
      otn contacts export 7007 > 7007.json
    """
    from otn import privacy

    with opened(context, to_seal=True) as app, app.store.read() as tx:
        found = privacy.export(tx, app.require_vault(), known(tx, psid, page), app.clock())
    print_json(found)


def _wish(values: dict[str, str], tags: list[str] | None = None) -> Wish:
    from otn import people
    from otn.errors import InvalidInput

    wish, problems = people.read(values, tags or ())
    if problems:
        raise InvalidInput(problems)
    return wish


def _change(context: typer.Context, psid: str, page: str | None, wish: Wish) -> None:
    from otn import people

    with opened(context) as app, app.store.begin() as tx:
        people.change(tx, known(tx, psid, page).id, wish, who=user(), now=app.clock())


def _lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for _ in lines)
