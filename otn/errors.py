"""Everything that can go wrong, each telling the reader what to do next.

A "no" of the rules is a value (`otn.policy.Deny`), never an exception: in a broadcast it is data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class OtnError(Exception):
    """Any error of this project that a caller may want to show to a person."""


class ConfigError(OtnError):
    """The configuration is missing something or contradicts itself; lists every problem at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class InvalidSignature(OtnError):
    """A webhook was not signed with one of our app secrets (answered 403)."""


class MalformedPayload(OtnError):
    """A webhook's body is not the JSON envelope that it claims to be (answered 400)."""


class NotFound(OtnError):
    """Something was named that does not exist."""


class InvalidMove(OtnError):
    """A state does not allow what was asked for."""


class InvalidInput(OtnError):
    """What was asked for cannot be, whatever the state: too long, misspelt, contradictory; lists every problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class AlreadyTaken(InvalidInput):
    """An id was given that stands for something else already."""


class StoreUnavailable(OtnError):
    """The database cannot be reached or is locked; nothing was recorded, try again."""


class MayBeSent(StoreUnavailable):
    """The database went away while a message was on its way: it may be out, and is not to be sent again by hand."""

    def __init__(self, what: str, psid: str) -> None:
        self.psid = psid
        super().__init__(what)


class Refusal(str, Enum):
    """What Meta's "no" means, decided on code and subcode (platform page ERR)."""

    OUTSIDE_WINDOW = "outside_window"
    NO_SUCH_PERSON = "no_such_person"
    PERSON_UNAVAILABLE = "person_unavailable"
    CANNOT_RECEIVE_NOW = "cannot_receive_now"
    THREAD_CONTROL = "thread_control"
    TOO_MANY_REQUESTS = "too_many_requests"
    PAGE_RESTRICTED = "page_restricted"
    PERMISSION_MISSING = "permission_missing"
    BAD_ACCESS_TOKEN = "bad_access_token"  # noqa: S105 - a word, not a password
    BAD_MEDIA = "bad_media"
    BAD_REQUEST = "bad_request"


class SendError(OtnError):
    """A send did not end with Meta's "yes". Four kinds, because there are four reactions."""


@dataclass(eq=False)
class Refused(SendError):
    """Meta answered "no": this attempt delivered nothing."""

    refusal: Refusal
    code: int
    subcode: int | None
    detail: str

    def __str__(self) -> str:
        number = f"{self.code}/{self.subcode}" if self.subcode else str(self.code)
        return f"Meta refused ({self.refusal.value}, error {number}): {self.detail}"


@dataclass(eq=False)
class Throttled(SendError):
    """Meta limits us: nothing was delivered, send nothing for `retry_after` seconds."""

    retry_after: float
    code: int
    subcode: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        return f"Meta limits our calls (error {self.code}); go on in {self.retry_after:.0f} s"


@dataclass(eq=False)
class Unreachable(SendError):
    """The request never left us (refused connection, DNS, TLS): nothing was delivered."""

    detail: str

    def __str__(self) -> str:
        return f"Graph cannot be reached: {self.detail}"


@dataclass(eq=False)
class Kept(Unreachable):
    """We did not even try to send it, for a reason of our own: it is due as it was before."""

    def __str__(self) -> str:
        return f"Not sent: {self.detail}"


@dataclass(eq=False)
class OutcomeUnknown(SendError):
    """The request may have been carried out; only an echo or the same token again can tell."""

    detail: str
    code: int | None = None
    subcode: int | None = None

    def __str__(self) -> str:
        return f"No clear answer from Graph: {self.detail}"
