"""The aggregator's API: `uvicorn --factory services.aggregator.app:create_app`."""

from fastapi import FastAPI

from services.aggregator.routes import router
from services.aggregator.settings import AggregatorSettings
from services.foundation.assembly import create_api


def create_app(settings: AggregatorSettings | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment."""
    return create_api(
        settings or AggregatorSettings.from_environment(),
        title="Rexis aggregator",
        summary="Federations of institutions, with thresholds under which no single update can be seen.",
        routers=[router],
    )
