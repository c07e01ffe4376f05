"""Global models: files of kind `model` in single precision, one for each round and one that the founder brought.

As a vector a model is flattened in the order of its spec's shapes, which is that of the torch module's parameters.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.encoding import sha256, to_hex
from rexis.errors import DigestMismatchError, MalformedMessageError
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import MAX_HEADER_BYTES, read_file, write_file
from rexis.protocol.file_spec import FileSpec
from services.aggregator.models import Federation, GlobalModel
from services.foundation.objects import ObjectStore
from services.foundation.problems import not_found
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


def updated(base: NDArray[np.float64], delta: NDArray[np.float64], spec: ModelSpec) -> ModelFile:
    """The model behind `base` + `delta`, both f64 [parameters].

    Raises:
        EncodingError: a weight became infinite.
    """
    weights, tensors, start = (base + delta).astype(np.float32), {}, 0
    for name, shape in spec.shapes.items():
        size = int(np.prod(shape))
        tensors[name] = weights[start : start + size].reshape(shape)
        start += size
    return _written(file_spec(spec), tensors)


def keep(objects: ObjectStore, federation_id: str, model: ModelFile) -> str:
    """Store a file under its record; a second time changes nothing. Returns its key."""
    key = f"models/{federation_id}/{to_hex(model.record)}"
    try:
        objects.put_new(key, model.content)
    except FileExistsError:
        # Only what a run left that was interrupted before it could record this.
        if objects.get(key) != model.content:
            raise DigestMismatchError(f"object {key}", sha256(model.content), sha256(objects.get(key))) from None
    return key


def record(session: Session, federation_id: str, round_number: int, model: ModelFile, key: str) -> None:
    """Make a stored file what a round made; again, it changes nothing."""
    session.merge(
        GlobalModel(
            federation_id=federation_id,
            round=round_number,
            record=to_hex(model.record),
            object_key=key,
            size=len(model.content),
            file_digest=to_hex(sha256(model.content)),
        )
    )


def current(session: Session, federation: Federation) -> GlobalModel:
    """The file of the federation's newest model.

    Raises:
        Problem: 404; a statistic has none.
    """
    found = session.scalar(
        select(GlobalModel)
        .where(GlobalModel.federation_id == federation.id, GlobalModel.record == federation.model)
        .order_by(GlobalModel.round.desc())
        .limit(1)
    )
    if found is None:
        raise not_found("model of federation", federation.id)
    return found


def chunks(objects: ObjectStore, model: GlobalModel) -> Iterator[bytes]:
    """A stored file, for sending."""
    return objects.open_stream(model.object_key)


def weights(objects: ObjectStore, model: GlobalModel, spec: ModelSpec) -> NDArray[np.float64]:
    """A stored model as a vector, f64 [parameters].

    Raises:
        DigestMismatchError: the store holds other bytes than were put there.
    """
    content = objects.get(model.object_key)
    if to_hex(sha256(content)) != model.file_digest:
        raise DigestMismatchError(f"object {model.object_key}", bytes.fromhex(model.file_digest[2:]), sha256(content))
    tensors = read_file(io.BytesIO(content), file_spec(spec), len(content))
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in spec.shapes])


def _written(form: FileSpec, tensors: dict[str, NDArray[np.float32]]) -> ModelFile:
    stream = io.BytesIO()
    return ModelFile(record=write_file(stream, form, tensors).record, content=stream.getvalue())
