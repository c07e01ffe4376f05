"""Work that is delivered at least once and takes effect at most once: a lease and a fencing token on the job's own row.

A run claims its row for `lease_s` seconds and extends the claim while it works. Whoever finds a live lease drops the delivery;
whoever finds one that ended takes over, with a higher token. Everything a run writes goes through `Lease.commit`, which
compares the token under the row's lock: a run that was paused and taken over writes nothing.

    queued ──claim──> running ──finish──> done
      ^                 │  └────fail────> failed (with a reason)
      └──reap_leases────┘  after the lease ended; failed once `max_attempts` runs were lost
"""

import os
import secrets
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Generic, Self, TypeVar

import structlog
from sqlalchemy import Engine, Integer, String, Text, Uuid, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from rexis.errors import LeaseLostError, RexisError, UnavailableError
from services.foundation.database import Instant, now, transaction
from services.foundation.outbox.tasks import enqueue_task

log = structlog.get_logger(__name__)


class LeasedJob:
    """Columns of a table whose rows are jobs. States: queued, running, done, failed; the last two are terminal."""

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    state: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    fencing_token: Mapped[int] = mapped_column(Integer, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    queued_at: Mapped[datetime] = mapped_column(Instant, default=now)
    failure: Mapped[str | None] = mapped_column(Text)


JobT = TypeVar("JobT", bound=LeasedJob)


@dataclass(frozen=True)
class JobKind(Generic[JobT]):
    """How the jobs of one table run.

    Attributes:
        model: the table.
        task: full name of the Celery task; it takes one keyword argument, `job_id`.
        queue: the task's queue.
        lease_s: how long a run may be silent before another one takes over.
        max_attempts: runs that may be lost before the job fails.
        requeue_after_s: a queued job that no worker took for so long is announced again, in case the broker lost its message.
    """

    model: type[JobT]
    task: str
    queue: str
    lease_s: float = 30.0
    max_attempts: int = 3
    requeue_after_s: float = 600.0


def enqueue_job(session: Session, kind: JobKind[JobT], job: JobT) -> None:
    """Announce a new job, or one that is queued again, together with the caller's transaction."""
    job.state, job.queued_at, job.lease_owner, job.lease_until = "queued", now(), None, None
    session.add(job)
    session.flush()
    key = f"{kind.task}:{job.id}:{job.fencing_token}:{int(job.queued_at.timestamp() * 1000)}"
    enqueue_task(session, name=kind.task, queue=kind.queue, body={"job_id": str(job.id)}, key=key)


def claim(engine: Engine, kind: JobKind[JobT], job_id: uuid.UUID) -> "Lease[JobT] | None":
    """Take the job, or None if there is nothing to do: it is running elsewhere, has ended, or does not exist."""
    with transaction(engine) as session:
        job = session.get(kind.model, job_id, with_for_update=True)
        if job is None or job.state not in ("queued", "running"):
            return None
        if job.state == "running" and job.lease_until is not None and job.lease_until > now():
            return None
        if job.attempts >= kind.max_attempts:
            _give_up(job)
            return None
        job.state = "running"
        job.attempts += 1
        job.fencing_token += 1
        job.lease_owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        job.lease_until = now() + timedelta(seconds=kind.lease_s)
        return Lease(engine, kind, job_id, job.fencing_token)


def reap_leases(engine: Engine, kind: JobKind[JobT]) -> int:
    """Background job: announce again what was lost, and fail what was lost too often; returns how many rows it changed."""
    lost = (kind.model.state == "running") & (kind.model.lease_until < now())
    forgotten = (kind.model.state == "queued") & (kind.model.queued_at < now() - timedelta(seconds=kind.requeue_after_s))
    with transaction(engine) as session:
        jobs = session.scalars(select(kind.model).where(lost | forgotten).limit(100).with_for_update(skip_locked=True)).all()
        for job in jobs:
            if job.attempts >= kind.max_attempts:
                _give_up(job)
            else:
                log.warning("job announced again", task=kind.task, job_id=str(job.id), state=job.state, attempts=job.attempts)
                enqueue_job(session, kind, job)
    return len(jobs)


def _give_up(job: LeasedJob) -> None:
    job.state, job.lease_until = "failed", None
    last = f"; the last reason given was: {job.failure}" if job.failure else " without a word"
    job.failure = f"{job.attempts} runs ended{last}"


@dataclass
class Lease(Generic[JobT]):
    """The right to work on one job. As a context manager it extends itself in the background and ends with the block.

    A `RexisError` in the block is a statement about the job: it fails with that reason. `UnavailableError` and any other exception
    is a defect or a fault of the machine: the lease ends at once, so that the reaper announces the job again, up to the kind's
    `max_attempts`.
    """

    engine: Engine
    kind: JobKind[JobT]
    job_id: uuid.UUID
    token: int
    _stop: threading.Event = field(default_factory=threading.Event)
    _lost: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def extend(self) -> None:
        """Extend the lease by the kind's `lease_s` from now.

        Raises:
            LeaseLostError: another run took over.
        """
        model = self.kind.model
        with transaction(self.engine) as session:
            held = (model.id == self.job_id) & (model.fencing_token == self.token) & (model.state == "running")
            until = now() + timedelta(seconds=self.kind.lease_s)
            if session.execute(update(model).where(held).values(lease_until=until).returning(model.id)).first() is None:
                self._lost.set()
                raise LeaseLostError(self._lost_message())

    def check(self) -> None:
        """For long loops: stop as soon as the lease is known to be lost.

        Raises:
            LeaseLostError: another run took over.
        """
        if self._lost.is_set():
            raise LeaseLostError(self._lost_message())

    @contextmanager
    def commit(self) -> Iterator[tuple[Session, JobT]]:
        """One transaction for effects of this run, on the locked row.

        Raises:
            LeaseLostError: another run took over; nothing was written.
        """
        with transaction(self.engine) as session:
            job = session.get(self.kind.model, self.job_id, with_for_update=True)
            if job is None or job.fencing_token != self.token or job.state != "running":
                raise LeaseLostError(self._lost_message())
            yield session, job

    @contextmanager
    def finish(self) -> Iterator[tuple[Session, JobT]]:
        """As `commit`, and the job is done with it."""
        with self.commit() as (session, job):
            yield session, job
            job.state, job.lease_until, job.failure = "done", None, None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._keep, name=f"lease {self.job_id}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if error is None or isinstance(error, LeaseLostError):
            return
        with self.commit() as (_, job):
            if isinstance(error, RexisError) and not isinstance(error, UnavailableError):
                job.state, job.failure, job.lease_until = "failed", str(error), None
            else:
                # The text of an unexpected error may quote data: it goes to the log of this machine, not into the row.
                log.error("run failed", task=self.kind.task, job_id=str(self.job_id), exc_info=error)
                job.failure, job.lease_until = f"an unexpected {type(error).__name__}", now()

    def _keep(self) -> None:
        while not self._stop.wait(self.kind.lease_s / 3):
            try:
                self.extend()
            except LeaseLostError:
                return
            except SQLAlchemyError as error:
                # The next try may still be in time; if not, `commit` refuses.
                log.warning("lease not extended", job_id=str(self.job_id), error=type(error).__name__)

    def _lost_message(self) -> str:
        return f"job {self.job_id}: run {self.token} lost its lease to a later one; it writes nothing"
