"""HTTP operations of compute-to-data queries."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi import Query as QueryParameter

from rexis.encoding import from_hex
from services.foundation.database import SessionDep, now
from services.foundation.idempotency import IdempotencyDep
from services.foundation.sign_in import CallerDep
from services.marketplace import queries
from services.marketplace.access_schemas import Role
from services.marketplace.queries import Outcome, Query
from services.marketplace.query_schemas import OutcomeBody, QueryBody, QueryPage, QueryState, QueryView, WorkView

MAX_PAGE = 100
TOKEN_IDS = "^[1-9][0-9]{0,15}(,[1-9][0-9]{0,15}){0,63}$"

router = APIRouter(prefix="/v1", tags=["queries"])


def _query(session: SessionDep, caller: CallerDep, query_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Query:
    return queries.of_party(session, query_id, caller.address)


QueryDep = Annotated[Query, Depends(_query)]


@router.post("/queries", status_code=201)
def submit_query(body: QueryBody, caller: CallerDep, session: SessionDep, idempotency: IdempotencyDep) -> QueryView:
    """Hand in a query, which the owner's agent runs on its premises. Open to any account that signed in, under an active grant.

    Without one for this data set and purpose the answer is `no-grant`, with what is the matter.
    """

    def taken_on() -> QueryView:
        return QueryView.of(queries.submit(session, caller.address, body.dataset, body.purpose, body.query, now()))

    return idempotency.once(QueryView, taken_on)


@router.get("/queries")
def list_queries(
    caller: CallerDep,
    session: SessionDep,
    role: Annotated[Role, QueryParameter(description="the caller's own queries, or those about the caller's data sets")],
    state: Annotated[QueryState | None, QueryParameter()] = None,
    cursor: Annotated[str | None, QueryParameter(pattern="^[0-9a-f]{32}$", description="next_cursor of the previous page")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
) -> QueryPage:
    """Queries, newest first. Open to any account that signed in; each sees its own, and those about its data sets."""
    found = queries.page(session, caller.address, role=role, state=state, after=cursor, limit=limit + 1)
    items = [QueryView.of(query) for query in found[:limit]]
    return QueryPage(items=items, next_cursor=items[-1].id if len(found) > limit else None)


# Before /queries/{query_id}: the first route that fits a path has it.
@router.get("/queries/work")
def get_query_work(
    caller: CallerDep,
    session: SessionDep,
    datasets: Annotated[str | None, QueryParameter(pattern=TOKEN_IDS, description="token ids that the agent serves, e.g. 1,7")] = None,
) -> WorkView:
    """The oldest queued queries about the caller's data sets whose grants are active. Open to any account that signed in: its agent polls.

    The marketplace's word is not enough to run one: the agent checks the grant on chain, and weighs the policy against `conditions`.
    """
    served = [int(token_id) for token_id in datasets.split(",")] if datasets is not None else []
    return WorkView(items=[QueryView.of(query) for query in queries.work(session, caller.address, now(), served)])


@router.get("/queries/{query_id}")
def get_query(query: QueryDep) -> QueryView:
    """One query. Open to its consumer and to the data set's owner."""
    return QueryView.of(query)


@router.put("/queries/{query_id}/outcome")
def put_query_outcome(body: OutcomeBody, query: QueryDep, caller: CallerDep, session: SessionDep) -> QueryView:
    """Say what has become of a query. Open to the data set's owner; the same outcome again changes nothing.

    A result comes with a release only. Why a result is held, and what it is, is refused: it stays with the owner.
    """
    digest = from_hex(body.result_digest, 32) if body.result_digest is not None else None
    queries.decide(session, query, caller.address, Outcome.check(body.state, body.result, body.rule, digest), now())
    return QueryView.of(queries.of_party(session, query.job.id, caller.address))
