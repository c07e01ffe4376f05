"""The trainer's background process: `python -m services.trainer.background`.

It publishes tasks from the outbox, announces again what a dead worker left, relays signed calls, follows the ModelRegistry, hands
receipts to the verifier, and clears up.
"""

from functools import partial

from sqlalchemy import Engine

from rexis.client.connection import Connection
from rexis.client.sign_in import SignInSession
from rexis.client.verifier import VerifierClient
from services.foundation.assembly import chain_jobs, relayer, run_service_background
from services.foundation.background import Job
from services.foundation.objects import open_store
from services.foundation.outbox.leases import reap_leases
from services.foundation.outbox.tasks import celery_application, delete_sent, publish_once
from services.foundation.uploads import reap_uploads
from services.trainer.authorisations import AuthorisationProjection
from services.trainer.batches import TASKS_MODULE, VALIDATION
from services.trainer.inferences import ANSWER, sweep_outputs
from services.trainer.publications import CHECK
from services.trainer.receipts import deposit_once
from services.trainer.settings import TrainerSettings

PROJECTIONS = (AuthorisationProjection(),)


def jobs(settings: TrainerSettings, engine: Engine) -> list[Job]:
    """Everything periodic of the trainer; raises as `chain_jobs` does."""
    objects = open_store(settings.object_store_url)
    celery = celery_application(settings, TASKS_MODULE)
    return [
        *chain_jobs(settings, engine, PROJECTIONS),
        Job("task outbox", 0.25, lambda: publish_once(engine, celery)),
        *(Job(f"lease reaper of {kind.task}", 5.0, partial(reap_leases, engine, kind)) for kind in (VALIDATION, CHECK, ANSWER)),
        *deposits(settings, engine),
        Job("output sweeper", 600.0, lambda: sweep_outputs(engine, objects)),
        Job("sent tasks", 3600.0, lambda: delete_sent(engine)),
        Job("upload reaper", 60.0, lambda: reap_uploads(engine, objects)),
    ]


def deposits(settings: TrainerSettings, engine: Engine) -> list[Job]:
    """The job that hands receipts to the verifier, if the settings name one; it signs in there as the issuer.

    Raises:
        ConfigurationError: the verifier's URL is no origin, or tokens would travel in the clear.
    """
    if settings.verifier_url is None:
        return []
    connection = Connection(settings.verifier_url, service="the verifier")
    connection.authorise = SignInSession(connection, relayer(settings), settings.chain_id).token
    verifier = VerifierClient(connection)
    return [Job("receipt deposits", 0.5, lambda: deposit_once(engine, verifier))]


if __name__ == "__main__":
    run_service_background(TrainerSettings, jobs)
