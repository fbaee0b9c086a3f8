"""What goes wrong on demand, and what is true afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from simulator.journal import Filter, Kind
from simulator.testing import PAGE_TOKEN, Stage, on_stage, permission_request

HELLO = {"text": "hello", "metadata": "otn:1"}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with on_stage() as stage:
        yield stage


def delivered(stage: Stage) -> list[dict[str, Any]]:
    return stage.world.journal.entries(Kind.DELIVERED)


async def broken(stage: Stage, psid: str) -> bool:
    """Send, and tell whether the connection broke."""
    try:
        await stage.send({"id": psid}, HELLO)
    except aiohttp.ClientError:
        return True
    return False


@pytest.mark.parametrize(("kind", "arrives"), [("lost_answer", True), ("reset", False)])
async def test_the_connection_breaks_after_or_before_the_delivery(
    stage: Stage, kind: str, arrives: bool
) -> None:
    psid = await stage.friend()
    await stage.fault(kind)

    assert await broken(stage, psid)

    assert len(delivered(stage)) == len(stage.world.journal.entries(Kind.LOST_ANSWER)) == int(arrives)
    assert not await broken(stage, psid), "a fault strikes as often as was asked for"
    assert [entry["fault"] for entry in stage.world.journal.entries(Kind.FAULT)] == [kind]


async def test_a_lost_answer_leaves_an_echo_and_a_spent_token(stage: Stage) -> None:
    psid = await stage.friend()
    token = await stage.token(psid)
    await stage.fault("lost_answer", match={"by_token": True})

    with pytest.raises(aiohttp.ClientError):
        await stage.send({"one_time_notif_token": token}, HELLO)

    echo = (await stage.bot.wait_for("echo", 2))[-1]
    assert echo["message"]["metadata"] == "otn:1"
    assert (await stage.send({"one_time_notif_token": token}, HELLO)).error == "100/2018320"


async def test_an_answer_that_never_comes_after_a_delivery(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.fault("no_answer")

    with pytest.raises(asyncio.TimeoutError):
        await stage.call(
            "POST",
            "/v26.0/me/messages",
            params={"access_token": PAGE_TOKEN},
            json={"recipient": {"id": psid}, "message": HELLO},
            timeout=aiohttp.ClientTimeout(total=0.1),
        )

    assert [entry["metadata"] for entry in delivered(stage)] == ["otn:1"]
    assert len(stage.world.journal.entries(Kind.LOST_ANSWER, psid=psid)) == 1


async def test_silence_ends_with_a_reset(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.fault("no_answer", seconds=0.01)

    assert await broken(stage, psid)


async def test_a_slow_call_is_judged_by_the_rules_that_hold_when_it_is_done(stage: Stage) -> None:
    psid = await stage.friend()
    await stage.fault("slow", seconds=0.05, count=2)

    assert (await stage.send({"id": psid}, HELLO)).status == 200
    slow = asyncio.ensure_future(stage.send({"id": psid}, HELLO))
    struck = Filter(after=stage.world.journal.last, kinds=frozenset({"fault"}))
    await stage.world.journal.wait(struck, 5)
    stage.pass_time(86400)
    assert (await slow).error == "10/2018278"


@pytest.mark.parametrize(
    ("kind", "wish", "status", "error", "content_type"),
    [
        ("server_error", {}, 500, "2", "application/json"),
        ("server_error", {"code": 1, "status": 503}, 503, "1", "application/json"),
        ("bare_error", {}, 502, "", "application/octet-stream"),
        ("html", {}, 503, "", "text/html; charset=utf-8"),
        ("false_error", {}, 500, "1/1357046", "application/json"),
        ("throttle", {}, 400, "613", "application/json"),
        ("throttle", {"code": 80006}, 400, "80006", "application/json"),
        ("access_token", {}, 401, "190", "application/json"),
        ("policy_block", {}, 400, "368", "application/json"),
        ("policy_block", {"code": 10, "subcode": 1893063}, 403, "10/1893063", "application/json"),
        ("error", {"code": 613, "subcode": 1893016}, 400, "613/1893016", "application/json"),
    ],
)
async def test_errors_on_demand(
    stage: Stage, kind: str, wish: dict[str, int], status: int, error: str, content_type: str
) -> None:
    psid = await stage.friend()
    await stage.fault(kind, **wish)

    answer = await stage.send({"id": psid}, HELLO)

    assert (answer.status, answer.error, answer.headers["Content-Type"]) == (status, error, content_type)
    assert len(delivered(stage)) == (1 if kind == "false_error" else 0)
    assert (await stage.send({"id": psid}, HELLO)).status == 200


@pytest.mark.parametrize("kind", ["server_error", "bare_error", "html", "throttle"])
async def test_any_error_may_hide_a_delivery(stage: Stage, kind: str) -> None:
    psid = await stage.friend()
    await stage.fault(kind, delivered=True)

    assert (await stage.send({"id": psid}, HELLO)).status != 200
    assert len(delivered(stage)) == 1


async def test_the_regain_time_of_a_throttle_is_in_the_header(stage: Stage) -> None:
    psid = await stage.friend()
    for kind in ({"kind": "throttle"}, {"kind": "throttle", "code": 80006}):
        await stage.fault(**kind, regain_minutes=7)
        answer = await stage.send({"id": psid}, HELLO)
        assert '"estimated_time_to_regain_access": 7' in answer.headers["X-Business-Use-Case-Usage"]


async def test_a_fault_after_delivery_waits_for_a_send_that_breaks_no_rule(stage: Stage) -> None:
    psid, stranger = await stage.friend(), await stage.person()
    await stage.fault("lost_answer")

    assert (await stage.send({"id": stranger}, HELLO)).error == "10/2018278"
    assert await broken(stage, psid)


async def test_faults_strike_only_what_they_match(stage: Stage) -> None:
    psid, other = await stage.friend(), await stage.friend()
    token = await stage.token(other)
    cases: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
        ({"psid": psid}, {"id": psid}, HELLO),
        ({"psid": other, "by_token": True}, {"one_time_notif_token": token}, HELLO),
        ({"permission_request": True}, {"id": psid}, permission_request()),
        ({"text_contains": "ell"}, {"id": psid}, HELLO),
        ({"page_id": "100000000000001"}, {"id": psid}, HELLO),
    ]
    for match, recipient, message in cases:
        await stage.fault("server_error", match={**match, "page_id": "nowhere"})
        assert (await stage.send({"id": other}, {"text": "x"})).status == 200
        await stage.call("DELETE", "/simulator/faults")
        await stage.fault("server_error", match=match)
        if "page_id" not in match:
            assert (await stage.send({"id": other}, {"text": "x"})).status == 200, match
        assert (await stage.send(recipient, message)).error == "2", match


async def test_faults_strike_other_calls_when_asked_to(stage: Stage) -> None:
    psid = await stage.friend()
    credentials = {"access_token": PAGE_TOKEN}
    typing = {"recipient": {"id": psid}, "sender_action": "typing_on"}
    for call, method, path, more in (
        ("action", "POST", "/v26.0/me/messages", {"json": typing}),
        ("profile", "GET", f"/v26.0/{psid}", {}),
        ("page", "GET", "/v26.0/me", {}),
        ("any", "GET", "/v26.0/me/subscribed_apps", {}),
    ):
        await stage.fault("server_error", match={"call": call})
        if call != "any":
            assert (await stage.send({"id": psid}, HELLO)).status == 200
        assert (await stage.call(method, path, params=credentials, **more)).error == "2", call


async def test_count_and_probability_with_a_seed_are_repeatable(stage: Stage) -> None:
    psid = await stage.friend()
    runs = []
    for _ in range(2):
        await stage.fault("server_error", count=None, probability=0.5, seed=4)
        runs.append([(await stage.send({"id": psid}, HELLO)).status for _ in range(12)])
        await stage.call("DELETE", "/simulator/faults")

    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 500}
    await stage.fault("server_error", count=2)
    assert [(await stage.send({"id": psid}, HELLO)).status for _ in range(3)] == [500, 500, 200]


async def test_faults_can_be_listed_and_taken_back(stage: Stage) -> None:
    first = (await stage.fault("reset")).body["id"]
    second = (await stage.fault("html")).body["id"]

    assert [fault["id"] for fault in (await stage.call("GET", "/simulator/faults")).body] == [first, second]
    assert [fault["id"] for fault in (await stage.call("DELETE", f"/simulator/faults/{first}")).body] == [
        second
    ]
    assert (await stage.call("DELETE", f"/simulator/faults/{first}")).status == 404
    assert (await stage.call("DELETE", "/simulator/faults")).body == []


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"kind": "earthquake"},
        {"kind": "error"},
        {"kind": "error", "code": "613"},
        {"kind": "reset", "count": 0},
        {"kind": "reset", "count": True},
        {"kind": "reset", "probability": 2},
        {"kind": "reset", "seconds": -1},
        {"kind": "reset", "match": {"who": "me"}},
        {"kind": "reset", "match": {"by_token": "yes"}},
        {"kind": "reset", "match": []},
        {"kind": "reset", "colour": "red"},
    ],
)
async def test_faults_that_make_no_sense_are_explained(stage: Stage, wish: dict[str, Any]) -> None:
    answer = await stage.call("POST", "/simulator/faults", json=wish)

    assert answer.status == 400
    assert answer.body["error"]
    assert len(stage.world.faults) == 0
