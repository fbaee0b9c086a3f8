"""What the chat page is served: its files under a strict policy, and the journal as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from simulator.chat import FOLDER
from simulator.testing import PATIENCE_SECONDS, Stage, on_stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with on_stage() as stage:
        yield stage


class Reader:
    """Reads events: (name, id, data)."""

    def __init__(self, content: Any) -> None:
        self._content = content

    async def next(self) -> tuple[str, str, Any]:
        """The next event; signs of life are passed over."""
        fields: dict[str, str] = {}
        while True:
            raw = await asyncio.wait_for(self._content.readline(), PATIENCE_SECONDS)
            assert raw, "the stream has ended"
            line = raw.decode().rstrip("\n")
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif "data" in fields:
                return fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"])

    async def entries(self, count: int) -> list[tuple[str, Any]]:
        """So many entries, with their ids."""
        return [(id_, data) for _, id_, data in [await self.next() for _ in range(count)]]


@asynccontextmanager
async def reading(stage: Stage, query: str = "", last_id: str | None = None) -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last_id} if last_id is not None else {}
    async with stage.session.get(f"{stage.url}/simulator/stream{query}", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        yield Reader(answer.content)


async def test_it_begins_with_the_pages_the_bot_and_the_time(stage: Stage) -> None:
    async with reading(stage) as reader:
        name, _, hello = await reader.next()

    assert name == "hello"
    assert hello["pages"] == [{"page_id": "100000000000001", "name": "Demo Shop", "subscribed": True}]
    assert stage.bot.url == f"http://{hello['bot']}"
    assert (hello["now"], hello["offset"]) == (stage.wall(), 0)
    assert (hello["resumed"], hello["clock_is_shared"]) == (False, False)


async def test_it_tells_the_past_and_then_what_comes(stage: Stage) -> None:
    psid = await stage.friend()
    past = stage.world.journal.last
    async with reading(stage) as reader:
        await reader.next()
        told = await reader.entries(past)
        await stage.do(psid, "message", text="more")
        news = (await reader.entries(1))[0][1]

    assert [data["seq"] for _, data in told] == list(range(1, past + 1))
    assert (news["did"], news["message"]) == ("message", {"text": "more"})


async def test_a_reader_goes_on_where_it_was(stage: Stage) -> None:
    psid = await stage.friend()
    async with reading(stage) as reader:
        await reader.next()
        first = (await reader.entries(1))[0][0]
    await stage.do(psid, "message", text="meanwhile")

    async with reading(stage, last_id=first) as reader:
        hello = (await reader.next())[2]
        found = await reader.entries(stage.world.journal.last - 1)

    assert hello["resumed"] is True
    assert [data["seq"] for _, data in found] == list(range(2, stage.world.journal.last + 1))


@pytest.mark.parametrize("last_id", ["", "another-1", "1", "-", "x-y", "x-99999999999"])
async def test_an_id_of_another_run_means_a_new_beginning(stage: Stage, last_id: str) -> None:
    await stage.friend()
    async with reading(stage, last_id=last_id) as reader:
        hello = (await reader.next())[2]
        assert hello["resumed"] is False
        assert (await reader.entries(1))[0][1]["seq"] == 1


async def test_after_says_where_to_begin(stage: Stage) -> None:
    psid = await stage.friend()
    last = stage.world.journal.last
    for wish in (last, last + 1000):
        async with reading(stage, f"?after={wish}") as reader:
            await reader.next()
            await stage.do(psid, "read")
            assert (await reader.entries(1))[0][1]["did"] == "read"


async def test_readers_hear_of_a_reset(stage: Stage) -> None:
    await stage.friend()
    async with reading(stage, "?after=99") as reader:
        await reader.next()
        await stage.call("POST", "/simulator/reset")
        name, _, facts = await reader.next()
        await stage.person()
        await stage.call("POST", "/simulator/clock", json={"advance": 60})
        entry = (await reader.entries(1))[0][1]

    assert (name, facts["last"]) == ("reset", entry["seq"] - 1)
    assert (entry["kind"], entry["moved"]) == ("clock", 60)


async def test_tokens_and_secrets_do_not_go_down_the_stream(stage: Stage) -> None:
    psid = await stage.friend()
    token = await stage.token(psid)
    await stage.send({"one_time_notif_token": token}, {"text": "it is back"})
    async with reading(stage) as reader:
        told = json.dumps([await reader.next() for _ in range(stage.world.journal.last)])

    assert "token_id" in told
    for secret in (token, stage.world.config.app_secret, stage.world.config.pages[0].token):
        assert secret not in told


async def test_the_page_is_served_under_a_policy_that_lets_nothing_else_in(stage: Stage) -> None:
    answer = await stage.call("GET", "/")
    policy = answer.headers["Content-Security-Policy"]

    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
async def test_every_file_is_served_as_what_it_is(stage: Stage, path: Any) -> None:
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    answer = await stage.call("GET", f"/simulator/page/{path.name}")

    assert (answer.status, answer.body) == (200, path.read_text(encoding="utf-8"))
    assert answer.headers["Content-Type"].startswith(kinds[path.suffix])


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fcontrol.py", "%2e%2e%2fconfig.py"])
async def test_other_files_are_not(stage: Stage, name: str) -> None:
    assert (await stage.call("GET", f"/simulator/page/{name}")).status == 404


async def test_the_addresses_that_people_guess_lead_to_the_page(stage: Stage) -> None:
    for path in ("/simulator", "/simulator/"):
        assert "<title>Messenger" in (await stage.call("GET", path)).body


@pytest.mark.parametrize("path", ["/", "/simulator/", "/simulator/page/main.js", "/simulator/stream"])
async def test_foreign_web_pages_get_none_of_it(stage: Stage, path: str) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        assert (await stage.call("GET", path, headers=headers)).status == 403


def test_the_page_parses_no_html_and_loads_nothing_from_outside() -> None:
    for path in FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "DOMParser",
        ):
            assert forbidden not in text, f"{path.name} uses {forbidden}"
    for path in [*FOLDER.glob("*.css"), *FOLDER.glob("*.html")]:
        text = path.read_text(encoding="utf-8")
        assert "http:" not in text, path.name
        assert "https:" not in text, path.name
        assert "style=" not in text, path.name
