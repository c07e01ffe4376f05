"""`celery -A tests.services.counted_worker:celery worker`: runs `tests.services.counted_jobs`."""

import os

from services.foundation.outbox.tasks import celery_application
from services.foundation.settings import ServiceSettings


class CountingSettings(ServiceSettings):
    """Of a service that only counts."""

    service = "counting"


settings = CountingSettings(
    public_url="http://counting.test",
    database_url=os.environ["COUNTED_DATABASE_URL"],
    redis_url=os.environ["COUNTED_REDIS_URL"],
    object_store_url="memory://",
    session_key="01" * 32,
    chain_rpc_url="http://127.0.0.1:1",
)
celery = celery_application(settings, "tests.services.counted_jobs")
