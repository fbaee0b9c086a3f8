"""One message is sent once, by the right route, and every other ending has a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from simulated import TOPIC, Project, project

from otn import sending
from otn.app import App
from otn.delivery import Order
from otn.errors import ConfigError, InvalidMove, MayBeSent, StoreUnavailable, Unreachable
from otn.graph.protocol import HttpRequest, Sent
from otn.graph.sync import SyncGraph
from otn.messages import attachment, text
from otn.models import DeliveryState, Origin, Route
from otn.sending import Report
from otn.store import rates

DAY_AND_HOUR = timedelta(hours=25)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def app(shop: Project) -> Iterator[App]:
    with shop.opened() as found:
        yield found


@pytest.fixture
def graph() -> Iterator[SyncGraph]:
    with SyncGraph() as found:
        yield found


class Waits(list[timedelta]):
    """Remembers how long it was asked to wait, and does not."""

    def __call__(self, length: timedelta) -> None:
        self.append(length)


@pytest.fixture
def waits() -> Waits:
    return Waits()


def order(shop: Project, words: str = "It is back.", *, key: str = "cli:1", **more: Any) -> Order:
    values = {"page_id": shop.page_id, "psid": "7007", "topic": TOPIC, "origin": Origin.CLI, **more}
    return Order(message=text(words), dedupe_key=key, **values)


def test_inside_the_window_the_permission_is_kept(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    report = sending.send(app, graph, order(shop), waits)
    assert (report.state, report.route, report.tokens_left) == ("sent", Route.WINDOW, 1)
    assert "no permission was spent" in report.sentence
    assert report.message_id is not None
    assert shop.heard() == ["It is back."]


def test_after_the_window_one_permission_pays_and_the_next_send_is_refused(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    first = sending.send(app, graph, order(shop, key="cli:1"), waits)
    second = sending.send(app, graph, order(shop, key="cli:2"), waits)
    assert (first.state, first.route, first.tokens_left) == ("sent", Route.TOKEN, 0)
    assert (second.state, second.reason, second.is_good) == ("skipped", "token_used", False)
    assert "one permission, one message" in second.sentence
    assert shop.heard() == ["It is back."]


def test_the_same_key_sends_once_and_gives_the_first_answer_again(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=2)
    shop.pass_time(DAY_AND_HOUR)
    assert sending.send(app, graph, order(shop), waits) == sending.send(app, graph, order(shop), waits)
    assert shop.heard() == ["It is back."]


def test_a_refusal_is_remembered_under_its_key(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person()
    shop.pass_time(DAY_AND_HOUR)
    first = sending.send(app, graph, order(shop), waits)
    shop.control("/people/7007/message", {"text": "I am here again"})
    assert first.reason == "no_token"
    assert sending.send(app, graph, order(shop), waits) == first
    assert shop.heard() == []


def test_a_key_stands_for_one_message_only(shop: Project, app: App, graph: SyncGraph, waits: Waits) -> None:
    shop.person(permissions=1)
    sending.send(app, graph, order(shop), waits)
    with pytest.raises(InvalidMove, match="used for another message"):
        sending.send(app, graph, order(shop, "Something else."), waits)
    with pytest.raises(InvalidMove, match="used for another message"):
        sending.foresee(app, order(shop, "Something else."))


@pytest.mark.parametrize("words", ["", "  ", "x" * 2000, "half \ud83d"])
def test_what_is_not_one_message_spends_nothing(
    shop: Project, app: App, graph: SyncGraph, waits: Waits, words: str
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    report = sending.send(app, graph, order(shop, words), waits)
    assert (report.state, report.reason, report.delivery_id) == ("skipped", "not_one_message", None)
    assert sending.foresee(app, order(shop)).tokens_left == 1


def test_somebody_who_never_wrote_is_not_written_to(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    report = sending.send(app, graph, order(shop, page_id=""), waits)
    assert (report.state, report.reason) == ("skipped", "unknown_contact")


def test_an_unknown_topic_is_refused(shop: Project, app: App, graph: SyncGraph, waits: Waits) -> None:
    shop.person()
    assert sending.send(app, graph, order(shop, topic="nonsense"), waits).reason == "unknown_topic"


def test_a_page_without_an_access_token_is_a_matter_of_configuration(
    shop: Project, app: App, graph: SyncGraph, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.person()

    def no_token(*_: object) -> None:
        raise ConfigError(["no access token is configured for page 1"])

    monkeypatch.setattr(App, "graph_config", no_token)
    with pytest.raises(ConfigError):
        sending.send(app, graph, order(shop), waits)
    assert sending.foresee(app, order(shop)).state == "would_send"


def test_foreseeing_sends_nothing_and_records_nothing(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    assert sending.foresee(app, order(shop)).route is Route.WINDOW
    shop.pass_time(DAY_AND_HOUR)
    foreseen = sending.foresee(app, order(shop))
    assert (foreseen.state, foreseen.route, foreseen.tokens_left) == ("would_send", Route.TOKEN, 1)
    assert shop.heard() == []
    assert sending.send(app, graph, order(shop), waits).route is Route.TOKEN
    assert sending.foresee(app, order(shop)).state == "sent"
    assert sending.foresee(app, order(shop, key="cli:2")).reason == "token_used"


def test_a_lost_answer_is_asked_for_with_the_same_permission(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    """Promise 2: the message arrived, so the permission is spent, and no other one is drawn."""
    shop.person(permissions=2)
    shop.person("7008", permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    # The same message was accepted for somebody else, so a refusal can only mean the permission.
    assert sending.send(app, graph, order(shop, psid="7008", key="cli:0"), waits).state == "sent"
    shop.fault("lost_answer")
    report = sending.send(app, graph, order(shop), waits)
    assert (report.state, report.tokens_left) == ("sent", 1)
    assert shop.heard() == ["It is back."]
    assert len(waits) == 1


def test_a_lost_answer_without_other_proof_leaves_the_permission_in_doubt(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("lost_answer")
    report = sending.send(app, graph, order(shop), waits)
    assert (report.state, report.is_good) == ("unconfirmed", False)
    assert sending.send(app, graph, order(shop, key="cli:2"), waits).reason == "token_suspect"
    assert shop.heard() == ["It is back."]


def test_an_answer_that_stays_away_is_left_to_the_worker_after_three_tries(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("server_error", count=3)
    report = sending.send(app, graph, order(shop), waits)
    assert (report.state, report.is_good) == ("unknown", False)
    assert "`otn worker`" in report.sentence
    assert [round(wait.total_seconds()) for wait in waits] == [5, 10]
    assert shop.control("/faults", method="GET") == []


def test_a_window_send_is_never_repeated_on_its_own(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    """Promise 2: no permission makes a repetition harmless here."""
    shop.person(permissions=1)
    shop.fault("lost_answer")
    report = sending.send(app, graph, order(shop), waits)
    assert (report.state, report.route, report.tokens_left) == ("unknown", Route.WINDOW, 1)
    assert "not sent again" in report.sentence
    assert waits == []
    assert shop.heard() == ["It is back."]


def test_a_window_that_turns_out_closed_is_decided_once_more(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    shop.fault("error", code=10, subcode=2018278)
    report = sending.send(app, graph, order(shop), waits)
    assert (report.state, report.route, report.tokens_left) == ("sent", Route.TOKEN, 0)
    assert waits == []
    assert shop.heard() == ["It is back."]


def test_a_limit_of_metas_is_waited_for_by_the_worker_not_by_a_person(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("throttle")
    report = sending.send(app, graph, order(shop), waits)
    assert (report.state, report.tokens_left) == ("queued", 1)
    assert waits == []


class Unplugged:
    """A network that is down for some calls."""

    def __init__(self, graph: SyncGraph, calls: int) -> None:
        self.graph, self.calls = graph, calls

    def send(self, request: HttpRequest) -> Sent:
        self.calls -= 1
        if self.calls >= 0:
            raise Unreachable("ConnectionRefusedError")
        return self.graph.send(request)


def test_what_never_left_us_is_tried_again(shop: Project, app: App, graph: SyncGraph, waits: Waits) -> None:
    shop.person()
    report = sending.send(app, Unplugged(graph, 2), order(shop), waits)
    assert report.state == "sent"
    assert len(waits) == 2
    assert shop.heard() == ["It is back."]


class Meanwhile:
    """Does something while the POST is under way."""

    def __init__(self, graph: SyncGraph, act: Any) -> None:
        self.graph, self.act = graph, act
        self.result: Any = None

    def send(self, request: HttpRequest) -> Sent:
        self.result = self.act()
        return self.graph.send(request)


def test_of_two_sends_with_one_permission_only_one_goes_out(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    with shop.opened() as other:
        slow = Meanwhile(graph, lambda: sending.send(other, graph, order(shop, key="cli:2"), waits))
        report = sending.send(app, slow, order(shop, key="cli:1"), waits)
    refused: Report = slow.result
    assert report.state == "sent"
    assert (refused.state, refused.reason) == ("skipped", "token_reserved")
    assert shop.heard() == ["It is back."]


def test_the_same_key_at_the_same_time_sends_once(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=2)
    with shop.opened() as other:
        slow = Meanwhile(graph, lambda: sending.send(other, graph, order(shop), waits))
        report = sending.send(app, slow, order(shop), waits)
    assert report.state == "sent"
    assert slow.result.state == DeliveryState.SENDING.value
    assert shop.heard() == ["It is back."]


def test_nothing_is_held_in_the_database_while_the_post_is_under_way(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person()
    with shop.opened() as other:

        def write() -> None:
            with other.store.begin():
                pass

        assert sending.send(app, Meanwhile(graph, write), order(shop), waits).state == "sent"


@pytest.mark.parametrize("step", ["otn.delivery.settle", "otn.sending._tokens_left"])
def test_a_database_that_goes_away_after_the_post_does_not_read_as_if_nothing_happened(
    shop: Project, app: App, graph: SyncGraph, waits: Waits, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shop.person()

    def gone(*_: object) -> None:
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(step, gone)
    with pytest.raises(MayBeSent, match="`otn worker` finds out"):
        sending.send(app, graph, order(shop), waits)
    assert shop.heard() == ["It is back."]


@pytest.mark.parametrize("kind", [rates.MESSAGES, rates.MEDIA])
def test_a_single_message_is_taken_off_the_page_s_rate_and_waits_for_nobody(
    shop: Project, app: App, graph: SyncGraph, waits: Waits, kind: str
) -> None:
    """So that a broadcast yields to it, and no second has more than Meta allows."""
    shop.person()
    slow = replace(app, settings=replace(app.settings, sends_per_second=0.1))
    said = text("hi") if kind == rates.MESSAGES else attachment("audio", "https://cdn.example/1.mp3")
    sending.send(slow, graph, replace(order(shop), message=said), waits)
    sending.send(slow, graph, replace(order(shop), message=said, dedupe_key="cli:2"), waits)
    assert waits == []
    with app.store.begin() as tx:
        assert 10 < rates.take(tx, shop.page_id, kind, 1, 0.1) <= 20


def test_a_person_may_write_for_seven_days_by_human_agent(
    shop: Project, app: App, graph: SyncGraph, waits: Waits
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    report = sending.send(app, graph, order(shop, human_agent=True), waits)
    assert (report.state, report.route, report.tokens_left) == ("sent", Route.HUMAN_AGENT, 1)
