"""What the marketplace's routes ask for, loaded and checked before a handler runs."""

from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy import Engine

from rexis.chain.deployments import Deployment
from services.foundation.assembly import deployment_of
from services.foundation.database import SessionDep
from services.foundation.relays import RelayedCallRow, of_sender
from services.foundation.sign_in import CallerDep
from services.marketplace import catalogue
from services.marketplace.catalogue import Dataset
from services.marketplace.settings import MarketplaceSettings

MAX_TOKEN_ID = 2**63 - 1


def _settings(request: Request) -> MarketplaceSettings:
    settings: MarketplaceSettings = request.app.state.settings
    return settings


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


SettingsDep = Annotated[MarketplaceSettings, Depends(_settings)]
EngineDep = Annotated[Engine, Depends(_engine)]


def _deployment(settings: SettingsDep) -> Deployment:
    return deployment_of(settings)


def _dataset(session: SessionDep, token_id: Annotated[int, Path(ge=1, le=MAX_TOKEN_ID)]) -> Dataset:
    return catalogue.dataset(session, token_id)


def _own_relay(session: SessionDep, caller: CallerDep, relay_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> RelayedCallRow:
    return of_sender(session, relay_id, caller.address)


DeploymentDep = Annotated[Deployment, Depends(_deployment)]
DatasetDep = Annotated[Dataset, Depends(_dataset)]
OwnRelayDep = Annotated[RelayedCallRow, Depends(_own_relay)]
