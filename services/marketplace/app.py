"""The marketplace's API: `uvicorn --factory services.marketplace.app:create_app`."""

from fastapi import FastAPI

from services.foundation.assembly import create_api
from services.marketplace.routes import router
from services.marketplace.settings import MarketplaceSettings


def create_app(settings: MarketplaceSettings | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment."""
    return create_api(
        settings or MarketplaceSettings.from_environment(),
        title="Rexis marketplace",
        summary="Data sets as tokens, their documents, the catalogue, and the relay that pays gas for institutions.",
        routers=[router],
    )
