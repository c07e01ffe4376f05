"""The background process: one of many is active, whatever happens to it; a job that fails or hangs is alone with that."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, select, text

from services.foundation.background import BackgroundLease, Job, acquire, release, run_background
from services.foundation.database import now, transaction
from tests.services.background_process import BackgroundSettings, settings_for

ROOT = Path(__file__).parents[2]
NAME = BackgroundSettings.service
DEADLINE_S = 30.0
# So long that no lease ends by itself within a test.
LONG_S = 600.0


def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def within(seconds: float, happened: Callable[[], bool]) -> bool:
    """Whether it happens in this time."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@dataclass
class Cluster:
    """Background processes of one service on one database."""

    engine: Engine
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, lease_s: float) -> subprocess.Popen[bytes]:
        url = self.engine.url.render_as_string(hide_password=False)
        command = [sys.executable, "-m", "tests.services.background_process", url, str(lease_s), str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
        return self.processes[-1]

    def start_two(self, lease_s: float) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        """The active process and the standby one, both at work."""
        both = self.start(lease_s), self.start(lease_s)
        until(lambda: all((self.folder / f"heartbeat-{process.pid}").exists() for process in both), "both processes are up")
        until(lambda: bool(self.runs()), "one of them runs its jobs")
        active, standby = sorted(both, key=lambda process: process.pid not in self.runs())
        return active, standby

    def runs(self) -> list[int]:
        """Process ids, one for each run of the job."""
        file = self.folder / "runs"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def next_runs(self, count: int) -> set[int]:
        """Who does the next `count` runs."""
        seen = len(self.runs())
        until(lambda: len(self.runs()) >= seen + count, f"{count} further runs: {self.log()}")
        return set(self.runs()[seen:])

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def owner(self) -> int | None:
        """Process id of the one that has the lease."""
        with transaction(self.engine, read_only=True) as session:
            owner = session.scalars(select(BackgroundLease.owner).where(BackgroundLease.name == NAME)).one_or_none()
        return None if owner is None else int(owner.split(":")[1])


@pytest.fixture
def cluster(engine: Engine, tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(engine, tmp_path)
    yield started
    for process in started.processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("dialect", ["postgres"], indirect=True)
def test_a_standby_waits_and_takes_over_from_a_killed_process_when_its_lease_ends(cluster: Cluster) -> None:
    lease_s = 1.5
    active, standby = cluster.start_two(lease_s)
    assert cluster.next_runs(20) == {active.pid}
    active.kill()
    killed_at = time.monotonic()
    until(lambda: standby.pid in cluster.runs(), "the standby takes over")
    # The lease was renewed every third of its time, and is asked for as often; the rest is for a busy machine.
    assert lease_s * 0.5 < time.monotonic() - killed_at < lease_s * 4 / 3 + 2.0
    assert [pid for pid, _ in itertools.groupby(cluster.runs())] == [active.pid, standby.pid]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_sigterm_ends_a_process_at_once_and_hands_its_own_lease_over(cluster: Cluster) -> None:
    active, standby = cluster.start_two(LONG_S)
    assert cluster.owner() == active.pid
    active.terminate()
    assert active.wait(2.0) == 0
    assert cluster.owner() is None
    third = cluster.start(LONG_S)
    assert cluster.next_runs(3) == {third.pid}
    standby.terminate()
    assert standby.wait(2.0) == 0
    assert cluster.owner() == third.pid, "a standby that leaves must not take the lease with it"
    assert cluster.next_runs(3) == {third.pid}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_sigterm_does_not_wait_for_a_run_that_hangs_and_keeps_the_lease_for_it(cluster: Cluster) -> None:
    active = cluster.start(LONG_S)
    until(lambda: bool(cluster.runs()), "the process is active")
    (cluster.folder / "hang").touch()
    until((cluster.folder / "hanging").exists, "the job hangs")
    assert cluster.next_runs(3) == {active.pid}, "the other job has to go on"
    active.terminate()
    # The job hangs for as long as the file is there, so how long a busy machine takes to end the process says nothing.
    assert active.wait(DEADLINE_S) == 0
    assert cluster.owner() == active.pid, "whether the run has ended is not known: nobody may start one before the lease ends"


@pytest.mark.parametrize("dialect", ["postgres"], indirect=True)
def test_a_process_that_was_paused_for_longer_than_its_lease_stands_back(cluster: Cluster) -> None:
    first, second = cluster.start_two(1.0)
    first.send_signal(signal.SIGSTOP)
    until(lambda: second.pid in cluster.runs(), "the standby takes over")
    first.send_signal(signal.SIGCONT)
    until(lambda: "lost its lease" in cluster.log(), "the first process notices")
    # A run that had begun before that may end after it.
    cluster.next_runs(2)
    assert cluster.next_runs(20) == {second.pid}


def test_of_many_that_ask_at_once_one_gets_the_lease(engine: Engine) -> None:
    def ask(owner: str, together: threading.Barrier) -> bool:
        together.wait(DEADLINE_S)
        with transaction(engine) as session:
            return acquire(session, NAME, owner, LONG_S)

    owners = [f"owner-{number}" for number in range(5)]
    with ThreadPoolExecutor(len(owners)) as threads:
        for _ in range(3):
            got = list(threads.map(ask, owners, [threading.Barrier(len(owners))] * len(owners)))
            assert got.count(True) == 1
            with transaction(engine) as session:
                lease = session.get_one(BackgroundLease, NAME)
                assert lease.owner == owners[got.index(True)]
                # From now on it is a lease that has ended.
                lease.owner, lease.until = "somebody who is gone", now() - timedelta(seconds=1)


def test_a_lease_is_renewed_and_released_by_its_owner_only(engine: Engine) -> None:
    with transaction(engine) as session:
        assert acquire(session, NAME, "a", LONG_S)
        assert not acquire(session, NAME, "b", LONG_S)
        assert acquire(session, "another service", "b", LONG_S)
        release(session, NAME, "b")
        assert not acquire(session, NAME, "b", LONG_S)
        assert acquire(session, NAME, "a", 2 * LONG_S)
        assert session.get_one(BackgroundLease, NAME, populate_existing=True).until > now() + timedelta(seconds=LONG_S)
        release(session, NAME, "a")
        assert acquire(session, NAME, "b", LONG_S)


@contextmanager
def ended_by(script: Callable[[], None]) -> Iterator[None]:
    """Runs `script` beside the block, and sends SIGTERM to this process when it ends; its failure is raised after the block."""
    # Until the background process has its own handler, and after it, the signal must not end the tests.
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ThreadPoolExecutor(1) as threads:
            played = threads.submit(script)
            played.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGTERM))
            yield
            played.result()
    finally:
        signal.signal(signal.SIGTERM, previous)


def outcomes(job: str) -> tuple[float, float]:
    """How often a job has failed and succeeded, by the metrics of this process."""
    failed, succeeded = (
        REGISTRY.get_sample_value("rexis_background_runs_total", {"job": job, "outcome": outcome}) for outcome in ("failure", "success")
    )
    return failed or 0.0, succeeded or 0.0


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_failing_job_is_retried_with_back_off_while_the_others_go_on(engine: Engine) -> None:
    tries, others = list[float](), list[float]()

    def unlucky() -> None:
        tries.append(time.monotonic())
        if len(tries) <= 3:
            raise ConnectionError("the third party is down")

    jobs = [Job("unlucky", 0.02, unlucky), Job("other", 0.02, lambda: others.append(time.monotonic()))]
    with ended_by(lambda: until(lambda: len(tries) >= 8, "the job recovers")):
        run_background(settings_for(str(engine.url)), engine, jobs)
    pauses = [second - first for first, second in itertools.pairwise(tries)]
    assert pauses[0] >= 0.2
    assert pauses[1] >= 0.4
    assert pauses[2] >= 0.8
    assert min(pauses[3:]) < 0.2, "after a success the job is back in its interval"
    assert len([instant for instant in others if tries[0] < instant < tries[3]]) > 10
    assert outcomes("unlucky") == (3, len(tries) - 3)
    assert outcomes("other") == (0, len(others))


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_heartbeat_stops_while_a_job_is_stuck(engine: Engine, tmp_path: Path) -> None:
    heartbeat, stuck, freed = tmp_path / "heartbeat", threading.Event(), threading.Event()

    def sticky() -> None:
        stuck.set()
        freed.wait(DEADLINE_S)

    def is_touched() -> bool:
        heartbeat.unlink(missing_ok=True)
        return within(0.7, heartbeat.exists)

    def script() -> None:
        assert stuck.wait(DEADLINE_S)
        until(lambda: not is_touched(), "the heartbeat stops")
        freed.set()
        until(is_touched, "the heartbeat goes on")

    settings = settings_for(str(engine.url))
    with ended_by(script):
        run_background(settings, engine, [Job("sticky", LONG_S, sticky)], lease_s=0.3, heartbeat=heartbeat, stuck_after_s=0.3)


def test_without_the_database_the_jobs_stop_when_the_lease_ends_and_come_back_with_it(engine: Engine) -> None:
    runs: list[float] = []

    def rename(old: str, new: str) -> None:
        with transaction(engine) as session:
            session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    def is_running() -> bool:
        seen = len(runs)
        return within(0.5, lambda: len(runs) > seen)

    def script() -> None:
        until(is_running, "the job runs")
        rename("background_lease", "out_of_reach")
        until(lambda: not is_running(), "the job stops")
        rename("out_of_reach", "background_lease")
        until(is_running, "the job comes back")

    with ended_by(script):
        run_background(settings_for(str(engine.url)), engine, [Job("count", 0.02, lambda: runs.append(time.monotonic()))], lease_s=0.6)
