"""HTTP operations of the aggregator."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.aggregator import federations
from services.aggregator.dependencies import OwnFederationDep
from services.aggregator.schemas import FederationPage, FederationRules, FederationView
from services.foundation.database import SessionDep
from services.foundation.idempotency import IdempotencyDep
from services.foundation.sign_in import CallerDep

MAX_PAGE = 100

router = APIRouter(prefix="/v1/federations", tags=["federations"])


@router.post("", status_code=201)
def found_federation(body: FederationRules, caller: CallerDep, session: SessionDep, idempotency: IdempotencyDep) -> FederationView:
    """Found a federation. Open to any account that signed in; it need not be a member itself.

    Thresholds under which a single update could be opened are refused with the rule that is broken.
    """

    def founded() -> FederationView:
        federation = federations.found(session, founder=caller.address, **body.model_dump())
        return FederationView.of(federation)

    return idempotency.once(FederationView, founded)


@router.get("")
def list_federations(
    caller: CallerDep,
    session: SessionDep,
    cursor: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="next_cursor of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> FederationPage:
    """The federations that the caller founded or belongs to, newest first. Open to any account that signed in."""
    found = federations.of_institution(session, caller.address, after=cursor, limit=limit + 1)
    items = [FederationView.of(federation) for federation in found[:limit]]
    return FederationPage(items=items, next_cursor=items[-1].id if len(found) > limit else None)


@router.get("/{federation_id}")
def get_federation(federation: OwnFederationDep) -> FederationView:
    """One federation. Open to its founder and its members; to others it does not exist."""
    return FederationView.of(federation)
