"""What is said to Graph, and what each of its answers means."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otn.errors import ConfigError, OutcomeUnknown, Refusal, Refused, SendError, Throttled, Unreachable
from otn.graph import protocol
from otn.graph.protocol import GraphConfig, HttpRequest, Sent, classify, classify_json

ACCESS_TOKEN = "EAAGpage1access2token3with4digits"
APP_SECRET = "app-secret"
OTN_TOKEN = "otn-token-of-a-person"
CONFIG = GraphConfig(
    base_url="https://graph.example/",
    api_version="v26.0",
    page_id="1001",
    access_token=ACCESS_TOKEN,
    app_secret=APP_SECRET,
)


def failed(code: Any, subcode: Any = None, status: int = 400, headers: Any = None, **error: Any) -> SendError:
    body = {"error": {"message": "no", "code": code, "error_subcode": subcode, **error}}
    with pytest.raises(SendError) as caught:
        classify(status, headers or {}, json.dumps(body).encode())
    return caught.value


# --- requests ---


def test_a_reply_goes_to_the_persons_id() -> None:
    request = protocol.build_send(
        CONFIG,
        recipient={"id": "7"},
        message={"text": "hi"},
        messaging_type="RESPONSE",
        notification_type="NO_PUSH",
    )
    assert (request.method, request.url) == ("POST", "https://graph.example/v26.0/1001/messages")
    assert request.json == {
        "recipient": {"id": "7"},
        "message": {"text": "hi"},
        "messaging_type": "RESPONSE",
        "notification_type": "NO_PUSH",
    }
    assert json.loads(request.body or b"") == request.json


def test_a_follow_up_goes_to_the_token_without_a_messaging_type() -> None:
    request = protocol.build_send(
        CONFIG, recipient={"one_time_notif_token": OTN_TOKEN}, message={"text": "hi"}
    )
    assert request.json == {"recipient": {"one_time_notif_token": OTN_TOKEN}, "message": {"text": "hi"}}


def test_the_access_token_travels_in_a_header_with_its_proof() -> None:
    request = protocol.build_me(CONFIG)
    assert request.headers["Authorization"] == f"Bearer {ACCESS_TOKEN}"
    assert ACCESS_TOKEN not in request.url
    proof = hmac.new(APP_SECRET.encode(), ACCESS_TOKEN.encode(), hashlib.sha256).hexdigest()
    assert request.params == {"fields": "id,name", "appsecret_proof": proof}


def test_without_an_app_secret_there_is_no_proof_and_without_a_page_it_is_the_tokens_own() -> None:
    config = GraphConfig(base_url="http://127.0.0.1:1", api_version="v26.0", access_token="t")
    request = protocol.build_subscribed_apps(config)
    assert (request.method, request.url, request.params) == (
        "GET",
        "http://127.0.0.1:1/v26.0/me/subscribed_apps",
        {},
    )
    assert request.body is None


def test_no_secret_shows_in_a_repr() -> None:
    request = protocol.build_send(
        CONFIG, recipient={"one_time_notif_token": OTN_TOKEN}, message={"text": "private"}
    )
    shown = repr(CONFIG) + repr(request)
    proof = protocol.appsecret_proof(ACCESS_TOKEN, APP_SECRET)
    assert not [
        secret for secret in (ACCESS_TOKEN, APP_SECRET, OTN_TOKEN, proof, "private") if secret in shown
    ]


@pytest.mark.parametrize(
    ("request_", "method", "path", "body"),
    [
        (
            protocol.build_sender_action(CONFIG, "7", "typing_on"),
            "POST",
            "1001/messages",
            {"recipient": {"id": "7"}, "sender_action": "typing_on"},
        ),
        (protocol.build_profile(CONFIG, "7/../8"), "GET", "7%2F..%2F8", None),
        (
            protocol.build_subscribe(CONFIG, ["messages", "standby"]),
            "POST",
            "1001/subscribed_apps",
            {"subscribed_fields": "messages,standby"},
        ),
        (
            protocol.build_show_messenger_profile(CONFIG, ["greeting"]),
            "GET",
            "1001/messenger_profile",
            None,
        ),
        (
            protocol.build_messenger_profile(CONFIG, {"get_started": {"payload": "START"}}),
            "POST",
            "1001/messenger_profile",
            {"get_started": {"payload": "START"}},
        ),
    ],
)
def test_other_calls(request_: HttpRequest, method: str, path: str, body: object) -> None:
    assert (request_.method, request_.url) == (method, f"https://graph.example/v26.0/{path}")
    assert request_.json == body


def test_metadata_is_added_without_touching_the_message() -> None:
    message = {"text": "hi"}
    assert protocol.with_metadata(message, "otn:1") == {"text": "hi", "metadata": "otn:1"}
    assert message == {"text": "hi"}


def test_a_lone_surrogate_is_sent_as_its_escape_and_nan_not_at_all() -> None:
    def request(message: dict[str, Any]) -> HttpRequest:
        return protocol.build_send(CONFIG, recipient={"id": "7"}, message=message)

    assert b'"\\ud83d"' in (request({"text": "\ud83d"}).body or b"")
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = request({"x": float("nan")}).body


@pytest.mark.parametrize("base_url", ["graph.facebook.com", "ftp://x", "https://", ""])
def test_a_graph_address_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ConfigError, match="MESSENGER_GRAPH_URL"):
        GraphConfig(base_url=base_url, api_version="v26.0", access_token="t")


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "\u00e9", "token\n"])
def test_an_access_token_that_cannot_be_one_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigError, match="MESSENGER_PAGE_ACCESS_TOKEN") as caught:
        GraphConfig(base_url="https://x", api_version="v26.0", access_token=token)
    assert not token or token not in str(caught.value)


# --- answers ---


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ({"recipient_id": "7", "message_id": "m_1"}, Sent(message_id="m_1", recipient_id="7")),
        ({"message_id": "m_1"}, Sent(message_id="m_1", recipient_id=None)),
        ({"recipient_id": "7"}, Sent(message_id=None, recipient_id="7")),
        ({"recipient_id": 7, "message_id": "m\x00_1"}, Sent(message_id="m_1", recipient_id="7")),
        ({"recipient_id": ["7"], "message_id": "m_1"}, Sent(message_id="m_1", recipient_id=None)),
    ],
)
def test_a_yes_is_a_yes_even_if_half_of_it_is_missing(answer: Any, sent: Sent) -> None:
    assert classify(200, {}, json.dumps(answer).encode()) == sent


@pytest.mark.parametrize(
    ("code", "subcode", "refusal"),
    [
        (613, 1893016, Refusal.TOO_MANY_REQUESTS),
        (9, 2018352, Refusal.TOO_MANY_REQUESTS),
        (10, 1404170, Refusal.TOO_MANY_REQUESTS),
        (4, 2018354, Refusal.TOO_MANY_REQUESTS),
        (10, 2018278, Refusal.OUTSIDE_WINDOW),
        (10, 2018065, Refusal.OUTSIDE_WINDOW),
        (10, 2018108, Refusal.CANNOT_RECEIVE_NOW),
        (10, 1893063, Refusal.PAGE_RESTRICTED),
        (368, None, Refusal.PAGE_RESTRICTED),
        (368, 5, Refusal.PAGE_RESTRICTED),
        (10, None, Refusal.PERMISSION_MISSING),
        (10, 5, Refusal.PERMISSION_MISSING),
        (200, None, Refusal.PERMISSION_MISSING),
        (200, 5, Refusal.PERMISSION_MISSING),
        (100, 2018001, Refusal.NO_SUCH_PERSON),
        (100, 2018008, Refusal.BAD_MEDIA),
        (100, 2018047, Refusal.BAD_MEDIA),
        (100, 2018109, Refusal.BAD_MEDIA),
        (100, 2018294, Refusal.BAD_MEDIA),
        (100, None, Refusal.BAD_REQUEST),
        (100, 5, Refusal.BAD_REQUEST),
        (190, 463, Refusal.BAD_ACCESS_TOKEN),
        (200, 1545041, Refusal.PERSON_UNAVAILABLE),
        (551, None, Refusal.PERSON_UNAVAILABLE),
        (10, 2018300, Refusal.THREAD_CONTROL),
        (100, 2018300, Refusal.THREAD_CONTROL),
        (12345, None, Refusal.BAD_REQUEST),
    ],
)
def test_a_no_is_read_from_code_and_subcode(code: int, subcode: int | None, refusal: Refusal) -> None:
    error = failed(code, subcode)
    assert isinstance(error, Refused)
    assert (error.refusal, error.code, error.subcode) == (refusal, code, subcode)


@pytest.mark.parametrize(
    ("code", "subcode"),
    [(4, None), (17, None), (32, 7), (613, None), (80001, None), (80006, None), (613, 2534040), (613, 1996)],
)
def test_a_rate_limit_stops_the_page(code: int, subcode: int | None) -> None:
    error = failed(code, subcode, is_transient=True)
    assert isinstance(error, Throttled)
    assert (error.retry_after, error.code, error.subcode) == (protocol.DEFAULT_RETRY_AFTER, code, subcode)


@pytest.mark.parametrize(("code", "subcode"), [(1, None), (2, None), (341, None), (1, 1357046), (2, 5)])
def test_a_temporary_error_says_nothing_about_the_message(code: int, subcode: int | None) -> None:
    for status in (400, 500):
        error = failed(code, subcode, status=status)
        assert isinstance(error, OutcomeUnknown)
        assert (error.code, error.subcode) == (code, subcode)


def test_a_server_error_is_temporary_whatever_its_code() -> None:
    for code in (100, 613, 190, 12345):
        assert isinstance(failed(code, status=500), OutcomeUnknown)


def test_a_strange_code_that_calls_itself_transient_is_temporary() -> None:
    assert isinstance(failed(12345, is_transient=True), OutcomeUnknown)
    assert isinstance(failed(100, is_transient=True), Refused)


@pytest.mark.parametrize("status", [200, 202, 302, 400, 401, 403, 404, 413, 429, 500, 502, 503])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b'{"recipient_id": "7", "mess',
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"message_id": null}',
        b'{"error": "no"}',
        b'{"error": {}}',
        b'{"error": {"code": true}}',
        b'{"error": {"code": [100]}}',
        b'{"error": {"code": 1e999}}',
        b"[" * 100_000,
    ],
)
def test_whatever_graph_did_not_promise_leaves_the_outcome_open(status: int, body: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        classify(status, {}, body)


def test_a_success_that_holds_an_error_is_no_success() -> None:
    with pytest.raises(OutcomeUnknown):
        classify(200, {}, b'{"message_id": "m_1", "error": {"code": 100}}')
    with pytest.raises(OutcomeUnknown):
        classify(302, {}, b'{"message_id": "m_1", "recipient_id": "7"}')


def test_a_code_written_as_text_is_read_as_a_number() -> None:
    error = failed("10", "2018278")
    assert isinstance(error, Refused)
    assert error.refusal is Refusal.OUTSIDE_WINDOW


def test_any_other_answer_is_returned_as_it_is() -> None:
    assert classify_json(200, {}, b'{"data": []}') == {"data": []}
    with pytest.raises(Refused, match="bad_access_token"):
        classify_json(401, {}, b'{"error": {"code": 190, "message": "expired"}}')


def usage(*minutes: object) -> str:
    return json.dumps(
        {"1": [{"type": "messenger", "estimated_time_to_regain_access": each} for each in minutes]}
    )


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (usage(2), 120),
        (usage(0, 7, 3), 420),
        (usage(0.5), 30),
        (usage(10**30), protocol.LONGEST_RETRY_AFTER),
        (usage(1440), 86_400),
        (usage(0), protocol.DEFAULT_RETRY_AFTER),
        (usage(-5, None, "9", True, [], float("nan")), protocol.DEFAULT_RETRY_AFTER),
        ('{"1": {"estimated_time_to_regain_access": 2}}', 120),
        ("{}", protocol.DEFAULT_RETRY_AFTER),
        ("not json", protocol.DEFAULT_RETRY_AFTER),
        ("[1]", protocol.DEFAULT_RETRY_AFTER),
        ('{"1": [5], "2": 5}', protocol.DEFAULT_RETRY_AFTER),
    ],
)
def test_the_regain_time_comes_in_minutes(header: str, seconds: float) -> None:
    error = failed(613, headers={"X-Business-Use-Case-Usage": header})
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


def test_no_secret_shows_in_an_error() -> None:
    message = f"Bad token {ACCESS_TOKEN} or EAAB0other1page2token3of4meta, {OTN_TOKEN}\nsee\x00 (#100)"
    body = json.dumps({"error": {"code": 100, "message": message}}).encode()
    request = protocol.build_send(
        CONFIG, recipient={"one_time_notif_token": OTN_TOKEN}, message={"text": "x"}
    )
    with pytest.raises(Refused) as caught:
        classify(400, {}, body, secrets=request.secrets)
    assert caught.value.detail == "Bad token *** or ***, *** see  (#100)"


def test_an_endless_explanation_is_cut() -> None:
    for filler in ("a", "1", "a b"):
        error = failed(100, message=filler * 300_000)
        assert isinstance(error, Refused)
        assert len(error.detail) <= 300


def test_what_never_left_us_is_told_from_what_may_have() -> None:
    send = protocol.build_send(CONFIG, recipient={"id": "7"}, message={"text": "x"})
    reason = f"broken: {ACCESS_TOKEN}"
    assert isinstance(protocol.lost(send, written=False, reason=reason), Unreachable)
    assert isinstance(protocol.lost(send, written=True, reason=reason), OutcomeUnknown)
    assert isinstance(protocol.lost(protocol.build_me(CONFIG), written=True, reason=reason), Unreachable)
    assert ACCESS_TOKEN not in str(protocol.lost(send, written=True, reason=reason))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ERRORS = st.fixed_dictionaries(
    {},
    optional={
        "code": st.sampled_from([1, 4, 10, 100, 190]) | JSON,
        "error_subcode": JSON,
        "message": JSON,
        "is_transient": JSON,
    },
)


@given(
    st.integers(100, 599),
    st.dictionaries(st.sampled_from(["message_id", "recipient_id", "error"]), ERRORS | JSON) | JSON,
    st.dictionaries(st.just("X-Business-Use-Case-Usage"), st.text() | JSON.map(json.dumps)),
)
def test_no_answer_raises_anything_but_send_errors(status: int, answer: Any, headers: dict[str, str]) -> None:
    check: Callable[[Any], bool] = lambda sent: status // 100 == 2  # noqa: E731 - says what a yes needs
    with suppress(SendError):
        assert check(classify(status, headers, json.dumps(answer).encode()))


# --- profiles ---


def test_a_profile_is_kept_as_far_as_it_is_one() -> None:
    told = {
        "first_name": "Ada",
        "last_name": "King",
        "locale": "en_GB",
        "timezone": 1,
        "id": "7",
        "profile_pic": "x",
    }
    assert protocol.profile_of(told) == {
        "first_name": "Ada",
        "last_name": "King",
        "locale": "en_GB",
        "timezone": "1",
    }


@pytest.mark.parametrize(
    ("told", "kept"), [(-3.5, "-3.5"), (5.75, "5.75"), (0, "0"), ("Asia/Tokyo", "Asia/Tokyo")]
)
def test_a_time_zone_is_hours_or_a_name(told: object, kept: str) -> None:
    assert protocol.profile_of({"timezone": told}) == {"timezone": kept}


@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"first_name": None, "locale": None, "timezone": None},
        {"first_name": "", "last_name": " \n"},
        {"first_name": ["Ada"], "last_name": {"a": 1}},
        {"locale": "x" * 500},
        {"locale": "'; DROP"},
        {"timezone": 99},
        {"timezone": True},
        {"timezone": float("nan")},
        {"timezone": "Middle/Earth"},
        {"timezone": "../../etc/passwd"},
        {"timezone": "a" * 5000},
    ],
)
def test_what_is_missing_or_strange_in_a_profile_is_left_out(strange: dict[str, Any]) -> None:
    assert protocol.profile_of(strange) == {}


def test_a_name_is_cut_and_safe_for_sql() -> None:
    assert protocol.profile_of({"first_name": "a" * 500}) == {"first_name": "a" * 64}
    assert protocol.profile_of({"first_name": "Ada\x00\ud83d\n Lovelace"}) == {"first_name": "Ada  Lovelace"}
