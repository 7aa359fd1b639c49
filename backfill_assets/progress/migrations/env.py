"""Alembic's entry: runs the migrations on the connection that ``database`` holds the lock with."""

from __future__ import annotations

from alembic import context

from backfill_assets.progress.database import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    # All of them or none, inside the caller's transaction.
    transaction_per_migration=False,
)
context.run_migrations()
