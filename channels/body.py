"""The body of a request, read no further than it may go."""

from __future__ import annotations

from sanic.request import Request


async def read(request: Request, most: int) -> bytes | None:
    """The body, or None as soon as it has more bytes than that. For routes that are streamed."""
    declared = request.headers.get("content-length") or "0"
    if not declared.isdecimal() or int(declared) > most:
        return None
    body = bytearray()
    while (part := await request.stream.read()) is not None:
        body += part
        if len(body) > most:
            return None
    return bytes(body)
