"""The verifier's background process: `python -m services.verifier.background`.

It batches receipts, commits the batches on chain, and frees the bonds on them in time.
"""

from sqlalchemy import Engine

from services.foundation.assembly import chain_jobs, deployment_of, relayer, run_service_background
from services.foundation.background import Job
from services.verifier.batching import ReceiptBatches
from services.verifier.projections import BatchChallenges, CommittedBatches, OperatorStakes, VouchedModels
from services.verifier.releases import BondReleases
from services.verifier.settings import VerifierSettings

PROJECTIONS = (VouchedModels(), CommittedBatches(), OperatorStakes(), BatchChallenges())
BATCH_TICK_S = 0.5
RELEASE_TICK_S = 5.0


def jobs(settings: VerifierSettings, engine: Engine) -> list[Job]:
    """Batching, bonds, and relay and chain index; raises as `relayer` and `deployment_of` do."""
    operator, deployment = relayer(settings).address, deployment_of(settings)
    batches = ReceiptBatches(engine, operator, deployment, receipts=settings.batch_receipts, seconds=settings.batch_seconds)
    releases = BondReleases(engine, operator, deployment)
    return [
        Job("receipt batches", BATCH_TICK_S, batches.run_once),
        Job("bond releases", RELEASE_TICK_S, releases.run_once),
        *chain_jobs(settings, engine, PROJECTIONS),
    ]


if __name__ == "__main__":
    run_service_background(VerifierSettings, jobs)
