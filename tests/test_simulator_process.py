"""`python -m simulator` as a program, and the client that Rasa's own facebook channel uses against it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from fbmessenger import MessengerClient
from fbmessenger.attachments import Image
from fbmessenger.elements import Text
from fbmessenger.quick_replies import QuickReplies, QuickReply

from simulator.config import ConfigProblems, from_environment, from_mapping

ROOT = Path(__file__).parent.parent
SECRETS = {
    "MESSENGER_APP_SECRET": "the-app-secret",
    "MESSENGER_VERIFY_TOKEN": "the-verify-token",
    "MESSENGER_PAGE_ACCESS_TOKEN": "the-page-token",
}
NAMES = (*SECRETS, "SIMULATOR_PORT", "SIMULATOR_PAGES", "SIMULATOR_WEBHOOK_URL", "OTN_CLOCK_FILE")


def start(folder: Path, **more: str) -> subprocess.Popen[str]:
    """Start it in an empty folder with nothing but `more` in its environment."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment.update({"PYTHONPATH": str(ROOT), "SIMULATOR_PORT": "0", **more})
    return subprocess.Popen(
        [sys.executable, "-m", "simulator"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def address(process: subprocess.Popen[str]) -> str:
    """Where it listens, from its first line."""
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"answers at (http://127\.0\.0\.1:\d+) ", line)
    assert found, line
    return found[1]


def stop(process: subprocess.Popen[str], signum: int = signal.SIGTERM) -> str:
    """Stop it; what it said at last."""
    process.send_signal(signum)
    return process.communicate(timeout=10)[1]


class Listener(BaseHTTPRequestHandler):
    """A bot that says 200 to everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bot = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=bot.serve_forever, daemon=True).start()
    folder = tmp_path_factory.mktemp("simulator")
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    process = start(folder, SIMULATOR_WEBHOOK_URL=f"http://127.0.0.1:{bot.server_port}/")
    yield address(process)
    stop(process)
    bot.shutdown()
    bot.server_close()


@pytest.fixture
def client(simulator: str) -> MessengerClient:
    made = MessengerClient("the-page-token", app_secret="the-app-secret")
    made.graph_url = f"{simulator}/v{made.api_version}"
    return made


@pytest.fixture
def psid(simulator: str) -> str:
    made = requests.post(
        f"{simulator}/simulator/people", json={"first_name": "Ann", "locale": "en_GB"}, timeout=5
    )
    person = str(made.json()["psid"])
    requests.post(f"{simulator}/simulator/people/{person}/message", json={"text": "hi"}, timeout=5)
    return person


def template(kind: str, **payload: object) -> dict[str, object]:
    return {"attachment": {"type": "template", "payload": {"template_type": kind, **payload}}}


def test_fbmessenger_reads_a_profile(client: MessengerClient, psid: str) -> None:
    assert client.get_user_data(psid) == {"first_name": "Ann", "locale": "en_GB", "id": psid}


def test_fbmessenger_sends_everything_rasa_sends(client: MessengerClient, psid: str) -> None:
    replies = QuickReplies([QuickReply(title="Yes", payload="yes")])
    buttons = [{"type": "postback", "title": "Yes", "payload": "yes"}]
    element = {"title": "A shoe", "subtitle": "Red", "buttons": buttons}
    for payload in (
        Text("hello").to_dict(),
        Text("hello?", quick_replies=replies).to_dict(),
        Image(url="https://a.example/a.png", is_reusable=True).to_dict(),
        # The client's own templates do not work on Python 3.10; Rasa builds these by hand.
        template("button", text="Really?", buttons=buttons),
        template("generic", elements=[element]),
    ):
        answer = client.send(payload, psid)
        assert answer.keys() == {"recipient_id", "message_id"}, answer
    assert client.send_action("typing_on", psid) == {"recipient_id": psid}


def test_fbmessenger_sees_graphs_errors(client: MessengerClient, psid: str) -> None:
    assert client.send({"text": "x" * 2000}, psid)["error"]["code"] == 100
    assert client.send({"text": "x"}, "4711")["error"]["error_subcode"] == 2018001
    stranger = MessengerClient("another-token")
    stranger.graph_url = client.graph_url
    assert stranger.send({"text": "x"}, psid)["error"]["code"] == 190


def test_fbmessenger_sets_up_the_page(client: MessengerClient) -> None:
    assert client.subscribe_app_to_page() == {"success": True}
    assert client.set_messenger_profile({"get_started": {"payload": "start"}}) == {"result": "success"}
    assert client.delete_get_started() == {"result": "success"}
    assert client.delete_persistent_menu() == {"result": "success"}
    assert client.update_whitelisted_domains("https://a.example") == {"result": "success"}
    assert client.remove_whitelisted_domains() == {"result": "success"}
    uploaded = client.upload_attachment(Image(url="https://a.example/a.png"))
    assert uploaded.keys() == {"attachment_id"}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_at_once_and_in_silence_even_while_readers_wait(tmp_path: Path, signum: int) -> None:
    process = start(tmp_path, **SECRETS)
    url = address(process)
    reader = threading.Thread(
        target=requests.get, args=(f"{url}/simulator/journal?wait=30&after=99",), kwargs={"timeout": 60}
    )
    reader.start()
    requests.get(f"{url}/simulator/health", timeout=5)

    said = stop(process, signum)
    reader.join()

    assert process.returncode == 0
    assert "Traceback" not in said
    assert said.endswith("the simulator has stopped\n")


def test_it_lists_everything_that_is_missing_and_exits_with_2(tmp_path: Path) -> None:
    process = start(tmp_path, SIMULATOR_PORT="many", SIMULATOR_WEBHOOK_URL="nowhere", SIMULATOR_PAGES="[]")

    said = process.communicate(timeout=10)[1]

    assert process.returncode == 2
    for name in NAMES[:-1]:
        assert name in said


def test_a_port_at_which_no_browser_opens_a_page_is_refused(tmp_path: Path) -> None:
    said = start(tmp_path, **SECRETS, SIMULATOR_PORT="5060").communicate(timeout=10)[1]

    assert "no browser opens a page at port 5060" in said
    assert "MESSENGER_GRAPH_URL" in said


@pytest.mark.parametrize(
    ("named", "port"),
    [
        ({}, 5080),
        ({"MESSENGER_GRAPH_URL": "http://127.0.0.1:6123"}, 6123),
        ({"MESSENGER_GRAPH_URL": "http://localhost:6123/"}, 6123),
        ({"MESSENGER_GRAPH_URL": "http://localhost:6123", "SIMULATOR_PORT": "7000"}, 7000),
        ({"MESSENGER_GRAPH_URL": "https://graph.facebook.com:443"}, 5080),
        ({"MESSENGER_GRAPH_URL": "http://127.0.0.1:many"}, 5080),
    ],
)
def test_it_listens_where_the_bot_looks_for_it(named: dict[str, str], port: int) -> None:
    assert from_mapping({**SECRETS, **named}).port == port


def test_a_port_that_only_the_bot_names_is_refused_where_no_browser_opens_a_page() -> None:
    with pytest.raises(ConfigProblems, match="no browser opens a page at port 5060"):
        from_mapping({**SECRETS, "MESSENGER_GRAPH_URL": "http://127.0.0.1:5060"})


def test_a_taken_port_is_said_in_words(tmp_path: Path, simulator: str) -> None:
    process = start(tmp_path, **SECRETS, SIMULATOR_PORT=simulator.rpartition(":")[2])

    said = process.communicate(timeout=10)[1]

    assert (process.returncode, "Traceback" in said) == (1, False)
    assert "cannot listen on port" in said


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MESSENGER_VERIFY_TOKEN", "from the environment")
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))

    config = from_environment(tmp_path)

    assert (config.verify_token, config.app_secret) == ("from the environment", "the-app-secret")
    assert "the-app-secret" not in repr(config)
    assert "the-page-token" not in repr(config)


def test_more_pages_come_from_json_and_need_tokens_of_their_own() -> None:
    pages = '{"2": {"token": "second", "name": "Second"}}'
    config = from_mapping({**SECRETS, "SIMULATOR_PAGES": pages})
    assert {page.id: page.name for page in config.pages} == {"2": "Second", "100000000000001": "Demo Shop"}

    with pytest.raises(ConfigProblems, match="same access token"):
        from_mapping({**SECRETS, "SIMULATOR_PAGES": pages.replace("second", "the-page-token")})
