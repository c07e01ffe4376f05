"""HTTP operations of the trainer on keyed models."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from rexis.chain.model_registry import REGISTRY, Authorisation
from rexis.encoding import from_hex, to_hex
from rexis.models.spec import ModelSpec
from services.foundation.assembly import ChainDep
from services.foundation.database import SessionDep, now
from services.foundation.idempotency import IdempotencyDep
from services.foundation.relays import admit, check_call
from services.foundation.sign_in import CallerDep
from services.trainer import publications
from services.trainer.dependencies import DescribedModelDep, EngineDep, OwnModelDep, SettingsDep, UsableModelDep
from services.trainer.models import KeyedModel
from services.trainer.schemas import DescriptionView, ModelBody, ModelPage, ModelView, UsersBody

MAX_PAGE = 100

router = APIRouter(prefix="/v1", tags=["models"])


@router.post("/models", status_code=202)
def publish_model(
    body: ModelBody,
    caller: CallerDep,
    session: SessionDep,
    idempotency: IdempotencyDep,
    chain: ChainDep,
    engine: EngineDep,
    settings: SettingsDep,
) -> ModelView:
    """Hand in a keyed model: a worker checks its file, and if it has the signed record, the authorisation goes to the chain.

    Open to any account that signed in, for its own uploads and for calls that it signed itself. What the contract would refuse is
    answered at once, as `contract-reverted` with the decoded error. Keying is obfuscation only where anyone but the owner holds the plain
    weights; a privacy report with a better grade than that is refused.
    """
    spec, call, signature = ModelSpec.parse(body.model_spec), body.request.call(), from_hex(body.signature)
    report = None if body.report is None else body.report.summary(body.ee.knowledge)
    registry = chain.deployment.contracts[REGISTRY].address
    check_call(call, caller=caller.address, target=registry, instant=now())
    authorisation = Authorisation.decode(call.data)
    own_uri = publications.description_uri(settings.public_url, caller.address, authorisation.model)
    publications.check_authorisation(authorisation, spec, own_uri)
    # In no transaction yet: a slow chain must not hold a lock on the database.
    admit(engine, chain, call, signature, caller=caller.address, target=registry)

    def taken_on() -> ModelView:
        model = KeyedModel(
            id=uuid.uuid4(),
            owner=caller.address,
            upload_id=body.upload_id,
            name=body.name,
            description=body.description,
            spec=spec.document(),
            spec_digest=to_hex(spec.digest()),
            record=to_hex(authorisation.model),
            **body.ee.model_dump(),
            report=None if report is None else report.document(),
            request=call.to_json(),
            signature=signature,
        )
        return _view(session, publications.hand_in(session, model, body.users), caller.address)

    return idempotency.once(ModelView, taken_on)


@router.get("/models")
def list_models(
    caller: CallerDep,
    session: SessionDep,
    cursor: Annotated[uuid.UUID | None, Query(description="next_cursor of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> ModelPage:
    """The models that the caller owns or may use, newest first. Open to any account that signed in."""
    found = publications.page(session, caller.address, after=cursor, limit=limit + 1)
    items = [_view(session, model, caller.address) for model in found[:limit]]
    return ModelPage(items=items, next_cursor=str(items[-1].id) if len(found) > limit else None)


@router.get("/models/{model_id}")
def get_model(model: UsableModelDep, caller: CallerDep, session: SessionDep) -> ModelView:
    """A model: what it is, how it was keyed, and where it stands.

    Open to its owner and those whom he lets use it; to others it does not exist.
    """
    return _view(session, model, caller.address)


@router.put("/models/{model_id}/users")
def set_model_users(body: UsersBody, model: OwnModelDep, caller: CallerDep, session: SessionDep) -> ModelView:
    """Name who may use a model from now on; questions asked before stay theirs. Open to its owner; to others it does not exist."""
    publications.set_users(session, model, body.users)
    return _view(session, model, caller.address)


@router.get("/descriptions/{owner}/{record}")
def get_description(model: DescribedModelDep, session: SessionDep) -> DescriptionView:
    """The public description of a model that its owner put on chain: what `uri` there leads to. Open to everyone."""
    return DescriptionView.of(model, publications.standing(session, model))


def _view(session: Session, model: KeyedModel, reader: str) -> ModelView:
    users = publications.users_of(session, model) if model.owner == reader else None
    return ModelView.of(model, publications.standing(session, model), users)
