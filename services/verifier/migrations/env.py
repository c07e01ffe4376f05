"""Alembic's entry point; `services.foundation.database.migrate` runs it."""

from services.foundation.database import run_migrations
from services.verifier.models import Base

run_migrations(Base.metadata)
