"""What nobody outside Meta knows for certain, and what this simulator lets its user choose.

Every field can be read and changed while the simulator runs. Error codes are written `code/subcode`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from simulator.refusal import Code


class BadSettings(ValueError):
    """A change of settings that makes no sense; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The choices. Defaults are the most likely answers, and the strict ones where nothing is likely."""

    # Unknown: not on Meta's list of actions that open the window (FAQ), and not excluded anywhere.
    notify_me_opens_window: bool = False
    # Unknown: Meta documents no code for a token that cannot be used. The sister API answers 100; the subcode
    # is made up.
    used_token_error: str = "100/2018320"  # noqa: S105 - an error code
    expired_token_error: str = "100/2018320"  # noqa: S105 - an error code
    invalid_token_error: str = "100/2018320"  # noqa: S105 - an error code
    # ERR knows two subcodes for the closed window, and two codes for a person who blocked the Page.
    outside_window_error: str = "10/2018278"
    blocked_person_error: str = "551"
    # Unknown: Meta's sample of a token send has no messaging_type (OTN).
    messaging_type_with_token: bool = True
    # Unknown: the answer to a token send may lack recipient_id.
    token_answer_has_recipient_id: bool = True
    # Unknown: both only matter for people whose thread another app controls (`thread_owner: other`).
    optins_in_standby: bool = False
    token_send_needs_thread: bool = False
    # Unknown: the longest payload of a permission request; 1000 is the limit of postback payloads (SEND).
    request_payload_limit: int = 1000

    # One-Time Notification is given to each Page (OTN) and can be taken away; human agent needs a permission
    # of its own (POLICY).
    otn_allowed: bool = True
    human_agent_allowed: bool = True
    require_appsecret_proof: bool = False
    # RATE, per Page and second of real time; 0 means no limit.
    calls_per_second: int = 300
    media_calls_per_second: int = 10
    # POLICY: the first message after a click-to-Messenger ad may open more than a day.
    ad_window_days: int = 7

    echoes: bool = True
    deliveries: bool = True
    # Events in one body. More than 1: wait `batch_wait` seconds for company.
    batch_size: int = 1
    batch_wait: float = 0.05
    # HOOKS: hard time-out 20 s, failing deliveries are repeated at once and then less and less often,
    # after an hour of failures the app is unsubscribed. Meta's back-off is unknown; here it lasts as long, so that
    # a bot that is started late still hears what was said. Seconds of real time.
    webhook_timeout: float = 20.0
    retry_delays: tuple[float, ...] = (0.0, 0.5, 1, 2, 4, 8, 15, 30, 30, 30, *[60] * 13, *[120] * 23)
    unsubscribe_after: float = 3600.0

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with `changes`. Raises BadSettings that lists every unknown name and every wrong value."""
        known = {field.name for field in fields(self)}
        problems = [f"{name}: no such setting" for name in sorted(changes.keys() - known)]
        values: dict[str, Any] = {}
        for name in sorted(changes.keys() & known):
            try:
                values[name] = _like(getattr(self, name), name, changes[name])
            except (TypeError, ValueError) as problem:
                problems.append(f"{name}: {problem}")
        if problems:
            raise BadSettings("; ".join(problems))
        return replace(self, **values)

    def as_json(self) -> dict[str, Any]:
        """Every setting by name."""
        return asdict(self)


def _like(old: object, name: str, new: object) -> object:
    """`new`, checked to be of the same sort as `old`."""
    if isinstance(old, bool):
        return _checked(new, isinstance(new, bool), "true or false")
    if isinstance(old, str):
        return _error_code(new)
    if isinstance(old, tuple):
        return _delays(new)
    if isinstance(old, int):
        least = 1 if name == "batch_size" else 0
        return _checked(
            new, _is_number(new) and isinstance(new, int) and new >= least, f"a whole number from {least}"
        )
    return _checked(new, _is_number(new), "a number of seconds, 0 or more")


def _checked(value: object, good: bool, wanted: str) -> object:
    if not good:
        raise ValueError(f"must be {wanted}")
    return value


def _error_code(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError('must be text like "100/2018320"')
    Code.parse(value)
    return value


def _delays(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(_is_number(item) for item in value) or len(value) > 100:
        raise TypeError("must be a list of at most 100 numbers of seconds")
    return tuple(value)


def _is_number(value: object) -> bool:
    """Whether it is a number that is no boolean, not negative, and not out of all proportion."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
