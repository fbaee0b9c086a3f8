"""How Graph says no: a code, a subcode, a body, and the broken rule in words."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import NamedTuple


class Code(NamedTuple):
    """An error's code and subcode, written `10/2018278` or `613`."""

    code: int
    subcode: int | None = None

    @classmethod
    def parse(cls, text: str) -> Code:
        """Read `code` or `code/subcode`. Raises ValueError."""
        code, _, subcode = text.partition("/")
        return cls(int(code), int(subcode) if subcode else None)


# ERR. Subcodes that the page does not give are absent.
TEMPORARY = Code(2)
FALSE_ALARM = Code(1, 1357046)
BAD_PARAMETER = Code(100)
NO_SUCH_PERSON = Code(100, 2018001)
BAD_MEDIA = Code(100, 2018008)
NO_SUCH_OBJECT = Code(100, 33)
CANNOT_RECEIVE = Code(10, 2018108)
NOT_THREAD_OWNER = Code(10, 2018300)
NO_PERMISSION = Code(10)
BAD_ACCESS_TOKEN = Code(190)
POLICY_BLOCK = Code(368)
RATE_LIMIT = Code(613)

# ERR, RATE: codes that stop a whole Page; with another subcode they concern one person.
_THROTTLING = frozenset({4, 17, 32, 613, 80001, 80006})
_THROTTLING_SUBCODES = frozenset({None, 2534040, 1996})

_STATUS = {1: 500, 2: 500, 4: 403, 10: 403, 190: 401, 200: 403, 341: 403, 551: 403}
_TRANSIENT = frozenset({1, 2, 4, 17, 32, 341, 613, 80001, 80006})
_MESSAGES = {
    1: "An unknown error occurred",
    2: "Service temporarily unavailable",
    10: "(#10) This message is sent outside of allowed window, or the permission for it is missing.",
    100: "(#100) Invalid parameter",
    190: "Invalid OAuth access token.",
    200: "(#200) Permissions error",
    368: "The action attempted has been deemed abusive or is otherwise disallowed",
    551: "(#551) This person isn't available right now.",
    613: "(#613) Calls to this api have exceeded the rate limit.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A "no": what the caller is told (`code`, `message`, `status`) and which rule was broken (`rule`, for people)."""

    rule: str
    code: Code = BAD_PARAMETER
    message: str | None = None
    status: int | None = None

    @property
    def http_status(self) -> int:
        """The HTTP status that goes with the code; 400 where nothing else is known."""
        return self.status or _STATUS.get(self.code.code, 400)

    @property
    def throttles(self) -> bool:
        """Whether the Page has made too many calls, so that the headers must tell when it may go on (RATE)."""
        return self.code.code in _THROTTLING and self.code.subcode in _THROTTLING_SUBCODES

    def body(self) -> bytes:
        """The JSON that Graph answers with (ERR)."""
        number = self.code.code
        error: dict[str, object] = {
            "message": self.message or _MESSAGES.get(number, f"(#{number}) The call was refused"),
            "type": "GraphMethodException" if self.code == NO_SUCH_OBJECT else "OAuthException",
            "code": number,
            "is_transient": number in _TRANSIENT,
            "fbtrace_id": "A" + secrets.token_urlsafe(16),
        }
        if self.code.subcode is not None:
            error["error_subcode"] = self.code.subcode
        return json.dumps({"error": error}).encode()
