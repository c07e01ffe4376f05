"""HTTP operations among the aggregators of a federation: what they sign, the vectors that they sum again, and evidence against them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response

from rexis.encoding import checksum_address
from rexis.errors import EncodingError, SignatureError
from rexis.protocol.approvals import Approval
from rexis.protocol.equivocation import Equivocation
from rexis.protocol.uploads import MAX_PARTS, content_digest_header
from services.aggregator import approvals, federations, vectors
from services.aggregator.dependencies import Number, ObjectsDep, OwnAttemptDep, OwnFederationDep, RegistryDep
from services.aggregator.schemas import ApprovalBody, ApprovalsView, EquivocationBody, EquivocationsView
from services.foundation.database import SessionDep
from services.foundation.problems import conflict, not_found, problem_response
from services.foundation.sign_in import CallerDep

router = APIRouter(prefix="/v1")

ApprovalKind = Annotated[Literal["survivors", "result"], Path(description="what is approved")]
Sender = Annotated[str, Path(pattern="^0x[0-9a-fA-F]{40}$", description="whose vector")]
PartNumber = Annotated[int, Path(ge=1, le=MAX_PARTS, description="from 1, as it was uploaded")]
PART = {200: {"description": "The part", "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/federations/{federation_id}/rounds/{round}/attempts/{attempt}/approvals", tags=["approvals"])
def list_approvals(federation: OwnFederationDep, round: Number, attempt: Number, session: SessionDep) -> ApprovalsView:
    """What aggregators signed about an attempt, as far as this one knows; each signature can be checked by itself.

    Open to founder, members and aggregators; to others it does not exist.
    """
    found = approvals.of_attempt(session, federation.id, round, attempt)
    return ApprovalsView(items=[ApprovalBody.of(approval) for approval in found])


@router.put(
    "/federations/{federation_id}/rounds/{round}/attempts/{attempt}/approvals/{kind}",
    status_code=204,
    tags=["approvals"],
    response_class=Response,
)
def put_approval(
    body: ApprovalBody,
    request: Request,
    federation: OwnFederationDep,
    round: Number,
    attempt: Number,
    kind: ApprovalKind,
    caller: CallerDep,
    session: SessionDep,
    registry: RegistryDep,
) -> Response:
    """Hand in one's own approval; the same statement again changes nothing, another one is refused, and kept as evidence.

    Open to the federation's aggregators, each for itself; to strangers it does not exist.
    """
    federations.require_aggregator(federation, caller.address)
    approval = Approval.parse(body.model_dump())
    if approval.signer != caller.address:
        raise SignatureError(f"expected an approval of the account that is signed in, {caller.address}, got one of {approval.signer}")
    if (approval.kind.value, approval.statement.round_number, approval.statement.attempt) != (kind, round, attempt):
        raise SignatureError(f"expected an approval of the {kind} of round {round}, attempt {attempt}, got another one")
    evidence = approvals.record(session, registry, federation, approval)
    # Not raised: the evidence must be committed.
    return Response(status_code=204) if evidence is None else problem_response(request, conflict("equivocation", str(evidence.error())))


@router.get(
    "/federations/{federation_id}/rounds/{round}/attempts/{attempt}/vectors/{sender}/parts/{part}",
    tags=["approvals"],
    response_class=Response,
    responses=PART,
)
def get_vector_part(
    federation: OwnFederationDep,
    attempt: OwnAttemptDep,
    sender: Sender,
    part: PartNumber,
    caller: CallerDep,
    session: SessionDep,
    objects: ObjectsDep,
) -> Response:
    """A part of a survivor's masked vector, while the attempt's sum is agreed on and opened.

    Open to the federation's aggregators, who sum the vectors again; to strangers it does not exist.
    """
    federations.require_aggregator(federation, caller.address)
    try:
        stored = vectors.find(session, attempt, checksum_address(sender), part)
    except EncodingError:
        raise not_found("masked vector by", sender) from None
    found = vectors.read(objects, stored)
    headers = {"Content-Digest": content_digest_header(found.digest), "X-Content-Type-Options": "nosniff"}
    return Response(found.content, headers=headers, media_type="application/octet-stream")


@router.get("/federations/{federation_id}/equivocations", tags=["approvals"])
def list_equivocations(federation: OwnFederationDep, session: SessionDep) -> EquivocationsView:
    """Evidence against aggregators: two signatures each, which anybody can check.

    Open to founder, members and aggregators; to others it does not exist.
    """
    return EquivocationsView(items=[EquivocationBody.of(evidence) for evidence in approvals.evidence_of(session, federation.id)])


@router.post("/federations/{federation_id}/equivocations", status_code=204, tags=["approvals"], response_class=Response)
def report_equivocation(body: EquivocationBody, federation: OwnFederationDep, session: SessionDep, registry: RegistryDep) -> Response:
    """Hand in evidence that an aggregator signed two different statements; again, it changes nothing. What is no evidence is refused.

    Open to founder, members and aggregators; to others it does not exist.
    """
    approvals.keep_evidence(session, registry, federation, Equivocation.parse(body.model_dump()))
    return Response(status_code=204)
