"""Alembic's entry point; `services.foundation.database.migrate` runs it."""

from services.aggregator.models import Base
from services.foundation.database import run_migrations

run_migrations(Base.metadata)
