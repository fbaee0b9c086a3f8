"""The one place where the parts are put together: settings, clock, store, vault, Graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from otn.clock import Clock, clock
from otn.errors import ConfigError
from otn.graph.protocol import GraphConfig
from otn.settings import ACTION_SERVER, EVERYTHING, READING, SENDING, Need, Settings, load_settings
from otn.store import Store, keys, migrate
from otn.vault import Vault

__all__ = ["ACTION_SERVER", "EVERYTHING", "READING", "SENDING", "App", "Need", "compose", "open_app"]


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything a process works with. `vault` is None where the process has no business with secrets."""

    settings: Settings
    store: Store
    clock: Clock
    vault: Vault | None

    def require_vault(self) -> Vault:
        """The vault, in a process that asked for the keys."""
        if self.vault is None:
            raise ConfigError(["this process was started without OTN_ENCRYPTION_KEYS and OTN_HASH_KEY"])
        return self.vault

    @property
    def pages_with_token(self) -> frozenset[str] | None:
        """The Pages that messages may be sent for; None for any: the one access token names no Page."""
        ids = [page.page_id for page in self.settings.pages]
        return None if None in ids else frozenset(page_id for page_id in ids if page_id)

    def graph_config(self, page_id: str | None) -> GraphConfig:
        """How to call Graph for a page. Raises ConfigError if the page's token is not configured.

        None: for the only page there is; where several are, nobody may guess.
        """
        pages = self.settings.pages
        if page_id is None and len(pages) > 1:
            raise ConfigError(["several Pages are configured (credentials.yml: pages): name one"])
        for page in pages:
            if page.page_id in (None, page_id) or page_id is None:
                return GraphConfig(
                    base_url=self.settings.graph_url,
                    api_version=self.settings.api_version,
                    page_id=page_id or page.page_id,
                    access_token=page.access_token.reveal(),
                    app_secret=self.settings.app_secrets[0].reveal() if self.settings.app_secrets else None,
                )
        raise ConfigError([f"no access token is configured for page {page_id} (credentials.yml: pages)"])


def open_app(root: Path, environ: Mapping[str, str] = os.environ, *, need: frozenset[Need]) -> App:
    """Read the settings that `need` names and make ready what they describe. Raises ConfigError."""
    return compose(load_settings(root, environ, need=need))


def compose(settings: Settings) -> App:
    """Put the parts together and check that keys and database belong to each other. Raises ConfigError.

    An embedded (SQLite) database is created or upgraded here; a server's only by `otn init`.
    """
    store = Store(settings.database_url)
    if store.is_sqlite:
        migrate.upgrade(store)
    else:
        migrate.require_current(store)
    now = clock(settings.clock_file)
    return App(settings=settings, store=store, clock=now, vault=_vault(settings, store, now))


def _vault(settings: Settings, store: Store, now: Clock) -> Vault | None:
    if not (settings.encryption_keys and settings.hash_key):
        return None
    vault = Vault([key.reveal() for key in settings.encryption_keys], settings.hash_key.reveal())
    with store.begin() as tx:
        keys.check_and_remember(tx, vault, now())
    return vault
