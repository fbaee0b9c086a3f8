"""Where the simulator listens, whom it calls, and the secrets it shares with the bot."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

DEFAULT_PAGE_ID = "100000000000001"
DEFAULT_PAGE_NAME = "Demo Shop"
DEFAULT_PORT = 5080
DEFAULT_WEBHOOK_URL = "http://127.0.0.1:5005/webhooks/messenger/webhook"

# Browsers open nothing at these ports, because other protocols own them: of the WHATWG's list (Fetch Standard, "port
# blocking") those that anybody may listen on. The chat page would be out of reach.
REFUSED_BY_BROWSERS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
)

# The id of the bot's app, as it appears in echoes and in the list of subscribed apps. Made up.
APP_ID = 270000000000001


class ConfigProblems(Exception):
    """Something in the environment is missing or wrong; `problems` names every case and what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A Facebook Page that the bot's app serves. The access token stays out of every repr."""

    id: str
    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that is fixed while the simulator runs. Secrets stay out of the repr."""

    app_secret: str = field(repr=False)
    verify_token: str = field(repr=False)
    pages: tuple[Page, ...]
    webhook_url: str = DEFAULT_WEBHOOK_URL
    port: int = DEFAULT_PORT
    clock_file: Path | None = None


def from_environment(folder: Path | None = None) -> Config:
    """Read the environment, then `.env` in `folder` for what is not set there. Raises ConfigProblems."""
    folder = folder or Path.cwd()
    values = {key: value for key, value in dotenv_values(folder / ".env").items() if value}
    values.update({key: value for key, value in os.environ.items() if value})
    return from_mapping(values)


def from_mapping(values: Mapping[str, str]) -> Config:
    """Build the configuration from names and values. Raises ConfigProblems that lists every problem."""
    problems: list[str] = []
    config = Config(
        app_secret=_required(values, "MESSENGER_APP_SECRET", problems),
        verify_token=_required(values, "MESSENGER_VERIFY_TOKEN", problems),
        pages=_pages(values, problems),
        webhook_url=_webhook_url(values, problems),
        port=_port(values, problems),
        clock_file=Path(values["OTN_CLOCK_FILE"]) if values.get("OTN_CLOCK_FILE") else None,
    )
    if problems:
        raise ConfigProblems(problems)
    return config


def _required(values: Mapping[str, str], name: str, problems: list[str]) -> str:
    value = values.get(name, "").strip()
    if not value:
        problems.append(f"{name} is not set: put the value that the bot uses into the environment or .env")
    return value


def _port(values: Mapping[str, str], problems: list[str]) -> int:
    text = values.get("SIMULATOR_PORT") or _port_of_graph(values) or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        problems.append(f"SIMULATOR_PORT is {text!r}: use a number from 0 (any free port) to 65535")
    elif int(text) in REFUSED_BY_BROWSERS:
        problems.append(
            f"no browser opens a page at port {text}: choose another one, such as {DEFAULT_PORT}, "
            "in MESSENGER_GRAPH_URL, where the bot looks for it too (or in SIMULATOR_PORT)"
        )
    else:
        return int(text)
    return DEFAULT_PORT


def _port_of_graph(values: Mapping[str, str]) -> str | None:
    """Where the bot calls Graph, if that is on this machine: elsewhere the bot would not find the simulator."""
    try:
        parts = urlsplit(values.get("MESSENGER_GRAPH_URL", ""))
        here = parts.hostname in {"127.0.0.1", "localhost", "::1"}
        return str(parts.port) if here and parts.port else None
    except ValueError:  # the bot will say what is wrong with it
        return None


def _webhook_url(values: Mapping[str, str], problems: list[str]) -> str:
    url = values.get("SIMULATOR_WEBHOOK_URL", DEFAULT_WEBHOOK_URL)
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        problems.append("SIMULATOR_WEBHOOK_URL is not an http(s) address: use e.g. " + DEFAULT_WEBHOOK_URL)
    return url


def _pages(values: Mapping[str, str], problems: list[str]) -> tuple[Page, ...]:
    """The default Page (from its access token) and those of SIMULATOR_PAGES; one of the two must be there."""
    pages = {page.id: page for page in _more_pages(values.get("SIMULATOR_PAGES", ""), problems)}
    token = values.get("MESSENGER_PAGE_ACCESS_TOKEN", "").strip()
    if token:
        pages.setdefault(DEFAULT_PAGE_ID, Page(id=DEFAULT_PAGE_ID, name=DEFAULT_PAGE_NAME, token=token))
    if not pages:
        problems.append(
            "MESSENGER_PAGE_ACCESS_TOKEN is not set: any text will do, the bot must use the same one"
        )
    if len({page.token for page in pages.values()}) < len(pages):
        problems.append("SIMULATOR_PAGES: two Pages have the same access token; give each Page its own")
    return tuple(pages.values())


def _more_pages(text: str, problems: list[str]) -> list[Page]:
    shape = 'SIMULATOR_PAGES must be JSON like {"<page id>": {"token": "…", "name": "…"}}'
    if not text:
        return []
    try:
        table = json.loads(text)
        return [_page(page_id, entry) for page_id, entry in table.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        problems.append(shape)
        return []


def _page(page_id: str, entry: Mapping[str, str]) -> Page:
    token = entry["token"].strip()
    if not page_id.isdigit() or not token:
        raise ValueError(page_id)
    return Page(id=page_id, name=str(entry.get("name", f"Page {page_id}")), token=token)
