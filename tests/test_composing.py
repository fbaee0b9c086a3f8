"""What becomes of a Rasa response."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_messages import URL, payload_of
from test_wording import FAMILY

from otn import messages
from otn.composing import NotOneMessage, as_one_message, from_response
from otn.errors import OtnError
from otn.messages import problems
from simulator.content import broken_rules


def said(**response: Any) -> list[dict[str, Any]]:
    """The messages of a response that needs no cutting."""
    found, notes = from_response(response)
    assert notes == []
    return found


def taps(count: int) -> list[dict[str, Any]]:
    return [{"title": f"Choice {n}", "payload": f"/choose{n}"} for n in range(count)]


def test_a_text_is_a_text_and_a_blank_line_begins_the_next_as_in_rasas_own_channels() -> None:
    assert said(text=" Hello ") == [{"text": "Hello"}]
    assert said(text="One\n\nTwo\nstill two\n\n \n\n") == [{"text": "One"}, {"text": "Two\nstill two"}]
    assert said(text=7.5) == [{"text": "7.5"}]


@pytest.mark.parametrize("content", [None, "", "  \n ", "\u200b", "\x00"])
def test_a_blank_text_is_not_sent(content: Any) -> None:
    assert said(text=content, buttons=[], elements=[], custom={}, image=None, attachment=None) == []


def test_keys_that_belong_to_somebody_else_are_ignored() -> None:
    assert said(
        text="Hi", template="utter_hi", utter_action="utter_hi", metadata={"a": 1}, otn_topic="x"
    ) == [{"text": "Hi"}]


def test_the_response_is_left_as_it_was() -> None:
    response = {"text": "Hi", "buttons": taps(5), "elements": [{"title": "t", "buttons": taps(4)}]}
    before = copy.deepcopy(response)
    from_response(response)
    assert response == before


def test_a_long_text_becomes_several_in_order() -> None:
    sentence = "This is a sentence of some length. "
    found = said(text=sentence * 200)
    assert [problems(each) for each in found] == [[]] * 4
    assert " ".join(each["text"] for each in found) == (sentence * 200).strip()
    assert all(each["text"].endswith("length.") for each in found)


def test_up_to_three_buttons_make_a_button_template() -> None:
    (message,) = said(text="Which?", buttons=taps(3))
    assert payload_of(message) == {
        "template_type": "button",
        "text": "Which?",
        "buttons": [{"type": "postback", **each} for each in taps(3)],
    }


def test_a_text_too_long_for_a_template_goes_ahead_of_it() -> None:
    found = said(text="word " * 500, buttons=taps(1))
    *ahead, last = found
    assert [problems(each) for each in found] == [[]] * len(found)
    assert [list(each) for each in ahead] == [["text"]] * len(ahead)
    assert payload_of(last)["buttons"]
    assert " ".join([*(each["text"] for each in ahead), payload_of(last)["text"]]) == ("word " * 500).strip()


@pytest.mark.parametrize("count", [4, 13])
def test_more_than_three_buttons_become_quick_replies(count: int) -> None:
    assert said(text="Which?", buttons=taps(count)) == [
        {"text": "Which?", "quick_replies": [{"content_type": "text", **each} for each in taps(count)]}
    ]


def test_more_than_three_buttons_of_which_one_opens_a_page_become_several_templates() -> None:
    buttons = [*taps(4), {"title": "Shop", "url": URL}]
    first, second = said(text="Which?", buttons=buttons)
    assert (payload_of(first)["text"], payload_of(second)["text"]) == ("Which?", messages.NO_TEXT)
    assert [len(payload_of(each)["buttons"]) for each in (first, second)] == [3, 2]
    assert payload_of(second)["buttons"][1] == {"type": "web_url", "title": "Shop", "url": URL}


@pytest.mark.parametrize("key", ["buttons", "quick_replies"])
def test_more_than_thirteen_choices_become_several_templates(key: str) -> None:
    found = said(text="Which?", **{key: taps(14)})
    shown = [each["payload"] for message in found for each in payload_of(message)["buttons"]]
    assert shown == [each["payload"] for each in taps(14)]


def test_quick_replies_ride_on_the_last_message_because_they_vanish_when_another_follows() -> None:
    first, last = said(text="Look", image=URL, quick_replies=taps(2))
    assert first == {"text": "Look"}
    assert last["attachment"]["type"] == "image"
    assert [each["title"] for each in last["quick_replies"]] == ["Choice 0", "Choice 1"]


REQUEST = messages.permission_request("Restock", "otn:restock")
LOUD_REQUEST = {
    "type": "template",
    "payload": {"template_type": "ONE_TIME_NOTIF_REQ", "title": "t", "payload": "p"},
}


@pytest.mark.parametrize(
    "response",
    [
        {"custom": REQUEST},
        {"custom": [REQUEST["attachment"]]},
        {"custom": {"message": REQUEST, "messaging_type": "RESPONSE"}},
        {"attachment": REQUEST["attachment"]},
        {"attachment": LOUD_REQUEST},
    ],
)
def test_no_response_asks_for_a_permission(response: dict[str, Any]) -> None:
    found, (note,) = from_response({"text": "Shall I?", "quick_replies": taps(2), **response})
    assert found == [messages.text("Shall I?", found[0]["quick_replies"])]
    assert "asks for a permission, which action_request_otn alone may do" in note
    with pytest.raises(NotOneMessage, match="asks for a permission"):
        as_one_message(response)


def test_buttons_without_a_text_get_a_stand_in_and_a_line_about_it() -> None:
    for key, count in (("buttons", 2), ("quick_replies", 2), ("buttons", 5)):
        (message,), (note,) = from_response({key: taps(count)})
        assert problems(message) == []
        assert "without a text" in note


def test_choices_are_repaired_where_that_is_safe_and_dropped_where_it_is_not() -> None:
    found, notes = from_response(
        {
            "text": "Which?",
            "buttons": [
                {"title": "A title of more than twenty", "payload": "/a"},
                {"title": "No payload"},
                {"title": "", "payload": "/b"},
                {"title": "Too much", "payload": "p" * 1001},
                {"title": "No page", "type": "web_url", "url": "shop"},
                "Nonsense",
            ],
        }
    )
    assert payload_of(found[0])["buttons"] == [
        {"type": "postback", "title": "A title of more tha…", "payload": "/a"},
        {"type": "postback", "title": "No payload", "payload": "No payload"},
    ]
    assert notes == [
        "The wording of a button's title has 27 characters and was cut to 20.",
        "A button was dropped: A button's title is missing or blank.",
        "A button was dropped: A button's payload has 1001 characters; Messenger allows 1000.",
        "A button was dropped: A button's url does not begin with http:// or https://.",
        "A button was dropped: it is no object.",
    ]


def test_no_line_about_cutting_repeats_the_wording() -> None:
    _, notes = from_response(
        {"text": "x", "buttons": [{"title": "private " * 9, "payload": "private" * 900}] * 2}
    )
    assert notes
    assert "private" not in "".join(notes)


def test_images_and_media_are_shown_and_other_addresses_written() -> None:
    assert said(image=URL) == [messages.attachment("image", URL)]
    assert said(attachment="https://x/a.MP4?b=c") == [messages.attachment("video", "https://x/a.MP4?b=c")]
    assert said(attachment="https://x/list.pdf") == [messages.attachment("file", "https://x/list.pdf")]
    assert said(attachment="https://youtu.be/abc") == [{"text": "https://youtu.be/abc"}]
    video = {"type": "video", "payload": {"src": "https://x/a"}}
    assert said(attachment=video) == [messages.attachment("video", "https://x/a")]


def test_what_cannot_be_shown_is_dropped_with_a_line_and_costs_the_rest_nothing() -> None:
    found, notes = from_response(
        {"text": "Hi", "image": "cat.png", "attachment": 5, "custom": {"blocks": []}, "elements": [{"x": 1}]}
    )
    assert found == [{"text": "Hi"}]
    assert notes == [
        "An attachment was dropped: it is neither an address nor an object.",
        "An element was dropped: An element's title is missing or blank.",
        "A message was dropped (text): A message has no blocks. A message has either a text or an attachment.",
        "A message was dropped (image): The address of the image does not begin with http:// or https://.",
    ]


def test_elements_become_carousels_of_ten() -> None:
    elements = [{"title": f"T{n}", "subtitle": "", "image_url": URL, "buttons": taps(1)} for n in range(11)]
    first, second = said(elements=elements)
    assert [len(payload_of(each)["elements"]) for each in (first, second)] == [10, 1]
    assert payload_of(second)["elements"] == [
        {"title": "T10", "image_url": URL, "buttons": [{"type": "postback", **taps(1)[0]}]}
    ]


def test_elements_are_cut_to_size() -> None:
    (message,), notes = from_response(
        {"elements": [{"title": "t" * 81, "subtitle": "s" * 81, "buttons": taps(4)}]}
    )
    (element,) = payload_of(message)["elements"]
    assert (len(element["title"]), len(element["subtitle"]), len(element["buttons"])) == (80, 80, 3)
    assert len(notes) == 3


RECEIPT = {"attachment": {"type": "template", "payload": {"template_type": "receipt"}}}


@pytest.mark.parametrize(
    ("custom", "expected"),
    [
        ({"text": "Hi"}, [{"text": "Hi"}]),
        (RECEIPT, [RECEIPT]),
        (RECEIPT["attachment"], [RECEIPT]),
        ({"message": RECEIPT, "messaging_type": "RESPONSE"}, [RECEIPT]),
        ({"sender": {"id": "8"}, "text": "Hi"}, [{"text": "Hi"}]),
        ({"recipient": {"id": "8"}, "message": {"text": "Hi", "metadata": "x"}}, [{"text": "Hi"}]),
        ([{"text": "a"}, {"text": "b"}], [{"text": "a"}, {"text": "b"}]),
        (
            messages.button_template("t", [{"title": "Go", "payload": "/go"}]),
            [messages.button_template("t", [messages.button("Go", payload="/go")])],
        ),
        (
            {"text": "t", "quick_replies": [{"title": "Go", "payload": "/go"}]},
            [messages.text("t", [messages.quick_reply("Go", "/go")])],
        ),
    ],
)
def test_custom_json_is_a_message_of_messengers(custom: Any, expected: list[Any]) -> None:
    assert said(custom=custom) == expected


def test_everything_at_once_comes_in_rasas_order() -> None:
    found = said(
        text="Hi",
        elements=[{"title": "t"}],
        attachment="https://x/a.pdf",
        image=URL,
        custom={"text": "custom"},
        buttons=taps(1),
    )
    kinds = [each.get("text") or each["attachment"]["type"] for each in found]
    assert kinds == ["template", "custom", "image", "file", "template"]
    assert payload_of(found[-1])["template_type"] == "generic"


# --- a follow-up ---

BUY = {"title": "Buy", "payload": "/buy"}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"text": "It is back.\n\nWant it?"}, {"text": "It is back.\n\nWant it?"}),
        ({"text": "a" * 1999}, {"text": "a" * 1999}),
        (
            {"text": "Back", "buttons": [BUY]},
            messages.button_template("Back", [messages.button("Buy", payload="/buy")]),
        ),
        (
            {"text": "Back", "buttons": [BUY] * 4},
            messages.text("Back", [messages.quick_reply("Buy", "/buy")] * 4),
        ),
        ({"image": URL}, messages.attachment("image", URL)),
        (
            {"custom": {"attachment": {"type": "image", "payload": {"url": URL}}}},
            messages.attachment("image", URL),
        ),
    ],
)
def test_what_fits_one_message_is_one(response: dict[str, Any], message: dict[str, Any]) -> None:
    assert as_one_message(response) == message


@pytest.mark.parametrize(
    ("response", "words"),
    [
        ({}, "this makes 0 .nothing to say."),
        ({"text": "  "}, "this makes 0"),
        ({"text": "a" * 2000}, "this makes 2 .text, text.: shorten the text to 1999 characters"),
        ({"text": "a" * 641, "buttons": taps(1)}, "this makes 2 .text, button template."),
        ({"text": "a", "image": URL}, "this makes 2 .text, image."),
        ({"text": "a", "custom": [{"text": "b"}, {"text": "c"}]}, "this makes 3"),
        ({"text": "a", "buttons": taps(14)}, "this makes 5"),
        ({"text": "a", "buttons": [{"title": "t" * 21, "payload": "p"}]}, "21 characters and was cut"),
        ({"text": "a", "image": "cat.png"}, "was dropped"),
        ({"buttons": taps(1)}, "without a text"),
    ],
)
def test_what_does_not_is_refused_before_anything_is_spent(response: dict[str, Any], words: str) -> None:
    with pytest.raises(NotOneMessage, match=words) as caught:
        as_one_message(response)
    assert isinstance(caught.value, OtnError)


def test_a_title_is_cut_before_a_character_that_does_not_fit() -> None:
    (message,), _ = from_response({"text": "t", "buttons": [{"title": "a" * 13 + FAMILY, "payload": "p"}]})
    (button,) = payload_of(message)["buttons"]
    assert button["title"] == "a" * 13 + "…"


WORDS = st.text(st.characters(exclude_categories=[]), max_size=700) | st.sampled_from(
    ["t", "x" * 2500, " ", URL]
)
LOOSE = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
CHOICE = LOOSE | st.dictionaries(
    st.sampled_from(["title", "payload", "type", "url", "content_type", "image_url"]), LOOSE, max_size=5
)
ELEMENTS = LOOSE | st.fixed_dictionaries(
    {},
    optional={"title": LOOSE, "subtitle": LOOSE, "image_url": LOOSE, "buttons": st.lists(CHOICE, max_size=5)},
)
JSON = st.recursive(
    LOOSE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "attachment", "type", "payload", "template_type", "buttons", "message"]),
            inner,
        )
    ),
    max_leaves=10,
)
RESPONSES = st.fixed_dictionaries(
    {},
    optional={
        "text": LOOSE,
        "image": LOOSE,
        "attachment": JSON,
        "buttons": st.lists(CHOICE, max_size=16) | JSON,
        "quick_replies": st.lists(CHOICE, max_size=16) | JSON,
        "elements": st.lists(ELEMENTS, max_size=12) | JSON,
        "custom": JSON,
    },
)


@settings(max_examples=300)
@given(RESPONSES)
def test_whatever_the_response_every_message_keeps_the_limits(response: dict[str, Any]) -> None:
    found, _ = from_response(response)
    assert [problems(message) for message in found] == [[]] * len(found)
    assert all(json.dumps(message, allow_nan=False).isascii() for message in found)


@settings(max_examples=100)
@given(RESPONSES)
def test_one_message_is_the_message_or_refused(response: dict[str, Any]) -> None:
    try:
        message = as_one_message(response)
    except NotOneMessage:
        return
    assert problems(message) == []


@settings(max_examples=100)
@given(
    st.fixed_dictionaries(
        {"text": WORDS, "buttons": st.lists(CHOICE, max_size=16), "elements": st.lists(ELEMENTS)}
    )
)
def test_the_simulator_finds_no_fault_with_what_we_make_of_text_buttons_and_elements(response: Any) -> None:
    found, _ = from_response(response)
    known = [each for each in found if not _kinds_of_buttons(each) - {"postback", "web_url"}]
    assert [list(broken_rules(message)) for message in known] == [[]] * len(known)


def _kinds_of_buttons(message: dict[str, Any]) -> set[str]:
    payload = message.get("attachment", {}).get("payload", {})
    holders = [payload, *payload.get("elements", [])]
    return {button["type"] for holder in holders for button in holder.get("buttons", [])}
