"""Several Pages at once: what belongs to one never touches another, and each answers with its own access token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cli import Answer, CommandLine, forget_environment
from on_air import PAGE, OnAir, message, now_ms, on_air, opt_in
from simulated import TOPIC, Project, project
from test_broadcasts import planned
from test_broadcasts import standing as broadcast_standing

from otn import asking, delivery, sending, worker
from otn.app import App
from otn.cli.session import user
from otn.delivery import Order
from otn.errors import OutcomeUnknown
from otn.graph.protocol import SUBSCRIBED_FIELDS
from otn.graph.sync import SyncGraph
from otn.models import Attempt, DeliveryState, Origin
from otn.settings import PageCredentials, Secret
from otn.store import pages, tokens
from simulator.config import DEFAULT_PAGE_NAME
from simulator.config import Page as SimulatedPage
from simulator.journal import Kind
from simulator.testing import PAGE_TOKEN, made_up_config, permission_request, running

OTHER = "200000000000002"
OTHER_TOKEN = "another-page-access-token"
FOREIGN = "999"
DAY_AND_HOUR = timedelta(hours=25)
BOTH = (
    SimulatedPage(id=PAGE, name=DEFAULT_PAGE_NAME, token=PAGE_TOKEN),
    SimulatedPage(id=OTHER, name="Outlet", token=OTHER_TOKEN),
)
TOKENS = {
    "pages": (
        PageCredentials(page_id=PAGE, access_token=Secret(PAGE_TOKEN)),
        PageCredentials(page_id=OTHER, access_token=Secret(OTHER_TOKEN)),
    )
}

# --- the channel


@pytest.fixture
async def air(tmp_path: Path) -> Any:
    """The channel on the air for two Pages, and everybody's echoes on their way to it."""
    async with running(made_up_config(pages=BOTH)) as graph, on_air(tmp_path, graph=graph, **TOKENS) as found:
        graph.world.config = replace(graph.world.config, webhook_url=f"{found.url}/webhook")
        yield found


async def act(air: OnAir, page_id: str, what: str, psid: str = "7007", **wish: Any) -> Any:
    """Somebody does something on a Page, and the webhook of it is answered."""
    url = f"{air.simulated.url}/simulator/people/{psid}/{what}?page_id={page_id}"
    async with air.session.post(url, json=wish) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


def heard(air: OnAir, page_id: str, psid: str = "7007") -> list[str]:
    """The texts that a Page really delivered to a person."""
    thread = air.simulated.world.person(psid, page_id).thread.values()
    return [
        each.content["text"] for each in thread if each.direction.value == "out" and "text" in each.content
    ]


def refusals(air: OnAir) -> list[str]:
    """The rules that our calls broke: a wrong access token is one of them."""
    return [entry["rule"] for entry in air.simulated.world.journal.entries(Kind.REFUSED)]


def page_named(tracker: Any) -> list[dict[str, Any]]:
    """An answer that tells which Page's event it answers, as the tracker has it."""
    return [{"text": f"for {tracker.latest_message.metadata['page_id']}"}]


def turns_counted(tracker: Any) -> list[dict[str, Any]]:
    """An answer that tells how long the conversation is."""
    turns = sum(event.type_name == "user" for event in tracker.events)
    return [{"text": f"{tracker.latest_message.text}, turn {turns}"}]


async def test_each_page_answers_its_own_people_with_its_own_access_token(air: OnAir) -> None:
    air.person("1", page_id=PAGE)
    air.person("2", page_id=OTHER)
    air.bot.answer = page_named
    await act(air, PAGE, "message", "1", text="hello")
    await act(air, OTHER, "message", "2", text="hello")
    await air.quiet()
    assert (heard(air, PAGE, "1"), heard(air, OTHER, "2")) == ([f"for {PAGE}"], [f"for {OTHER}"])
    assert air.rows("contact", "page_id", "psid") == [(PAGE, "1"), (OTHER, "2")]
    assert refusals(air) == []


async def test_the_same_psid_on_two_pages_is_two_people_with_two_conversations(air: OnAir) -> None:
    air.person(page_id=PAGE)
    air.person(page_id=OTHER)
    air.bot.answer = turns_counted
    for page_id, text in ((PAGE, "a"), (OTHER, "b"), (PAGE, "c"), (OTHER, "d")):
        await act(air, page_id, "message", text=text)
        await air.quiet()
    assert heard(air, PAGE) == ["a, turn 1", "c, turn 2"]
    assert heard(air, OTHER) == ["b, turn 1", "d, turn 2"]
    assert len(await air.user_events("7007")) == len(await air.user_events(f"7007@{OTHER}")) == 2
    assert refusals(air) == []


async def test_two_pages_may_be_written_to_under_one_psid_at_the_same_moment(air: OnAir) -> None:
    air.person(page_id=PAGE)
    air.person(page_id=OTHER)
    air.bot.answer = page_named
    await asyncio.gather(
        *(act(air, each, "message", text=str(n)) for n in range(3) for each in (PAGE, OTHER))
    )
    await air.quiet()
    assert heard(air, PAGE) == [f"for {PAGE}"] * 3
    assert heard(air, OTHER) == [f"for {OTHER}"] * 3


async def test_a_permission_belongs_to_the_page_it_was_given_to(air: OnAir) -> None:
    air.topic()
    air.person(page_id=PAGE)
    air.person(page_id=OTHER)
    air.bot.say({"text": "Shall I tell you?", "otn_request": {"topic": "restock-blue"}})
    await act(air, PAGE, "message", text="hello")
    await act(air, OTHER, "message", text="hello")
    await air.quiet()
    air.bot.say()
    cards = {
        page_id: next(
            each for each in air.simulated.world.person("7007", page_id).thread.values() if each.is_request
        )
        for page_id in (PAGE, OTHER)
    }
    await act(air, OTHER, "notify-me", mid=cards[OTHER].mid)
    await air.quiet()
    with air.app.store.read() as tx:
        assert [(token.page_id, token.psid) for token in tokens.every(tx)] == [(OTHER, "7007")]
        agreed = {
            each: asking.agreements(tx, psid="7007", page_id=each, now=air.app.clock())
            for each in (PAGE, OTHER)
        }
    assert (len(agreed[PAGE]), len(agreed[OTHER])) == (0, 1)


async def test_who_asks_one_page_to_be_forgotten_stays_known_to_the_other(air: OnAir) -> None:
    air.person(page_id=PAGE)
    air.person(page_id=OTHER)
    air.bot.say("hi")
    await act(air, PAGE, "message", text="hello")
    await act(air, OTHER, "message", text="hello")
    await air.quiet()
    air.bot.say({"text": "Goodbye", "otn_forget": True})
    await act(air, OTHER, "message", text="forget me")
    await air.quiet()
    await air.sweep()
    assert heard(air, OTHER) == ["hi", "Goodbye"]
    assert await air.events(f"7007@{OTHER}") == []
    assert len(await air.user_events("7007")) == 1
    assert [each is None for each in air.rows("contact", "erased_at")] == [True, False]


async def test_nobody_is_written_to_while_nobody_said_on_which_page(air: OnAir) -> None:
    """A turn from outside (`trigger_intent`) names a conversation only."""
    for page_id in (PAGE, OTHER):
        air.person(page_id=page_id)
        await act(air, page_id, "message", text="hello")
    await air.quiet()
    output = air.channel.get_output_channel()
    assert output is not None
    await output.send_response("7007", {"text": "for whom?"})
    await output.send_response(f"7007@{FOREIGN}", {"text": "nobody's"})
    await output.send_response(f"7007@{OTHER}", {"text": "for you"})
    assert (heard(air, PAGE), heard(air, OTHER)) == ([], ["for you"])


async def test_an_event_of_a_foreign_page_is_kept_without_token_and_turn_and_warned_of_once(
    air: OnAir, caplog: pytest.LogCaptureFixture
) -> None:
    air.bot.say("hi")
    for number in range(2):
        events = [message("7007", "hello", mid=f"m_{number}"), opt_in("7007", f"a token {number}")]
        assert (await air.deliver(*events, page_id=FOREIGN)).status == 200
    await air.quiet()
    assert air.rows("inbound_event", "page_id", "state") == [(FOREIGN, "foreign")] * 4
    assert air.rows("contact", "id") == air.rows("otn_token", "id") == air.rows("page", "page_id") == []
    assert len([each for each in caplog.records if FOREIGN in each.getMessage()]) == 1
    assert refusals(air) == []


async def enforce(air: OnAir, action: str, page_id: str, at: int) -> None:
    told = {
        "recipient": {"id": page_id},
        "timestamp": at,
        "policy_enforcement": {"action": action, "reason": "spam"},
    }
    assert (await air.deliver(told, page_id=page_id)).status == 200


async def test_policy_enforcement_stops_one_page_and_leaves_the_other(air: OnAir) -> None:
    air.person("1", page_id=PAGE)
    air.person("2", page_id=OTHER)
    air.bot.say("hi")

    async def both_write() -> tuple[int, int]:
        await act(air, PAGE, "message", "1", text="hello")
        await act(air, OTHER, "message", "2", text="hello")
        await air.quiet()
        return len(heard(air, PAGE, "1")), len(heard(air, OTHER, "2"))

    at = now_ms()
    await enforce(air, "warning", OTHER, at)
    assert await both_write() == (1, 1), "a warning stops nothing"
    await enforce(air, "block", OTHER, at + 1)
    assert await both_write() == (2, 1)
    await enforce(air, "unblock", PAGE, at + 2)
    assert await both_write() == (3, 1), "the unblocking of one page is not that of another"
    await enforce(air, "unblock", OTHER, at + 3)
    assert await both_write() == (4, 2)
    assert refusals(air) == []


@pytest.mark.parametrize(
    ("fault", "ends_by_itself"), [("access_token", False), ("policy_block", True), ("throttle", True)]
)
async def test_what_meta_refuses_to_one_page_pauses_only_that_page(
    air: OnAir, fault: str, ends_by_itself: bool
) -> None:
    air.person("1", page_id=PAGE)
    air.person("2", page_id=OTHER)
    air.bot.say("hi")
    air.simulated.world.faults.add({"kind": fault, "match": {"page_id": OTHER}})
    for _ in range(2):
        await act(air, OTHER, "message", "2", text="hello")
        await act(air, PAGE, "message", "1", text="hello")
        await air.quiet()
    assert (heard(air, PAGE, "1"), heard(air, OTHER, "2")) == (["hi", "hi"], [])
    paused = {page_id: (reason, until) for page_id, reason, until in
              air.rows("page", "page_id", "paused_reason", "paused_until")}  # fmt: skip
    assert paused[PAGE] == (None, None)
    assert paused[OTHER][0] is not None
    assert (paused[OTHER][1] is not None) is ends_by_itself
    assert refusals(air) == []


# --- the command line and the worker


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project with both Pages in credentials.yml; 7007 is known to both, and has agreed on both."""
    forget_environment(monkeypatch)
    with project(tmp_path, pages=BOTH) as found:
        (tmp_path / "credentials.yml").write_text(
            "channels.messenger.MessengerInput:\n  pages:\n"
            f'    "{PAGE}": "{PAGE_TOKEN}"\n    "{OTHER}": "{OTHER_TOKEN}"\n'
        )
        for page in BOTH:
            found.control("/people", {"psid": "7007", "page_id": page.id})
            found.control(f"/people/7007/message?page_id={page.id}", {"text": "hello"})
            agree(found, page)
        yield found


@pytest.fixture
def otn_(shop: Project, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    """Types commands, and at the end looks through all that they printed."""
    found = CommandLine(shop.root, capsys)
    yield found
    for secret in [*shop.secrets(), OTHER_TOKEN]:
        assert secret not in found.printed


def agree(shop: Project, page: SimulatedPage, psid: str = "7007") -> None:
    """The Page asks for permission, and the person taps Notify Me."""
    asked = requests.post(
        f"{shop.url}/v26.0/{page.id}/messages",
        headers={"Authorization": f"Bearer {page.token}"},
        json={"recipient": {"id": psid}, "message": permission_request(payload=f"otn:{TOPIC}")},
        timeout=10,
    )
    assert asked.ok, asked.text
    shop.control(f"/people/{psid}/notify-me?page_id={page.id}", {"mid": asked.json()["message_id"]})


def was_told(shop: Project, page_id: str, psid: str = "7007") -> list[str]:
    thread = shop.control(f"/people/{psid}/thread?page_id={page_id}", method="GET")
    said = [each["content"] for each in thread if each["direction"] == "out"]
    return [content["text"] for content in said if "text" in content]


def broken_rules(shop: Project) -> list[str]:
    return [entry["rule"] for entry in shop.control("/journal?kind=refused", method="GET")["entries"]]


def send(otn_: CommandLine, *more: str, text: str = "It is back.") -> Answer:
    return otn_("send", "7007", "--topic", TOPIC, "--text", text, *more)


def states(otn_: CommandLine, page_id: str) -> list[str]:
    found = otn_("tokens", "list", "--psid", "7007", "--page", page_id, "--json").json()
    assert {token["page_id"] for token in found} == {page_id}
    return [token["state"] for token in found]


def standing(otn_: CommandLine, *page_id: str) -> dict[str, Any]:
    """`otn page status` by page, and its exit code under "code"."""
    answer = otn_("page", "status", *page_id, "--json")
    return {each["page_id"]: each for each in answer.json()} | {"code": answer.code}


@pytest.mark.parametrize(
    "command",
    [
        ["contacts", "show", "7007"],
        ["contacts", "erase", "7007", "--yes"],
        ["tokens", "list", "--psid", "7007"],
        ["send", "7007", "--topic", TOPIC, "--text", "It is back."],
        ["send", "7007", "--topic", TOPIC, "--text", "It is back.", "--dry-run"],
    ],
)
def test_a_psid_that_two_pages_know_wants_a_page_and_the_pages_are_named(
    shop: Project, otn_: CommandLine, command: list[str]
) -> None:
    answer = otn_(*command)
    assert (answer.code, answer.out) == (1, "")
    assert all(word in answer.err for word in (PAGE, OTHER, "--page"))
    assert (was_told(shop, PAGE), was_told(shop, OTHER)) == ([], [])
    assert otn_(*command, "--page", OTHER).code == 0


def test_a_follow_up_goes_out_on_the_page_named_and_spends_that_page_s_permission(
    shop: Project, otn_: CommandLine
) -> None:
    shop.pass_time(DAY_AND_HOUR)
    assert send(otn_, "--page", OTHER).code == 0
    assert (was_told(shop, PAGE), was_told(shop, OTHER)) == ([], ["It is back."])
    assert (states(otn_, PAGE), states(otn_, OTHER)) == (["available"], ["used"])
    assert send(otn_, "--page", OTHER).code == 1, "the other page's permission pays for nothing here"
    assert was_told(shop, PAGE) == []
    assert broken_rules(shop) == []


def test_forgetting_somebody_on_one_page_leaves_the_other(shop: Project, otn_: CommandLine) -> None:
    assert otn_("contacts", "erase", "7007", "--page", OTHER, "--yes").code == 0
    assert send(otn_, "--page", OTHER, "--dry-run").code == 1
    assert send(otn_, "--page", PAGE, "--dry-run").code == 0


def test_a_pause_and_its_end_are_one_page_s(shop: Project, otn_: CommandLine) -> None:
    assert otn_("page", "pause", OTHER, "--reason", "Wrong price").code == 0
    assert (send(otn_, "--page", OTHER).code, send(otn_, "--page", PAGE).code) == (1, 0)
    assert otn_("page", "pause", PAGE, "--reason", "Night").code == 0
    assert otn_("page", "resume", OTHER).code == 0
    assert (send(otn_, "--page", OTHER).code, send(otn_, "--page", PAGE).code) == (0, 1)
    assert (was_told(shop, PAGE), was_told(shop, OTHER)) == (["It is back."], ["It is back."])


def test_a_bad_access_token_of_one_page_stops_only_its_messages(shop: Project, otn_: CommandLine) -> None:
    shop.fault("access_token", match={"page_id": OTHER})
    assert (send(otn_, "--page", OTHER).code, send(otn_, "--page", PAGE).code) == (1, 0)
    found = standing(otn_)
    assert found[PAGE]["paused"] is None
    assert (found[OTHER]["paused"]["who"], found[OTHER]["paused"]["until"]) == ("meta", None)


def test_the_worker_goes_on_with_one_page_while_another_has_no_access_token(
    shop: Project, otn_: CommandLine
) -> None:
    shop.pass_time(DAY_AND_HOUR)
    with shop.opened() as app:
        for page in BOTH:
            leave_unanswered(app, page.id)
    without = (shop.root / "credentials.yml").read_text().replace(f'    "{PAGE}": "{PAGE_TOKEN}"\n', "")
    (shop.root / "credentials.yml").write_text(without)
    shop.pass_time(timedelta(minutes=10))
    assert otn_("worker", "--once").code == 0
    assert f"no access token is configured for page {PAGE}" in otn_.printed
    assert (states(otn_, PAGE), states(otn_, OTHER)) == (["reserved"], ["used"])
    assert (was_told(shop, PAGE), was_told(shop, OTHER)) == ([], ["It is back."])
    assert broken_rules(shop) == []


def test_a_broadcast_reaches_one_page_while_another_has_no_access_token(
    shop: Project, otn_: CommandLine
) -> None:
    """Also the broadcasts after it: what waits for the Page without a token is older, and comes first."""
    shop.pass_time(DAY_AND_HOUR)
    credentials = shop.root / "credentials.yml"
    complete = credentials.read_text()
    credentials.write_text(complete.replace(f'    "{PAGE}": "{PAGE_TOKEN}"\n', ""))
    for number, words in enumerate(("It is back.", "Again."), start=1):
        agree_again(shop, OTHER)
        assert otn_("broadcasts", "create", "--topic", TOPIC, "--text", words).code == 0
        assert otn_("broadcasts", "schedule", str(number), "--yes").code == 0
        assert otn_("worker", "--once").code == 0
    assert (was_told(shop, PAGE), was_told(shop, OTHER)) == ([], ["It is back.", "Again."])
    warnings = [line for line in otn_.printed.splitlines() if f"no access token for page {PAGE}" in line]
    assert len(warnings) == 1
    checked = otn_("check")
    assert f"broadcasts wait for page {PAGE}, which has no access token" in checked.out
    assert broken_rules(shop) == []
    credentials.write_text(complete)
    assert otn_("worker", "--once").code == 0
    assert was_told(shop, PAGE) == ["It is back."], "the one permission there pays for one"
    assert "which has no access token" not in otn_("check").out


def agree_again(shop: Project, page_id: str) -> None:
    """One more permission of somebody who writes to the Page, and whose window is over then."""
    (page,) = (each for each in BOTH if each.id == page_id)
    shop.control(f"/people/7007/message?page_id={page_id}", {"text": "hello"})
    agree(shop, page)
    shop.pass_time(DAY_AND_HOUR)


def test_a_hint_from_a_worker_that_has_the_access_token_is_left_to_it(shop: Project) -> None:
    shop.pass_time(DAY_AND_HOUR)
    with shop.opened() as app:
        made = planned(app)
        with SyncGraph() as graph:
            hints = worker.tick(app, graph, threading.Event()).chunks
        (only,) = (each for each in app.settings.pages if each.page_id == OTHER)
        poorer = replace(app, settings=replace(app.settings, pages=(only,)))
        for hint in hints:
            worker.send(poorer, threading.Event(), hint)
        assert broadcast_standing(app, made.id) == ("running", {"queued": 1, "sent": 1})
        worker.send(app, threading.Event())
    assert (was_told(shop, PAGE), was_told(shop, OTHER)) == (["It is back, dear friend."],) * 2


class Silent:
    """A Graph that never answers."""

    def send(self, _request: object) -> Any:
        raise OutcomeUnknown("no answer in time")


def leave_unanswered(app: App, page_id: str) -> None:
    """A follow-up whose answer never came: the worker has to ask again with the same permission."""
    order = Order(page_id=page_id, psid="7007", topic=TOPIC, message={"text": "It is back."},
                  dedupe_key=f"cli:{page_id}", origin=Origin.CLI)  # fmt: skip
    with app.store.begin() as tx:
        begun = delivery.begin(tx, app.require_vault(), order, app.clock())
    assert isinstance(begun, Attempt)
    sending.post(app, Silent(), app.graph_config(page_id), begun)


# --- otn page status, otn page subscribe


def test_the_status_tells_how_each_page_stands(shop: Project, otn_: CommandLine) -> None:
    assert send(otn_, "--page", OTHER).code == 0
    found = standing(otn_)
    assert found["code"] == 0
    assert set(found) == {PAGE, OTHER, "code"}
    for page, sent in zip(BOTH, (0, 1), strict=True):
        status = found[page.id]
        assert (status["name"], status["token_valid"], status["missing_fields"]) == (page.name, True, [])
        assert (status["paused"], status["otn_denied_reason"], status["attention"]) == (None, None, [])
        assert (status["contacts"], status["open_windows"], status["available_tokens"]) == (1, 1, 1)
        assert set(status["deliveries_24h"]) == {state.value for state in DeliveryState}
        assert sum(status["deliveries_24h"].values()) == status["deliveries_24h"]["sent"] == sent
        assert status["last_webhook_at"]
    shop.pass_time(DAY_AND_HOUR)
    later = standing(otn_)[OTHER]
    assert (later["open_windows"], later["deliveries_24h"]["sent"]) == (0, 0)
    shown = otn_("page", "status", OTHER)
    assert shown.code == 0
    assert f"Page {OTHER}: Outlet" in shown.out
    assert PAGE not in shown.out


def test_the_status_says_who_paused_a_page_and_what_to_do_about_it(shop: Project, otn_: CommandLine) -> None:
    otn_("page", "pause", OTHER, "--reason", "Wrong price")
    found = standing(otn_)
    assert (found["code"], found[PAGE]["attention"]) == (1, [])
    assert found[OTHER]["paused"] == {"reason": "Wrong price", "until": None, "who": user()}
    assert f"otn page resume {OTHER}" in found[OTHER]["attention"][0]["todo"]
    assert otn_("page", "status", PAGE).code == 0
    shown = otn_("page", "status").out
    assert f"paused until it is resumed, by {user()}: Wrong price" in shown
    otn_("page", "resume", OTHER)
    otn_("page", "pause", OTHER, "--reason", "Night", "--for", "8h")
    assert standing(otn_)["code"] == 0, "what ends by itself needs nobody"


def test_the_status_shows_a_page_that_meta_blocked(shop: Project, otn_: CommandLine) -> None:
    told = {
        "recipient": {"id": OTHER},
        "timestamp": 1,
        "policy_enforcement": {"action": "block", "reason": "spam"},
    }
    shop.control("/webhook", {"body": {"object": "page", "entry": [{"id": OTHER, "messaging": [told]}]}})
    found = standing(otn_)
    assert (found["code"], found[PAGE]["paused"]) == (1, None)
    assert (found[OTHER]["paused"]["who"], "spam" in found[OTHER]["paused"]["reason"]) == ("meta", True)


def test_the_status_shows_a_page_that_may_not_ask(shop: Project, otn_: CommandLine) -> None:
    with shop.opened() as app, app.store.begin() as tx:
        pages.deny_otn(tx, OTHER, "no permission (10)")
    found = standing(otn_)
    assert (found["code"], found[PAGE]["otn_denied_reason"]) == (1, None)
    assert found[OTHER]["otn_denied_reason"] == "no permission (10)"


def test_the_status_shows_an_access_token_that_does_not_work(shop: Project, otn_: CommandLine) -> None:
    shop.control("/faults", {"kind": "access_token", "match": {"call": "page", "page_id": OTHER}})
    found = standing(otn_)
    assert (found["code"], found[PAGE]["token_valid"], found[OTHER]["token_valid"]) == (1, True, False)
    assert "190" in found[OTHER]["token_problem"]
    assert found[OTHER]["subscribed_fields"] is None


def test_access_tokens_that_were_swapped_are_found(shop: Project, otn_: CommandLine) -> None:
    swapped = {PAGE: OTHER_TOKEN, OTHER: PAGE_TOKEN}
    lines = "".join(f'    "{page_id}": "{token}"\n' for page_id, token in swapped.items())
    (shop.root / "credentials.yml").write_text(f"channels.messenger.MessengerInput:\n  pages:\n{lines}")
    found = standing(otn_)
    assert found["code"] == 1
    assert f"belongs to page {OTHER}" in found[PAGE]["token_problem"]
    assert f"belongs to page {PAGE}" in found[OTHER]["token_problem"]
    assert send(otn_, "--page", PAGE).code == 1
    assert (was_told(shop, PAGE), was_told(shop, OTHER)) == ([], [])


def test_a_page_that_was_given_up_matters_while_people_wait_for_it(shop: Project, otn_: CommandLine) -> None:
    (shop.root / "credentials.yml").write_text(
        f'channels.messenger.MessengerInput:\n  pages:\n    "{PAGE}": "{PAGE_TOKEN}"\n'
    )
    found = standing(otn_)
    assert (found["code"], found[OTHER]["configured"]) == (1, False)
    assert "1 unused permissions" in found[OTHER]["attention"][0]["found"]
    shop.pass_time(timedelta(days=366))
    assert standing(otn_)["code"] == 0


def test_the_status_of_an_unknown_page_is_refused(shop: Project, otn_: CommandLine) -> None:
    answer = otn_("page", "status", FOREIGN)
    assert (answer.code, answer.out) == (1, "")
    assert f"no page {FOREIGN}" in answer.err


def test_with_one_nameless_access_token_the_status_asks_whose_it_is(shop: Project, otn_: CommandLine) -> None:
    (shop.root / "credentials.yml").unlink()
    found = standing(otn_)
    assert (found[PAGE]["token_valid"], found[OTHER]["configured"]) == (True, False)


def test_subscribing_adds_what_is_missing_and_changes_nothing_the_second_time(
    shop: Project, otn_: CommandLine
) -> None:
    shop.world.pages[OTHER].fields = frozenset({"messages", "feed"})
    found = standing(otn_)
    assert (found["code"], found[PAGE]["attention"]) == (1, [])
    assert "messaging_optins" in found[OTHER]["missing_fields"]
    assert f"otn page subscribe {OTHER}" in found[OTHER]["attention"][0]["todo"]
    answer = otn_("page", "subscribe", OTHER, "--json")
    assert answer.code == 0
    assert "messaging_optins" in answer.err
    assert answer.json()[0]["added"] == sorted(set(SUBSCRIBED_FIELDS) - {"messages"})
    assert shop.world.pages[OTHER].fields == {*SUBSCRIBED_FIELDS, "feed"}
    again = otn_("page", "subscribe", OTHER, "--json")
    assert (again.code, again.json()[0]["added"]) == (0, [])
    assert "nothing was missing" in again.err
    assert standing(otn_)["code"] == 0


def test_subscribing_every_page_goes_on_after_one_that_meta_refuses(shop: Project, otn_: CommandLine) -> None:
    for page in BOTH:
        shop.world.unsubscribe(page.id)
    shop.control("/faults", {"kind": "access_token", "match": {"call": "page", "page_id": PAGE}})
    answer = otn_("page", "subscribe")
    assert answer.code == 1
    assert f"Page {PAGE} is not subscribed to everything" in answer.err
    assert f"Page {OTHER} is subscribed; new: " in answer.err
    assert (shop.world.pages[PAGE].fields, len(shop.world.pages[OTHER].fields)) == (
        set(),
        len(SUBSCRIBED_FIELDS),
    )
    assert otn_("page", "subscribe", FOREIGN).code == 1


# --- what people see before they write


def domain(shop: Project) -> None:
    (shop.root / "domain.yml").write_text("intents: [greet, ask_signed_up, EXTERNAL_otn_follow_up]\n")


def test_a_page_s_greeting_button_and_menu_are_set_and_shown(shop: Project, otn_: CommandLine) -> None:
    domain(shop)
    before = otn_("page", "profile", OTHER)
    shown = ["greeting     none", "get started  no button", "menu         none"]
    assert (before.code, before.out.splitlines()) == (0, shown)
    answer = otn_(
        *("page", "profile", OTHER, "--get-started", "/greet", "--greeting", "Welcome!"),
        *("--menu", "My sign-ups=/ask_signed_up", "--menu", "Shop=https://shop.example/?a=b"),
    )
    assert answer.code == 0, answer.err
    assert "My sign-ups -> /ask_signed_up" in answer.out
    assert shop.world.pages[OTHER].messenger_profile == {
        "greeting": [{"locale": "default", "text": "Welcome!"}],
        "get_started": {"payload": "/greet"},
        "persistent_menu": [
            {
                "locale": "default",
                "call_to_actions": [
                    {"type": "postback", "title": "My sign-ups", "payload": "/ask_signed_up"},
                    {"type": "web_url", "title": "Shop", "url": "https://shop.example/?a=b"},
                ],
            }
        ],
    }
    assert shop.world.pages[PAGE].messenger_profile == {}
    assert otn_("page", "profile", OTHER, "--json").json()["get_started"] == {"payload": "/greet"}


def test_what_is_not_named_stays_of_a_page_s_profile(shop: Project, otn_: CommandLine) -> None:
    domain(shop)
    otn_("page", "profile", PAGE, "--get-started", "/greet")
    otn_("page", "profile", PAGE, "--greeting", "Welcome!")
    assert set(shop.world.pages[PAGE].messenger_profile) == {"get_started", "greeting"}


@pytest.mark.parametrize("payload", ["/order", '/order{"size": "M"}', "/EXTERNAL_otn_follow_up"])
def test_a_button_whose_tap_would_say_nothing_is_refused(
    shop: Project, otn_: CommandLine, payload: str
) -> None:
    domain(shop)
    answer = otn_("page", "profile", PAGE, "--get-started", "/greet", "--menu", f"Order={payload}")
    assert answer.code == 1
    assert payload in answer.err
    assert shop.world.pages[PAGE].messenger_profile == {}


def test_of_several_pages_one_must_be_named_for_its_profile(shop: Project, otn_: CommandLine) -> None:
    assert otn_("page", "profile").code == 2
    assert otn_("page", "profile", PAGE, "--menu", "no payload").code == 2


def test_the_page_commands_explain_themselves(otn_: CommandLine) -> None:
    for command in ("list", "pause", "resume", "status", "subscribe", "profile"):
        shown = otn_("page", command, "--help")
        assert (shown.code, f"otn page {command}" in shown.out) == (0, True), command
