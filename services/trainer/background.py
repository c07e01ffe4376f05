"""The trainer's background process: `python -m services.trainer.background`.

It publishes tasks from the outbox, announces again what a dead worker left, and clears up uploads.
"""

from sqlalchemy import Engine

from services.foundation.assembly import run_service_background
from services.foundation.background import Job
from services.foundation.objects import open_store
from services.foundation.outbox.leases import reap_leases
from services.foundation.outbox.tasks import celery_application, delete_sent, publish_once
from services.foundation.uploads import reap_uploads
from services.trainer.batches import TASKS_MODULE, VALIDATION
from services.trainer.settings import TrainerSettings


def jobs(settings: TrainerSettings, engine: Engine) -> list[Job]:
    """Everything periodic of the trainer."""
    objects = open_store(settings.object_store_url)
    celery = celery_application(settings, TASKS_MODULE)
    return [
        Job("task outbox", 0.5, lambda: publish_once(engine, celery)),
        Job("lease reaper", 5.0, lambda: reap_leases(engine, VALIDATION)),
        Job("sent tasks", 3600.0, lambda: delete_sent(engine)),
        Job("upload reaper", 60.0, lambda: reap_uploads(engine, objects)),
    ]


if __name__ == "__main__":
    run_service_background(TrainerSettings, jobs)
