"""Alembic's entry: migrations run on the connection that the store gives, in its transaction."""

from __future__ import annotations

from alembic import context

from tuneful.feedback.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
context.run_migrations()
