"""Alembic's entry: runs on the connection, and in the transaction, that otn.store.migrate hands over."""

from __future__ import annotations

from alembic import context

from otn.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's
    render_as_batch=True,
)
context.run_migrations()
