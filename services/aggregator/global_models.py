"""Global models: files of kind `model` in single precision, one for each round and one that the founder brought.

Beside each stands the server's state after that round, where the strategy has one; both are written in one transaction.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.encoding import from_hex, sha256, to_hex
from rexis.errors import DigestMismatchError, MalformedMessageError
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import MAX_HEADER_BYTES, read_file, write_file
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.file_spec import FileSpec
from rexis.secagg.server_steps import initial_state
from services.aggregator.models import Federation, GlobalModel
from services.foundation.objects import ObjectStore
from services.foundation.problems import conflict, not_found
from services.foundation.uploads import StoredUpload

# A model is held in memory several times over while it is updated.
MAX_PARAMETERS = 1 << 26
_ENTRY_BYTES = 4


@dataclass(frozen=True)
class ModelFile:
    """A model's file in its one canonical form, and its record (32 bytes)."""

    content: bytes
    record: bytes


def file_spec(spec: ModelSpec) -> FileSpec:
    """What a global model's file must contain."""
    return FileSpec.of_model("model", spec.digest(), spec.shapes, "f32")


def read_upload(upload: StoredUpload, objects: ObjectStore, spec: ModelSpec) -> ModelFile:
    """The founder's model, written anew: the same tensors, and nothing else that a header could carry.

    Raises:
        MalformedMessageError: another size, header, name or shape.
        EncodingError: NaN or infinity.
    """
    form = file_spec(spec)
    most = 8 + MAX_HEADER_BYTES + _ENTRY_BYTES * MAX_PARAMETERS
    if upload.total_bytes > most:
        raise MalformedMessageError(f"initial_model: expected a file of at most {most} bytes, got {upload.total_bytes}")
    with upload.open(objects) as stream:
        return _written(form, read_file(stream, form, upload.total_bytes))


def received(content: bytes, spec: ModelSpec) -> ModelFile:
    """A model that another aggregator gave out, written anew; its record says whether it is the one that was meant.

    Raises:
        MalformedMessageError: another size, header, name or shape.
        EncodingError: NaN or infinity.
    """
    form = file_spec(spec)
    return _written(form, read_file(io.BytesIO(content), form, len(content)))


def written(tensors: dict[str, NDArray[np.float32]], spec: ModelSpec) -> ModelFile:
    """The file of a model with these tensors.

    Raises:
        EncodingError: a weight became infinite.
    """
    return _written(file_spec(spec), tensors)


def keep(objects: ObjectStore, federation_id: str, model: ModelFile, state: bytes = b"") -> str:
    """Store a model's file under its record, and that of the server's state; a second time changes nothing. Returns the model's key."""
    key = f"models/{federation_id}/{to_hex(model.record)}"
    _put(objects, key, model.content)
    if state:
        _put(objects, state_key(federation_id, to_hex(sha256(state))), state)
    return key


def state_key(federation_id: str, digest: str) -> str:
    """Where the file of a server's state lies."""
    return f"models/{federation_id}/state-{digest}"


def record(session: Session, federation_id: str, round_number: int, model: ModelFile, key: str, state: bytes = b"") -> None:
    """Make stored files what a round made; again, it changes nothing."""
    session.merge(
        GlobalModel(
            federation_id=federation_id,
            round=round_number,
            record=to_hex(model.record),
            object_key=key,
            size=len(model.content),
            file_digest=to_hex(sha256(model.content)),
            state_digest=to_hex(sha256(state)) if state else None,
            state_size=len(state) if state else None,
        )
    )


def current(session: Session, federation: Federation) -> GlobalModel:
    """The file of the federation's newest model.

    Raises:
        Problem: 404; a statistic has none. 409 where only members have it.
    """
    if federation.config.get("group_pad") is True and federation.round > 0:
        detail = "this aggregator has sums under the members' pads, and never the model: members and founder compute it from those"
        raise conflict("model-with-members", detail)
    found = session.scalar(
        select(GlobalModel)
        .where(GlobalModel.federation_id == federation.id, GlobalModel.record == federation.model)
        .order_by(GlobalModel.round.desc())
        .limit(1)
    )
    if found is None:
        raise not_found("model of federation", federation.id)
    return found


def initial(session: Session, federation: Federation) -> GlobalModel:
    """The file that the founder brought.

    Raises:
        Problem: 404; a statistic has none, and a witness only what it fetched.
    """
    found = session.get(GlobalModel, (federation.id, 0))
    if found is None:
        raise not_found("initial model of federation", federation.id)
    return found


def chunks(objects: ObjectStore, model: GlobalModel) -> Iterator[bytes]:
    """A stored file, for sending."""
    return objects.open_stream(model.object_key)


def state_chunks(objects: ObjectStore, federation_id: str, digest: str) -> Iterator[bytes]:
    """The stored file of a server's state, for sending."""
    return objects.open_stream(state_key(federation_id, digest))


def tensors(objects: ObjectStore, model: GlobalModel, spec: ModelSpec) -> dict[str, NDArray[np.float32]]:
    """A stored model by name.

    Raises:
        DigestMismatchError: the store holds other bytes than were put there.
    """
    content = _stored(objects, model.object_key, model.file_digest)
    return read_file(io.BytesIO(content), file_spec(spec), len(content))


def state(objects: ObjectStore, model: GlobalModel, plan: TrainingPlan) -> bytes:
    """File of the server's state beside a stored model; b"" for a strategy without one.

    Raises:
        DigestMismatchError: the store holds other bytes than were put there.
    """
    if model.state_digest is None:
        # Beside the founder's model, that from which everybody starts.
        return initial_state(plan)
    return _stored(objects, state_key(model.federation_id, model.state_digest), model.state_digest)


def _put(objects: ObjectStore, key: str, content: bytes) -> None:
    try:
        objects.put_new(key, content)
    except FileExistsError:
        # Only what a run left that was interrupted before it could record this.
        if objects.get(key) != content:
            raise DigestMismatchError(f"object {key}", sha256(content), sha256(objects.get(key))) from None


def _stored(objects: ObjectStore, key: str, digest: str) -> bytes:
    content = objects.get(key)
    if to_hex(sha256(content)) != digest:
        raise DigestMismatchError(f"object {key}", from_hex(digest, 32), sha256(content))
    return content


def _written(form: FileSpec, tensors: dict[str, NDArray[np.float32]]) -> ModelFile:
    stream = io.BytesIO()
    return ModelFile(record=write_file(stream, form, tensors).record, content=stream.getvalue())
