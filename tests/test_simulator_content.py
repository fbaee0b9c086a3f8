"""Every limit of the Send API on content, one character below and one above."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.content import broken_rules, postback_buttons, quick_replies
from simulator.testing import permission_request


def button(**changes: Any) -> dict[str, Any]:
    return {"type": "postback", "title": "Yes", "payload": "yes", **changes}


def reply(**changes: Any) -> dict[str, Any]:
    return {"content_type": "text", "title": "Yes", "payload": "yes", **changes}


def template(kind: str, **payload: Any) -> dict[str, Any]:
    return {"attachment": {"type": "template", "payload": {"template_type": kind, **payload}}}


def generic(*elements: dict[str, Any]) -> dict[str, Any]:
    return template("generic", elements=list(elements))


def media(kind: str = "image", **payload: Any) -> dict[str, Any]:
    return {"attachment": {"type": kind, "payload": payload}}


ALLOWED = {
    "text of 1999": {"text": "x" * 1999},
    "metadata of 999": {"text": "x", "metadata": "x" * 999},
    "13 quick replies": {"text": "x", "quick_replies": [reply()] * 13},
    "quick reply title of 20": {"text": "x", "quick_replies": [reply(title="x" * 20)]},
    "quick reply payload of 1000": {"text": "x", "quick_replies": [reply(payload="x" * 1000)]},
    "quick reply that asks for an address": {"text": "x", "quick_replies": [{"content_type": "user_email"}]},
    "button template of 640 and 3": template("button", text="x" * 640, buttons=[button()] * 3),
    "button title of 20": template("button", text="x", buttons=[button(title="x" * 20)]),
    "button payload of 1000": template("button", text="x", buttons=[button(payload="x" * 1000)]),
    "web button": template(
        "button", text="x", buttons=[{"type": "web_url", "title": "x", "url": "https://a.example"}]
    ),
    "10 elements": generic(*[{"title": "x"}] * 10),
    "element of 80 and 80": generic({"title": "x" * 80, "subtitle": "x" * 80, "buttons": [button()] * 3}),
    "image by url": media(url="https://a.example/a.png"),
    "file by id": media("file", attachment_id="1"),
    "request title of 65": permission_request("x" * 65),
    "request payload of 1000": permission_request(payload="x" * 1000),
}

FORBIDDEN = {
    "nothing": {},
    "text and attachment": {"text": "x", **media(url="https://a.example/a.png")},
    "text of 2000": {"text": "x" * 2000},
    "empty text": {"text": ""},
    "text that is a number": {"text": 1},
    "unexpected key": {"text": "x", "texts": "x"},
    "metadata of 1000": {"text": "x", "metadata": "x" * 1000},
    "metadata that is an object": {"text": "x", "metadata": {}},
    "14 quick replies": {"text": "x", "quick_replies": [reply()] * 14},
    "no quick replies": {"text": "x", "quick_replies": []},
    "quick reply that is text": {"text": "x", "quick_replies": ["yes"]},
    "quick reply title of 21": {"text": "x", "quick_replies": [reply(title="x" * 21)]},
    "quick reply payload of 1001": {"text": "x", "quick_replies": [reply(payload="x" * 1001)]},
    "quick reply without payload": {"text": "x", "quick_replies": [{"content_type": "text", "title": "x"}]},
    "quick reply of a dead type": {"text": "x", "quick_replies": [{"content_type": "location"}]},
    "button template of 641": template("button", text="x" * 641, buttons=[button()]),
    "4 buttons": template("button", text="x", buttons=[button()] * 4),
    "no buttons": template("button", text="x", buttons=[]),
    "button title of 21": template("button", text="x", buttons=[button(title="x" * 21)]),
    "button payload of 1001": template("button", text="x", buttons=[button(payload="x" * 1001)]),
    "button of no type": template("button", text="x", buttons=[{"title": "x", "payload": "x"}]),
    "button whose type is a list": template("button", text="x", buttons=[button(type=[])]),
    "web button without address": template("button", text="x", buttons=[{"type": "web_url", "title": "x"}]),
    "11 elements": generic(*[{"title": "x"}] * 11),
    "no elements": generic(),
    "element without title": generic({"subtitle": "x"}),
    "element title of 81": generic({"title": "x" * 81}),
    "element subtitle of 81": generic({"title": "x", "subtitle": "x" * 81}),
    "element with 4 buttons": generic({"title": "x", "buttons": [button()] * 4}),
    "element with a bad image": generic({"title": "x", "image_url": "a.png"}),
    "attachment that is text": {"attachment": "x"},
    "attachment of no type": {"attachment": {"payload": {}}},
    "image by nothing": media(),
    "image by url and id": media(url="https://a.example/a.png", attachment_id="1"),
    "image at no web address": media(url="file:///etc/passwd"),
    "unknown template": template("list"),
    "request title of 66": permission_request("x" * 66),
    "request without title": permission_request(""),
    "request payload of 1001": permission_request(payload="x" * 1001),
    "request without payload": permission_request(payload=""),
    "request with a heading": template("one_time_notif_req", title="x", payload="x", heading="x"),
}


@pytest.mark.parametrize("message", ALLOWED.values(), ids=ALLOWED.keys())
def test_what_the_pages_allow_is_allowed(message: dict[str, Any]) -> None:
    assert list(broken_rules(message)) == []


@pytest.mark.parametrize("message", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_what_the_pages_forbid_is_refused_with_the_page_named(message: dict[str, Any]) -> None:
    broken = list(broken_rules(message))

    assert broken
    assert all(
        rule.rule.endswith(("(SEND)", "(OTN)", "(SEND, OTN)")) and rule.code.code == 100 for rule in broken
    )


def test_a_bad_media_address_has_a_subcode_of_its_own() -> None:
    assert [broken.code.subcode for broken in broken_rules(media(url="nowhere"))] == [2018008]


def test_the_limit_of_request_payloads_can_be_chosen() -> None:
    assert list(broken_rules(permission_request(payload="x" * 11), request_payload_limit=10))


def test_what_can_be_tapped_is_found() -> None:
    message = generic(
        {"title": "x", "buttons": [button(), {"type": "web_url", "title": "x", "url": "https://a.example"}]}
    )

    assert postback_buttons(message) == {"yes": "Yes"}
    assert quick_replies({"text": "x", "quick_replies": [reply(), {"content_type": "user_email"}]}) == {
        "yes": "Yes"
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(
    [
        *(
            "text",
            "attachment",
            "quick_replies",
            "metadata",
            "type",
            "payload",
            "template_type",
            "title",
            "elements",
        ),
        *("buttons", "url", "content_type", "subtitle", "image_url"),
    ]
)
VALUES = JSON | st.sampled_from(
    ["template", "generic", "button", "one_time_notif_req", "image", "postback", "text", "x"]
)
MESSAGES = st.recursive(
    st.dictionaries(WORDS, VALUES, max_size=4),
    lambda inner: st.dictionaries(WORDS, VALUES | inner | st.lists(inner, max_size=3), max_size=5),
    max_leaves=8,
)


@settings(max_examples=50)
@given(MESSAGES)
def test_no_message_however_odd_is_too_much_for_the_rules(message: dict[str, Any]) -> None:
    if not list(broken_rules(message)):
        postback_buttons(message)
        quick_replies(message)
