"""Keyed models: uploaded with their owner's signed authorisation, checked by a worker, and only then put on chain.

The check reads the file once, as a stream, and computes its record, which must be the one that the owner signed: what answers questions
later is what the chain names. A model that members of a federation, or the public, know in plain is protected by obfuscation only, and
every view of it says so.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, delete, exists, or_, select, tuple_
from sqlalchemy.orm import Session

from rexis.chain.connection import Chain
from rexis.chain.model_registry import Authorisation
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, EncodingError, MalformedMessageError
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import READ_BYTES, TensorFileDigest
from rexis.protocol.file_spec import FileSpec
from rexis.protocol.relayed_call import RelayedCall
from services.foundation.database import lock, now, transaction
from services.foundation.objects import ObjectStore
from services.foundation.outbox.leases import JobKind, Lease, claim, enqueue_job
from services.foundation.problems import Problem, conflict, not_found
from services.foundation.relays import RelayedCallRow, intent_of, promise
from services.foundation.uploads import StoredUpload, claim_upload, open_upload
from services.trainer.authorisations import AUTHORISED, registration
from services.trainer.models import KeyedModel, ModelUser, RegisteredModel

CHECK = JobKind(model=KeyedModel, task="trainer.check_model", queue="trainer", lease_s=30.0)
# A worker holds the whole model in memory.
MAX_MODEL_BYTES = 1 << 30
MAX_USERS = 100
# Families whose models answer rows of features.
SERVED = ("mlp", "logistic")


@dataclass(frozen=True)
class Standing:
    """Where a model stands: checking, authorising, authorised, revoked, refused (not what was signed) or failed."""

    state: str
    reason: str | None
    registered: RegisteredModel | None


def file_spec(spec: ModelSpec) -> FileSpec:
    """What a model's file must contain: every tensor of the spec in f32."""
    return FileSpec.of_model("model", spec.digest(), spec.shapes, "f32")


def description_uri(public_url: str, owner: str, record: bytes) -> str:
    """Where this trainer shows the public description of a model."""
    return f"{public_url.rstrip('/')}/v1/descriptions/{owner}/{to_hex(record)}"


def require_servable(spec: ModelSpec) -> None:
    """Return if this trainer answers rows with models of this family.

    Raises:
        MalformedMessageError: a model of token ids or anything else than feature rows.
    """
    if spec.family not in SERVED:
        raise MalformedMessageError(f"this trainer answers with models of the families {', '.join(SERVED)}, got {spec.family}")


def check_authorisation(authorisation: Authorisation, spec: ModelSpec, own_uri: str) -> None:
    """Check what can be known of the signed call before the file is read.

    Raises:
        DigestMismatchError: it names another model spec.
        MalformedMessageError: its URI leads nowhere, or this trainer has no way to run models of the family.
    """
    require_servable(spec)
    if authorisation.spec_digest != spec.digest():
        raise DigestMismatchError(
            "specDigest in the signed call, against the submitted model spec", spec.digest(), authorisation.spec_digest
        )
    authorisation.check_uri(own_uri)


def hand_in(session: Session, model: KeyedModel, users: Collection[str]) -> KeyedModel:
    """Take a new model on and queue its check; the same upload with the same signed call twice is one model.

    Raises:
        Problem: 404 if the owner has no such upload, 409 if it is not complete or another model uses it, 422 if it is too large.
    """
    upload = claim_upload(session, model.upload_id, model.owner)
    known = session.scalar(select(KeyedModel).where(KeyedModel.upload_id == model.upload_id))
    if known is not None:
        if (known.request, known.signature) != (model.request, model.signature):
            raise conflict("upload-used", f"upload {model.upload_id} was handed in as model {known.id} with another signed call")
        return known
    if upload.total_bytes > MAX_MODEL_BYTES:
        detail = f"at most {MAX_MODEL_BYTES} bytes are accepted as a model, got {upload.total_bytes}"
        raise Problem(422, "model-too-large", "The model is too large", detail)
    model.total_bytes, model.created_at = upload.total_bytes, now()
    enqueue_job(session, CHECK, model)
    set_users(session, model, users)
    return model


def check(engine: Engine, objects: ObjectStore, chain: Chain, model_id: uuid.UUID) -> None:
    """Check one model's file and, if it is the signed one, promise the call to the chain; does nothing if that was done before.

    Args:
        chain: names the contracts; it is not asked.
    """
    lease = claim(engine, CHECK, model_id)
    if lease is None:
        return
    with lease:
        with transaction(engine, read_only=True) as session:
            model = session.get_one(KeyedModel, model_id)
            upload = open_upload(session, model.upload_id, model.owner)
        try:
            record = to_hex(_record(lease, upload, objects, file_spec(ModelSpec.parse(model.spec))))
            if record != model.record:
                raise MalformedMessageError(f"expected the file of model record {model.record}, which was signed, got {record}")
        except (MalformedMessageError, EncodingError) as error:
            with lease.finish() as (_, job):
                job.verdict, job.reason, job.decided_at = "refused", str(error), now()
            return
        call = RelayedCall.parse(model.request)
        with lease.finish() as (session, job):
            job.verdict, job.decided_at = "accepted", now()
            job.relay_id = promise(session, chain, call, model.signature, operation="authorise").id


def standing(session: Session, model: KeyedModel) -> Standing:
    """Where a model stands, by its check, its relay and the chain."""
    registered = registration(session, model.owner, model.record)
    if model.state == "failed" or model.verdict == "refused":
        return Standing(model.verdict or "failed", model.reason or model.failure, registered)
    if model.verdict is None:
        return Standing("checking", None, registered)
    if registered is not None:
        return Standing(registered.state, registered.revocation, registered)
    relay = session.get(RelayedCallRow, model.relay_id)
    intent = intent_of(session, relay) if relay is not None else None
    if intent is not None and intent.state == "failed":
        return Standing("failed", None if intent.error is None else str(intent.error["detail"]), None)
    return Standing("authorising", None, None)


def require_authorised(session: Session, model: KeyedModel) -> None:
    """Return if the model may answer questions now.

    Raises:
        Problem: 409: its owner revoked it, or the chain does not name it (yet).
    """
    found = standing(session, model)
    if found.state != AUTHORISED:
        why = f": {found.reason}" if found.reason else ""
        raise conflict(
            f"model-{found.state}", f"model {model.id} answers only while its owner vouches for it on chain; it is {found.state}{why}"
        )


def readable(session: Session, model_id: uuid.UUID, reader: str) -> KeyedModel:
    """One model, for its owner and those whom he lets use it.

    Raises:
        Problem: 404 for everyone else.
    """
    model = session.get(KeyedModel, model_id)
    if model is None or (model.owner != reader and session.get(ModelUser, (model_id, reader)) is None):
        raise not_found("model", model_id)
    return model


def page(session: Session, reader: str, *, after: uuid.UUID | None, limit: int) -> Sequence[KeyedModel]:
    """The models that an account may use, newest first, starting behind the model `after`.

    Raises:
        Problem: 422 if `after` is not one of them.
    """
    used = exists().where(ModelUser.model_id == KeyedModel.id, ModelUser.address == reader)
    query = select(KeyedModel).where(or_(KeyedModel.owner == reader, used))
    if after is not None:
        last = session.scalar(query.where(KeyedModel.id == after))
        if last is None:
            raise Problem(422, "cursor", "Unknown cursor", "cursor: pass back next_cursor of the previous page, or leave it out")
        query = query.where(tuple_(KeyedModel.created_at, KeyedModel.id) < (last.created_at, last.id))
    return session.scalars(query.order_by(KeyedModel.created_at.desc(), KeyedModel.id.desc()).limit(limit)).all()


def described(session: Session, owner: str, record: str) -> KeyedModel:
    """A model whose description is public: its owner vouched for it on chain, and may have revoked it since.

    Raises:
        Problem: 404.
    """
    accepted = KeyedModel.owner == owner, KeyedModel.record == record, KeyedModel.verdict == "accepted"
    model = session.scalar(select(KeyedModel).where(*accepted).order_by(KeyedModel.created_at).limit(1))
    if model is None or registration(session, owner, record) is None:
        raise not_found("model", record)
    return model


def users_of(session: Session, model: KeyedModel) -> list[str]:
    """Accounts besides the owner that may use a model, in order."""
    return list(session.scalars(select(ModelUser.address).where(ModelUser.model_id == model.id).order_by(ModelUser.address)))


def set_users(session: Session, model: KeyedModel, users: Collection[str]) -> None:
    """Replace the accounts that may use a model."""
    # Two callers at once would both insert the same account.
    lock(session, f"users of model {model.id}")
    session.execute(delete(ModelUser).where(ModelUser.model_id == model.id))
    session.add_all(ModelUser(model_id=model.id, address=address) for address in sorted(set(users) - {model.owner}))
    session.flush()


def _record(lease: Lease[KeyedModel], upload: StoredUpload, objects: ObjectStore, spec: FileSpec) -> bytes:
    digest = TensorFileDigest(spec, upload.total_bytes)
    with upload.open(objects) as content:
        while piece := content.read(READ_BYTES):
            lease.check()
            digest.update(piece)
    return digest.finish().record
