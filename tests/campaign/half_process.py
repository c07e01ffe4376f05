"""`python -m tests.campaign.half_process relay|index`: one half of the marketplace's background process, so that it can be killed alone.

The halves are the jobs that `services.marketplace.background` has from `chain_jobs`, each under a lease of its own.
"""

import sys
from typing import ClassVar

from services.foundation.assembly import chain_jobs, require_migrated
from services.foundation.background import run_background
from services.foundation.database import open_engine
from services.foundation.observability import configure_logging
from services.marketplace.background import CHAIN_TICK_S, PROJECTIONS
from services.marketplace.settings import MarketplaceSettings

# After SIGKILL the next process stands by until the lease of the dead one has ended.
LEASE_S = 1.5


class RelayHalf(MarketplaceSettings):
    """The marketplace's settings, with another lease."""

    service: ClassVar[str] = "marketplace-relay"


class IndexHalf(MarketplaceSettings):
    """The marketplace's settings, with another lease."""

    service: ClassVar[str] = "marketplace-index"


def main(half: str) -> None:
    """Run the half until SIGTERM."""
    settings = (IndexHalf if half == "index" else RelayHalf).from_environment()
    engine = open_engine(settings.database_url)
    require_migrated(engine, "services.marketplace")
    configure_logging(settings)
    jobs = [
        job for job in chain_jobs(settings, engine, PROJECTIONS, tick_s=CHAIN_TICK_S) if (job.name == "chain index") == (half == "index")
    ]
    run_background(settings, engine, jobs, lease_s=LEASE_S, heartbeat=settings.heartbeat_file)
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
