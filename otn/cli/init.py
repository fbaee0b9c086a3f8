"""`otn init`: a project that can start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from otn.cli.session import root, user
from otn.cli.terminal import say

if TYPE_CHECKING:
    from otn.app import App
    from otn.store import Store


def init(context: typer.Context) -> None:
    """Make the project ready: `.env`, the database, the first topics. Does only what is missing.

    Never makes new keys where a database was written with others, and changes no line of an existing `.env`.

    \b
    Example:
      otn init
    """
    from otn.app import compose
    from otn.settings import EVERYTHING, load_settings
    from otn.store import Store

    folder = root(context)
    _write_env(folder)
    settings = load_settings(folder, need=EVERYTHING)
    store = Store(settings.database_url)
    _prepare_database(store)
    store.close()
    app = compose(settings)
    _add_topics(folder, app)
    app.store.close()


def _write_env(folder: Path) -> None:
    from otn.env_file import write_env

    made = write_env(folder, database_exists=_was_written_with_keys(folder))
    path = (folder / ".env").resolve()
    if made:
        say(f"configuration: made {', '.join(made)} in {path}; keep a backup of it")
    else:
        say(f"configuration: nothing is missing in {path}")


def _was_written_with_keys(folder: Path) -> bool:
    """Whether a database exists that other keys than those in use now wrote to."""
    from otn.settings import ACTION_SERVER, load_settings, sqlite_file
    from otn.store import Store, keys, migrate

    url = load_settings(folder, need=ACTION_SERVER).database_url
    path = sqlite_file(url)
    if path is not None and not path.exists():
        return False
    store = Store(url)
    try:
        if migrate.current(store) is None:
            return False
        with store.read() as tx:
            return keys.are_remembered(tx)
    finally:
        store.close()


def _prepare_database(store: Store) -> None:
    from otn.store import migrate

    before = migrate.current(store)
    changed = migrate.upgrade(store)
    if migrate.set_journal_mode(store):
        say("database: journal mode is WAL now")
    verb = (
        "unchanged at" if not changed else f"upgraded from revision {before} to" if before else "created at"
    )
    say(f"database: {verb} revision {migrate.newest()}, {store.path or repr(store)}")


def _add_topics(folder: Path, app: App) -> None:
    from otn import catalogue, project
    from otn.store import topics

    listed = catalogue.read_entries(project.topics_to_begin_with(folder), project.kinds(folder))
    now = app.clock()
    with app.store.begin() as tx:
        new = [topic for topic in listed if topics.find(tx, topic.name) is None]
        for topic in new:
            catalogue.add(tx, topic, who=user(), now=now)
    for topic in new:
        say(f"topics: added '{topic.name}' ({topic.title})")
    if not new:
        say(
            f"topics: all {len(listed)} of endpoints.yml are there"
            if listed
            else "topics: endpoints.yml lists none"
        )
