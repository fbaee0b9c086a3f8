"""Environment, `.env`, credentials.yml and endpoints.yml become one `Settings`.

A value that credentials.yml or endpoints.yml spells out wins over the environment, and the environment over
`.env`: what stands in a YAML file of this project was written for this project on purpose. The shipped YAML
files spell out nothing. Every problem is listed at once in one `ConfigError`, with the key's name and what to
do, and never with a secret in it.

Imports nothing heavy, nor do the readers of files: `otn --help` waits for it.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from otn.config_files import mapping, read_dotenv, read_yaml
from otn.errors import ConfigError
from otn.policy import MOST_SENDS_PER_SECOND, SENDS_PER_SECOND

CHANNEL: Final = "channels.messenger.MessengerInput"
DEFAULT_GRAPH_URL: Final = "https://graph.facebook.com"
DEFAULT_API_VERSION: Final = "v26.0"
SIMULATOR_URL: Final = "http://127.0.0.1:5080"
# The digest of HMAC-SHA256 has 32 bytes; a key with fewer characters than that was not made by a machine.
SHORTEST_HASH_KEY: Final = 32


class Secret:
    """A text that no log, traceback or repr shows; only `reveal()` gives it. Falsy when not loaded."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value; an empty secret raises, so that nothing is ever signed with an empty key."""
        if not self._value:
            raise RuntimeError("this secret was not loaded: name its Need when loading the settings")
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and secrets.compare_digest(
            self._value.encode(), other._value.encode()
        )

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "Secret(…)" if self._value else "Secret()"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not written anywhere")


class Need(Enum):
    """What a process must know. It is given nothing else, and nothing else can be missing."""

    DATABASE = "database"
    VERIFY_TOKEN = "verify_token"  # noqa: S105 - a word, not a password
    APP_SECRETS = "app_secrets"
    PAGE_TOKENS = "page_tokens"
    ENCRYPTION_KEYS = "encryption_keys"
    HASH_KEY = "hash_key"
    NOTIFY_KEY = "notify_key"


ACTION_SERVER: Final = frozenset({Need.DATABASE})
READING: Final = frozenset({Need.DATABASE, Need.HASH_KEY})
SENDING: Final = READING | {Need.ENCRYPTION_KEYS, Need.PAGE_TOKENS, Need.APP_SECRETS}
EVERYTHING: Final = frozenset(Need)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCredentials:
    """One Page's access token; `page_id` is None where only a token was given (ask `GET /me`)."""

    page_id: str | None
    access_token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything configured, checked. What was not in `need` is empty."""

    root: Path
    # A database's address may carry a password.
    database_url: str = field(repr=False)
    queue_url: str = field(repr=False)
    graph_url: str
    api_version: str
    clock_file: Path | None
    pages: tuple[PageCredentials, ...]
    app_secrets: tuple[Secret, ...]
    verify_token: Secret
    encryption_keys: tuple[Secret, ...]
    hash_key: Secret
    # Optional: without it there is no notify endpoint.
    notify_key: Secret
    # Where people reach the server that Meta reaches, without a slash at the end; None: see `channels.deletion`.
    public_url: str | None = None
    # Whether people see that the bot has read what they wrote: one more call of Graph for each message.
    mark_seen: bool = False
    # Messages a second and Page, over all workers and hosts.
    sends_per_second: float = SENDS_PER_SECOND


def load_settings(root: Path, environ: Mapping[str, str] = os.environ, *, need: frozenset[Need]) -> Settings:
    """Read the configuration of the project in `root`; `ConfigError` lists all problems of what is in `need`.

    credentials.yml and endpoints.yml win over `environ`, and that over `.env` (see the module's docstring).
    """
    return Reader.of_project(root, environ).settings(need)


def settings_from_channel(
    credentials: Mapping[str, object] | None,
    environ: Mapping[str, str] = os.environ,
    root: Path | None = None,
) -> Settings:
    """Read the configuration for the channel; `credentials` is its block of credentials.yml, read by Rasa."""
    block = {str(key): value for key, value in (credentials or {}).items()}
    return Reader(root or Path.cwd(), environ, block, []).settings(EVERYTHING)


def is_loopback(url: str) -> bool:
    """Say whether a URL's host is this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # neither an address nor, perhaps, a URL
        return False


def sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite address, None for any other database."""
    if not url.startswith("sqlite"):
        return None
    return Path(url.partition(":///")[2].partition("?")[0])


_HINTS: Final[Mapping[str, str]] = {
    "MESSENGER_VERIFY_TOKEN": "any text that you also enter as Verify Token in the Meta app",
    "MESSENGER_APP_SECRET": "the Meta app's page Settings > Basic shows it",
    "MESSENGER_PAGE_ACCESS_TOKEN": "the Meta app's page Messenger > API Settings generates it",
    "OTN_ENCRYPTION_KEYS": "`make setup` makes one in a new project; with an old database, restore it",
    "OTN_HASH_KEY": "`make setup` makes one in a new project; with an old database, restore it",
}

_IN_CREDENTIALS: Final[Mapping[str, str]] = {
    "MESSENGER_VERIFY_TOKEN": "verify",
    "MESSENGER_APP_SECRET": "secret",
    "MESSENGER_PAGE_ACCESS_TOKEN": "page-access-token",
    "MESSENGER_GRAPH_URL": "graph-url",
    "MESSENGER_API_VERSION": "api-version",
    "MESSENGER_PUBLIC_URL": "public-url",
    "MESSENGER_MARK_SEEN": "mark-seen",
}
_CREDENTIALS_KEYS: Final = (*_IN_CREDENTIALS.values(), "pages")
_IN_ENDPOINTS: Final[Mapping[str, str]] = {"OTN_DATABASE_URL": "otn_store", "OTN_QUEUE_URL": "otn_queue"}


@dataclass(frozen=True, slots=True)
class _Found:
    """A configured text and where it stands, for error messages."""

    text: str
    where: str


class Reader:
    """Looks every key up in its places, collecting problems instead of raising the first."""

    def __init__(
        self, root: Path, environ: Mapping[str, str], block: Mapping[str, object], problems: list[str]
    ) -> None:
        self.root = root.resolve()
        self.problems = problems
        self._environ = environ
        self._dotenv = read_dotenv(root / ".env", problems)
        self._block = block
        self._endpoints = read_yaml(root / "endpoints.yml", environ, problems)
        self._known_keys()

    @classmethod
    def of_project(cls, root: Path, environ: Mapping[str, str]) -> Reader:
        """Read the channel's block as well, from credentials.yml."""
        problems: list[str] = []
        document = read_yaml(root / "credentials.yml", environ, problems)
        block = mapping(document.get(CHANNEL), f"credentials.yml: {CHANNEL}", problems)
        return cls(root, environ, block, problems)

    def settings(self, need: frozenset[Need]) -> Settings:
        """Check everything and build the settings, or raise `ConfigError`."""
        graph_url = self._graph_url()
        settings = Settings(
            root=self.root,
            database_url=self._database_url() if Need.DATABASE in need else "",
            queue_url=self._queue_url() if Need.DATABASE in need else "",
            graph_url=graph_url,
            api_version=self._api_version(),
            clock_file=self._clock_file(graph_url),
            pages=self._pages() if Need.PAGE_TOKENS in need else (),
            app_secrets=self._many("MESSENGER_APP_SECRET") if Need.APP_SECRETS in need else (),
            verify_token=self._secret("MESSENGER_VERIFY_TOKEN") if Need.VERIFY_TOKEN in need else Secret(),
            encryption_keys=self._encryption_keys() if Need.ENCRYPTION_KEYS in need else (),
            hash_key=self._hash_key() if Need.HASH_KEY in need else Secret(),
            notify_key=self._optional_secret("OTN_NOTIFY_KEY") if Need.NOTIFY_KEY in need else Secret(),
            public_url=self._public_url(),
            mark_seen=self._mark_seen(),
            sends_per_second=self._sends_per_second(),
        )
        if self.problems:
            raise ConfigError(self.problems)
        return settings

    def is_given(self, name: str) -> bool:
        """Say whether a key has a value anywhere, right or wrong."""
        if name == "MESSENGER_PAGE_ACCESS_TOKEN" and self._block.get("pages") is not None:
            return True
        in_block = self._block.get(_IN_CREDENTIALS.get(name, ""))
        return in_block is not None or bool(self._from_environment(name))

    def graph_url_or_none(self) -> str | None:
        """Return the configured Graph address as it stands, None where there is none."""
        found = self._find("MESSENGER_GRAPH_URL")
        return found.text if found else None

    # -- where a key stands

    def _find(self, name: str) -> _Found | None:
        found = self._in_credentials(name) or self._in_endpoints(name) or self._from_environment(name)
        if found is None or not found.text:
            return None
        if "${" in found.text:
            self.problems.append(
                f"{found.where} still holds ${{…}}: only an unquoted value in a YAML file is expanded, and "
                f"only from the environment; leave it out there and set {name} in the environment or .env"
            )
            return None
        return found

    def _in_credentials(self, name: str) -> _Found | None:
        key = _IN_CREDENTIALS.get(name)
        if key is None or (value := self._block.get(key)) is None:
            return None
        where = f"credentials.yml: {key}"
        if isinstance(value, list):
            texts = [self._text(item, where) for item in value]
            return _Found(",".join(texts) if all(texts) else "", where)
        return _Found(self._text(value, where), where)

    def _in_endpoints(self, name: str) -> _Found | None:
        key = _IN_ENDPOINTS.get(name)
        if key is None or self._endpoints.get(key) is None:
            return None
        where = f"endpoints.yml: {key}"
        block = mapping(self._endpoints[key], where, self.problems)
        return _Found(self._text(block.get("url"), f"{where}.url"), f"{where}.url")

    def _from_environment(self, name: str) -> _Found | None:
        if text := self._environ.get(name, "").strip():
            return _Found(text, f"{name} in the environment")
        if text := self._dotenv.get(name, "").strip():
            return _Found(text, f"{name} in .env")
        return None

    def _text(self, value: object, where: str) -> str:
        """Return the text, or note the problem and return an empty one."""
        if isinstance(value, str) and value.strip():
            return value.strip()
        self.problems.append(f"{where} must be a text: put the value in quotes, or leave the key out")
        return ""

    def _known_keys(self) -> None:
        for key in self._block:
            if key not in _CREDENTIALS_KEYS:
                known = ", ".join(_CREDENTIALS_KEYS)
                self.problems.append(f"credentials.yml: {key} is not a key of {CHANNEL}: use one of {known}")

    # -- what a key must look like

    def _required(self, name: str) -> _Found | None:
        before = len(self.problems)
        found = self._find(name)
        if found is None and len(self.problems) == before:
            in_yaml = f", or `{_IN_CREDENTIALS[name]}` in credentials.yml" if name in _IN_CREDENTIALS else ""
            self.problems.append(
                f"{name} is missing: set it in the environment or .env{in_yaml} ({_HINTS[name]})"
            )
        return found

    def _secret(self, name: str) -> Secret:
        found = self._required(name)
        return Secret(found.text if found else "")

    def _optional_secret(self, name: str) -> Secret:
        found = self._find(name)
        return Secret(found.text if found else "")

    def _many(self, name: str) -> tuple[Secret, ...]:
        found = self._required(name)
        parts = [part.strip() for part in found.text.split(",")] if found else []
        if found and not all(parts):
            self.problems.append(f"{found.where} has an empty part: separate several values by single commas")
        return tuple(Secret(part) for part in parts if part)

    def _encryption_keys(self) -> tuple[Secret, ...]:
        keys = self._many("OTN_ENCRYPTION_KEYS")
        for number, key in enumerate(keys, start=1):
            if not _is_fernet_key(key.reveal()):
                self.problems.append(
                    f"OTN_ENCRYPTION_KEYS: key {number} of {len(keys)} is not a Fernet key (44 characters of "
                    "URL-safe base64): restore it from your backup as it was"
                )
        return keys

    def _hash_key(self) -> Secret:
        key = self._secret("OTN_HASH_KEY")
        if key and len(key.reveal()) < SHORTEST_HASH_KEY:
            self.problems.append(
                f"OTN_HASH_KEY is shorter than {SHORTEST_HASH_KEY} characters: let `make setup` make one"
            )
        return key

    def _pages(self) -> tuple[PageCredentials, ...]:
        if (pages := self._block.get("pages")) is None:
            found = self._required("MESSENGER_PAGE_ACCESS_TOKEN")
            return (self._credentials(None, found or _Found("", "")),)
        if self._block.get("page-access-token") is not None:
            self.problems.append(
                "credentials.yml: page-access-token and pages contradict each other: keep one of the two"
            )
        where = "credentials.yml: pages"
        tokens = mapping(pages, where, self.problems)
        if not tokens:
            self.problems.append(f"{where} names no Page: write `PAGE_ID: access token` under it")
        return tuple(self._page(page_id, token, f"{where}.{page_id}") for page_id, token in tokens.items())

    def _page(self, page_id: str, token: object, where: str) -> PageCredentials:
        if not page_id.isascii() or not page_id.isdecimal():
            self.problems.append(f"{where}: a Page's id has only digits (the Page's About section shows it)")
        text = self._text(token, where)
        if "${" in text:
            self.problems.append(
                f"{where} still holds ${{…}}: only an unquoted value is expanded, from the environment"
            )
        return self._credentials(page_id, _Found(text, where))

    def _credentials(self, page_id: str | None, token: _Found) -> PageCredentials:
        # Two of them, or a line too many, copied along: no call with it could ever leave.
        if not token.text.isascii() or re.search(r"\s", token.text):
            self.problems.append(
                f"{token.where} is not one access token: there are blanks or letters beyond ASCII in it"
            )
        return PageCredentials(page_id=page_id, access_token=Secret(token.text))

    def _graph_url(self) -> str:
        found = self._find("MESSENGER_GRAPH_URL")
        if found is None:
            return DEFAULT_GRAPH_URL
        url = found.text.rstrip("/")
        parts = _split(url)
        if parts is None or parts[0] not in ("http", "https"):
            self.problems.append(
                f"{found.where} is not an http(s) address: leave it out for {DEFAULT_GRAPH_URL}"
            )
        elif re.search(r"/v\d", parts[1]):
            self.problems.append(f"{found.where} contains a version: put that into MESSENGER_API_VERSION")
        elif parts[0] == "http" and not is_loopback(url):
            self.problems.append(
                f"{found.where} would send access tokens in the clear: use https (http only for this machine)"
            )
        return url

    def _api_version(self) -> str:
        found = self._find("MESSENGER_API_VERSION")
        if found and not re.fullmatch(r"v\d+\.\d+", found.text):
            self.problems.append(
                f"{found.where} does not look like {DEFAULT_API_VERSION}: write a version of the Graph API"
            )
        return found.text if found else DEFAULT_API_VERSION

    def _clock_file(self, graph_url: str) -> Path | None:
        found = self._find("OTN_CLOCK_FILE")
        if found is None:
            return None
        if graph_url.startswith("http") and not is_loopback(graph_url):  # anything else is a problem already
            self.problems.append(
                f"{found.where} simulates time, which the Graph API at {graph_url} would not share: take it "
                "out, or point MESSENGER_GRAPH_URL at the simulator"
            )
        return self.root / found.text

    def _public_url(self) -> str | None:
        found = self._find("MESSENGER_PUBLIC_URL")
        if found is None:
            return None
        url = found.text.rstrip("/")
        parts = _split(url)
        secure = parts is not None and (parts[0] == "https" or (parts[0] == "http" and is_loopback(url)))
        if not secure or not url.isascii():
            self.problems.append(
                f"{found.where} is not an https address: write where Meta and people reach this bot, "
                "such as https://bot.example"
            )
        return url

    def _mark_seen(self) -> bool:
        in_block = self._block.get(_IN_CREDENTIALS["MESSENGER_MARK_SEEN"])
        if isinstance(in_block, bool):  # the only key that need not be a text
            return in_block
        where, text = f"credentials.yml: {_IN_CREDENTIALS['MESSENGER_MARK_SEEN']}", in_block
        if in_block is None or isinstance(in_block, str):
            found = self._find("MESSENGER_MARK_SEEN")
            if found is None:
                return False
            where, text = found.where, found.text
        if text not in ("true", "false"):
            self.problems.append(
                f"{where} is neither true nor false: write true for read marks, or leave it out"
            )
        return text == "true"

    def _sends_per_second(self) -> float:
        found = self._find("OTN_SENDS_PER_SECOND")
        if found is None:
            return SENDS_PER_SECOND
        number = float(found.text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", found.text) else 0.0
        if not 1 <= number <= MOST_SENDS_PER_SECOND:
            self.problems.append(
                f"{found.where} is not a number from 1 to {MOST_SENDS_PER_SECOND:g}: write how many messages a "
                f"second may leave a Page, or leave it out for {SENDS_PER_SECOND:g}"
            )
        return number

    def _database_url(self) -> str:
        found = self._find("OTN_DATABASE_URL")
        if found is None:
            return f"sqlite:///{self.root / '.otn' / 'otn.db'}"
        return self._sql_url(found, ("sqlite", "postgresql"))

    def _queue_url(self) -> str:
        found = self._find("OTN_QUEUE_URL")
        if found is None:
            return f"sqlite:///{self.root / '.otn' / 'queue.db'}"
        return self._sql_url(found, ("sqlite", "redis", "rediss"))

    def _sql_url(self, found: _Found, kinds: Sequence[str]) -> str:
        kind = found.text.partition(":")[0].partition("+")[0]
        if kind not in kinds or "://" not in found.text:
            self.problems.append(
                f"{found.where} must begin with one of {', '.join(f'{kind}://' for kind in kinds)}"
            )
        elif kind == "sqlite":
            return self._sqlite_url(found)
        return found.text

    def _sqlite_url(self, found: _Found) -> str:
        """Make the path absolute: a relative one is meant from the project, wherever a command is typed."""
        scheme, _, path = found.text.partition(":///")
        if not path or path.startswith(":memory:"):
            self.problems.append(
                f"{found.where} names no file: write sqlite:///path/to/file.db (all processes share it)"
            )
            return found.text
        return f"{scheme}:///{self.root / path}"


def _is_fernet_key(text: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(text)) == 32
    except (binascii.Error, ValueError):
        return False


def _split(url: str) -> tuple[str, str] | None:
    """Return scheme and path of an address that has a host, else None."""
    try:
        parts = urlsplit(url)
        return (parts.scheme, parts.path) if parts.hostname else None
    except ValueError:
        return None
