"""The trainer's worker: `celery -A services.trainer.worker:celery worker`."""

from celery.signals import heartbeat_sent, setup_logging

from services.foundation.observability import configure_logging
from services.foundation.outbox.tasks import celery_application
from services.trainer.batches import TASKS_MODULE
from services.trainer.settings import TrainerSettings

settings = TrainerSettings.from_environment()
celery = celery_application(settings, TASKS_MODULE)


@setup_logging.connect
def _log_as_json(**_: object) -> None:
    # A receiver of this signal also keeps Celery from configuring the log itself.
    configure_logging(settings)


@heartbeat_sent.connect
def _touch_heartbeat_file(**_: object) -> None:
    # Sent by the loop that also fetches tasks, from its connection to the broker on: a consumer that is stuck falls silent.
    if settings.heartbeat_file is not None:
        settings.heartbeat_file.touch()
