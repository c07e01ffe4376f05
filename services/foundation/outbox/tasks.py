"""The task outbox: a Celery message is a row in the transaction that made it necessary, and is published afterwards.

`.delay()` inside a transaction would send a message for a row that is rolled back, or lose the message of one that is kept. Here
a message may be published twice (a publisher that dies between sending and marking), with the same task id, and is never lost:
consumers take their work through `services.foundation.outbox.leases`, where a second delivery has no effect.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from celery import Celery
from celery.signals import task_postrun, task_prerun
from kombu.exceptions import OperationalError
from sqlalchemy import JSON, BigInteger, Engine, Integer, String, Uuid, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from rexis.errors import UnavailableError, UnexpectedMessageError
from services.foundation.database import FoundationBase, Instant, now, transaction
from services.foundation.settings import ServiceSettings

BATCH = 100
# How long a publisher keeps others away from the messages that it is sending.
CLAIM_S = 30.0
# Longer than any task: a lost worker's message is repeated by the lease reaper long before the broker would.
VISIBILITY_TIMEOUT_S = 24 * 3600

# Names this application's tasks; only then are two enqueued messages with one key the same Celery task.
_TASK_IDS = uuid.UUID("a3d1a6f0-5a8e-5a53-9f0e-6d3a5d2b7c41")


class TaskMessage(FoundationBase):
    """A task to be published, or already published, under its deterministic Celery id."""

    __tablename__ = "task_message"

    sequence: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(200), unique=True)
    task_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    name: Mapped[str] = mapped_column(String(200))
    queue: Mapped[str] = mapped_column(String(64))
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    request_id: Mapped[str] = mapped_column(String(128), default="")
    created_at: Mapped[datetime] = mapped_column(Instant, default=now)
    claimed_until: Mapped[datetime | None] = mapped_column(Instant, index=True)
    sent_at: Mapped[datetime | None] = mapped_column(Instant, index=True)


def enqueue_task(session: Session, *, name: str, queue: str, body: Mapping[str, Any], key: str) -> TaskMessage:
    """Store a message that is published once the caller's transaction is committed.

    Args:
        name: full name of the Celery task.
        body: keyword arguments of the task: identifiers only, plain JSON.
        key: idempotency key; a second call with the same key and content returns the first message.

    Raises:
        UnexpectedMessageError: the key was used for another message.
    """
    message = TaskMessage(
        key=key,
        task_id=uuid.uuid5(_TASK_IDS, key),
        name=name,
        queue=queue,
        body=dict(body),
        request_id=structlog.contextvars.get_contextvars().get("request_id", ""),
    )
    try:
        with session.begin_nested():
            session.add(message)
    except IntegrityError:
        stored = session.scalars(select(TaskMessage).where(TaskMessage.key == key)).one()
        if (stored.name, stored.queue, stored.body) != (name, queue, dict(body)):
            raise UnexpectedMessageError(f"the key {key} belongs to another {stored.name} message; use a new key") from None
        return stored
    return message


def publish_once(engine: Engine, application: Celery) -> int:
    """Publish up to `BATCH` waiting messages, oldest first; returns how many.

    No lock is held while the broker is spoken to: rows are claimed, sent, and marked in three steps.

    Raises:
        UnavailableError: the broker does not answer; the messages stay and are published later.
    """
    waiting = TaskMessage.sent_at.is_(None) & (TaskMessage.claimed_until.is_(None) | (TaskMessage.claimed_until < now()))
    with transaction(engine) as session:
        messages = session.scalars(
            select(TaskMessage).where(waiting).order_by(TaskMessage.sequence).limit(BATCH).with_for_update(skip_locked=True)
        ).all()
        for message in messages:
            message.claimed_until = now() + timedelta(seconds=CLAIM_S)
    sent: list[int] = []
    try:
        for message in messages:
            application.send_task(
                message.name,
                kwargs=message.body,
                queue=message.queue,
                task_id=str(message.task_id),
                headers={"request_id": message.request_id},
                retry=False,
            )
            sent.append(message.sequence)
    except OperationalError as error:
        raise UnavailableError(f"the task queue does not answer ({error}); messages stay in the database until it does") from error
    finally:
        _settle(engine, sent, [message.sequence for message in messages])
    return len(sent)


def _settle(engine: Engine, sent: list[int], claimed: list[int]) -> None:
    if not claimed:
        return
    with transaction(engine) as session:
        session.execute(update(TaskMessage).where(TaskMessage.sequence.in_(claimed)).values(claimed_until=None))
        session.execute(update(TaskMessage).where(TaskMessage.sequence.in_(sent)).values(sent_at=now()))


def delete_sent(engine: Engine, *, older_than_s: float = 7 * 24 * 3600) -> int:
    """Background job: remove messages that were published long ago; returns how many.

    Their keys become free again, so nothing may enqueue a key anew after that time.
    """
    with transaction(engine) as session:
        old = session.scalars(select(TaskMessage).where(TaskMessage.sent_at < now() - timedelta(seconds=older_than_s)).limit(1000)).all()
        for message in old:
            session.delete(message)
    return len(old)


def celery_application(settings: ServiceSettings, tasks_module: str) -> Celery:
    """The service's Celery application; workers and publishers use the same one.

    Args:
        tasks_module: module that defines the tasks, imported by workers only.
    """
    application = Celery(settings.service, broker=settings.redis_url, include=[tasks_module], set_as_current=False)
    application.conf.update(
        task_default_queue=settings.service,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # A message is acknowledged after the work, and given back when the process that held it dies.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_pool="prefork",
        # Forked children of a process that has touched CUDA can not use it; solo and threads lose jobs at shutdown.
        worker_pool_start_method="spawn",
        worker_concurrency=1,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )
    return application


# Here and not in `celery_application`: a spawned child of a worker rebuilds the application from its settings and calls nothing of
# ours, but it imports the tasks, and they this module.
@task_prerun.connect
def _bind_request_id(task: Any, task_id: str, **_: object) -> None:
    headers = task.request.headers or {}
    structlog.contextvars.bind_contextvars(request_id=headers.get("request_id", ""), task_id=task_id, task=task.name)


@task_postrun.connect
def _unbind_request_id(**_: object) -> None:
    structlog.contextvars.unbind_contextvars("request_id", "task_id", "task")
