"""What stands in a project's YAML files and in `.env`. What is wrong there is told without a word of any secret.

Imports nothing heavy: the parsers are loaded only when there is a file to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


class NotText:
    """Stands for a YAML scalar that YAML reads as a number or a date."""


def mapping(value: object, where: str, problems: list[str]) -> dict[str, object]:
    """The keys of a block, none if it is empty; anything but a block is noted as a problem."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        problems.append(f"{where} must hold `key: value` lines, indented under it")
        return {}
    return {str(key): item for key, item in value.items()}


def read_dotenv(path: Path, problems: list[str]) -> dict[str, str]:
    """Read `.env` as it stands: nothing in it is expanded."""
    if not path.exists():
        return {}
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as exc:
        problems.append(
            f".env cannot be read ({type(exc).__name__}): make it a UTF-8 text file that you may read"
        )
        return {}
    return {key: value for key, value in values.items() if value}


def read_yaml(path: Path, environ: Mapping[str, str], problems: list[str]) -> dict[str, object]:
    """Read a YAML file as Rasa does: `${NAME}` in an unquoted value is expanded from the environment."""
    if not path.exists():
        return {}
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        node = YAML(typ="safe", pure=True).compose(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as exc:
        # The parser's own message quotes the line, and the line may hold a secret.
        mark = exc.problem_mark if isinstance(exc, MarkedYAMLError) else None
        where = f"line {mark.line + 1}" if mark else type(exc).__name__
        problems.append(f"{path.name} cannot be read ({where}): correct it")
        return {}
    return mapping(_plain(node, environ), path.name, problems)


def _plain(node: object, environ: Mapping[str, str]) -> object:
    """Turn a composed YAML node into dicts, lists, texts, booleans and None; any other scalar becomes `NotText`."""
    from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

    if isinstance(node, MappingNode):
        return {str(key.value): _plain(value, environ) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [_plain(item, environ) for item in node.value]
    if not isinstance(node, ScalarNode) or node.tag == "tag:yaml.org,2002:null":
        return None
    text = str(node.value)
    if node.style is None and "${" in text:
        return re.sub(r"\$\{(\w+)\}", lambda match: environ.get(match[1], match[0]), text)
    if node.tag == "tag:yaml.org,2002:bool":
        return text.lower() == "true"
    return text if node.tag == "tag:yaml.org,2002:str" else NotText()
