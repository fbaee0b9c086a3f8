"""The notify endpoint: who knows the key makes one broadcast an event, durable before the answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from on_air import OnAir, Reply, on_air

from channels.notify import LARGEST_BODY
from otn.settings import Secret

KEY = "the key of the shop's system, as long as one should be"
TOLD = {"topic": "restock-blue", "event_id": "delivery-2041", "text": "It is back!"}
DOMAIN = """
version: "3.1"
responses:
  utter_back:
    - text: "Good news, {first_name|there}: it is back."
      quick_replies: [{title: "Order", payload: "/order"}]
  utter_two:
    - {text: "one", image: "https://cdn.example/1.jpg"}
"""


@pytest.fixture
async def air(tmp_path: Path) -> AsyncIterator[OnAir]:
    (tmp_path / "domain.yml").write_text(DOMAIN)
    async with on_air(tmp_path, notify_key=Secret(KEY)) as air:
        air.topic()
        yield air


async def post(air: OnAir, content: Any, authorization: str | None = f"Bearer {KEY}") -> Reply:
    headers = {"Authorization": authorization} if authorization is not None else {}
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with air.session.post(f"{air.url}/notify", data=data, headers=headers) as answer:
        return Reply(status=answer.status, text=await answer.text())


async def tell(air: OnAir, **more: Any) -> Any:
    """The JSON of a 202."""
    answer = await post(air, {**TOLD, **more})
    assert answer.status == 202, answer.text
    return json.loads(answer.text)


async def problems(air: OnAir, content: Any, status: int = 400) -> list[str]:
    answer = await post(air, content)
    assert answer.status == status, answer.text
    found: list[str] = json.loads(answer.text)["problems"]
    assert broadcasts(air) <= 1
    return found


def broadcasts(air: OnAir) -> int:
    return len(air.rows("broadcast", "id"))


async def test_an_event_becomes_a_broadcast_that_starts_at_once(air: OnAir) -> None:
    answer = await tell(air, notification_type="NO_PUSH")
    assert answer == {"broadcast": answer["broadcast"], "state": "scheduled"}
    (kept,) = air.rows("broadcast", "id", "topic", "message", "notification_type", "created_by")
    assert kept == (answer["broadcast"], "restock-blue", {"text": "It is back!"}, "NO_PUSH", "notify")
    assert air.rows("audit", "who", "action") == [
        ("notify", "broadcast.create"),
        ("notify", "broadcast.schedule"),
    ]


async def test_the_same_event_again_gives_the_same_answer(air: OnAir) -> None:
    first = await tell(air)
    assert await tell(air) == first
    assert await asyncio.gather(*(tell(air) for _ in range(5))) == [first] * 5
    assert (await tell(air, event_id="delivery-2042"))["broadcast"] != first["broadcast"]
    assert broadcasts(air) == 2


async def test_the_same_event_with_another_message_is_a_conflict(air: OnAir) -> None:
    await tell(air)
    (problem,) = await problems(air, {**TOLD, "text": "It is not back."}, status=409)
    assert "whose topic or message is another" in problem
    assert air.rows("broadcast", "message") == [{"text": "It is back!"}]


async def test_a_response_of_the_bot_is_rendered_and_stored(air: OnAir) -> None:
    wish = {"topic": "restock-blue", "event_id": "e1", "response": "utter_back"}
    first = await post(air, wish)
    assert first.status == 202, first.text
    ((message, name),) = air.rows("broadcast", "message", "response")
    assert name == "utter_back"
    assert message["text"] == "Good news, {first_name|there}: it is back."
    assert message["quick_replies"][0]["payload"] == "/order"
    assert (await post(air, wish)).text == first.text


async def test_without_a_key_there_is_no_such_endpoint(tmp_path: Path) -> None:
    async with on_air(tmp_path) as air:
        answer = await post(air, TOLD)
        assert answer.status == 404
        assert "OTN_NOTIFY_KEY is not set" in answer.text
        assert (await post(air, TOLD, "Bearer ")).status == 404


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer \u00e9"],
)
async def test_who_does_not_know_the_key_is_sent_away(air: OnAir, authorization: str | None) -> None:
    answer = await post(air, TOLD, authorization)
    assert answer.status == 401
    assert broadcasts(air) == 0


async def test_a_scheme_s_letters_may_be_small(air: OnAir) -> None:
    assert (await post(air, TOLD, f"bearer  {KEY}")).status == 202


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 50_000])
async def test_a_body_that_is_no_object_is_said_to_be_none(air: OnAir, content: bytes) -> None:
    assert await problems(air, content) == ["The body is not a JSON object."]


async def test_every_problem_of_a_body_is_listed(air: OnAir) -> None:
    found = await problems(
        air, {"topic": 7, "text": "a", "response": "utter_back", "when": "now", "a\ud83d": 1}
    )
    assert found == [
        "Unknown: a, when. Known: topic, event_id, text, response, notification_type.",
        "event_id is missing.",
        "Give either text or response.",
        "topic is not a text, or holds NUL or half a character.",
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"topic": "no-such-topic"}, "There is no topic 'no-such-topic'"),
        ({"topic": "\ud83d"}, "topic is not a text"),
        ({"text": "a" * 2000}, "Messenger allows 1999"),
        ({"text": " "}, "missing or blank"),
        ({"text": "Hi {first_name}"}, "write {first_name|there}"),
        ({"text": ""}, "text is not a text"),
        ({"event_id": "x" * 300}, "An event id has 1 to"),
        ({"notification_type": "LOUD"}, "A notification type is one of"),
        ({"text": None, "response": "utter_nothing"}, "The domain has no response 'utter_nothing'"),
        ({"text": None, "response": "utter_two"}, "exactly one message"),
    ],
)
async def test_what_cannot_be_sent_is_refused_in_words(air: OnAir, change: Any, says: str) -> None:
    assert says in " ".join(await problems(air, {**TOLD, **change}))
    assert broadcasts(air) == 0


async def test_a_large_body_is_refused(air: OnAir) -> None:
    assert (await post(air, {**TOLD, "text": "x" * LARGEST_BODY})).status == 413


async def test_a_domain_that_cannot_be_read_is_our_own_fault(air: OnAir, tmp_path: Path) -> None:
    (tmp_path / "domain.yml").write_text("a: [")
    found = await problems(
        air, {"topic": "restock-blue", "event_id": "e", "response": "utter_back"}, status=500
    )
    assert "domain.yml cannot be read" in found[0]


async def test_without_the_database_it_has_to_come_again(air: OnAir, tmp_path: Path) -> None:
    air.app.store.close()
    (tmp_path / "otn.db").rename(tmp_path / "elsewhere.db")
    (tmp_path / "otn.db").mkdir()
    assert (await post(air, TOLD)).status == 503
    (tmp_path / "otn.db").rmdir()
    (tmp_path / "elsewhere.db").rename(tmp_path / "otn.db")
    assert (await post(air, TOLD)).status == 202


async def test_it_is_recorded_once_on_a_server_too(tmp_path: Path, postgresql_store: Any) -> None:
    where = postgresql_store.engine.url.render_as_string(hide_password=False)
    async with on_air(tmp_path, notify_key=Secret(KEY), database_url=where) as air:
        air.topic()
        answers = await asyncio.gather(*(tell(air) for _ in range(5)))
        assert answers == answers[:1] * 5
        assert broadcasts(air) == 1


async def test_neither_the_key_nor_what_is_said_gets_into_the_log(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await tell(air, text="words of the shop")
    await post(air, TOLD, "Bearer a wrong key")
    ours = "\n".join(
        each.getMessage() for each in caplog.records if each.name.startswith(("channels", "otn"))
    )
    assert "notify: broadcast" in ours
    for secret in (KEY, "a wrong key", "words of the shop"):
        assert secret not in ours
