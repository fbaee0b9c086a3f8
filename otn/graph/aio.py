"""The Graph API for code that runs in an event loop (aiohttp)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace, TracebackType
from typing import Any

import aiohttp

from otn.errors import OutcomeUnknown
from otn.graph import protocol
from otn.graph.protocol import HttpRequest, Sent


class AsyncGraph:
    """Calls Graph once per request, never twice; use one in one event loop and `close` it there.

    Time-outs are in seconds; `connections` is how many calls may be under way at once, the rest waits its turn.
    aiohttp 3.9 resends nothing by itself (3.10 learned it, for idempotent methods only). Redirects are not
    followed, and neither proxies nor passwords are taken from the environment.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = protocol.CONNECT_TIMEOUT,
        total_timeout: float = protocol.TOTAL_TIMEOUT,
        connections: int = 100,
    ) -> None:
        # Half of the total at most to wait for a free connection: a message that begins too late to be answered
        # in time would have an unknown outcome, one that never began has a certain one.
        self._timeout = aiohttp.ClientTimeout(
            total=total_timeout, connect=total_timeout / 2, sock_connect=connect_timeout
        )
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: HttpRequest) -> Sent:
        """Send one message and return Meta's "yes"; raises a SendError for anything else.

        If it is cancelled, the outcome is as unknown as that of a time-out.
        """
        return protocol.classify(*await self._answer(request), secrets=request.secrets)

    async def get_json(self, request: HttpRequest) -> dict[str, Any]:
        """Call Graph and return the JSON object of its answer; raises a SendError."""
        return protocol.classify_json(*await self._answer(request), secrets=request.secrets)

    async def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> AsyncGraph:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _answer(self, request: HttpRequest) -> tuple[int, dict[str, str], bytes]:
        body = request.body
        written: list[bool] = []
        try:
            async with self._open_session().request(
                request.method,
                request.url,
                params=request.params,
                headers=request.headers,
                data=body,
                allow_redirects=False,
                trace_request_ctx=written,
            ) as response:
                return response.status, dict(response.headers), await _read(response)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, UnicodeError) as exc:
            # `from None`: aiohttp's errors carry the request's headers, and so the access token.
            raise protocol.lost(request, written=bool(written), reason=protocol.reason(exc)) from None

    def _open_session(self) -> aiohttp.ClientSession:
        # Lazily: Rasa builds its channels before it forks and before there is a loop.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[_noting_what_is_written()],
                trust_env=False,
            )
        return self._session


def _noting_what_is_written() -> aiohttp.TraceConfig:
    """Mark a request just before its first byte is written: until then nothing can have been delivered."""

    async def mark(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.append(True)

    trace = aiohttp.TraceConfig()
    # aiohttp 3.9's annotation of this one signal is wrong.
    trace.on_request_headers_sent.append(mark)  # type: ignore[arg-type]
    return trace


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > protocol.LONGEST_ANSWER:
            raise OutcomeUnknown(f"HTTP {response.status} with an endless answer")
    return bytes(body)
