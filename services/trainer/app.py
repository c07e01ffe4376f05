"""The trainer's API: `uvicorn --factory services.trainer.app:create_app`. Only its worker computes."""

from fastapi import FastAPI

from services.foundation.assembly import create_api
from services.foundation.relays import relay_progress_router, relay_router
from services.foundation.uploads import upload_router
from services.trainer import inference_routes, model_routes, routes
from services.trainer.settings import TrainerSettings

# Calls that the trainer sends as they are; an authorisation may also come with the model's file (`POST /v1/models`).
DOORS = {"ModelRegistry": ("authorise", "revoke")}


def create_app(settings: TrainerSettings | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment."""
    return create_api(
        settings or TrainerSettings.from_environment(),
        title="Rexis trainer",
        summary="Keyed models and encrypted rows of institutions, checked and computed on without a key.",
        routers=[
            upload_router(),
            routes.router,
            model_routes.router,
            inference_routes.router,
            relay_router(DOORS),
            relay_progress_router(),
        ],
    )
