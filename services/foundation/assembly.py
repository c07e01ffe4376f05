"""How the parts of the foundation make a process: a service's API, its background process, its migration command.

An API opens nothing at import and nothing in `create_app`. Its lifespan refuses a database that is not migrated; a chain that does not
answer stops nobody from starting: /readyz says so, and it is connected when it is first needed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from typing import Annotated, Any, TypeVar

import structlog
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute
from redis import Redis
from sqlalchemy import Engine

from rexis.chain.connection import Chain
from rexis.chain.deployments import Deployment, load, read
from rexis.chain.signer import LocalSigner, Signer
from rexis.errors import ConfigurationError, RexisError
from services.foundation import observability, problems
from services.foundation.background import Job, run_background
from services.foundation.chain_index import ChainIndex, Projection
from services.foundation.database import migrate, migration_config, open_engine, transaction
from services.foundation.idempotency import delete_expired_keys
from services.foundation.objects import open_store
from services.foundation.outbox.policies import policy_of
from services.foundation.outbox.relay import Relay
from services.foundation.settings import RelayerSettings, ServiceSettings
from services.foundation.sign_in import delete_expired_nonces
from services.foundation.sign_in import router as sign_in_router
from services.foundation.uploads import BodyLimit

API_VERSION = "1"
REDIS_TIMEOUT_S = 2.0

log = structlog.get_logger(__name__)

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def require_migrated(engine: Engine, package: str) -> None:
    """Compare the database with the migrations of the foundation and of the service in `package`.

    Raises:
        ConfigurationError: it is at another revision; the message says the command.
    """
    for history in ("services.foundation", package):
        config = migration_config(engine, history)
        needed = ScriptDirectory.from_config(config).get_current_head()
        with transaction(engine, read_only=True) as session:
            context = MigrationContext.configure(session.connection(), opts={"version_table": config.attributes["version_table"]})
            found = context.get_current_revision()
        if found != needed:
            raise ConfigurationError(
                f"the database is at revision {found or 'none'} of {history}, this version needs {needed}: "
                f"run `python -m {package}.migrations`"
            )


def deployment_of(settings: ServiceSettings) -> Deployment:
    """The deployment record that this service trusts: the operator's, else the shipped one.

    Raises:
        ConfigurationError: there is none, or it is for another chain than `chain_id`.
    """
    if settings.deployment_file is None:
        return load(settings.chain_id)
    deployment = read(settings.deployment_file)
    if deployment.chain_id != settings.chain_id:
        raise ConfigurationError(
            f"REXIS_DEPLOYMENT_FILE is a record of chain {deployment.chain_id}, REXIS_CHAIN_ID says {settings.chain_id}: "
            "correct one of them"
        )
    return deployment


def connect_chain(settings: ServiceSettings) -> Chain:
    """Connect to the chain of the settings and check that it is the one of the deployment record.

    Raises:
        UnavailableError: the node does not answer.
        WrongChainError: it is another chain, or the contracts are not there.
    """
    return Chain.connect(settings.chain_rpc_url, deployment_of(settings))


class _Api(FastAPI):
    """FastAPI whose document says that errors are `application/problem+json`."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        for operations in document["paths"].values():
            for operation in operations.values():
                content = operation["responses"]["default"]["content"]
                if "application/json" in content:
                    content[problems.MEDIA_TYPE] = content.pop("application/json")
        return document


def create_api(settings: ServiceSettings, *, title: str, summary: str, routers: Sequence[APIRouter]) -> FastAPI:
    """The API application of a service: its own `routers` beside sign-in, probes and metrics.

    Its state carries settings, engine, objects, redis, and chain (None until it answered once).
    """

    def chain_answers() -> None:
        if app.state.chain is None:
            app.state.chain = connect_chain(settings)
        else:
            app.state.chain.check()

    async def try_chain() -> None:
        try:
            await asyncio.to_thread(chain_answers)
        except RexisError as error:
            log.warning("started without the chain", error=str(error))

    @asynccontextmanager
    async def lifespan(_running: FastAPI) -> AsyncIterator[None]:
        app.state.engine = engine = open_engine(settings.database_url)
        require_migrated(engine, f"services.{settings.service}")
        observability.configure_logging(settings)
        log.info("starting", settings=settings.masked())
        app.state.objects = open_store(settings.object_store_url)
        app.state.redis = redis = Redis.from_url(settings.redis_url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
        first_try = asyncio.create_task(try_chain())
        yield
        first_try.cancel()
        with suppress(asyncio.CancelledError):
            await first_try
        redis.close()
        engine.dispose()

    app = _Api(
        title=title,
        summary=summary,
        version=API_VERSION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        # The interactive pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.chain = None
    problems.install(app)
    for router in (sign_in_router, *routers):
        app.include_router(router)
    app.add_middleware(BodyLimit, settings=settings)
    observability.install(app, settings, {"chain": chain_answers})
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def connected_chain(request: Request) -> Chain:
    """The chain of this API, connected now if it was not before; raises as `connect_chain` does."""
    if request.app.state.chain is None:
        request.app.state.chain = connect_chain(request.app.state.settings)
    chain: Chain = request.app.state.chain
    return chain


ChainDep = Annotated[Chain, Depends(connected_chain)]


def relayer(settings: RelayerSettings) -> Signer:
    """The account that signs for a service on chain, and pays.

    Raises:
        ConfigurationError: the settings name no key.
        KeyFileError: the keystore does not open.
    """
    if settings.relayer_keystore is not None and settings.relayer_passphrase is not None:
        return LocalSigner.from_keystore(settings.relayer_keystore, settings.relayer_passphrase.get_secret_value())
    if settings.relayer_key is None:
        raise ConfigurationError(
            f"the {settings.service} needs a key of its own on chain: set REXIS_RELAYER_KEYSTORE and REXIS_RELAYER_PASSPHRASE, "
            "or locally REXIS_RELAYER_KEY"
        )
    return LocalSigner(bytes.fromhex(settings.relayer_key.get_secret_value()))


def chain_jobs(settings: RelayerSettings, engine: Engine, projections: Sequence[Projection], *, tick_s: float = 1.0) -> list[Job]:
    """Relay and chain index over one connection, opened when it is first needed; raises as `relayer` does.

    Args:
        tick_s: pause between two looks at the chain, which cost the same whether something happened or not.
    """
    signer = relayer(settings)
    policy = policy_of(settings.chain_id, settings.chain_policy, max_fee_gwei=settings.max_fee_gwei)

    @cache  # keeps no exceptions: a chain that was dead is tried again in the next run
    def chain() -> Chain:
        return connect_chain(settings)

    @cache
    def relay() -> Relay:
        return Relay(engine, chain(), signer, policy)

    @cache
    def index() -> ChainIndex:
        return ChainIndex(engine, chain(), projections, chain().deployment.start_block)

    return [Job("relay", tick_s, lambda: relay().run_once()), Job("chain index", tick_s, lambda: index().run_once())]


def run_service_background(settings_class: type[SettingsT], make_jobs: Callable[[SettingsT, Engine], Sequence[Job]]) -> None:
    """The `main` of a service's background process: its own jobs and the housekeeping that every service has, until SIGTERM.

    What an operator can put right ends the process with one line that says how.
    """
    with _one_line_errors():
        settings = settings_class.from_environment()
        engine = open_engine(settings.database_url)
        require_migrated(engine, f"services.{settings.service}")
        jobs = [
            *make_jobs(settings, engine),
            Job("sign-in nonces", 60.0, lambda: delete_expired_nonces(engine)),
            Job("idempotency keys", 600.0, lambda: delete_expired_keys(engine)),
        ]
        observability.configure_logging(settings)
        log.info("starting", settings=settings.masked())
        run_background(settings, engine, jobs, heartbeat=settings.heartbeat_file)
        engine.dispose()


def run_migration_command(settings_class: type[ServiceSettings]) -> None:
    """The `main` of `python -m services.<name>.migrations`: bring the database to the newest revision; idempotent."""
    with _one_line_errors():
        settings = settings_class.from_environment()
        engine = open_engine(settings.database_url)
        migrate(engine, f"services.{settings.service}")
        engine.dispose()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except RexisError as error:
        raise SystemExit(f"error: {error}") from error
