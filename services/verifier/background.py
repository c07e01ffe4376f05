"""The verifier's background process: `python -m services.verifier.background`. It batches receipts and commits the batches on chain."""

from sqlalchemy import Engine

from services.foundation.assembly import chain_jobs, deployment_of, relayer, run_service_background
from services.foundation.background import Job
from services.verifier.batching import ReceiptBatches
from services.verifier.projections import CommittedBatches, VouchedModels
from services.verifier.settings import VerifierSettings

PROJECTIONS = (VouchedModels(), CommittedBatches())
BATCH_TICK_S = 0.5


def jobs(settings: VerifierSettings, engine: Engine) -> list[Job]:
    """Batching, and relay and chain index; raises as `relayer` and `deployment_of` do."""
    batches = ReceiptBatches(
        engine,
        relayer(settings).address,
        deployment_of(settings),
        receipts=settings.batch_receipts,
        seconds=settings.batch_seconds,
    )
    return [Job("receipt batches", BATCH_TICK_S, batches.run_once), *chain_jobs(settings, engine, PROJECTIONS)]


if __name__ == "__main__":
    run_service_background(VerifierSettings, jobs)
