"""A shop's system says that something happened, and everybody who agreed to hear about it is told once.

    curl -H "Authorization: Bearer $OTN_NOTIFY_KEY" http://127.0.0.1:5005/webhooks/messenger/notify \\
         -d '{"topic": "restock-canvas-backpack", "event_id": "delivery-2041", "text": "It is back!"}'

The body is JSON: `topic`, `event_id` (the caller's name for what happened), `text` or `response` (a name of
domain.yml), and `notification_type` if it is not to be Meta's default. Answered 202 with the broadcast and its
state once it is durable; the same event again gets the same broadcast. 400 and 409 list every problem.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sanic import response
from sanic.request import Request
from sanic.response import HTTPResponse

from channels import body
from channels.doors import Doors
from otn import messages, responses
from otn.errors import AlreadyTaken, ConfigError, InvalidInput, StoreUnavailable
from otn.events import clean
from otn.models import Broadcast
from otn.notify import notify
from otn.settings import Secret

logger = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024  # bytes
WHO = "notify"  # in the audit log

_REQUIRED = ("topic", "event_id")
_KEYS = (*_REQUIRED, "text", "response", "notification_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What the caller wants; exactly one of `text` and `response` is set."""

    topic: str
    event_id: str
    text: str | None = field(default=None, repr=False)
    response: str | None = None
    notification_type: str | None = None


async def receive(doors: Doors, request: Request) -> HTTPResponse:
    """Take a wish down, if whoever has it knows the key."""
    key = doors.app.settings.notify_key
    if not key:
        return response.text("There is no notify endpoint here: OTN_NOTIFY_KEY is not set.", status=404)
    if not _knows(request, key):
        logger.warning("messenger: a notify request with another key was refused")
        return response.text(
            "Authorization: Bearer … is not OTN_NOTIFY_KEY.",
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
        )
    content = await body.read(request, LARGEST_BODY)
    if content is None:
        return response.text(f"More than {LARGEST_BODY} bytes.", status=413)
    try:
        made = await _carry_out(doors, _read(content))
    except AlreadyTaken as exc:
        return _problems(exc, 409)
    except InvalidInput as exc:
        return _problems(exc, 400)
    except ConfigError as exc:
        logger.error("messenger: a notify request was not taken: %s", exc)
        return _problems(exc, 500)
    except StoreUnavailable as exc:
        logger.error("messenger: a notify request has to come again: %s", exc)
        return response.text("Not recorded: send it again.", status=503)
    logger.info("messenger: notify: broadcast %s for %s is %s", made.id, made.topic, made.state.value)
    return response.json({"broadcast": made.id, "state": made.state.value}, status=202)


def _knows(request: Request, key: Secret) -> bool:
    scheme, _, claimed = (request.headers.get("authorization") or "").partition(" ")
    same = hmac.compare_digest(claimed.strip().encode("utf-8", "replace"), key.reveal().encode())
    return same and scheme.lower() == "bearer"


async def _carry_out(doors: Doors, wish: _Wish) -> Broadcast:
    message = messages.text(wish.text) if wish.text is not None else await _rendered(doors, wish.response)
    return await doors.write(
        lambda tx: notify(
            tx,
            topic=wish.topic,
            event_id=wish.event_id,
            message=message,
            response=wish.response,
            notification_type=wish.notification_type,
            who=WHO,
            now=doors.now(),
        )
    )


async def _rendered(doors: Doors, name: str | None) -> dict[str, Any]:
    # In a thread: the domain is read from its files.
    rendered = await asyncio.to_thread(responses.render, doors.app.settings.root, str(name))
    return rendered.message


def _read(content: bytes) -> _Wish:
    """The wish in a body. Raises InvalidInput with every problem."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(["The body is not a JSON object."])
    if problems := _shape_problems(found):
        raise InvalidInput(problems)
    return _Wish(**found)


def _shape_problems(found: Mapping[str, Any]) -> list[str]:
    unknown = sorted(found.keys() - set(_KEYS))
    problems = [f"Unknown: {', '.join(map(clean, unknown))}. Known: {', '.join(_KEYS)}."] if unknown else []
    problems += [f"{name} is missing." for name in _REQUIRED if found.get(name) is None]
    if (found.get("text") is None) == (found.get("response") is None):
        problems.append("Give either text or response.")
    for name in _KEYS:
        value = found.get(name)
        if value is not None and (not isinstance(value, str) or not value or clean(value) != value):
            problems.append(f"{name} is not a text, or holds NUL or half a character.")
    return problems


def _problems(exc: InvalidInput | ConfigError, status: int) -> HTTPResponse:
    return response.json({"problems": list(exc.problems)}, status=status)
