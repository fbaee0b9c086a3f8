"""A response of the bot (`utter_…` of the domain) as the one message that a follow-up may be.

It is rendered when a broadcast is made, from the domain as it is then. Nobody's slots are at hand: a `{slot}` of
Rasa's has no fallback, so the wording has to be `{first_name|there}`, which `otn.placeholders` fills for each person.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from otn import composing, placeholders, project
from otn.errors import InvalidInput

CHANNEL = "messenger"

_FILLED_BY_RASA = ("text", "image", "custom", "buttons", "attachment", "quick_replies", "elements")
_SLOT = re.compile(r"(?<!\{)\{[A-Za-z_][A-Za-z0-9_]*(?:\|[^{}]*)?\}(?!\})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The message, which variation it is made of (counted from 1), and how many there were to choose from."""

    name: str
    message: dict[str, Any]
    variation: int
    choices: int

    @property
    def note(self) -> str | None:
        """Which variation was taken, where Rasa would draw lots."""
        if self.choices < 2:
            return None
        return (
            f"{self.name} has {self.choices} variations that could be sent; it is number {self.variation}. "
            "Pick one with --variation."
        )


def render(root: Path, name: str, variation: int | None = None) -> Rendered:
    """The response as one message: the first variation for Messenger, else the first for any channel.

    `variation` picks another one, as the domain counts them. Raises InvalidInput with every problem, ConfigError
    if the domain cannot be read.
    """
    variations = _variations(project.domain(root, "responses"), name)
    suitable = _suitable(variations)
    number = variation or next(iter(suitable), None)
    if number is None:
        raise InvalidInput(
            [f"{name} has no variation for Messenger that depends on nothing: name one with --variation."]
        )
    if not 1 <= number <= len(variations):
        raise InvalidInput([f"{name} has {len(variations)} variations; there is no number {number}."])
    chosen = variations[number - 1]
    if chosen.get("channel", CHANNEL) != CHANNEL:
        raise InvalidInput([f"Variation {number} of {name} is meant for the channel {chosen['channel']}."])
    return Rendered(name=name, message=_message(name, chosen), variation=number, choices=len(suitable))


def _variations(responses: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = responses.get(name)
    if found is None:
        near = get_close_matches(name, responses, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "it is a name like utter_otn_follow_up."
        raise InvalidInput([f"The domain has no response '{name}'; {hint}"])
    listed = [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
    if not listed:
        raise InvalidInput([f"The domain's response '{name}' is no list of variations (`- text: …`)."])
    return listed


def _suitable(variations: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the variations that Rasa could choose for anybody: those for Messenger, else for no channel."""
    anybody = [number for number, each in enumerate(variations, start=1) if not each.get("condition")]
    ours = [number for number in anybody if variations[number - 1].get("channel") == CHANNEL]
    return ours or [number for number in anybody if variations[number - 1].get("channel") is None]


def _message(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in chosen.items() if key in _FILLED_BY_RASA}
    problems = list(dict.fromkeys(_slots_that_nobody_fills(said)))
    try:
        message = composing.as_one_message(_unescaped(said))
    except composing.NotOneMessage as exc:
        raise InvalidInput([*problems, f"{name}: {exc}"]) from exc
    problems += placeholders.problems(message)
    if problems:
        raise InvalidInput(problems)
    return message


def _slots_that_nobody_fills(said: Mapping[str, Any]) -> Iterator[str]:
    """Rasa fills slots everywhere; a follow-up has placeholders only in what is read."""
    for key, text in _not_said(said):
        for slot in _SLOT.findall(text):
            yield f"{slot} stands under `{key}`, which is the same for everybody."


def _not_said(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and _is_address(key):
        yield key, value
    elif isinstance(value, Mapping):
        for inner_key, inner in value.items():
            yield from _not_said(inner, str(inner_key))
    elif isinstance(value, list):
        for inner in value:
            yield from _not_said(inner, key)


def _unescaped(value: Any, key: str = "") -> Any:
    """Rasa writes a brace as two; where placeholders are filled, that is taken back then, elsewhere here."""
    if isinstance(value, str) and _is_address(key):
        return value.replace("{{", "{").replace("}}", "}")
    if isinstance(value, Mapping):
        return {inner_key: _unescaped(inner, str(inner_key)) for inner_key, inner in value.items()}
    return [_unescaped(inner, key) for inner in value] if isinstance(value, list) else value


def _is_address(key: str) -> bool:
    """Whether what stands under this key addresses something or is sent back; a message has `url` for the first."""
    return key in ("image", "attachment", "src") or key in placeholders.NOT_SAID
