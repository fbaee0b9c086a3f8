"""Table `topic`: what people can agree to hear about. Names are permanent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from otn import messages, wording
from otn.errors import NotFound
from otn.models import TOPIC_NAME, Topic
from otn.store.engine import Tx
from otn.store.schema import topic
from otn.store.statements import insert_if_new

NAME_IN_TITLE = "{name}"  # in a family's title: the rest of the topic's name, in words

_BY_NAME = sa.select(topic).where(topic.c.name == sa.bindparam("topic"))


def find(tx: Tx, name: str) -> Topic | None:
    """The topic or family with exactly this name."""
    row = tx.execute(_BY_NAME, {"topic": name}).one_or_none()
    return _topic(row) if row else None


def get(tx: Tx, name: str) -> Topic:
    """The topic or family with exactly this name. Raises NotFound with what to type."""
    found = find(tx, name)
    if found is None:
        raise NotFound(f"there is no topic '{name}'; see `otn topics list`")
    return found


def by_id(tx: Tx, topic_id: int) -> Topic:
    """The topic with this id."""
    return _topic(tx.execute(sa.select(topic).where(topic.c.id == topic_id)).one())


def resolve(tx: Tx, name: str) -> Topic | None:
    """The topic of this name, or the family that would give it title, kind and limits. Reads only.

    A family `restock-*` covers `restock-blue`; the longest fitting family wins. The answer for a
    name that a family covers and that was not used yet carries the name asked for and id 0.
    """
    if not TOPIC_NAME.fullmatch(name):
        return None
    found = find(tx, name)
    if found is not None:
        return found
    family = _family_of(tx, name)
    return _member(family, name) if family else None


def use(tx: Tx, name: str, now: datetime) -> Topic | None:
    """Like `resolve`, and makes the topic of a family on its first use."""
    found = resolve(tx, name)
    if found is None or found.id:
        return found
    insert_if_new(tx, topic, _values(found, now), ["name"])
    return find(tx, name)


def add(tx: Tx, new: Topic, now: datetime) -> bool:
    """Add a topic or a family; False if the name is taken."""
    return insert_if_new(tx, topic, _values(new, now), ["name"]) is not None


def edit(tx: Tx, name: str, **changes: Any) -> None:
    """Change title, kind, limits or note. Raises NotFound."""
    if "min_interval" in changes:
        changes["min_interval_seconds"] = int(changes.pop("min_interval").total_seconds())
    if not tx.execute(topic.update().where(topic.c.name == name).values(**changes)).rowcount:
        get(tx, name)


def archive(tx: Tx, name: str, at: datetime | None) -> None:
    """Archive (a time) or bring back (None). An archived topic still records taps. Raises NotFound."""
    edit(tx, name, archived_at=at)


def every(tx: Tx, *, archived: bool = False) -> list[Topic]:
    """All topics and families by name; the archived ones only if asked for."""
    query = sa.select(topic).order_by(topic.c.name)
    if not archived:
        query = query.where(topic.c.archived_at.is_(None))
    return [_topic(row) for row in tx.execute(query)]


def _family_of(tx: Tx, name: str) -> Topic | None:
    heads = [name[: i + 1] + "*" for i, letter in enumerate(name) if letter == "-"]
    if not heads:
        return None
    query = sa.select(topic).where(topic.c.is_family, topic.c.name.in_(heads))
    families = [_topic(row) for row in tx.execute(query)]
    return max(families, key=lambda family: len(family.name), default=None)


def _member(family: Topic, name: str) -> Topic:
    return Topic(
        id=0,
        name=name,
        title=_title(family, name),
        kind=family.kind,
        ask_while_available=family.ask_while_available,
        min_interval=family.min_interval,
        weekly_cap=family.weekly_cap,
        archived_at=family.archived_at,
    )


def _title(family: Topic, name: str) -> str:
    """What somebody agrees to: from "Back in stock: {name}", for restock-blue-shoe, "Back in stock: blue shoe"."""
    words = name.removeprefix(family.name[:-1]).replace("-", " ").replace("_", " ").strip()
    title = family.title.replace(NAME_IN_TITLE, words)
    while wording.length(title) > messages.REQUEST_TITLE:
        title = title[:-1]
    return title


def _values(new: Topic, now: datetime) -> dict[str, Any]:
    return {
        "name": new.name,
        "title": new.title,
        "kind": new.kind,
        "is_family": new.is_family,
        "ask_while_available": new.ask_while_available,
        "min_interval_seconds": int(new.min_interval.total_seconds()),
        "weekly_cap": new.weekly_cap,
        "note": new.note,
        "archived_at": new.archived_at,
        "created_at": now,
    }


def _topic(row: Row[Any]) -> Topic:
    values = dict(row._mapping)
    del values["created_at"]
    values["min_interval"] = timedelta(seconds=values.pop("min_interval_seconds"))
    return Topic(**values)
