"""Run by Alembic: migrates within the transaction that `schema.migrate` hands in."""

from __future__ import annotations

from alembic import context

from methodhub.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
