"""Jobs whose every run and every effect is counted; a Celery worker of their own runs them.

Both are read from the environment of the worker: `COUNTED_DATABASE_URL`, `COUNTED_REDIS_URL`.
"""

import os
import signal
import threading
import uuid
from functools import cache

import structlog
from celery import shared_task
from sqlalchemy import Engine, Integer, String, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.foundation.database import open_engine, transaction
from services.foundation.outbox.leases import JobKind, LeasedJob, claim


class Base(DeclarativeBase):
    """Tables of the tests of leases."""


class CountedJob(LeasedJob, Base):
    """A job; `mode` tells how its runs go."""

    __tablename__ = "counted_job"

    mode: Mapped[str] = mapped_column(String(16))
    result: Mapped[int | None] = mapped_column(Integer)


class Run(Base):
    """A run that began."""

    __tablename__ = "run"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    token: Mapped[int] = mapped_column(Integer)
    request_id: Mapped[str] = mapped_column(String(128))


class Effect(Base):
    """What a run has done; nothing forbids two of one job but the fencing token."""

    __tablename__ = "effect"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    token: Mapped[int] = mapped_column(Integer)


KIND = JobKind(CountedJob, task="tests.counted", queue="tests.counted", lease_s=1.5, max_attempts=2)


@cache
def _engine() -> Engine:
    return open_engine(os.environ["COUNTED_DATABASE_URL"])


@shared_task(name=KIND.task)
def run_counted(job_id: str) -> None:
    """One run of a counted job."""
    lease = claim(_engine(), KIND, uuid.UUID(job_id))
    if lease is None:
        return
    with lease:
        with lease.commit() as (session, job):
            request_id = structlog.contextvars.get_contextvars().get("request_id", "")
            session.add(Run(job_id=job.id, token=lease.token, request_id=request_id))
            mode = job.mode
        if mode == "hang-once" and lease.token == 1:
            threading.Event().wait()
        if mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        with lease.finish() as (session, job):
            session.add(Effect(job_id=job.id, token=lease.token))
            job.result = lease.token


def effects(engine: Engine, job_id: uuid.UUID) -> list[int]:
    """Tokens of the runs that had an effect."""
    with transaction(engine, read_only=True) as session:
        return [effect.token for effect in session.query(Effect).filter_by(job_id=job_id)]
