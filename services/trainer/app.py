"""The trainer's API: `uvicorn --factory services.trainer.app:create_app`. Only its worker computes."""

from fastapi import FastAPI

from services.foundation.assembly import create_api
from services.foundation.uploads import upload_router
from services.trainer.routes import router
from services.trainer.settings import TrainerSettings


def create_app(settings: TrainerSettings | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment."""
    return create_api(
        settings or TrainerSettings.from_environment(),
        title="Rexis trainer",
        summary="Encrypted batches of institutions, checked and computed on without a key.",
        routers=[upload_router(), router],
    )
