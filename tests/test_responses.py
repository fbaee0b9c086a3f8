"""A response of the domain becomes exactly one Messenger message, or what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otn.errors import ConfigError, InvalidInput
from otn.messages import attachment, button, button_template, quick_reply, text
from otn.responses import render


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def domain(root: Path, said: str, name: str = "domain.yml") -> None:
    """A domain with one response `utter_back` whose variations are these lines."""
    indented = "\n".join(f"    {line}" for line in said.strip().splitlines())
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"responses:\n  utter_back:\n{indented}\n")


def message_of(root: Path, said: str, **more: Any) -> dict[str, Any]:
    domain(root, said)
    return render(root, "utter_back", **more).message


def problems_of(root: Path, said: str, **more: Any) -> str:
    domain(root, said)
    with pytest.raises(InvalidInput) as wrong:
        render(root, "utter_back", **more)
    return "\n".join(wrong.value.problems)


# --- what it says


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("- text: It is back.", text("It is back.")),
        ('- text: "One.\\n\\nTwo."', text("One.\n\nTwo.")),
        (
            "- text: Want it?\n  buttons: [{title: Yes, payload: /affirm}, {title: 'No'}]",
            button_template("Want it?", [button("Yes", payload="/affirm"), button("No")]),
        ),
        (
            "- text: Want it?\n  quick_replies: [{title: Yes, payload: /affirm}]",
            text("Want it?", [quick_reply("Yes", "/affirm")]),
        ),
        ("- image: https://shop.example/a.png", attachment("image", "https://shop.example/a.png")),
        ("- attachment: https://shop.example/a.mp4", attachment("video", "https://shop.example/a.mp4")),
        ("- custom: {text: Raw}", text("Raw")),
        ("- text: Hi {first_name|there}", text("Hi {first_name|there}")),
    ],
)
def test_what_a_response_holds_is_said(root: Path, said: str, message: dict[str, Any]) -> None:
    assert message_of(root, said) == message


def test_four_buttons_fit_as_quick_replies(root: Path) -> None:
    buttons = ", ".join(f"{{title: B{n}, payload: /b{n}}}" for n in range(4))
    made = message_of(root, f"- text: Which?\n  buttons: [{buttons}]")
    assert [reply["payload"] for reply in made["quick_replies"]] == ["/b0", "/b1", "/b2", "/b3"]


def test_braces_in_a_payload_are_what_rasa_means_by_them(root: Path) -> None:
    made = message_of(
        root, """- text: Want it?\n  buttons: [{title: Yes, payload: '/order{{"product": "scarf"}}'}]"""
    )
    [only] = made["attachment"]["payload"]["buttons"]
    assert only["payload"] == '/order{"product": "scarf"}'
    made = message_of(
        root, """- text: Want it?\n  buttons: [{title: Yes, payload: '/order{"product": "scarf"}'}]"""
    )
    assert made["attachment"]["payload"]["buttons"] == [only]


@pytest.mark.parametrize("name", ["domain/responses.yml", "domain/shop/responses.yml"])
def test_a_split_domain_is_read_like_a_whole_one(root: Path, name: str) -> None:
    (root / "domain").mkdir()
    domain(root, "- text: It is back.", name)
    assert render(root, "utter_back").message == text("It is back.")


# --- which variation


VARIATIONS = """
- text: Somewhere else
  channel: telegram
- text: Anywhere
- text: If
  condition: [{type: slot, name: product, value: scarf}]
- text: Here
  channel: messenger
- text: Here too
  channel: messenger
"""


def test_the_first_variation_for_messenger_is_taken(root: Path) -> None:
    domain(root, VARIATIONS)
    made = render(root, "utter_back")
    assert (made.message["text"], made.variation, made.choices) == ("Here", 4, 2)


def test_without_one_for_messenger_the_first_for_any_channel(root: Path) -> None:
    domain(root, "- text: T\n  channel: telegram\n- text: First\n- text: Second")
    made = render(root, "utter_back")
    assert (made.message["text"], made.variation, made.choices) == ("First", 2, 2)


@pytest.mark.parametrize(("number", "said"), [(2, "Anywhere"), (3, "If"), (5, "Here too")])
def test_a_number_picks_another_one(root: Path, number: int, said: str) -> None:
    assert message_of(root, VARIATIONS, variation=number)["text"] == said


@pytest.mark.parametrize(
    ("number", "wrong"), [(1, "meant for the channel telegram"), (6, "there is no number 6")]
)
def test_a_number_that_picks_nothing_is_refused(root: Path, number: int, wrong: str) -> None:
    assert wrong in problems_of(root, VARIATIONS, variation=number)


def test_only_conditions_is_no_choice_for_everybody(root: Path) -> None:
    said = "- text: If\n  condition: [{type: slot, name: a, value: b}]"
    assert "depends on nothing" in problems_of(root, said)
    assert message_of(root, said, variation=1) == text("If")


# --- what is wrong


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("- text: We have the {product}.", "write {product|there}"),
        (
            "- text: T\n  buttons: [{title: Go, url: 'https://shop.example/{order}'}]",
            "{order} stands under `url`",
        ),
        ("- image: 'https://shop.example/{product}.png'", "{product} stands under `image`"),
        (
            "- text: T\n  buttons: [{title: Y, payload: '/a{product|x}'}]",
            "{product|x} stands under `payload`",
        ),
        ("- text: T\n  image: https://shop.example/a.png", "makes 2 (text, image)"),
        ("- {}", "nothing to say"),
        (f"- text: {'x' * 2000}", "makes 2 (text, text)"),
        ("- text: A } brace", "A single }"),
        (
            "- custom: {attachment: {type: template, payload: "
            "{template_type: one_time_notif_req, title: T, payload: p}}}",
            "asks for a permission",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(root: Path, said: str, wrong: str) -> None:
    assert wrong in problems_of(root, said)


def test_every_problem_is_listed(root: Path) -> None:
    found = problems_of(
        root, "- text: 'The {product} for {name}'\n  image: 'https://x.example/{product}.png'"
    )
    assert "stands under `image`" in found
    assert "makes 2" in found


def test_a_name_that_nobody_knows_is_answered_with_those_like_it(root: Path) -> None:
    domain(root, "- text: T")
    with pytest.raises(InvalidInput, match="did you mean utter_back"):
        render(root, "utter_bakc")
    with pytest.raises(InvalidInput, match="like utter_otn_follow_up"):
        render(root, "zzz")


@pytest.mark.parametrize("said", ["text: no list", "[]", "- a string"])
def test_a_response_that_is_no_list_of_variations_is_refused(root: Path, said: str) -> None:
    assert "no list of variations" in problems_of(root, said)


def test_a_domain_that_cannot_be_read_is_a_matter_of_configuration(root: Path) -> None:
    (root / "domain.yml").write_text("responses: {")
    with pytest.raises(ConfigError, match=r"domain\.yml cannot be read"):
        render(root, "utter_back")


def test_the_demo_bot_s_follow_up_can_be_sent() -> None:
    made = render(Path(__file__).parents[1], "utter_otn_follow_up_restock")
    assert made.message["text"].startswith("Good news")
