"""What action servers and response servers answer, checked against Rasa's schemas without checking the schemas too.

With each answer Rasa has jsonschema look over the schema too, which never changes. For an action's answer that was
half of the turn, and the event loop stands still meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from jsonschema.validators import validator_for
from rasa.core.actions.action import RemoteAction
from rasa.core.nlg.callback import CallbackNaturalLanguageGenerator, nlg_response_format_spec

_rasas_action_check = RemoteAction._validate_action_result
_rasas_response_check = CallbackNaturalLanguageGenerator.validate_response


class _Checked:
    """A schema of Rasa's that was looked over once."""

    def __init__(self, spec: Callable[[], Any]) -> None:
        self.spec = spec

    @cached_property
    def _validator(self) -> Any:
        schema = self.spec()
        kind = validator_for(schema)
        kind.check_schema(schema)
        return kind(schema)

    def lets_pass(self, answer: Any) -> bool:
        """Whether an answer is as the schema says."""
        return bool(self._validator.is_valid(answer))


_ACTION_ANSWER = _Checked(RemoteAction.action_response_format_spec)
_RESPONSE = _Checked(nlg_response_format_spec)


def check_quickly() -> None:
    """From now on, in this process. What does not pass is left to Rasa's own check, which says what is wrong."""
    RemoteAction._validate_action_result = _check_action_answer
    CallbackNaturalLanguageGenerator.validate_response = staticmethod(_check_response)


def _check_action_answer(action: RemoteAction, answer: Any) -> bool:
    # Somebody's own kind of action may have a schema of its own.
    rasas = action.action_response_format_spec is _ACTION_ANSWER.spec
    return (rasas and _ACTION_ANSWER.lets_pass(answer)) or bool(_rasas_action_check(action, answer))


def _check_response(answer: Any) -> bool:
    return _RESPONSE.lets_pass(answer) or bool(_rasas_response_check(answer))
