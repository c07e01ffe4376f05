"""HTTP operations by which members compute the results of rounds themselves: the first model, the sums, and what they state."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from rexis.encoding import from_hex
from rexis.protocol.member_results import MemberResult
from rexis.protocol.uploads import content_digest_header
from services.aggregator import global_models, member_results, opened_sums
from services.aggregator.dependencies import ObjectsDep, OwnAttemptDep, OwnFederationDep, RegistryDep
from services.aggregator.result_schemas import MemberResultBody, MemberResultsView
from services.foundation.database import SessionDep
from services.foundation.sign_in import CallerDep

FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}

router = APIRouter(prefix="/v1/federations/{federation_id}", tags=["results"])


@router.get("/initial-model", response_class=Response, responses=FILE)
def get_initial_model(federation: OwnFederationDep, session: SessionDep, objects: ObjectsDep) -> StreamingResponse:
    """The model that the founder brought, as a safetensors file. Open to founder, members and aggregators; to others it does not exist."""
    model = global_models.initial(session, federation)
    headers = {"Content-Digest": content_digest_header(from_hex(model.file_digest, 32)), "Content-Length": str(model.size)}
    return StreamingResponse(global_models.chunks(objects, model), headers=headers, media_type="application/octet-stream")


@router.get("/rounds/{round}/attempts/{attempt}/sum", response_class=Response, responses=FILE)
def get_opened_sum(attempt: OwnAttemptDep, session: SessionDep, objects: ObjectsDep) -> StreamingResponse:
    """The sum of an attempt at training, little-endian, as it was opened: under the members' pads, if the federation has them.

    Open to founder, members and aggregators; to others it does not exist.
    """
    row = opened_sums.find(session, attempt)
    headers = {"Content-Digest": content_digest_header(from_hex(row.digest, 32)), "Content-Length": str(row.size)}
    return StreamingResponse(opened_sums.chunks(objects, row), headers=headers, media_type="application/octet-stream")


@router.get("/rounds/{round}/attempts/{attempt}/results")
def list_member_results(attempt: OwnAttemptDep, session: SessionDep) -> MemberResultsView:
    """What members stated about an attempt. Open to founder, members and aggregators; to others it does not exist."""
    return MemberResultsView.of(member_results.of_attempt(session, attempt))


@router.put("/rounds/{round}/attempts/{attempt}/results", status_code=204)
def put_member_result(
    body: MemberResultBody,
    federation: OwnFederationDep,
    attempt: OwnAttemptDep,
    caller: CallerDep,
    session: SessionDep,
    registry: RegistryDep,
) -> None:
    """State what the padded sum of an attempt makes of the model; the same again changes nothing, another statement is refused.

    Open to the federation's members, each for itself; to strangers it does not exist.
    """
    member_results.require_member(federation, caller.address)
    member_results.take(session, registry, federation, attempt, MemberResult.parse(body.model_dump()), caller.address)
