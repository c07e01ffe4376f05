"""The marketplace's background process: `python -m services.marketplace.background`.

It relays signed calls, indexes the chain into catalogue, grants and jobs, and ends queries whose time is over.
"""

from sqlalchemy import Engine

from services.foundation.assembly import chain_jobs, run_service_background
from services.foundation.background import Job
from services.marketplace.catalogue import CatalogueProjection
from services.marketplace.grants import AccessProjection
from services.marketplace.jobs import JobProjection
from services.marketplace.queries import close_overdue
from services.marketplace.settings import MarketplaceSettings

PROJECTIONS = (CatalogueProjection(), AccessProjection(), JobProjection())
SWEEP_S = 10.0
# People wait for registrations and grants.
CHAIN_TICK_S = 0.5


def jobs(settings: MarketplaceSettings, engine: Engine) -> list[Job]:
    """Everything periodic of the marketplace; raises as `chain_jobs` does."""
    return [*chain_jobs(settings, engine, PROJECTIONS, tick_s=CHAIN_TICK_S), Job("queries", SWEEP_S, lambda: close_overdue(engine))]


if __name__ == "__main__":
    run_service_background(MarketplaceSettings, jobs)
