"""What the Rasa project's own files say: topics to begin with, kinds, policies, the tracker store.

Reads only; a file that is not there says nothing. A file that cannot be read is a `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from otn.errors import ConfigError
from otn.models import PROFILE_NAMES, is_attribute_name

KIND_SLOT = "otn_kind"
RESPONSES = "responses"
# Rasa's SQL tracker store, ours: it remembers, and people can be erased from it.
QUICK_TRACKER_STORE = "channels.tracker_store.QuickSQLTrackerStore"


def topics_to_begin_with(root: Path) -> list[object]:
    """The entries under `otn_topics:` in endpoints.yml, as they stand."""
    entries = read(root / "endpoints.yml").get("otn_topics") or []
    if not isinstance(entries, list):
        raise ConfigError(["endpoints.yml: otn_topics must be a list: `- name: …` with `title:` and `kind:`"])
    return entries


def remembered_slots(root: Path) -> dict[str, str]:
    """The slots that `action_remember_contact` copies, each with the name of the contact's attribute.

    endpoints.yml: `otn_contact: {slots: [size]}`, or `{slots: {size: shoe_size}}` under another name.
    Raises ConfigError with every problem.
    """
    where = "endpoints.yml: otn_contact"
    block = read(root / "endpoints.yml").get("otn_contact") or {}
    slots = block.get("slots") or {} if isinstance(block, dict) else None
    if isinstance(slots, list):
        slots = {name: name for name in slots} if all(isinstance(name, str) for name in slots) else None
    if not isinstance(slots, dict):
        raise ConfigError([f"{where} must be `slots:` with a list of names, or with lines `slot: attribute`"])
    problems = [
        f"{where}: {name!r} is no name of an attribute: take letters, digits and _, at most 64, no digit first, "
        f"and none of {', '.join(sorted(PROFILE_NAMES))}, which Meta tells"
        for name in slots.values()
        if not is_attribute_name(name)
    ]
    if problems:
        raise ConfigError(problems)
    return {str(slot): name for slot, name in slots.items()}


def kinds(root: Path) -> tuple[str, ...] | None:
    """The kinds that stories can tell apart: the values of the slot `otn_kind`; None without that slot."""
    slot = domain(root, "slots").get(KIND_SLOT)
    values = slot.get("values") if isinstance(slot, dict) else None
    return tuple(str(value) for value in values) if isinstance(values, list) else None


def policies(root: Path) -> list[str] | None:
    """The names of the policies in config.yml; None where it names none (Rasa's defaults, then)."""
    entries = read(root / "config.yml").get("policies")
    if not isinstance(entries, list):
        return None
    return [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]


def domain(root: Path, section: str) -> dict[str, Any]:
    """A section of the domain by name, merged from domain.yml or the files in domain/; lists become keys.

    Responses may stand in the training data too, beside the stories that say them: Rasa looks there as well.
    """
    merged: dict[str, Any] = {}
    files = [*_domain_files(root), *(_yaml_files(root / "data") if section == RESPONSES else ())]
    for path in files:
        content = read(path).get(section) or {}
        if isinstance(content, dict):
            merged |= {str(key): value for key, value in content.items()}
        elif isinstance(content, list):
            merged |= dict(_named(content))
    return merged


def has_domain(root: Path) -> bool:
    """Whether there is a domain at all."""
    return any(True for _ in _domain_files(root))


def tracker_store(root: Path) -> dict[str, Any] | None:
    """What endpoints.yml says about the tracker store; None: Rasa's own, which forgets."""
    store = read(root / "endpoints.yml").get("tracker_store")
    return store if isinstance(store, dict) else None


def read(path: Path) -> dict[str, Any]:
    """A YAML file's mapping, empty where there is no file. Raises ConfigError for anything else."""
    if not path.exists():
        return {}
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as exc:
        # The parser's own message quotes the line, and the line may hold a secret.
        mark = exc.problem_mark if isinstance(exc, MarkedYAMLError) else None
        where = f"line {mark.line + 1}" if mark else type(exc).__name__
        raise ConfigError([f"{path.name} cannot be read ({where}): correct it"]) from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError([f"{path.name} must hold `key: value` lines"])
    return content or {}


def _domain_files(root: Path) -> Iterator[Path]:
    if (root / "domain.yml").exists():
        yield root / "domain.yml"
    yield from _yaml_files(root / "domain")


def _yaml_files(folder: Path) -> list[Path]:
    return sorted([*folder.rglob("*.yml"), *folder.rglob("*.yaml")])


def _named(entries: list[Any]) -> Iterator[tuple[str, Any]]:
    """Intents and actions are a list of names, some with properties."""
    for entry in entries:
        if isinstance(entry, dict):
            yield from ((str(key), value) for key, value in entry.items())
        else:
            yield str(entry), None
