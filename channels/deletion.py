"""Meta's data-deletion callback, and the page on which a person sees what became of it.

Meta posts `signed_request` and wants `{"url", "confirmation_code"}` (platform notes, section 5); it shows the
address to the person. The address is `public-url` of credentials.yml (MESSENGER_PUBLIC_URL) with this route's
path. Without it, it is the host that Meta called, by https, since Meta calls nothing else; by http only on this
machine. A proxy that changes the host or adds a path needs the setting: forwarded headers can say anything.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime
from urllib.parse import parse_qs, urlencode

from sanic import response
from sanic.request import Request
from sanic.response import HTTPResponse

from channels import body
from channels.doors import Doors
from otn import privacy
from otn.errors import InvalidSignature, MalformedPayload, StoreUnavailable
from otn.events import LONGEST_ID, clean
from otn.settings import is_loopback
from otn.signed_request import verified
from otn.store import deletions

logger = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024  # bytes; Meta's own have a few hundred

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Deletion of your data</title>
</head>
<body>
<h1>Deletion of your data</h1>
<p>{found}</p>
<p>Facebook named you by a number that it uses for this app alone. It does not tell us which Messenger conversation
is yours, so nothing could be deleted by that number. We keep a coded form of it, which leads to nobody, and the
time of your request.</p>
<p>To be forgotten, write &ldquo;forget me&rdquo; to us in Messenger. You will be asked once whether you mean it; then
the conversation, your profile and all your sign-ups are deleted at once.</p>
</body>
</html>
"""


async def receive(doors: Doors, request: Request) -> HTTPResponse:
    """Somebody asked Meta to have their data deleted: record it, once a person."""
    content = await body.read(request, LARGEST_BODY)
    if content is None:
        return response.text(f"More than {LARGEST_BODY} bytes.", status=413)
    try:
        address = _address(doors, request)
        user_id = _user_id(content, [secret.reveal() for secret in doors.app.settings.app_secrets])
        code = await doors.write(
            lambda tx: privacy.record_deletion_request(tx, doors.vault, user_id, doors.now())
        )
    except InvalidSignature as exc:
        logger.warning("messenger: a deletion request was refused: %s", exc)
        return response.text("The signature is not ours.", status=403)
    except MalformedPayload as exc:
        logger.warning("messenger: a deletion request was refused: %s", exc)
        return response.text(str(exc), status=400)
    except StoreUnavailable as exc:
        logger.error("messenger: a deletion request has to come again: %s", exc)
        return response.text("Not recorded: send it again.", status=503)
    logger.info("messenger: deletion request %s is recorded", code)
    return response.json({"url": f"{address}?{urlencode({'code': code})}", "confirmation_code": code})


async def show(doors: Doors, request: Request) -> HTTPResponse:
    """What was recorded, and how to be forgotten."""
    code = clean(str(request.args.get("code") or ""))[:64]
    try:
        requested_at = await doors.read(lambda tx: deletions.requested_at(tx, code))
    except StoreUnavailable as exc:
        logger.error("messenger: a deletion request cannot be shown: %s", exc)
        return response.text("We cannot look it up right now: please try again later.", status=503)
    page = _PAGE.format(found=_found(code, requested_at))
    return response.html(page, status=200 if requested_at else 404, headers=_HEADERS)


def _found(code: str, requested_at: datetime | None) -> str:
    """The first sentence. A code that is not ours is not repeated: anybody could have written it."""
    if requested_at is None:
        return "We have no request with this confirmation code."
    return f"Your request {code} of {requested_at:%d %B %Y, %H:%M} UTC is recorded."


def _user_id(content: bytes, secrets: list[str]) -> str:
    try:
        form = parse_qs(content.decode("ascii"), max_num_fields=20)
    except ValueError as exc:
        raise MalformedPayload("The body is not a form.") from exc
    given = form.get("signed_request", [])
    if len(given) != 1:
        raise MalformedPayload("The form has no signed_request.")
    user_id = verified(given[0], secrets).get("user_id")
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        user_id = str(user_id)
    if not isinstance(user_id, str) or not user_id or len(user_id) > LONGEST_ID or clean(user_id) != user_id:
        raise MalformedPayload("The signed_request has no usable user_id.")
    return user_id


def _address(doors: Doors, request: Request) -> str:
    """Where this route is for people."""
    if (base := doors.app.settings.public_url) is not None:
        return f"{base}{request.path}"
    host = request.headers.get("host") or ""
    if not _HOST.fullmatch(host):
        raise MalformedPayload("The Host header is not a host.")
    return f"{'http' if is_loopback(f'http://{host}') else 'https'}://{host}{request.path}"
