"""A broadcast as an operator writes it down, in options or in a YAML file, made into a plan: every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from otn import broadcasts, messages, project, responses, times
from otn.audience import Audience, Conditions
from otn.broadcasts import Plan
from otn.errors import ConfigError, InvalidInput
from otn.filters import FILTERS, Filter
from otn.models import Broadcast, is_attribute_name
from otn.remembering import is_tag
from otn.store import Store

LONGEST_ID = 200  # characters
LONGEST_PSID = 255  # characters

Wishes = Mapping[str, Any]


OTHERS = ("topic", "text", "response", "variation", "name", "notification-type", "id", "window-too")
CONDITIONS = (*FILTERS, *(f"exclude-{key}" for key in FILTERS))
KEYS = (*OTHERS, *CONDITIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What was written down, as far as it could be read, and what was wrong with it."""

    plan: Plan
    problems: list[str]
    notes: list[str]


def read_file(path: Path) -> dict[str, Any]:
    """The wishes in a YAML file; a file that it names lies beside it. Raises InvalidInput.

    Also for a condition with nothing behind it: it would be one that everybody meets.
    """
    try:
        content = project.read(path)
    except ConfigError as exc:
        raise InvalidInput(exc.problems) from exc
    wishes = {str(key).replace("_", "-"): value for key, value in content.items()}
    if empty := [key for key, value in wishes.items() if value is None and key in CONDITIONS]:
        raise InvalidInput(
            [f"{key}: there is nothing behind it; say what, or leave it out." for key in empty]
        )
    for key in ("psids", "exclude-psids"):
        if isinstance(wishes.get(key), str):
            wishes[key] = path.parent / wishes[key]
    return wishes


def draft(root: Path, wishes: Wishes, *, who: str, now: datetime) -> Draft:
    """Read what was wished for; keys are those of KEYS. What is None was not wished for."""
    reader = _Reader(root, {key: value for key, value in wishes.items() if value is not None}, now)
    return reader.read(who)


def create(store: Store, found: Draft, now: datetime, pause: Callable[[], object]) -> Broadcast:
    """Make the broadcast, unless something is wrong with it: raises InvalidInput with every problem.

    `pause` lets others write between the parts of a long list.
    """
    with store.begin() as tx:
        wrong = list(dict.fromkeys([*found.problems, *broadcasts.problems(tx, found.plan)]))
        if wrong:
            raise InvalidInput(wrong)
        made = broadcasts.create(tx, found.plan, now)
    if made.state_reason == broadcasts.INCOMPLETE:
        broadcasts.keep_lists(store, made.id, found.plan, pause)
    return made


class _Reader:
    """Reads wish after wish and collects what is wrong."""

    def __init__(self, root: Path, wishes: dict[str, Any], now: datetime) -> None:
        self._root, self._wishes, self._now = root, wishes, now
        self._notes: list[str] = []
        self._problems = [
            f"'{key}' means nothing here; known are {', '.join(KEYS)}." for key in wishes if key not in KEYS
        ]

    def read(self, who: str) -> Draft:
        message = self._message()
        key = self._word("id")
        if key is not None and not (0 < len(key) <= LONGEST_ID and key.isprintable()):
            self._problems.append(f"id: it has 1 to {LONGEST_ID} printable characters.")
        plan = Plan(
            topic=self._word("topic") or "",
            message=message or messages.text(messages.NO_TEXT),
            audience=Audience(
                include=self._conditions(exclude=False),
                exclude=self._conditions(exclude=True),
                window_too=self._window_too(),
            ),
            name=self._word("name") or "",
            response=self._word("response"),
            notification_type=(self._word("notification-type") or "").upper() or None,
            included_psids=self._psids("psids"),
            excluded_psids=self._psids("exclude-psids"),
            created_by=who,
            dedupe_key=f"id:{key}" if key else None,
        )
        return Draft(plan=plan, problems=list(dict.fromkeys(self._problems)), notes=self._notes)

    def _message(self) -> dict[str, Any] | None:
        if ("text" in self._wishes) == ("response" in self._wishes):
            self._problems.append("Say what is to be sent: a text, or a response of the bot; not both.")
            return None
        text, response = self._word("text"), self._word("response")
        if response is not None:
            return self._rendered(response)
        return messages.text(text) if text is not None else None

    def _rendered(self, response: str) -> dict[str, Any] | None:
        variation = self._wishes.get("variation")
        if variation is not None and (isinstance(variation, bool) or not isinstance(variation, int)):
            self._problems.append("variation: it is a number, as the domain counts them, from 1.")
            return None
        try:
            made = responses.render(self._root, response, variation)
        except InvalidInput as exc:
            self._problems += exc.problems
            return None
        self._notes += [made.note] if made.note and variation is None else []
        return made.message

    def _conditions(self, *, exclude: bool) -> Conditions:
        values: dict[str, Any] = {}
        for key, known in FILTERS.items():
            written = f"exclude-{key}" if exclude else key
            # Who got no follow-up is everybody but those who got one.
            turned = known.field == "messaged_since"
            if turned:
                written = key if exclude else f"exclude-{key}"
            if written in self._wishes:
                values[known.field] = self._value(written, known)
        return Conditions(**{field: value for field, value in values.items() if value})

    def _value(self, key: str, known: Filter) -> Any:
        if known.field == "listed":
            return True
        if known.field == "attributes":
            return self._pairs(key)
        return self._names(key) if known.several else self._moment(key)

    def _names(self, key: str) -> tuple[str, ...]:
        """Words that somebody can have. Two in one are nobody's, and would leave out nobody."""
        words = self._words(key)
        self._problems += [
            f"{key}: '{word}' is nobody's; write each by itself, without a comma."
            for word in words
            if not is_tag(word)  # what a tag must be, Pages, locales and time zones are as well
        ]
        return words

    def _words(self, key: str) -> tuple[str, ...]:
        given = self._wishes[key]
        several = given if isinstance(given, list | tuple) else [given] if given != {} else []
        if not several:  # not "anybody"
            self._problems.append(f"{key}: name at least one, or leave it out.")
        return tuple(word for each in several if (word := self._as_word(key, each)) is not None)

    def _pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        given = self._wishes[key]
        pairs = self._mapped(key, given) if isinstance(given, Mapping) and given else self._split(key)
        self._problems += [
            f"{key}: '{name}' is no attribute; letters, digits and _, and no name of the profile."
            for name, _ in pairs
            if not is_attribute_name(name)
        ]
        return tuple(pairs)

    def _mapped(self, key: str, given: Mapping[Any, Any]) -> list[tuple[str, str]]:
        """Attributes are texts: `true` in a file is the word, as `otn contacts set` and an import keep it."""
        found = []
        for name, value in given.items():
            word = str(value).lower() if isinstance(value, bool) else value
            if isinstance(word, str | int | float) and word != "":
                found.append((str(name), str(word)))
            else:
                self._problems.append(f"{key}: write one value behind {name}, in quotes if need be.")
        return found

    def _split(self, key: str) -> list[tuple[str, str]]:
        pairs = [[part.strip() for part in word.partition("=")] for word in self._words(key)]
        if not all(name and value for name, _, value in pairs):
            self._problems.append(f"{key}: write NAME=VALUE, like city=Berlin.")
        return [(name, value) for name, _, value in pairs if name and value]

    def _moment(self, key: str) -> datetime | None:
        given = self._wishes[key]
        written = given.isoformat() if isinstance(given, date) else self._as_word(key, given)
        try:
            return times.moment(written, self._now) if written is not None else None
        except ValueError as exc:
            self._problems.append(f"{key}: {exc}.")
            return None

    def _window_too(self) -> bool:
        given = self._wishes.get("window-too", False)
        if not isinstance(given, bool):
            self._problems.append("window-too: it is true or false.")
        return given is True

    def _psids(self, key: str) -> list[str]:
        if key not in self._wishes:
            return []
        path = Path(str(self._wishes[key]))
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            self._problems.append(f"{key}: {path} cannot be read ({type(exc).__name__}).")
            return []
        found = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
        wrong = [number for number, psid in found.items() if not _is_psid(psid)]
        if wrong or not found:
            which = f"line {wrong[0]} is none" if wrong else "there is none in it"
            self._problems.append(f"{key}: {path} holds one psid a line; {which}.")
        return list(found.values())

    def _word(self, key: str) -> str | None:
        return self._as_word(key, self._wishes[key]) if key in self._wishes else None

    def _as_word(self, key: str, value: object) -> str | None:
        """Numbers are words too: YAML takes a psid or a Page's id for a number."""
        if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
            return str(value)
        self._problems.append(f"{key}: write words, in quotes if need be.")
        return None


def _is_psid(word: str) -> bool:
    return len(word) <= LONGEST_PSID and word.isprintable() and " " not in word
