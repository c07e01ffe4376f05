"""HTTP operations of the marketplace."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.orm import Session

from rexis.encoding import from_hex
from rexis.protocol.uploads import content_digest_header
from services.foundation.assembly import ChainDep
from services.foundation.database import SessionDep, now
from services.foundation.idempotency import IdempotencyDep
from services.foundation.relays import RelayedCallRow, admit, check_call, intent_of, promise
from services.foundation.sign_in import CallerDep
from services.marketplace import catalogue, documents
from services.marketplace.dependencies import DatasetDep, DeploymentDep, EngineDep, OwnRelayDep, SettingsDep
from services.marketplace.registrations import REGISTRY, Registration, document_uri
from services.marketplace.schemas import (
    Address,
    ChainView,
    DatasetPage,
    DatasetRelayView,
    DatasetSummary,
    DatasetView,
    Hex32,
    RegistrationBody,
    State,
)

MAX_PAGE = 100

router = APIRouter(prefix="/v1")


@router.post("/datasets", status_code=202, tags=["datasets"])
def register_dataset(
    body: RegistrationBody,
    caller: CallerDep,
    session: SessionDep,
    idempotency: IdempotencyDep,
    chain: ChainDep,
    engine: EngineDep,
    settings: SettingsDep,
) -> DatasetRelayView:
    """Hand in a data set: its documents are kept, and the signed call is sent to the chain at the marketplace's cost.

    Open to any account that signed in, for calls that it signed itself. The call is run on the chain's pending state first: what the
    contracts would refuse is answered at once, as `contract-reverted` with the decoded error.
    """
    call, signature = body.request.call(), from_hex(body.signature)
    metadata, policy = documents.check_metadata(body.metadata), documents.check_policy(body.policy)
    registry = chain.deployment.contracts[REGISTRY].address
    check_call(call, caller=caller.address, target=registry, instant=now())
    registration = Registration.decode(call.data)
    registration.check_documents(metadata, policy)
    registration.check_uri(settings.public_url)
    # In no transaction yet: a slow chain must not hold a lock on the database.
    admit(engine, chain, call, signature, caller=caller.address, target=registry)

    def taken_on() -> DatasetRelayView:
        for document in (metadata, policy):
            documents.store(session, document)
        return _relay_view(session, promise(session, chain, call, signature, operation="register"))

    return idempotency.once(DatasetRelayView, taken_on)


@router.get("/datasets", tags=["datasets"])
def list_datasets(
    session: SessionDep,
    owner: Annotated[Address | None, Query()] = None,
    registrant: Annotated[Address | None, Query()] = None,
    content_root: Annotated[Hex32 | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
    cursor: Annotated[str | None, Query(pattern="^[1-9][0-9]{0,17}$", description="next_cursor of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> DatasetPage:
    """The catalogue, newest first. Open to everyone.

    Data sets that were registered without this marketplace are in it as well; their `note` says "metadata not available".
    """
    choice = {"owner": owner, "registrant": registrant, "content_root": content_root, "state": state}
    found = catalogue.page(session, choice, before=int(cursor) if cursor else None, limit=limit + 1)
    items = [DatasetSummary.of(dataset) for dataset in found[:limit]]
    return DatasetPage(items=items, next_cursor=str(items[-1].token_id) if len(found) > limit else None)


@router.get("/datasets/{token_id}", tags=["datasets"])
def get_dataset(dataset: DatasetDep) -> DatasetView:
    """One data set with its documents. Open to everyone."""
    return DatasetView.of(dataset)


@router.get("/relays/{relay_id}", tags=["relays"])
def get_relay(relay: OwnRelayDep, session: SessionDep) -> DatasetRelayView:
    """How far a signed call got, and why it failed if it did. Open to the account that handed it in."""
    return _relay_view(session, relay)


@router.get(
    "/documents/{digest}",
    tags=["documents"],
    response_class=Response,
    responses={
        200: {"description": "The document in canonical JSON (RFC 8785)", "content": {"application/json": {"schema": {"type": "object"}}}}
    },
)
def get_document(digest: Annotated[Hex32, Path(description="SHA-256 of the document")], session: SessionDep) -> Response:
    """A document that a data set on chain binds by its hash: what `uri` leads to. Open to everyone."""
    content = documents.published(session, digest).content
    headers = {
        "Content-Digest": content_digest_header(from_hex(digest, 32)),
        "Cache-Control": "public, max-age=86400, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, headers=headers, media_type="application/json")


@router.get("/chain", tags=["chain"])
def get_chain(deployment: DeploymentDep, settings: SettingsDep) -> ChainView:
    """The chain and the contracts that this marketplace relays to. Open to everyone."""
    return ChainView(
        chain_id=deployment.chain_id,
        contracts={name: contract.address for name, contract in sorted(deployment.contracts.items())},
        documents_url=document_uri(settings.public_url, "").rstrip("/"),
    )


def _relay_view(session: Session, relay: RelayedCallRow) -> DatasetRelayView:
    intent = intent_of(session, relay)
    return DatasetRelayView.of(relay, intent, token_id=catalogue.registered_by(session, intent.transaction_hash))
