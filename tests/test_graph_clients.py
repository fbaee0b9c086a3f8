"""Both clients against a real server on loopback: one request each, whatever happens, and an honest outcome."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from otn.errors import OutcomeUnknown, Refused, SendError, Unreachable
from otn.graph.aio import AsyncGraph
from otn.graph.protocol import (
    GraphConfig,
    HttpRequest,
    Sent,
    build_me,
    build_messenger_profile,
    build_send,
    build_subscribe,
    build_subscribed_apps,
)
from otn.graph.sync import SyncGraph
from simulator.testing import APP_SECRET, PAGE_TOKEN, made_up_config, running

YES = json.dumps({"recipient_id": "7", "message_id": "m_1"}).encode()
Behaviour = Callable[[socket.socket, int], bool]


class Server:
    """A server that counts the requests it has read and then behaves as it is told."""

    def __init__(self, behave: Behaviour, context: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.over = threading.Event()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self.over.set()
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._sockets.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except OSError:
                return

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            while self.read(connection) and self.behave(connection, len(self.requests)):
                pass
            connection.close()
        except OSError:
            connection.close()

    def read(self, connection: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            if not part:
                return False
            head += part
        head, _, body = head.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            part = connection.recv(65536)
            if not part:
                return False
            body += part
        self.requests.append((first, headers, body))
        return True


def answer(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(data: bytes, keep_alive: bool = True) -> Behaviour:
    def behave(connection: socket.socket, _: int) -> bool:
        connection.sendall(data)
        return keep_alive

    return behave


def reset(connection: socket.socket, data: bytes = b"") -> bool:
    connection.sendall(data)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


class Client:
    """One of the two clients, called the same way."""

    def __init__(self, name: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop() if name == "aio" else None
        self._graph = AsyncGraph(**options) if name == "aio" else SyncGraph(**options)

    def send(self, request: HttpRequest) -> Sent:
        return self._run(self._graph.send(request))

    def get_json(self, request: HttpRequest) -> dict[str, Any]:
        return self._run(self._graph.get_json(request))

    def close(self) -> None:
        self._run(self._graph.close())
        if self._loop:
            self._loop.close()

    def _run(self, result: Any) -> Any:
        return self._loop.run_until_complete(result) if self._loop else result


@pytest.fixture(params=["aio", "sync"])
def open_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def open_client(**options: Any) -> Client:
        clients.append(Client(request.param, **options))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(behave: Behaviour, **options: Any) -> Server:
        servers.append(Server(behave, **options))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def config(address: str) -> GraphConfig:
    return GraphConfig(
        base_url=address, api_version="v26.0", access_token="the-access-token", app_secret="the-app-secret"
    )


def message(address: str, text: str = "hi") -> HttpRequest:
    return build_send(config(address), recipient={"id": "7"}, message={"text": text}, messaging_type="UPDATE")


def failure(client: Client, request: HttpRequest) -> SendError:
    with pytest.raises(SendError) as caught:
        client.send(request)
    shown = str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)
    assert not [secret for secret in request.secrets if secret in shown]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


# --- what is said ---


def test_a_message_arrives_as_it_was_built(open_client: Any, serve: Any) -> None:
    server = serve(answers(answer(YES)))
    request = message(server.address)
    assert open_client().send(request) == Sent(message_id="m_1", recipient_id="7")
    ((first, headers, body),) = server.requests
    proof = request.params["appsecret_proof"]
    assert first == f"POST /v26.0/me/messages?appsecret_proof={proof} HTTP/1.1"
    assert headers["authorization"] == "Bearer the-access-token"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "rasa-messenger-otn"
    assert "cookie" not in headers
    assert json.loads(body) == request.json


def test_a_question_is_answered_with_json(open_client: Any, serve: Any) -> None:
    server = serve(answers(answer(b'{"id": "1001", "name": "Shop"}')))
    assert open_client().get_json(build_me(config(server.address))) == {"id": "1001", "name": "Shop"}
    ((first, _, body),) = server.requests
    assert first.startswith("GET /v26.0/me?fields=id")
    assert "appsecret_proof=" in first
    assert body == b""


def test_a_refusal_is_told_as_graph_told_it(open_client: Any, serve: Any) -> None:
    body = b'{"error": {"code": 10, "error_subcode": 2018278, "message": "the-access-token is late"}}'
    server = serve(answers(answer(body, "400 Bad Request")))
    error = failure(open_client(), message(server.address))
    assert isinstance(error, Refused)
    assert error.detail == "*** is late"


def test_connections_are_used_again(open_client: Any, serve: Any) -> None:
    server = serve(answers(answer(YES, "200 OK", "Set-Cookie: a=b")))
    client = open_client()
    for _ in range(3):
        client.send(message(server.address))
    assert (server.connections, len(server.requests)) == (1, 3)
    assert not [headers for _, headers, _ in server.requests if "cookie" in headers]


def test_a_closed_client_can_be_used_again(open_client: Any, serve: Any) -> None:
    server = serve(answers(answer(YES)))
    client = open_client()
    client.send(message(server.address))
    client._run(client._graph.close())
    client.send(message(server.address))
    assert server.connections == 2


# --- one request each, and nothing claimed that is not known ---

BROKEN_ANSWERS = {
    "closes after reading": lambda connection, _: False,
    "resets after reading": lambda connection, _: reset(connection),
    "resets within the answer": lambda connection, _: reset(connection, answer(YES)[:-5]),
    "truncates the answer": answers(answer(YES[:-5], length=len(YES)), keep_alive=False),
    "truncates the head": answers(b"HTTP/1.1 200 OK\r\nContent-Le", keep_alive=False),
    "answers HTML": answers(answer(b"<html>oops</html>", "502 Bad Gateway", "Content-Type: text/html")),
    "answers HTML as a success": answers(answer(b"<html>Sign in</html>")),
    "answers nothing": answers(answer(b"")),
    "answers rubbish": answers(b"\x00\x01\x02 rubbish\r\n\r\n", keep_alive=False),
    "answers a server error": answers(answer(b'{"error": {"code": 2}}', "500 Internal Server Error")),
    "sends elsewhere": answers(answer(b"", "307 Temporary Redirect", "Location: /v26.0/me/messages")),
    "sends elsewhere to ask": answers(answer(b"", "302 Found", "Location: /v26.0/me/messages")),
    "asks to come again": answers(answer(b"", "503 Service Unavailable", "Retry-After: 0")),
    "times out in words": answers(answer(b"", "408 Request Timeout"), keep_alive=False),
    "answers without end": lambda connection, _: bool(
        connection.sendall(answer(b"x" * 1_100_000, length=10**9)) or True
    ),
}


@pytest.mark.parametrize("behaviour", BROKEN_ANSWERS)
def test_without_a_clear_answer_the_outcome_is_unknown(open_client: Any, serve: Any, behaviour: str) -> None:
    server = serve(BROKEN_ANSWERS[behaviour])
    assert isinstance(failure(open_client(), message(server.address)), OutcomeUnknown)
    assert len(server.requests) == 1


def test_a_server_that_hangs_costs_no_more_than_the_time_out(open_client: Any, serve: Any) -> None:
    def hang(_: socket.socket, __: int) -> bool:
        return not server.over.wait()

    server = serve(hang)
    began = time.monotonic()
    assert isinstance(failure(open_client(total_timeout=0.3), message(server.address)), OutcomeUnknown)
    assert time.monotonic() - began < 3
    assert len(server.requests) == 1


def test_a_server_that_drips_costs_no_more_than_the_time_out(open_client: Any, serve: Any) -> None:
    def drip(connection: socket.socket, _: int) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not server.over.wait(0.05):
            connection.sendall(b".")
        return False

    server = serve(drip)
    began = time.monotonic()
    assert isinstance(failure(open_client(total_timeout=0.4), message(server.address)), OutcomeUnknown)
    assert time.monotonic() - began < 3
    assert len(server.requests) == 1


def test_a_keep_alive_that_closes_at_the_next_request_is_not_asked_twice(
    open_client: Any, serve: Any
) -> None:
    def once(connection: socket.socket, count: int) -> bool:
        if count == 1:
            connection.sendall(answer(YES))
        return count == 1

    server = serve(once)
    client = open_client()
    client.send(message(server.address))
    assert isinstance(failure(client, message(server.address, "again")), OutcomeUnknown)
    assert [json.loads(body)["message"]["text"] for _, _, body in server.requests] == ["hi", "again"]


def test_an_idle_keep_alive_that_was_closed_is_not_used(open_client: Any, serve: Any) -> None:
    def close_idle(connection: socket.socket, _: int) -> bool:
        connection.sendall(answer(YES))
        return False

    server = serve(close_idle)
    client = open_client()
    for count in range(1, 4):
        # If the close was still under way when the connection was used, "unknown" is the honest answer.
        with suppress(OutcomeUnknown):
            assert client.send(message(server.address)).message_id == "m_1"
        assert len(server.requests) <= count


def test_a_large_message_to_a_server_that_closes_early_is_not_repeated(open_client: Any, serve: Any) -> None:
    server = serve(answers(answer(YES)))

    def hang_up(connection: socket.socket) -> bool:
        connection.recv(1024)
        reset(connection)
        return False

    server.read = hang_up
    assert isinstance(failure(open_client(), message(server.address, "x" * 1_000_000)), OutcomeUnknown)
    assert server.connections == 1


# --- what never left us ---


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_refused_connection_is_unreachable(open_client: Any) -> None:
    error = failure(open_client(), message(f"http://127.0.0.1:{unused_port()}"))
    assert isinstance(error, Unreachable)
    assert "refused" in str(error).lower() or "Connect call failed" in str(error)


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", "x" * 64])
def test_a_name_that_nobody_knows_is_unreachable(open_client: Any, host: str) -> None:
    assert isinstance(failure(open_client(total_timeout=2.0), message(f"http://{host}")), Unreachable)


def test_a_server_that_speaks_no_tls_is_unreachable(open_client: Any, serve: Any) -> None:
    server = serve(answers(answer(YES)))
    server.read = lambda connection: bool(connection.recv(1024))
    address = server.address.replace("http:", "https:")
    error = failure(open_client(), message(address))
    assert isinstance(error, Unreachable)
    assert "SSL" in str(error)


def test_a_tls_handshake_that_hangs_is_unreachable(open_client: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        assert isinstance(failure(open_client(total_timeout=0.3), message(address)), Unreachable)


def test_a_certificate_that_nobody_vouches_for_is_unreachable(
    open_client: Any, serve: Any, tmp_path: Path
) -> None:
    server = serve(answers(answer(YES)), context=self_signed(tmp_path))
    assert isinstance(failure(open_client(), message(server.address)), Unreachable)
    assert server.requests == []


def test_an_answer_lost_to_a_question_delivered_nothing(open_client: Any, serve: Any) -> None:
    server = serve(lambda connection, _: False)
    with pytest.raises(Unreachable):
        open_client().get_json(build_me(config(server.address)))


def test_a_call_that_never_got_a_connection_never_left_us(serve: Any) -> None:
    server = serve(lambda _, __: not server.over.wait())

    async def both() -> list[BaseException]:
        async with AsyncGraph(total_timeout=1.0, connections=1) as graph:
            calls = (graph.send(message(server.address)) for _ in range(2))
            return await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[return-value]

    assert sorted(type(error).__name__ for error in asyncio.run(both())) == ["OutcomeUnknown", "Unreachable"]
    assert len(server.requests) == 1


def test_nothing_is_taken_from_the_environment(
    open_client: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    server = serve(answers(answer(YES)))
    open_client().send(message(server.address))
    assert server.requests[0][1]["authorization"] == "Bearer the-access-token"


def test_an_async_client_can_be_made_before_there_is_a_loop(serve: Any) -> None:
    graph = AsyncGraph()
    server = serve(answers(answer(YES)))

    async def send() -> Sent:
        async with graph:
            return await graph.send(message(server.address))

    assert asyncio.run(send()) == asyncio.run(send())


async def test_the_simulator_understands_what_we_build() -> None:
    async with running(made_up_config()) as simulator, AsyncGraph() as graph:
        config = GraphConfig(
            base_url=simulator.url, api_version="v26.0", access_token=PAGE_TOKEN, app_secret=APP_SECRET
        )
        me = await graph.get_json(build_me(config))
        assert (await graph.get_json(build_subscribe(config)))["success"] is True
        assert (await graph.get_json(build_subscribed_apps(config)))["data"]
        profile = build_messenger_profile(config, {"get_started": {"payload": "START"}})
        assert await graph.get_json(profile) == {"result": "success"}
        with pytest.raises(Refused, match="no_such_person"):
            await graph.send(
                build_send(replace(config, page_id=me["id"]), recipient={"id": "7"}, message={"text": "x"})
            )
        with pytest.raises(Refused, match="bad_access_token"):
            await graph.get_json(build_me(replace(config, access_token="another")))


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "both.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
