"""Action servers' and response servers' answers pass where Rasa lets them pass, and fail with Rasa's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema.validators import validator_for
from rasa.core.actions.action import RemoteAction
from rasa.core.nlg.callback import CallbackNaturalLanguageGenerator

from channels import quick_checks
from channels.quick_checks import check_quickly

ACTION = RemoteAction("action_check_stock", None)
VALUES = st.sampled_from([None, "", "hi", 1, [], ["hi"], {}, {"text": "hi"}])
EVENTS = st.sampled_from(
    [
        {"event": "slot", "timestamp": None, "name": "stock", "value": "sold_out"},
        {"event": "slot", "name": "stock"},
        {"event": "slot", "name": 1, "value": None},
        {"event": "bot", "text": "hi", "data": {}},
        {"event": "followup", "name": "action_listen"},
        {"event": "session_started"},
        {"event": "no such event"},
        {},
        "slot",
    ]
)
ANSWERS = VALUES | st.fixed_dictionaries(
    {}, optional={"events": st.lists(EVENTS, max_size=3) | VALUES, "responses": st.lists(VALUES) | VALUES}
)
RESPONSES = VALUES | st.dictionaries(
    st.sampled_from(["text", "id", "buttons", "elements", "attachment", "image", "custom", "more"]), VALUES
)


@pytest.fixture(autouse=True)
def rasas_own_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To begin with, whoever made the process quicker before; what was found is put back."""
    monkeypatch.setattr(RemoteAction, "_validate_action_result", quick_checks._rasas_action_check)
    own = staticmethod(quick_checks._rasas_response_check)
    monkeypatch.setattr(CallbackNaturalLanguageGenerator, "validate_response", own)


def outcome(check: Callable[..., Any], *given: Any) -> Any:
    try:
        return check(*given)
    except Exception as exc:  # noqa: BLE001 - whatever it raises is to be the same
        return type(exc), str(exc)


@given(ANSWERS)
def test_the_answers_of_an_action_server_pass_as_with_rasa(answer: Any) -> None:
    quick = outcome(quick_checks._check_action_answer, ACTION, answer)
    assert quick == outcome(quick_checks._rasas_action_check, ACTION, answer)


@given(RESPONSES)
def test_the_answers_of_a_response_server_pass_as_with_rasa(answer: Any) -> None:
    quick = outcome(quick_checks._check_response, answer)
    assert quick == outcome(quick_checks._rasas_response_check, answer)


def test_what_passes_is_checked_without_checking_the_schema_again(monkeypatch: pytest.MonkeyPatch) -> None:
    check_quickly()
    answer = {"events": [{"event": "followup", "name": "action_listen"}], "responses": [{"text": "hi"}]}
    server = CallbackNaturalLanguageGenerator

    def pass_both() -> None:
        assert ACTION._validate_action_result(answer)
        assert server.validate_response({"text": "hi"})
        assert server.validate_response("")

    pass_both()
    monkeypatch.delattr(validator_for({}), "check_schema")
    pass_both()


def test_somebody_s_own_kind_of_action_keeps_its_own_schema() -> None:
    class Strict(RemoteAction):  # type: ignore[misc] # Rasa ships no types
        @staticmethod
        def action_response_format_spec() -> dict[str, Any]:
            return {"type": "object", "required": ["signature"]}

    check_quickly()
    answer: dict[str, Any] = {"events": [], "responses": []}
    assert ACTION._validate_action_result(answer)
    with pytest.raises(jsonschema.ValidationError, match="signature"):
        Strict("action_check_stock", None)._validate_action_result(answer)
    assert Strict("action_check_stock", None)._validate_action_result({"signature": "x"})
