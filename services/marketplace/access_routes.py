"""HTTP operations of access requests and grants."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from rexis.policy.conditions import MAX_DATASET
from services.foundation.database import SessionDep, now
from services.foundation.idempotency import IdempotencyDep
from services.foundation.sign_in import CallerDep
from services.marketplace import access, catalogue, grants
from services.marketplace.access import Request
from services.marketplace.access_schemas import (
    AccessRequestBody,
    AccessRequestPage,
    AccessRequestView,
    DeclineBody,
    GrantPage,
    GrantView,
    Role,
)
from services.marketplace.schemas import Address

MAX_PAGE = 100
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
RowCursor = Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="next_cursor of the previous page")]
GRANT_CURSOR = "^[1-9][0-9]{0,15}-[0-9]{1,5}-0x[0-9a-fA-F]{40}$"

router = APIRouter(prefix="/v1", tags=["access"])


def _request(session: SessionDep, caller: CallerDep, request_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Request:
    return access.of_party(session, request_id, caller.address, now())


RequestDep = Annotated[Request, Depends(_request)]


@router.post("/access-requests", status_code=201)
def request_access(body: AccessRequestBody, caller: CallerDep, session: SessionDep, idempotency: IdempotencyDep) -> AccessRequestView:
    """Ask for access to a data set. Open to any account that signed in.

    The purpose is weighed against the data set's policy at once: `purpose-refused` names the rule. The owner answers on chain, by a grant
    that names the digest of `conditions` (`POST /v1/relays`), or declines here.
    """

    def made() -> AccessRequestView:
        instant = now()
        found = catalogue.dataset(session, body.dataset)
        row = access.make(session, found, caller.address, body.purpose, days=body.days, text=body.conditions, instant=instant)
        return AccessRequestView.of(access.of_party(session, row.id, caller.address, instant))

    return idempotency.once(AccessRequestView, made)


@router.get("/access-requests")
def list_access_requests(
    caller: CallerDep,
    session: SessionDep,
    role: Annotated[Role, Query(description="the caller's own requests, or those about which the caller decides")],
    cursor: RowCursor = None,
    limit: Limit = 50,
) -> AccessRequestPage:
    """Requests, newest first. Open to any account that signed in; each sees its own, and those that it decides about."""
    found = access.page(session, caller.address, role=role, after=cursor, limit=limit + 1, instant=now())
    items = [AccessRequestView.of(request) for request in found[:limit]]
    return AccessRequestPage(items=items, next_cursor=items[-1].id if len(found) > limit else None)


@router.get("/access-requests/{request_id}")
def get_access_request(request: RequestDep) -> AccessRequestView:
    """One request. Open to its consumer, and to the data set's owner and committee."""
    return AccessRequestView.of(request)


@router.post("/access-requests/{request_id}/decline")
def decline_access_request(body: DeclineBody, request: RequestDep, caller: CallerDep, session: SessionDep) -> AccessRequestView:
    """Turn a request down. Open to the data set's owner and committee. The same twice is one decision; a grant ends by a revocation."""
    instant = now()
    access.decline(session, request, caller.address, body.reason, instant)
    return AccessRequestView.of(access.of_party(session, request.row.id, caller.address, instant))


@router.get("/grants")
def list_grants(
    session: SessionDep,
    dataset: Annotated[int | None, Query(ge=1, le=MAX_DATASET)] = None,
    consumer: Annotated[Address | None, Query()] = None,
    cursor: Annotated[str | None, Query(pattern=GRANT_CURSOR, description="next_cursor of the previous page")] = None,
    limit: Limit = 50,
) -> GrantPage:
    """Grants as the chain has them. Open to everyone, like the chain."""
    after = None
    if cursor is not None:
        token_id, purpose, address = cursor.split("-")
        after = int(token_id), int(purpose), address
    found = grants.page(session, now(), dataset=dataset, consumer=consumer, after=after, limit=limit + 1)
    items = [GrantView.of(grant) for grant in found[:limit]]
    last = items[-1] if len(found) > limit else None
    return GrantPage(items=items, next_cursor=f"{last.dataset}-{last.purpose}-{last.consumer}" if last is not None else None)
