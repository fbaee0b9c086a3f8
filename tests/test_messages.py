"""What can be said in Messenger."""

from __future__ import annotations

from typing import Any

import pytest

from otn import messages
from otn.messages import fingerprint, problems
from simulator.content import broken_rules

URL = "https://shop.example/x"


def payload_of(message: dict[str, Any]) -> dict[str, Any]:
    return dict(message["attachment"]["payload"])


@pytest.mark.parametrize(
    "message",
    [
        messages.text("hi"),
        messages.text("a" * 1999),
        messages.text("hi", [messages.quick_reply("t" * 20, "p" * 1000)] * 13),
        messages.text("hi", [{"content_type": "user_email"}]),
        messages.button_template("t" * 640, [messages.button("t" * 20, payload="p" * 1000)] * 3),
        messages.button_template("t", [messages.button("Open", url=URL)]),
        messages.button_template("t", [{"type": "phone_number", "title": "Call", "payload": "+49"}]),
        messages.button_template("t", [{"type": "account_unlink"}]),
        messages.generic_template(
            [{"title": "t" * 80, "subtitle": "s" * 80, "image_url": URL, "buttons": [messages.button("Buy")]}]
            * 10
        ),
        messages.attachment("image", URL),
        {"attachment": {"type": "video", "payload": {"attachment_id": "5"}}},
        messages.permission_request("t" * 65, "p" * 999),
        {**messages.text("hi"), "metadata": "m" * 999},
    ],
)
def test_what_just_keeps_the_limits_is_allowed_by_us_and_by_the_simulator(message: dict[str, Any]) -> None:
    assert problems(message) == []
    assert list(broken_rules(message)) == []


ELEMENT = {"title": "t"}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (messages.text("a" * 2000), "The text has 2000 characters; Messenger allows 1999."),
        (messages.text("\U0001f600" * 1000), "The text has 2000 characters; Messenger allows 1999."),
        (messages.text(" \n\u200b"), "The text is missing or blank."),
        (messages.text("a\x00"), "The text holds NUL or half a character."),
        (messages.text("a\ud83d"), "The text holds NUL or half a character."),
        ({"text": 5}, "The text is missing or blank."),
        ({}, "A message has either a text or an attachment."),
        ({**messages.attachment("image", URL), "text": "x"}, "A message has either a text or an attachment."),
        ({"text": "hi", "is_echo": True}, "A message has no is_echo."),
        ({"text": "hi", "metadata": "m" * 1000}, "The metadata has 1000 characters; Messenger allows 999."),
        (messages.text("hi", [messages.quick_reply("t", "p")] * 14), "There are 14 quick replies"),
        (
            messages.text("hi", [messages.quick_reply("t" * 21, "p")]),
            "title has 21 characters; Messenger allows 20",
        ),
        (messages.text("hi", [messages.quick_reply("t", "p" * 1001)]), "payload has 1001 characters"),
        (messages.text("hi", [messages.quick_reply("", "p")]), "A quick reply's title is missing or blank."),
        (messages.text("hi", [{"content_type": "location"}]), "content_type is text, user_phone_number or"),
        ({"text": "hi", "quick_replies": []}, "There are 0 quick replies; Messenger allows 1 to 13."),
        ({"text": "hi", "quick_replies": [5]}, "The quick replies are not a list of objects."),
        (
            messages.button_template("t" * 641, [messages.button("b")]),
            "has 641 characters; Messenger allows 640",
        ),
        (messages.button_template("t", []), "There are 0 buttons; Messenger allows 1 to 3."),
        (messages.button_template("t", [messages.button("b")] * 4), "There are 4 buttons"),
        (messages.button_template("t", [messages.button("b" * 21)]), "A button's title has 21 characters"),
        (messages.button_template("t", [messages.button("b", payload="p" * 1001)]), "payload has 1001"),
        (
            messages.button_template("t", [messages.button("b", url="javascript:1")]),
            "A button's url does not",
        ),
        (messages.button_template("t", [{"title": "b"}]), "A button has a type."),
        (messages.generic_template([ELEMENT] * 11), "There are 11 elements; Messenger allows 1 to 10."),
        (messages.generic_template([{"title": "t" * 81}]), "An element's title has 81 characters"),
        (messages.generic_template([{**ELEMENT, "subtitle": "s" * 81}]), "An element's subtitle has 81"),
        (messages.generic_template([{**ELEMENT, "image_url": "x.png"}]), "The address of an element's image"),
        (messages.generic_template([{**ELEMENT, "buttons": []}]), "There are 0 buttons"),
        (messages.attachment("image", "ftp://x/y"), "The address of the image does not begin with http"),
        (messages.attachment("image", "https://[x"), "The address of the image does not begin with http"),
        (messages.attachment("hologram", URL), "An attachment has a payload and a type"),
        ({"attachment": {"type": "file", "payload": {}}}, "has either a url or an attachment_id."),
        ({"attachment": {"type": "template", "payload": {}}}, "A template has a template_type."),
        ({"attachment": "x"}, "An attachment has a payload and a type"),
        (messages.permission_request("t" * 66, "p"), "title of a permission request has 66 characters"),
        (messages.permission_request("t", "p" * 1000), "payload of a permission request has 1000"),
    ],
)
def test_what_breaks_a_limit_is_named_with_its_number(message: Any, words: str) -> None:
    found = problems(message)
    assert [problem for problem in found if words in problem], found


@pytest.mark.parametrize(
    "message", [None, [], "text", {"text": float("nan")}, {"text": {1, 2}}, {"text": b"x"}]
)
def test_what_is_no_json_object_is_no_message(message: Any) -> None:
    assert problems(message)


def test_a_permission_request_takes_nothing_but_title_and_payload() -> None:
    message = messages.permission_request("t", "p")
    message["attachment"]["payload"]["image_url"] = URL
    assert problems(message) == ["Only title and payload of a permission request can be set."]


def test_templates_that_we_do_not_know_are_let_through() -> None:
    assert problems({"attachment": {"type": "template", "payload": {"template_type": "receipt"}}}) == []


def test_the_fingerprint_is_that_of_what_is_said() -> None:
    message = messages.button_template("hi\ud83d", [messages.button("Go")])
    payload = dict(reversed(payload_of(message).items()))
    reordered = {"metadata": "otn:1", "attachment": {"payload": payload, "type": "template"}}
    assert fingerprint(message) == fingerprint(reordered)
    assert fingerprint(message) != fingerprint(messages.text("hi"))
    assert len(fingerprint(message)) == 64
