"""The aggregator's API: `uvicorn --factory services.aggregator.app:create_app`."""

from fastapi import FastAPI

from services.aggregator.approval_routes import router as approval_router
from services.aggregator.group_key_routes import router as group_key_router
from services.aggregator.result_routes import router as result_router
from services.aggregator.routes import router
from services.aggregator.score_routes import router as score_router
from services.aggregator.settings import AggregatorSettings
from services.foundation.assembly import create_api
from services.foundation.relays import relay_progress_router, relay_router
from services.foundation.uploads import upload_router

# Calls that the aggregator sends as they are; foundings come with their configs (`POST /v1/federations`).
DOORS = {
    "FederationRegistry": ("commitUpdate", "close"),
    "RewardDistributor": ("fund", "publish", "challenge", "confirm", "reject", "claim", "close", "withdraw"),
}


def create_app(settings: AggregatorSettings | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment."""
    return create_api(
        settings or AggregatorSettings.from_environment(),
        title="Rexis aggregator",
        summary="Federations of institutions, with thresholds under which no single update can be seen.",
        routers=[
            upload_router(),
            router,
            approval_router,
            group_key_router,
            result_router,
            score_router,
            relay_router(DOORS),
            relay_progress_router(),
        ],
    )
