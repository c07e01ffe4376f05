"""HTTP operations of the aggregator; uploads and relays come from the foundation."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from rexis.encoding import from_hex, sha256, to_hex
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.secagg_messages import Stage
from rexis.protocol.uploads import content_digest_header
from services.aggregator import approvals, federations, foundings, global_models, history, messages
from services.aggregator.dependencies import (
    BodyDep,
    EngineDep,
    ObjectsDep,
    OwnAttemptDep,
    OwnFederationDep,
    RegistryDep,
    SendingStage,
)
from services.aggregator.models import Federation
from services.aggregator.schemas import (
    AccountView,
    EnvelopeBody,
    FederationPage,
    FederationView,
    FoundingBody,
    MessagesView,
    RoundsView,
    RoundView,
    WorkView,
)
from services.foundation.assembly import ChainDep
from services.foundation.database import SessionDep, lock, transaction
from services.foundation.problems import not_found
from services.foundation.relays import admit, promise
from services.foundation.sign_in import CallerDep
from services.foundation.uploads import open_upload

MAX_PAGE = 100
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The document in canonical JSON (RFC 8785)", "content": {"application/json": {"schema": {"type": "object"}}}}
}

router = APIRouter(prefix="/v1")


@router.get("/aggregator", tags=["federations"])
def get_aggregator(session: SessionDep, registry: RegistryDep) -> AccountView:
    """The account that a federation's config names among its aggregators, and the registry that it works with. Open to everyone."""
    return AccountView(address=federations.account(session), chain_id=registry.chain_id, registry=registry.address)


@router.post("/federations", status_code=202, tags=["federations"])
def found_federation(
    body: FoundingBody,
    caller: CallerDep,
    session: SessionDep,
    chain: ChainDep,
    registry: RegistryDep,
    engine: EngineDep,
    objects: ObjectsDep,
) -> FederationView:
    """Found a federation: its config is kept, and the founder's signed call is sent to the chain at the aggregator's cost.

    Open to any account that signed in; it need not be a member itself. Thresholds under which a single update could be opened are
    refused with the rule that is broken; handed in again it is the same federation.
    """
    call, signature, config = body.request.call(), from_hex(body.signature), FederationConfig.parse(body.config)
    federation_id = to_hex(config.id(registry.chain_id, registry.address))
    # In no transaction of the request's yet: neither the chain nor a model file may hold a lock on the database.
    with transaction(engine, read_only=True) as reading:
        foundings.check_config(config, caller=caller.address, aggregator=federations.account(reading))
        known = reading.get(Federation, federation_id)
        if known is not None:
            return FederationView.of(known)
        upload = None if body.initial_model is None else open_upload(reading, body.initial_model, caller.address)
    model = foundings.initial_model(config, upload, objects)
    record = config.statistic_digest if model is None else model.record
    foundings.check_founding(config, call.data, record)
    admit(engine, chain, call, signature, caller=caller.address, target=registry.address)
    key = None if model is None else global_models.keep(objects, federation_id, model)

    lock(session, f"federation {federation_id}")
    federation = session.get(Federation, federation_id)
    if federation is None:
        relay = promise(session, chain, call, signature, operation="create")
        federation = foundings.found(session, config, federation_id, model=record, intent_key=relay.intent_key)
        if model is not None and key is not None and upload is not None:
            global_models.record(session, federation_id, 0, model, key)
            foundings.give_up_upload(session, upload)
    return FederationView.of(federation)


@router.get("/federations", tags=["federations"])
def list_federations(
    caller: CallerDep,
    session: SessionDep,
    cursor: Annotated[str | None, Query(pattern="^0x[0-9a-f]{64}$", description="next_cursor of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> FederationPage:
    """The federations that the caller founded, belongs to or aggregates for, newest first. Open to any account that signed in."""
    found = federations.of_institution(session, caller.address, after=cursor, limit=limit + 1)
    items = [FederationView.of(federation) for federation in found[:limit]]
    return FederationPage(items=items, next_cursor=items[-1].id if len(found) > limit else None)


@router.get("/federations/{federation_id}", tags=["federations"])
def get_federation(federation: OwnFederationDep) -> FederationView:
    """One federation. Open to its founder, members and aggregators; to others it does not exist."""
    return FederationView.of(federation)


@router.put("/federations/{federation_id}/membership", tags=["federations"])
def join_federation(federation: OwnFederationDep, caller: CallerDep, session: SessionDep) -> FederationView:
    """Take part as a member; rounds start when all members have joined. Open to its members; to others it does not exist."""
    federations.join(session, federation, caller.address)
    return FederationView.of(federation)


@router.get("/work", tags=["rounds"])
def list_work(caller: CallerDep, session: SessionDep) -> WorkView:
    """Every running attempt of the federations that the caller takes part in or aggregates for, and what is due from it.

    Open to any account that signed in; made to be asked every half second.
    """
    items = messages.work_of(session, caller.address) + approvals.work_of(session, caller.address)
    return WorkView.model_validate({"items": items})


@router.get("/federations/{federation_id}/rounds", tags=["rounds"])
def list_rounds(federation: OwnFederationDep, session: SessionDep) -> RoundsView:
    """Attempts that are over, in their order. Open to founder, members and aggregators; to others it does not exist."""
    return RoundsView(items=[RoundView.model_validate(item) for item in history.of_federation(session, federation)])


@router.get("/federations/{federation_id}/rounds/{round}/attempts/{attempt}/messages/{stage}", tags=["rounds"])
def list_messages(attempt: OwnAttemptDep, stage: SendingStage, session: SessionDep) -> MessagesView:
    """What counts of a closed stage, signed by its senders. Open to founder, members and aggregators; to others it does not exist."""
    return MessagesView(messages=[EnvelopeBody.of(envelope) for envelope in messages.closed(session, attempt, Stage(stage))])


@router.put("/federations/{federation_id}/rounds/{round}/attempts/{attempt}/messages/{stage}", status_code=204, tags=["rounds"])
def put_message(
    body: EnvelopeBody,
    raw: BodyDep,
    federation: OwnFederationDep,
    attempt: OwnAttemptDep,
    stage: SendingStage,
    caller: CallerDep,
    session: SessionDep,
    registry: RegistryDep,
) -> None:
    """Hand in one's signed message of an open stage, in canonical JSON; the same one again changes nothing, another one is refused.

    Open to the federation's members, each for itself; to others it does not exist. A masked vector is uploaded first.
    """
    messages.take(session, registry, federation, attempt, Stage(stage), raw, caller.address)


@router.get("/federations/{federation_id}/model", tags=["federations"], response_class=Response, responses=FILE)
def get_model(federation: OwnFederationDep, session: SessionDep, objects: ObjectsDep) -> StreamingResponse:
    """The newest global model as a safetensors file. Open to founder, members and aggregators; to others it does not exist."""
    model = global_models.current(session, federation)
    headers = {"Content-Digest": content_digest_header(from_hex(model.file_digest, 32)), "Content-Length": str(model.size)}
    return StreamingResponse(global_models.chunks(objects, model), headers=headers, media_type="application/octet-stream")


@router.get("/federations/{federation_id}/server-state", tags=["federations"], response_class=Response, responses=FILE)
def get_server_state(federation: OwnFederationDep, session: SessionDep, objects: ObjectsDep) -> StreamingResponse:
    """The state of the server's strategy beside the newest global model, as a safetensors file; its SHA-256 stands in the round's metrics.

    Open to founder, members and aggregators; to others it does not exist. There is none before the first round, and for FedAvg.
    """
    model = global_models.current(session, federation)
    if model.state_digest is None:
        raise not_found("server state of federation", federation.id)
    headers = {"Content-Digest": content_digest_header(from_hex(model.state_digest, 32)), "Content-Length": str(model.state_size)}
    chunks = global_models.state_chunks(objects, model.federation_id, model.state_digest)
    return StreamingResponse(chunks, headers=headers, media_type="application/octet-stream")


@router.get("/federations/{federation_id}/result", tags=["federations"], response_class=Response, responses=DOCUMENT)
def get_result(federation: OwnFederationDep) -> Response:
    """The result of a statistic, once its round is finished. Open to founder, members and aggregators; to others it does not exist."""
    if federation.result is None or federation.state != "finished":
        raise not_found("result of federation", federation.id)
    headers = {"Content-Digest": content_digest_header(sha256(federation.result)), "X-Content-Type-Options": "nosniff"}
    return Response(federation.result, headers=headers, media_type="application/json")
