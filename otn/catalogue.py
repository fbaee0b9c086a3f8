"""The topics that people can agree to: checked, made, changed, archived, each change on record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unicodedata import category

from otn import messages
from otn.errors import ConfigError, InvalidInput, InvalidMove
from otn.models import FAMILY_NAME, TOPIC_NAME, Topic
from otn.store import Tx, audit, topics

# Rasa counts a value that the domain does not list as `__other__`, and stories may branch on that.
DEFAULT_KIND = "other"
MOST_A_WEEK = 1000  # requests to one person that a topic may allow

LONGEST_INTERVAL = timedelta(days=365)  # between two requests: as long as a permission lasts
_IN_FILES = {"name", "title", "kind", "ask_while_available", "min_interval_hours", "weekly_cap", "note"}


def planned(topic: Topic, known_kinds: Sequence[str] | None) -> Topic:
    """The topic as it will be kept. Raises InvalidInput that lists every problem.

    `known_kinds` are the values of the domain's slot `otn_kind`; None: there is nothing to compare with.
    """
    topic = replace(topic, title=topic.title.strip(), is_family=topic.name.endswith("*"))
    problems = [*_name_problems(topic), *_title_problems(topic), *_kind_problems(topic, known_kinds)]
    if not timedelta(0) <= topic.min_interval <= LONGEST_INTERVAL:
        problems.append(
            f"The least time between two requests must be from 0 to {LONGEST_INTERVAL.days} days; archive a topic "
            "that nobody shall be asked for again."
        )
    if not 1 <= topic.weekly_cap <= MOST_A_WEEK:
        problems.append(
            f"The weekly cap must be from 1 to {MOST_A_WEEK}; archive a topic that nobody shall be asked for."
        )
    if problems:
        raise InvalidInput(problems)
    return topic


def topic_of(
    name: str,
    title: str,
    kind: str | None = None,
    *,
    ask_while_available: bool = False,
    min_interval: timedelta | None = None,
    weekly_cap: int | None = None,
    note: str | None = None,
) -> Topic:
    """A topic that is not kept yet, with the usual values for whatever is left out."""
    new = Topic(
        id=0,
        name=name,
        title=title,
        kind=kind or DEFAULT_KIND,
        ask_while_available=ask_while_available,
        note=note,
    )
    return replace(
        new,
        min_interval=new.min_interval if min_interval is None else min_interval,
        weekly_cap=new.weekly_cap if weekly_cap is None else weekly_cap,
    )


def read_entries(entries: Iterable[object], known_kinds: Sequence[str] | None) -> list[Topic]:
    """The topics that endpoints.yml lists. Raises ConfigError that lists every problem of every entry."""
    found, problems = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(planned(_topic_in(entry), known_kinds))
        except InvalidInput as exc:
            label = entry.get("name", number) if isinstance(entry, dict) else number
            problems += [f"endpoints.yml: otn_topics: {label}: {problem}" for problem in exc.problems]
    if problems:
        raise ConfigError(problems)
    return found


def add(tx: Tx, topic: Topic, *, who: str, now: datetime) -> None:
    """Keep a planned topic. Raises InvalidMove if the name is taken."""
    if not topics.add(tx, topic, now):
        raise InvalidMove(
            f"the topic '{topic.name}' exists already; `otn topics edit {topic.name}` changes it, and an "
            "archived one comes back with `otn topics unarchive`"
        )
    details = {"title": topic.title, "kind": topic.kind}
    audit.record(tx, who=who, action="topic.add", subject=topic.name, now=now, details=details)


def edit(
    tx: Tx, name: str, changes: dict[str, Any], known_kinds: Sequence[str] | None, *, who: str, now: datetime
) -> Topic:
    """Change title, kind, limits or note; the name is permanent. Raises NotFound, InvalidInput."""
    current = topics.get(tx, name)
    changed = planned(replace(current, **changes), known_kinds if "kind" in changes else None)
    topics.edit(tx, name, **{key: getattr(changed, key) for key in changes})
    words = {key: str(value) for key, value in changes.items()}
    audit.record(tx, who=who, action="topic.edit", subject=name, now=now, details=words)
    return changed


def archive(tx: Tx, name: str, *, who: str, now: datetime) -> None:
    """Ask nobody for this topic any more; taps on older requests are still recorded. Raises NotFound."""
    topics.archive(tx, name, now)
    audit.record(tx, who=who, action="topic.archive", subject=name, now=now)


def unarchive(tx: Tx, name: str, *, who: str, now: datetime) -> None:
    """Bring an archived topic back. Raises NotFound."""
    topics.archive(tx, name, None)
    audit.record(tx, who=who, action="topic.unarchive", subject=name, now=now)


def _name_problems(topic: Topic) -> list[str]:
    rule = FAMILY_NAME if topic.is_family else TOPIC_NAME
    if rule.fullmatch(topic.name):
        return []
    if topic.is_family:
        return [
            f"'{topic.name}' is no name of a family: small letters, digits and _, then -*, like restock-*"
        ]
    return [f"'{topic.name}' is no topic name: at most 64 small letters, digits, _ and -, like spring-sale"]


def _title_problems(topic: Topic) -> list[str]:
    if any(category(letter) in ("Cc", "Zl", "Zp") for letter in topic.title):
        return ["The title holds a line break or another character that cannot be shown."]
    return messages.problems(messages.permission_request(topic.title, topic.name))


def _kind_problems(topic: Topic, known: Sequence[str] | None) -> list[str]:
    if topic.kind == DEFAULT_KIND or known is None or topic.kind in known:
        return []
    return [
        f"no story knows the kind '{topic.kind}': domain.yml lists {', '.join(known)} in the slot otn_kind"
    ]


def _is_hours(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= LONGEST_INTERVAL / timedelta(hours=1)  # which YAML's .nan is not


def _topic_in(entry: object) -> Topic:
    """An entry of a file as a topic. Raises InvalidInput."""
    if not isinstance(entry, dict):
        raise InvalidInput(["write `name:` and `title:`, indented under the dash"])
    problems = [f"'{key}' means nothing here" for key in entry if key not in _IN_FILES]
    problems += [f"'{key}' is missing" for key in ("name", "title") if not entry.get(key)]
    hours, cap = entry.get("min_interval_hours"), entry.get("weekly_cap")
    if hours is not None and not _is_hours(hours):
        problems.append(f"min_interval_hours must be a number from 0 to {LONGEST_INTERVAL.days * 24}")
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int)):
        problems.append("weekly_cap must be a whole number")
    if problems:
        raise InvalidInput(problems)
    return topic_of(
        str(entry["name"]),
        str(entry["title"]),
        str(entry["kind"]) if entry.get("kind") else None,
        ask_while_available=entry.get("ask_while_available") is True,
        min_interval=timedelta(hours=hours) if hours is not None else None,
        weekly_cap=cap,
        note=str(entry["note"]) if entry.get("note") else None,
    )
