"""Opened files against a receipt: is this the model, does this batch hold the input, does this one hold the output? Free of torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rexis.commitments import Receipt, tensor_digest
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, EncodingError, MalformedMessageError, VerificationError
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import FileHeader, digest_file, read_file, read_header
from rexis.protocol.file_spec import FileSpec, TensorSpec

TENSOR: dict[str, str] = {"batch": "x", "output": "y"}
DTYPE = "f32"


def model_file_spec(spec: ModelSpec) -> FileSpec:
    """What a model file of this model contains."""
    return FileSpec.of_model("model", spec.digest(), spec.shapes, DTYPE)


def verify_model_file(receipt: Receipt, path: Path, spec: ModelSpec) -> None:
    """Check that the file holds the model that the receipt names.

    Raises:
        MalformedMessageError: no model file of this spec.
        DigestMismatchError: another model.
    """
    with _explained(path), path.open("rb") as file:
        record = digest_file(file, model_file_spec(spec), path.stat().st_size).record
    if record != receipt.model:
        raise DigestMismatchError(f"{path.name}: another model", receipt.model, record)


def find_item(path: Path, kind: Literal["batch", "output"], digest: bytes) -> NDArray[Any]:
    """The row of a batch's `x`, or an output's `y`, that has this digest.

    Raises:
        MalformedMessageError: no file of this kind with rows of f32.
        VerificationError: no row has it.
    """
    with _explained(path):
        rows = _rows(path, kind)
        for row in rows:
            if tensor_digest(row) == digest:
                return np.array(row)
    raise VerificationError(f"{path.name}: none of its {len(rows)} rows has the digest {to_hex(digest)}")


def _rows(path: Path, kind: Literal["batch", "output"]) -> NDArray[Any]:
    size, name = path.stat().st_size, TENSOR[kind]
    with path.open("rb") as file:
        spec = _spec_of(read_header(file, size), kind)
        file.seek(0)
        return read_file(file, spec, size)[name]


def _spec_of(header: FileHeader, kind: Literal["batch", "output"]) -> FileSpec:
    """The spec of a file of rows, which its header implies; labels may stand beside `x`."""
    found = {entry.name: entry for entry in header.tensors}
    rows = found.get(TENSOR[kind])
    if header.kind != kind or rows is None or rows.dtype != DTYPE or len(rows.shape) != 2:
        raise MalformedMessageError(f"expected a file of kind {kind} with {TENSOR[kind]} as {DTYPE} [n, d]")
    tensors = [TensorSpec("labels", "i64", ("n",))] if "labels" in found else []
    return FileSpec(kind, (*tensors, TensorSpec(TENSOR[kind], DTYPE, ("n", rows.shape[1]))))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (MalformedMessageError, EncodingError, ValueError) as error:
        raise MalformedMessageError(f"{path.name}: {error}") from error
