"""An application with nothing but uploads, as a service assembles it; also for `uvicorn --factory` in a process of its own."""

from typing import Any, ClassVar

from fastapi import FastAPI
from sqlalchemy import Engine

from rexis.protocol.uploads import PART_SIZE
from services.foundation import observability, problems
from services.foundation.database import open_engine
from services.foundation.objects import ObjectStore, open_store
from services.foundation.settings import ServiceSettings
from services.foundation.sign_in import SessionTokens
from services.foundation.uploads import BodyLimit, UploadLimits, upload_router

ALICE = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
BOB = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
LIMITS = UploadLimits(upload_bytes=100 * PART_SIZE, unclaimed=10, unclaimed_bytes=200 * PART_SIZE)


class UploadSettings(ServiceSettings):
    service: ClassVar[str] = "uploads"


def settings_for(database_url: str, object_store_url: str, **changes: Any) -> UploadSettings:
    return UploadSettings(
        **{
            "public_url": "http://127.0.0.1:8002",
            "database_url": database_url,
            "redis_url": "redis://127.0.0.1:1/0",
            "object_store_url": object_store_url,
            "session_key": "42" * 32,
            "chain_rpc_url": "http://127.0.0.1:1",
            **changes,
        }
    )


def authorised(settings: ServiceSettings, address: str = ALICE) -> dict[str, str]:
    """The header of a caller who has signed in."""
    return {"Authorization": f"Bearer {SessionTokens(settings).issue(address).token}"}


def upload_application(settings: ServiceSettings, engine: Engine, objects: ObjectStore) -> FastAPI:
    app = FastAPI()
    app.state.settings, app.state.engine, app.state.objects, app.state.chain = settings, engine, objects, None
    problems.install(app)
    app.include_router(upload_router(LIMITS))
    app.add_middleware(BodyLimit, settings=settings)
    observability.install(app, settings)
    return app


def create_app() -> FastAPI:
    settings = UploadSettings.from_environment()
    observability.configure_logging(settings)
    return upload_application(settings, open_engine(settings.database_url), open_store(settings.object_store_url))
