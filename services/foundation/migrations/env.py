"""Alembic's entry point; `services.foundation.database.migrate` runs it."""

from services.foundation import background, chain_index, idempotency, relays, sign_in, uploads
from services.foundation.database import FoundationBase, run_migrations
from services.foundation.outbox import tasks, transactions

# Importing a module registers its tables with the metadata that autogenerate compares with.
TABLE_MODULES = (background, chain_index, idempotency, relays, sign_in, tasks, transactions, uploads)

run_migrations(FoundationBase.metadata)
