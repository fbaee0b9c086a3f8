"""`otn send` says in plain words what happened, and shows nobody a secret."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cli import CommandLine, forget_environment
from simulated import TOPIC, Project, contact_id, environment, project

from otn.errors import StoreUnavailable
from otn.store.schema import contact_attribute

PROJECT = Path(__file__).parents[1]
DAY_AND_HOUR = timedelta(hours=25)
KEYS = ["state", "route", "rule", "reason", "sentence", "delivery_id", "message_id", "tokens_left"]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    forget_environment(monkeypatch)
    monkeypatch.setattr("otn.cli.send._wait", lambda _length: None)
    with project(tmp_path) as found:
        yield found


@pytest.fixture
def otn_(shop: Project, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    """Types commands, and at the end looks through all that they printed."""
    found = CommandLine(shop.root, capsys)
    yield found
    for secret in shop.secrets():
        assert secret not in found.printed


def words(text: str = "It is back.", psid: str = "7007") -> list[str]:
    return ["send", psid, "--topic", TOPIC, "--text", text]


def test_one_permission_one_message_in_plain_words(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    sent = otn_(*words())
    assert sent.code == 0
    assert sent.err.startswith(f"7007 agreed to '{TOPIC}': one message, until ")
    assert "it spent one permission" in sent.out
    assert f"Permissions left for '{TOPIC}': 0" in sent.out
    again = otn_(*words("And again."))
    assert again.code == 1
    assert again.out.startswith("Not sent: The messaging window is closed and the permission")
    assert shop.heard() == ["It is back."]


def test_json_has_the_same_keys_whatever_happens(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    answers = [
        otn_(*words(), "--dry-run", "--json"),
        otn_(*words(), "--json"),
        otn_(*words(), "--json"),
        otn_(*words("x" * 2000), "--json"),
        otn_(*words(psid="1"), "--json"),
    ]
    assert [list(answer.json()) for answer in answers] == [KEYS] * 5
    assert [answer.code for answer in answers] == [0, 0, 1, 1, 1]
    states = [answer.json()["state"] for answer in answers]
    assert states == ["would_send", "sent", "skipped", "skipped", "skipped"]
    sent = answers[1].json()
    assert (sent["route"], sent["reason"], sent["tokens_left"]) == ("token", None, 0)
    assert sent["message_id"].startswith("m_")


def test_a_dry_run_says_why_and_sends_nothing(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    assert "Would be sent: The messaging window is open" in otn_(*words(), "--dry-run").out
    shop.pass_time(DAY_AND_HOUR)
    assert "one unused permission of the topic pays" in otn_(*words(), "--dry-run").out
    shop.person("7008")
    shop.pass_time(DAY_AND_HOUR)
    refused = otn_(*words(psid="7008"), "--dry-run")
    assert refused.code == 1
    assert "Would not be sent: " in refused.out
    assert shop.heard() == shop.heard("7008") == []


def test_the_same_id_gives_the_first_answer_and_its_exit_code(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=2)
    shop.pass_time(DAY_AND_HOUR)
    first, again = (otn_(*words(), "--id", "launch", "--json") for _ in range(2))
    assert (first.code, first.out) == (again.code, again.out)
    other = otn_(*words("Another."), "--id", "launch")
    assert other.code == 1
    assert "used for another message" in other.err
    shop.person("7008")
    shop.pass_time(DAY_AND_HOUR)
    refused = [otn_(*words(psid="7008"), "--id", "later", "--json") for _ in range(2)]
    assert [answer.code for answer in refused] == [1, 1]
    assert refused[0].out == refused[1].out
    assert shop.heard() == ["It is back."]


def test_how_loudly_it_arrives_and_who_wrote_it_is_handed_on(shop: Project, otn_: CommandLine) -> None:
    shop.person()
    assert otn_(*words(), "--notification-type", "silent_push").code == 0
    shop.pass_time(DAY_AND_HOUR)
    assert otn_(*words(), "--human-agent").code == 0
    sent = shop.control("/journal?kind=delivered&psid=7007", method="GET")["entries"]
    assert [entry.get("notification_type") for entry in sent] == ["SILENT_PUSH", None]
    assert [entry.get("tag") for entry in sent] == [None, "HUMAN_AGENT"]


def test_what_a_person_wrote_needs_no_topic(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    by_hand = ("send", "7007", "--human-agent", "--text", "This is Mia.")
    foreseen, sent = otn_(*by_hand, "--dry-run"), otn_(*by_hand)
    assert (foreseen.code, sent.code) == (0, 0)
    assert "Would be sent: " in foreseen.out
    assert "Sent as a message that a person wrote" in sent.out
    assert "Permissions left" not in foreseen.out + sent.out
    assert shop.heard() == ["This is Mia."]
    shop.pass_time(7 * DAY_AND_HOUR)
    assert (otn_(*by_hand, "--dry-run").code, otn_(*by_hand).code) == (1, 1)


@pytest.mark.parametrize("key", ["", "x" * 201, "two\nlines"])
def test_an_id_is_a_short_word(shop: Project, otn_: CommandLine, key: str) -> None:
    shop.person()
    assert otn_(*words(), "--id", key).code == 2
    assert shop.heard() == []


def test_another_page_than_the_person_s_knows_nobody(shop: Project, otn_: CommandLine) -> None:
    shop.person()
    assert otn_(*words(), "--page", "12345").code == 1
    assert otn_(*words(), "--page", shop.page_id).code == 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"kind": "access_token"}, "190"),
        ({"kind": "policy_block"}, "368"),
        ({"kind": "throttle"}, "go on in 60 s"),
        ({"kind": "error", "code": 551}, "551"),
        ({"kind": "html"}, "HTTP 503"),
        ({"kind": "reset"}, "No clear answer"),
    ],
)
def test_what_graph_says_is_passed_on_without_secrets(
    shop: Project, otn_: CommandLine, fault: dict[str, object], says: str
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    shop.control("/faults", {**fault, "count": 3})
    answer = otn_(*words(), "--id", "one")
    assert answer.code == 1
    assert says in answer.out
    assert answer.out == otn_(*words(), "--id", "one").out


def test_graph_out_of_reach_is_said_without_secrets(shop: Project, otn_: CommandLine) -> None:
    shop.person()
    env = shop.root / ".env"
    env.write_text(env.read_text().replace(shop.url, "http://127.0.0.1:9"))
    answer = otn_(*words())
    assert answer.code == 1
    assert "`otn worker` goes on" in answer.out


def test_a_refusal_tells_what_to_type_next(shop: Project, otn_: CommandLine) -> None:
    shop.person()
    assert "otn topics list" in otn_("send", "7007", "--topic", "nonsense", "--text", "hello").err
    assert "otn contacts list" in otn_(*words(psid="1")).err
    otn_("page", "pause", shop.page_id, "--reason", "Test")
    assert "otn page resume" in otn_(*words(), "--dry-run").err


def test_two_processes_with_one_permission_send_one_message(shop: Project, otn_: CommandLine) -> None:
    """Promise 2, for real: which of the two wins is the database's to say."""
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)
    shop.fault("slow", seconds=0.5)
    command = [sys.executable, "-m", "otn.cli", "--root", str(shop.root), *words()]
    environ = {**environment(), "PYTHONPATH": str(PROJECT)}
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=60) for process in both]
    otn_.printed += "".join(text for pair in printed for text in pair)
    assert sorted(process.returncode for process in both) == [0, 1], printed
    assert shop.heard() == ["It is back."]


def test_without_a_topic_it_lists_what_the_person_agreed_to(shop: Project, otn_: CommandLine) -> None:
    shop.person(permissions=2)
    shop.agree("7007", "restock-red")
    asked = otn_("send", "7007")
    assert (asked.code, asked.out) == (2, "")
    lines = asked.err.splitlines()
    assert lines[0].startswith("7007 agreed to 'restock-blue': 2 messages, until 20")
    assert lines[1].startswith("7007 agreed to 'restock-red': one message, until 20")
    assert "`otn send 7007 --topic restock-blue --text" in lines[2]
    nobody = otn_("send", "1", "--text", "hello")
    assert nobody.code == 2
    assert "1 has no unused permission" in nobody.err


def test_a_response_is_said_in_the_person_s_own_words(shop: Project, otn_: CommandLine) -> None:
    (shop.root / "domain.yml").write_text(
        "responses: {utter_back: [{text: 'Hi {first_name|there}, your {size|usual} one is back.'}]}"
    )
    shop.person()
    with shop.opened() as app, app.store.begin() as tx:
        mine = {"contact_id": contact_id(app), "name": "size", "value": "large"}
        tx.execute(contact_attribute.insert().values(**mine))
    said = otn_("send", "7007", "--topic", TOPIC, "--response", "utter_back")
    assert said.code == 0, said.err
    assert shop.heard() == ["Hi there, your large one is back."]
    wrong = otn_("send", "7007", "--topic", TOPIC, "--response", "utter_bakc")
    assert (wrong.code, wrong.out) == (1, "")
    assert "did you mean utter_back" in wrong.err


def test_who_may_have_sent_it_is_not_told_to_try_again(
    shop: Project, otn_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.person(permissions=1)
    shop.pass_time(DAY_AND_HOUR)

    def gone(*_: object) -> None:
        raise StoreUnavailable("the database does not answer")

    with monkeypatch.context() as outage:
        outage.setattr("otn.delivery.settle", gone)
        answer = otn_(*words())
    assert answer.code == 1
    assert "Do not send it again: `otn contacts show 7007`" in answer.err
    assert "Nothing was changed" not in answer.err
    assert "try again" not in answer.err
    shop.pass_time(DAY_AND_HOUR)
    assert otn_("worker", "--once").code == 0
    assert shop.heard() == ["It is back."]


@pytest.mark.parametrize("more", [[], ["--text", "a", "--response", "utter_back"]])
def test_one_thing_is_said_and_nothing_else(shop: Project, otn_: CommandLine, more: list[str]) -> None:
    answer = otn_("send", "7007", "--topic", TOPIC, *more)
    assert answer.code == 2
    assert "--text or --response" in answer.err
