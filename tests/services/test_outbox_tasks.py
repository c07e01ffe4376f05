"""The task outbox and leases: messages are never lost, deliveries may be doubled, effects are not. With real workers."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import structlog
from celery import Celery
from sqlalchemy import Engine, select

from rexis.errors import LeaseLostError, PolicyError, UnavailableError, UnexpectedMessageError
from services.foundation.database import now, transaction
from services.foundation.outbox import tasks
from services.foundation.outbox.leases import claim, enqueue_job, reap_leases
from services.foundation.outbox.tasks import TaskMessage, celery_application, delete_sent, enqueue_task, publish_once
from tests.services.conftest import free_port
from tests.services.counted_jobs import KIND, Base, CountedJob, Effect, Run, effects
from tests.services.service_applications import settings_for

ROOT = Path(__file__).parents[2]
DEADLINE_S = 40.0

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def counted(engine: Engine) -> Engine:
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture
def celery(engine: Engine, redis_url: str) -> Iterator[Celery]:
    """The application as a publisher has it: without the tasks."""
    application = celery_application(settings_for("trainer", str(engine.url), redis_url=redis_url), "tests.services.counted_jobs")
    yield application
    application.close()


@pytest.fixture
def start_worker(counted: Engine, redis_url: str) -> Iterator[Start]:
    """Start a worker; all are killed at the end, each with the processes of its pool."""
    url, started = counted.url.render_as_string(hide_password=False), []

    def run() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "celery", "-A", "tests.services.counted_worker:celery", "worker", "-Q", KIND.queue]
        command += ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
        environment = os.environ | {"COUNTED_DATABASE_URL": url, "COUNTED_REDIS_URL": redis_url}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        started.append(process)
        return process

    yield run
    for process in started:
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to a worker and its pool, as when a machine goes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def add_job(engine: Engine, mode: str = "once") -> uuid.UUID:
    with transaction(engine) as session:
        job = CountedJob(mode=mode)
        enqueue_job(session, KIND, job)
        return job.id


def job_of(engine: Engine, job_id: uuid.UUID) -> CountedJob:
    with transaction(engine, read_only=True) as session:
        return session.get_one(CountedJob, job_id)


def runs(engine: Engine, job_id: uuid.UUID) -> list[Run]:
    with transaction(engine, read_only=True) as session:
        return list(session.scalars(select(Run).where(Run.job_id == job_id).order_by(Run.id)))


def messages(engine: Engine) -> list[TaskMessage]:
    with transaction(engine, read_only=True) as session:
        return list(session.scalars(select(TaskMessage).order_by(TaskMessage.sequence)))


def queued(redis_url: str, queue: str = KIND.queue) -> list[str]:
    """Task ids of the messages that wait in a queue, oldest first."""
    with redis.Redis.from_url(redis_url) as client:
        return [json.loads(message)["headers"]["id"] for message in reversed(client.lrange(queue, 0, -1))]


def work_until(engine: Engine, celery: Celery, condition: Callable[[], object]) -> None:
    """Publish and reap, as the background process does, until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the deadline has passed"
        reap_leases(engine, KIND)
        publish_once(engine, celery)
        time.sleep(0.05)


# --- Messages -------------------------------------------------------------------------------------------------------------------


def test_a_message_goes_out_once_after_the_commit_and_in_order(engine: Engine, celery: Celery, redis_url: str) -> None:
    with transaction(engine) as session:
        for number in range(3):
            enqueue_task(session, name="t", queue="q", body={"number": number}, key=f"k{number}")
        assert queued(redis_url, "q") == []
    assert publish_once(engine, celery) == 3
    assert publish_once(engine, celery) == 0
    assert queued(redis_url, "q") == [str(message.task_id) for message in messages(engine)]


def test_a_message_of_a_transaction_that_is_rolled_back_is_none(engine: Engine, celery: Celery) -> None:
    with pytest.raises(ZeroDivisionError), transaction(engine) as session:
        enqueue_task(session, name="t", queue="q", body={"number": 1}, key=f"{1 / 0}")
    assert publish_once(engine, celery) == 0


def test_a_key_is_one_message(engine: Engine) -> None:
    with transaction(engine) as session:
        first = enqueue_task(session, name="t", queue="q", body={"a": 1}, key="k")
        assert enqueue_task(session, name="t", queue="q", body={"a": 1}, key="k").sequence == first.sequence
        with pytest.raises(UnexpectedMessageError, match="another t message"):
            enqueue_task(session, name="t", queue="q", body={"a": 2}, key="k")
    assert len(messages(engine)) == 1


def test_publishers_at_once_send_each_message_once(engine: Engine, celery: Celery, redis_url: str) -> None:
    with transaction(engine) as session:
        for number in range(60):
            enqueue_task(session, name="t", queue="q", body={}, key=f"k{number}")
    with ThreadPoolExecutor(3) as threads:
        sent = list(threads.map(lambda _: publish_once(engine, celery), range(6)))
    assert sum(sent) == 60
    assert sorted(queued(redis_url, "q")) == sorted(str(message.task_id) for message in messages(engine))


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_dead_broker_keeps_messages_waiting(engine: Engine, celery: Celery) -> None:
    with transaction(engine) as session:
        enqueue_task(session, name="t", queue="q", body={}, key="k")
    dead = celery_application(settings_for("trainer", str(engine.url), redis_url=f"redis://127.0.0.1:{free_port()}/0"), "none")
    with pytest.raises(UnavailableError, match="stay in the database"):
        publish_once(engine, dead)
    assert publish_once(engine, celery) == 1


def test_a_publisher_that_died_holds_its_messages_for_a_while_only(engine: Engine, celery: Celery, redis_url: str) -> None:
    with transaction(engine) as session:
        enqueue_task(session, name="t", queue="q", body={}, key="k")
        session.scalars(select(TaskMessage)).one().claimed_until = now() + timedelta(seconds=tasks.CLAIM_S)
    assert publish_once(engine, celery) == 0
    with transaction(engine) as session:
        session.scalars(select(TaskMessage)).one().claimed_until = now() - timedelta(seconds=1)
    assert publish_once(engine, celery) == 1
    assert len(queued(redis_url, "q")) == 1


def test_sent_messages_are_forgotten_in_time(engine: Engine, celery: Celery) -> None:
    with transaction(engine) as session:
        enqueue_task(session, name="t", queue="q", body={}, key="sent")
    publish_once(engine, celery)
    with transaction(engine) as session:
        enqueue_task(session, name="t", queue="q", body={}, key="waiting")
    assert delete_sent(engine, older_than_s=60.0) == 0
    assert delete_sent(engine, older_than_s=-1.0) == 1
    assert [message.key for message in messages(engine)] == ["waiting"]


# --- Leases ---------------------------------------------------------------------------------------------------------------------


def test_a_run_that_was_taken_over_writes_nothing(counted: Engine) -> None:
    job_id, hasty = add_job(counted), replace(KIND, lease_s=0.0)
    paused = claim(counted, hasty, job_id)
    later = claim(counted, KIND, job_id)
    assert paused is not None
    assert later is not None
    assert (paused.token, later.token) == (1, 2)
    with pytest.raises(LeaseLostError), paused.finish() as (session, _):
        session.add(Effect(job_id=job_id, token=1))
    with pytest.raises(LeaseLostError):
        paused.extend()
    with pytest.raises(LeaseLostError):
        paused.check()
    with later.finish() as (session, _):
        session.add(Effect(job_id=job_id, token=2))
    with pytest.raises(LeaseLostError), paused.commit() as (session, _):
        session.add(Effect(job_id=job_id, token=1))
    assert effects(counted, job_id) == [2]
    assert job_of(counted, job_id).state == "done"


def test_a_delivery_of_a_running_a_done_or_an_unknown_job_is_dropped(counted: Engine) -> None:
    job_id = add_job(counted)
    lease = claim(counted, KIND, job_id)
    assert lease is not None
    assert claim(counted, KIND, job_id) is None
    assert claim(counted, KIND, uuid.uuid4()) is None
    with lease.finish():
        pass
    assert claim(counted, KIND, job_id) is None
    assert job_of(counted, job_id).attempts == 1


def test_simultaneous_deliveries_run_once(counted: Engine) -> None:
    job_id = add_job(counted)
    with ThreadPoolExecutor(6) as threads:
        leases = list(threads.map(lambda _: claim(counted, KIND, job_id), range(12)))
    assert [lease.token for lease in leases if lease is not None] == [1]


def test_a_run_keeps_its_lease_for_as_long_as_it_lasts(counted: Engine) -> None:
    job_id, short = add_job(counted), replace(KIND, lease_s=0.6)
    lease = claim(counted, short, job_id)
    assert lease is not None
    with lease:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            assert claim(counted, short, job_id) is None
            assert reap_leases(counted, short) == 0
            time.sleep(0.05)
        with lease.finish():
            pass
    assert job_of(counted, job_id).attempts == 1


def test_a_statement_about_the_job_ends_it(counted: Engine) -> None:
    job_id = add_job(counted)
    lease = claim(counted, KIND, job_id)
    assert lease is not None
    with pytest.raises(PolicyError), lease:
        raise PolicyError("the policy says no")
    assert (job_of(counted, job_id).state, job_of(counted, job_id).failure) == ("failed", "the policy says no")


@pytest.mark.parametrize("fault", [UnavailableError("the store is away"), RuntimeError("patient 4711")])
def test_a_fault_of_the_machine_is_tried_again_and_ends_with_a_reason(counted: Engine, fault: Exception) -> None:
    job_id = add_job(counted)
    for attempt in (1, 2):
        lease = claim(counted, KIND, job_id)
        assert lease is not None
        with pytest.raises(type(fault)), lease:
            raise fault
        assert (job_of(counted, job_id).state, job_of(counted, job_id).attempts) == ("running", attempt)
        assert reap_leases(counted, KIND) == 1
    ended = job_of(counted, job_id)
    assert ended.state == "failed"
    assert ended.failure == f"2 runs ended; the last reason given was: an unexpected {type(fault).__name__}"
    assert claim(counted, KIND, job_id) is None
    assert len(messages(counted)) == 2


def test_a_delivery_of_a_job_that_was_lost_too_often_ends_it(counted: Engine) -> None:
    job_id, hasty = add_job(counted), replace(KIND, lease_s=0.0)
    assert [claim(counted, hasty, job_id) is not None for _ in range(3)] == [True, True, False]
    ended = job_of(counted, job_id)
    assert (ended.state, ended.failure, ended.attempts) == ("failed", "2 runs ended without a word", 2)


def test_a_job_whose_message_the_broker_lost_is_announced_again(counted: Engine, celery: Celery, redis_url: str) -> None:
    job_id = add_job(counted)
    publish_once(counted, celery)
    assert reap_leases(counted, KIND) == 0
    with transaction(counted) as session:
        session.get_one(CountedJob, job_id).queued_at = now() - timedelta(seconds=KIND.requeue_after_s + 1)
    assert reap_leases(counted, KIND) == 1
    assert publish_once(counted, celery) == 1
    assert len(set(queued(redis_url))) == 2
    assert job_of(counted, job_id).attempts == 0


# --- Workers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["postgres"])
def test_a_killed_worker_is_replaced_and_the_job_has_its_effect_once(
    counted: Engine, celery: Celery, redis_url: str, start_worker: Start
) -> None:
    with structlog.contextvars.bound_contextvars(request_id="request-0001"):
        job_id = add_job(counted, "hang-once")
    first = start_worker()
    work_until(counted, celery, lambda: runs(counted, job_id))
    # It works on, so nobody else may.
    held = job_of(counted, job_id).lease_until
    work_until(counted, celery, lambda: job_of(counted, job_id).lease_until != held)
    assert [run.token for run in runs(counted, job_id)] == [1]
    kill(first)
    start_worker()
    work_until(counted, celery, lambda: job_of(counted, job_id).state == "done")
    assert [run.token for run in runs(counted, job_id)] == [1, 2]
    assert effects(counted, job_id) == [2]
    assert runs(counted, job_id)[0].request_id == "request-0001"


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_doubled_messages_run_once_and_lethal_jobs_end(counted: Engine, celery: Celery, redis_url: str, start_worker: Start) -> None:
    twice, lethal = add_job(counted, "once"), add_job(counted, "die")
    assert publish_once(counted, celery) == 2
    with transaction(counted) as session:
        # As if the publisher had died between sending and marking.
        for message in session.scalars(select(TaskMessage)):
            message.sent_at = None
    assert publish_once(counted, celery) == 2
    assert len(queued(redis_url)) == 4
    assert len(set(queued(redis_url))) == 2
    worker = start_worker()
    work_until(counted, celery, lambda: job_of(counted, lethal).state == "failed" and not queued(redis_url))
    assert [run.token for run in runs(counted, lethal)] == [1, 2]
    assert effects(counted, lethal) == []
    assert job_of(counted, lethal).failure == "2 runs ended without a word"
    assert effects(counted, twice) == [1]
    assert len(runs(counted, twice)) == 1
    # The worker itself has outlived its children, works on, and stops when it is told to.
    after = add_job(counted, "once")
    work_until(counted, celery, lambda: job_of(counted, after).state == "done")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.hlen("unacked") == 0
