"""What the aggregator's routes ask for, loaded and checked before a handler runs."""

from typing import Annotated, Literal

from fastapi import Depends, Path, Request
from sqlalchemy import Engine

from services.aggregator import federations, messages
from services.aggregator.models import Attempt, Federation
from services.aggregator.registry_calls import Registry
from services.aggregator.settings import AggregatorSettings
from services.foundation.assembly import deployment_of
from services.foundation.database import SessionDep
from services.foundation.objects import ObjectStore
from services.foundation.sign_in import CallerDep

MAX_NUMBER = 2**31 - 1

FederationId = Annotated[str, Path(pattern="^0x[0-9a-f]{64}$", description="id on chain")]
Number = Annotated[int, Path(ge=1, le=MAX_NUMBER)]
SendingStage = Annotated[
    Literal["keys", "shares", "masked", "survivors", "unmask"],
    Path(description="the survivors are read from the chain; signed by the sites only while it is away"),
]


def _registry(request: Request) -> Registry:
    settings: AggregatorSettings = request.app.state.settings
    return Registry.of(deployment_of(settings))


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _objects(request: Request) -> ObjectStore:
    objects: ObjectStore = request.app.state.objects
    return objects


async def _body(request: Request) -> bytes:
    return await request.body()


RegistryDep = Annotated[Registry, Depends(_registry)]
EngineDep = Annotated[Engine, Depends(_engine)]
ObjectsDep = Annotated[ObjectStore, Depends(_objects)]
BodyDep = Annotated[bytes, Depends(_body)]


def _own_federation(session: SessionDep, caller: CallerDep, federation_id: FederationId) -> Federation:
    return federations.visible(session, federation_id, caller.address)


OwnFederationDep = Annotated[Federation, Depends(_own_federation)]


def _own_attempt(request: Request, session: SessionDep, federation: OwnFederationDep, round: Number, attempt: Number) -> Attempt:
    # Who writes a message keeps the stage from being closed meanwhile.
    return messages.find(session, federation, round, attempt, for_update=request.method == "PUT")


OwnAttemptDep = Annotated[Attempt, Depends(_own_attempt)]
