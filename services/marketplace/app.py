"""The marketplace's API: `uvicorn --factory services.marketplace.app:create_app`."""

from fastapi import FastAPI

from services.foundation.assembly import create_api
from services.foundation.relays import relay_router
from services.marketplace.access_routes import router as access_router
from services.marketplace.job_routes import router as job_router
from services.marketplace.query_routes import router as query_router
from services.marketplace.routes import router
from services.marketplace.settings import MarketplaceSettings

# Calls that the marketplace sends as they are; registrations come with their documents (`POST /v1/datasets`).
DOORS = {
    "AccessManager": ("setCommittee", "grant", "revoke"),
    "ComputeJobs": (
        "trustAlgorithm",
        "distrustAlgorithm",
        "trustProvider",
        "distrustProvider",
        "request",
        "accept",
        "decline",
        "cancel",
        "abandon",
        "commitResult",
        "release",
        "dispute",
        "resolve",
        "timeout",
        "withdraw",
    ),
    "KeyDelegation": ("delegate", "revoke"),
}


def create_app(settings: MarketplaceSettings | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment."""
    return create_api(
        settings or MarketplaceSettings.from_environment(),
        title="Rexis marketplace",
        summary="Data sets as tokens, access to them, queries that run at their owners, and the relay that pays gas for institutions.",
        routers=[router, access_router, query_router, job_router, relay_router(DOORS)],
    )
