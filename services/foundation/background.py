"""The one background process of a service: periodic jobs under a lease row.

Any number of these processes may run for one service; the lease makes one of them active and the others standby. The lease spares
work and noise; it is not what keeps the data right: every job holds on its own when two processes overlap for a moment (row
locks, compare-and-advance), because no lease survives a process that was paused longer than it lasts.
"""

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from prometheus_client import Counter
from sqlalchemy import Engine, String, delete, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from rexis.errors import RexisError
from services.foundation.database import FoundationBase, Instant, now, transaction
from services.foundation.settings import ServiceSettings

log = structlog.get_logger(__name__)

RUNS = Counter("rexis_background_runs", "Runs of background jobs", ["job", "outcome"])
LONGEST_BACK_OFF_S = 60.0
# Leaves room, inside one second, for the process to close its connections.
STOP_GRACE_S = 0.7


class BackgroundLease(FoundationBase):
    """Which process may run the jobs named `name`, and until when."""

    __tablename__ = "background_lease"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(200))
    until: Mapped[datetime] = mapped_column(Instant)


@dataclass(frozen=True)
class Job:
    """Something periodic.

    Attributes:
        name: for logs and metrics.
        interval_s: pause between the end of a run and the start of the next one.
        run: one bounded pass; it may raise, and it may be killed at any point.
    """

    name: str
    interval_s: float
    run: Callable[[], object]


def acquire(session: Session, name: str, owner: str, lease_s: float) -> bool:
    """Take or extend the lease `name` for `lease_s` seconds; False if another owner's lease is live."""
    instant = now()
    until = instant + timedelta(seconds=lease_s)
    free = (BackgroundLease.owner == owner) | (BackgroundLease.until < instant)
    taken = session.execute(
        update(BackgroundLease).where(BackgroundLease.name == name, free).values(owner=owner, until=until).returning(BackgroundLease.name)
    )
    if taken.first() is not None:
        return True
    if session.get(BackgroundLease, name) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(BackgroundLease(name=name, owner=owner, until=until))
    except IntegrityError:
        return False
    return True


def release(session: Session, name: str, owner: str) -> None:
    """Give the lease up so that a standby takes over at once."""
    session.execute(delete(BackgroundLease).where(BackgroundLease.name == name, BackgroundLease.owner == owner))


class EndProcess(Exception):
    """Raised by a job: this process must not go on; `reason` says why, and what an operator has to do."""

    def __init__(self, reason: RexisError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _JobThread(threading.Thread):
    """Runs one job again and again while `active` is set; a failure stays inside and is retried with back-off."""

    def __init__(self, job: Job, active: threading.Event, stopping: threading.Event) -> None:
        # A daemon, so that a run stuck in a dead connection can not keep the process from ending.
        super().__init__(name=job.name, daemon=True)
        self.job, self.active, self.stopping = job, active, stopping
        self.running_since: float | None = None
        self.ended_by: EndProcess | None = None

    def run(self) -> None:
        failures, pause = 0, 0.0
        while not self.stopping.wait(pause):
            if not self.active.wait(0.2):
                pause = 0.0
                continue
            self.running_since = time.monotonic()
            try:
                self.job.run()
                failures, pause = 0, self.job.interval_s
                RUNS.labels(self.job.name, "success").inc()
            except EndProcess as end:
                self.ended_by = end
                self.stopping.set()
            except Exception:
                failures += 1
                pause = min(max(self.job.interval_s, 0.1) * 2**failures, max(LONGEST_BACK_OFF_S, self.job.interval_s))
                RUNS.labels(self.job.name, "failure").inc()
                log.exception("background job failed", job=self.job.name, failures=failures, next_try_s=pause)
            finally:
                self.running_since = None


@contextmanager
def _stop_on_signal(stopping: threading.Event) -> Iterator[None]:
    previous = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_background(
    settings: ServiceSettings,
    engine: Engine,
    jobs: Sequence[Job],
    *,
    lease_s: float = 10.0,
    heartbeat: Path | None = None,
    stuck_after_s: float = 600.0,
) -> None:
    """Run `jobs` until SIGTERM or SIGINT; call it in the main thread and leave the process afterwards.

    Args:
        lease_s: a standby takes over within 4/3 of this time after the active process died.
        heartbeat: file whose modification time a liveness probe compares with the clock: touched by active and standby processes
            at least every `lease_s` / 3, but not while one run of a job lasts longer than `stuck_after_s`.

    Raises:
        RexisError: the reason of a job that raised `EndProcess`.
    """
    name = settings.service
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    active, stopping = threading.Event(), threading.Event()
    threads = [_JobThread(job, active, stopping) for job in jobs]
    with _stop_on_signal(stopping):
        for thread in threads:
            thread.start()
        held_until = 0.0
        while not stopping.is_set():
            asked = time.monotonic()
            try:
                with transaction(engine) as session:
                    held = acquire(session, name, owner, lease_s)
                held_until = asked + lease_s if held else 0.0
            except SQLAlchemyError as error:
                log.warning("the lease could not be renewed", error=type(error).__name__)
            _switch(active, time.monotonic() < held_until, name, owner)
            running = [thread.running_since for thread in threads if thread.running_since is not None]
            if heartbeat is not None and all(time.monotonic() - since < stuck_after_s for since in running):
                heartbeat.touch()
            stopping.wait(lease_s / 3)
        active.clear()
        deadline = time.monotonic() + STOP_GRACE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in threads):
            try:
                with transaction(engine) as session:
                    release(session, name, owner)
            except SQLAlchemyError as error:
                log.warning("the lease could not be released; a standby waits for its end", error=type(error).__name__)
        log.info("background process stopped", lease=name)
    for thread in threads:
        if thread.ended_by is not None:
            raise thread.ended_by.reason


def _switch(active: threading.Event, held: bool, name: str, owner: str) -> None:
    if held and not active.is_set():
        log.info("background process is active", lease=name, owner=owner)
        active.set()
    elif not held and active.is_set():
        log.warning("background process lost its lease", lease=name, owner=owner)
        active.clear()
