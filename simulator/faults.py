"""Things that go wrong on demand: each fault with a count, a probability, and what it applies to."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from simulator.refusal import BAD_ACCESS_TOKEN, FALSE_ALARM, POLICY_BLOCK, RATE_LIMIT, TEMPORARY, Code


class FaultKind(str, Enum):
    """What goes wrong. The first group strikes Graph calls, the second webhooks."""

    LOST_ANSWER = "lost_answer"  # delivered, then the connection is reset
    NO_ANSWER = "no_answer"  # delivered, then silence for `seconds`, then a reset
    RESET = "reset"  # the connection is reset before anything is done
    SLOW = "slow"  # everything works, `seconds` late; the rules are applied after the wait
    SERVER_ERROR = "server_error"  # 5xx with a Graph error body
    BARE_ERROR = "bare_error"  # 5xx without a body
    HTML = "html"  # 5xx with a web page
    FALSE_ERROR = "false_error"  # delivered, and reported as error 1/1357046 (ERR)
    ERROR = "error"  # refused with `code` and `subcode`
    THROTTLE = "throttle"  # refused for too many calls, with the regain time in the header (RATE)
    ACCESS_TOKEN = "access_token"  # noqa: S105 - a kind of fault: 190
    POLICY_BLOCK = "policy_block"  # 368

    DUPLICATE_WEBHOOK = "duplicate_webhook"  # the same event is sent twice
    REORDER_WEBHOOK = "reorder_webhook"  # held back until the next event has gone out, or for `seconds`
    DELAY_ECHO = "delay_echo"  # the echo comes `seconds` late
    LOSE_ECHO = "lose_echo"  # the echo never comes


WEBHOOK_KINDS = frozenset(
    {FaultKind.DUPLICATE_WEBHOOK, FaultKind.REORDER_WEBHOOK, FaultKind.DELAY_ECHO, FaultKind.LOSE_ECHO}
)
ECHO_KINDS = frozenset({FaultKind.DELAY_ECHO, FaultKind.LOSE_ECHO})
# These strike only sends that break no rule: nothing else could be delivered.
AFTER_DELIVERY = frozenset({FaultKind.LOST_ANSWER, FaultKind.NO_ANSWER, FaultKind.FALSE_ERROR})

_CODES = {
    FaultKind.SERVER_ERROR: TEMPORARY,
    FaultKind.FALSE_ERROR: FALSE_ALARM,
    FaultKind.THROTTLE: RATE_LIMIT,
    FaultKind.ACCESS_TOKEN: BAD_ACCESS_TOKEN,
    FaultKind.POLICY_BLOCK: POLICY_BLOCK,
}
_STATUSES = {FaultKind.SERVER_ERROR: 500, FaultKind.BARE_ERROR: 502, FaultKind.HTML: 503}
_SECONDS = {
    FaultKind.SLOW: 1.0,
    FaultKind.NO_ANSWER: 60.0,
    FaultKind.REORDER_WEBHOOK: 2.0,
    FaultKind.DELAY_ECHO: 1.0,
}


class BadFault(ValueError):
    """A fault that makes no sense; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a fault applies to; None means whatever. `call` is send, action, profile, page or any."""

    call: str = "send"
    page_id: str | None = None
    psid: str | None = None
    by_token: bool | None = None
    permission_request: bool | None = None
    text_contains: str | None = None
    field: str | None = None  # webhooks: messages, messaging_postbacks, message_echoes, …


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a fault might strike now: a Graph call or an event on its way to the bot."""

    page_id: str
    call: str = "send"
    psid: str | None = None
    by_token: bool = False
    permission_request: bool = False
    text: str = ""
    field: str | None = None


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault that was asked for. `count` is what is left of it; None never ends."""

    id: int
    kind: FaultKind
    count: int | None = 1
    probability: float = 1.0
    match: Match = field(default_factory=Match)
    seconds: float = 0.0
    code: Code | None = None
    status: int | None = None
    delivered: bool = False  # whether the message is delivered before the error is told
    regain_minutes: int = 1
    struck: int = 0
    chance: random.Random = field(default_factory=random.Random, repr=False)

    def as_json(self) -> dict[str, Any]:
        """The fault as the control API shows it."""
        match = {name: getattr(self.match, name) for name in Match.__dataclass_fields__}
        return {
            "id": self.id,
            "kind": self.kind.value,
            "count": self.count,
            "probability": self.probability,
            "match": {name: value for name, value in match.items() if value is not None},
            "seconds": self.seconds,
            "code": self.code.code if self.code else None,
            "subcode": self.code.subcode if self.code else None,
            "status": self.status,
            "delivered": self.delivered,
            "regain_minutes": self.regain_minutes,
            "struck": self.struck,
        }


class Faults:
    """The faults that wait to strike, oldest first."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._next_id = 1

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._faults.values()))

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, wish: Mapping[str, Any]) -> Fault:
        """Keep a fault in store. Raises BadFault."""
        fault = parse(self._next_id, wish)
        self._next_id += 1
        self._faults[fault.id] = fault
        return fault

    def remove(self, fault_id: int) -> bool:
        """Take a fault away; False when there is none with that id."""
        return self._faults.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Take every fault away."""
        self._faults.clear()

    def strike_call(self, target: Target, *, acceptable: bool) -> Fault | None:
        """The fault that befalls a Graph call, already counted. `acceptable`: whether the call breaks no rule."""
        for fault in self:
            if fault.kind in WEBHOOK_KINDS or (fault.delivered and not acceptable):
                continue
            if fault.match.call in (target.call, "any") and self._strikes(fault, target):
                return fault
        return None

    def strike_webhook(self, target: Target) -> Fault | None:
        """The fault that befalls an event on its way to the bot, already counted."""
        for fault in self:
            if fault.kind not in WEBHOOK_KINDS:
                continue
            if fault.kind in ECHO_KINDS and target.field != "message_echoes":
                continue
            if self._strikes(fault, target):
                return fault
        return None

    def _strikes(self, fault: Fault, target: Target) -> bool:
        if not _matches(fault.match, target) or fault.chance.random() >= fault.probability:
            return False
        fault.struck += 1
        if fault.count is not None:
            fault.count -= 1
            if fault.count <= 0:
                del self._faults[fault.id]
        return True


def parse(fault_id: int, wish: Mapping[str, Any]) -> Fault:
    """Build a fault from JSON. Raises BadFault that says what is wrong."""
    unknown = wish.keys() - {
        "kind", "count", "probability", "match", "seconds", "code", "subcode", "status", "delivered",
        "regain_minutes", "seed",
    }  # fmt: skip
    if unknown:
        raise BadFault(f"unknown: {', '.join(sorted(unknown))}")
    kind = _kind(wish.get("kind"))
    return Fault(
        id=fault_id,
        kind=kind,
        count=_count(wish.get("count", 1)),
        probability=_number(wish, "probability", 1.0, most=1.0),
        match=_match(wish.get("match", {})),
        seconds=_number(wish, "seconds", _SECONDS.get(kind, 0.0), most=3600.0),
        code=_code(kind, wish),
        status=int(_number(wish, "status", _STATUSES.get(kind, 0), most=599.0)) or None,
        delivered=kind in AFTER_DELIVERY or wish.get("delivered") is True,
        regain_minutes=int(_number(wish, "regain_minutes", 1.0, most=10_000.0)),
        chance=random.Random(wish.get("seed")),  # noqa: S311 - repeatable mishaps, no secret
    )


def _kind(value: object) -> FaultKind:
    try:
        return FaultKind(value)
    except ValueError:
        raise BadFault(f"kind must be one of {', '.join(kind.value for kind in FaultKind)}") from None


def _count(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise BadFault("count must be a whole number from 1, or null for no end")


def _number(wish: Mapping[str, Any], name: str, default: float, *, most: float) -> float:
    value = wish.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadFault(f"{name} must be a number from 0 to {most:g}")
    return float(value)


def _code(kind: FaultKind, wish: Mapping[str, Any]) -> Code | None:
    if "code" not in wish:
        if kind is FaultKind.ERROR:
            raise BadFault("code is needed: which error shall Graph report?")
        return _CODES.get(kind)
    code, subcode = wish["code"], wish.get("subcode")
    if not isinstance(code, int) or not isinstance(subcode, int | None):
        raise BadFault("code and subcode must be whole numbers")
    return Code(code, subcode)


def _match(value: object) -> Match:
    """Read what a fault applies to; values of the wrong sort would never match, so they are refused."""
    if not isinstance(value, dict):
        raise BadFault("match must be an object")
    flags = {"by_token", "permission_request"}
    for name, wanted in value.items():
        if name not in Match.__dataclass_fields__:
            raise BadFault(f"match: {name} is unknown; use {', '.join(Match.__dataclass_fields__)}")
        if not isinstance(wanted, bool if name in flags else str):
            raise BadFault(f"match: {name} must be {'true or false' if name in flags else 'text'}")
    return Match(**value)


def _matches(match: Match, target: Target) -> bool:
    pairs = (
        (match.page_id, target.page_id),
        (match.psid, target.psid),
        (match.by_token, target.by_token),
        (match.permission_request, target.permission_request),
        (match.field, target.field),
    )
    if any(wanted is not None and wanted != actual for wanted, actual in pairs):
        return False
    return match.text_contains is None or match.text_contains in target.text
