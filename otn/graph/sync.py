"""The Graph API for code without an event loop (requests): the command line."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from datetime import datetime
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any

import requests
import urllib3

from otn.errors import OutcomeUnknown
from otn.graph import protocol
from otn.graph.protocol import HttpRequest, Sent

_Answer = tuple[int, dict[str, str], bytes]


class SyncGraph:
    """Calls Graph once per request, never twice; use one from one thread at a time and `close` it.

    Time-outs are in seconds: to connect, of silence, and in total. Redirects are not followed. Nothing is taken
    from the environment, as in `AsyncGraph`: a .netrc would replace the access token.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = protocol.CONNECT_TIMEOUT,
        read_timeout: float = protocol.TOTAL_TIMEOUT,
        total_timeout: float = protocol.TOTAL_TIMEOUT,
    ) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        self._total_timeout = total_timeout
        self._session: requests.Session | None = None

    def send(self, request: HttpRequest) -> Sent:
        """Send one message and return Meta's "yes"; raises a SendError for anything else."""
        return protocol.classify(*self._answer(request), secrets=request.secrets)

    def get_json(self, request: HttpRequest) -> dict[str, Any]:
        """Call Graph and return the JSON object of its answer; raises a SendError."""
        return protocol.classify_json(*self._answer(request), secrets=request.secrets)

    def get_dated_json(self, request: HttpRequest) -> tuple[dict[str, Any], datetime | None]:
        """Call Graph as `get_json` does; with the answer comes the time that Graph's clock showed."""
        status, headers, body = self._answer(request)
        found = protocol.classify_json(status, headers, body, secrets=request.secrets)
        return found, protocol.date_of(headers)

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def __enter__(self) -> SyncGraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, request: HttpRequest) -> _Answer:
        # requests has no total deadline, only one for silence: a thread may be left behind, a call may not hang.
        body = _Body(request.body or b"")
        call = _Call(lambda: self._call(request, body))
        if not call.ends_within(self._total_timeout):
            written = body.withhold()
            self._session = None
            raise protocol.lost(request, written=written, reason="no answer in time")
        try:
            return call.result()
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as exc:
            # `from None`: their text holds the address with the `appsecret_proof`, and they hold the headers.
            raise protocol.lost(request, written=body.withhold(), reason=protocol.reason(exc)) from None

    def _call(self, request: HttpRequest, body: _Body) -> _Answer:
        with self._open_session().request(
            request.method,
            request.url,
            params=request.params,
            headers=request.headers,
            data=body if request.json is not None else None,
            timeout=self._timeouts,
            allow_redirects=False,
            stream=True,
        ) as response:
            return response.status_code, dict(response.headers), _read(response)

    def _open_session(self) -> requests.Session:
        if self._session is None:
            # The adapters' default is `Retry(0, read=False)`: urllib3 sends nothing a second time.
            self._session = requests.Session()
            self._session.trust_env = False
            self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return self._session


class _Body(io.BytesIO):
    """A request's body that knows whether it was taken, and can be withheld as long as it was not.

    The headers alone are no message: Graph can act only on a body that it has.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._lock = threading.Lock()
        self._taken = False
        self._withheld = False

    def read(self, size: int | None = -1, /) -> bytes:
        with self._lock:
            if self._withheld:
                raise OSError("withheld: its time is over")
            self._taken = True
            return super().read(size)

    def withhold(self) -> bool:
        """Let nobody take it from now on; return whether somebody did before."""
        with self._lock:
            self._withheld = True
            return self._taken


class _Call:
    """A function at work in a thread that nobody has to wait for."""

    def __init__(self, function: Callable[[], _Answer]) -> None:
        self._function = function
        self._answer: _Answer | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="graph call")
        self._thread.start()

    def ends_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> _Answer:
        if self._error is not None:
            raise self._error
        assert self._answer is not None  # noqa: S101 - a thread that ended left one of the two
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._function()
        except BaseException as exc:  # noqa: BLE001 - raised again by `result`, in the caller's thread
            self._error = exc


def _read(response: requests.Response) -> bytes:
    body = bytearray()
    for part in response.iter_content(65536):
        body += part
        if len(body) > protocol.LONGEST_ANSWER:
            raise OutcomeUnknown(f"HTTP {response.status_code} with an endless answer")
    return bytes(body)
