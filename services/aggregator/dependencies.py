"""What the aggregator's routes ask for, loaded and checked before a handler runs."""

from typing import Annotated

from fastapi import Depends, Path

from services.aggregator import federations
from services.aggregator.models import Federation
from services.foundation.database import SessionDep
from services.foundation.sign_in import CallerDep


def _own_federation(session: SessionDep, caller: CallerDep, federation_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Federation:
    return federations.visible(session, federation_id, caller.address)


OwnFederationDep = Annotated[Federation, Depends(_own_federation)]
