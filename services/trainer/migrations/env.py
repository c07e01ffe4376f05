"""Alembic's entry point; `services.foundation.database.migrate` runs it."""

from services.foundation.database import run_migrations
from services.trainer.models import Base

run_migrations(Base.metadata)
