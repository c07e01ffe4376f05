"""The answer to a question: a keyed model, built from its declarative spec, on encrypted rows. It loads torch: only workers import it.

Weights come from safetensors into stock torch modules, so that nothing of an upload is ever executed. All arithmetic is in f32, in bounded
chunks; rows are independent, so that a chunk's size changes an answer by no more than float error.
"""

import hashlib
import io
import secrets
import time
import uuid
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import Engine
from torch import nn

from rexis.chain.signer import Signer
from rexis.commitments import tensor_digest
from rexis.encoding import from_hex, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.models.builders import build
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import READ_BYTES, TensorFileDigest, check_header, read_file, read_header, write_file
from services.foundation.database import now, transaction
from services.foundation.objects import ObjectStore
from services.foundation.outbox.leases import Lease, claim
from services.foundation.uploads import StoredUpload, open_upload
from services.trainer import receipts
from services.trainer.authorisations import AUTHORISED
from services.trainer.inferences import ANSWER, MAX_BATCH_BYTES, MAX_ITEMS, batch_spec, output_folder, output_spec
from services.trainer.models import Inference, KeyedModel
from services.trainer.publications import file_spec, standing
from services.trainer.receipts import ReceiptBook

CHUNK_ROWS = 256
# Activations of one chunk, over the widest layer.
CHUNK_ELEMENTS = 1 << 22
PROGRESS_S = 0.5


@dataclass(frozen=True)
class Answer:
    """The output file of one run, its record, and the receipts of its rows."""

    content: bytes
    record: bytes
    book: ReceiptBook


def answer(engine: Engine, objects: ObjectStore, signer: Signer, chain_id: int, inference_id: uuid.UUID) -> None:
    """Answer one question; does nothing if another run is at it, or it has an answer.

    Output and receipts are kept in the transaction that ends the job: a run that was killed, or was overtaken, leaves neither, so that no
    row has two answers.
    """
    lease = claim(engine, ANSWER, inference_id)
    if lease is None:
        return
    with lease:
        with transaction(engine, read_only=True) as session:
            inference = session.get_one(Inference, inference_id)
            model = session.get_one(KeyedModel, inference.model_id)
            batch = open_upload(session, inference.upload_id, inference.requester)
            weights = open_upload(session, model.upload_id, model.owner)
        try:
            made = _run(lease, objects, model, weights, batch, ReceiptBook(from_hex(model.record, 32), signer, chain_id))
        except (MalformedMessageError, EncodingError) as error:
            with lease.finish() as (_, job):
                job.verdict, job.reason, job.decided_at = "refused", str(error), now()
            return
        key = f"{output_folder(inference_id)}/{lease.token}-{secrets.token_hex(8)}"
        objects.put_new(key, made.content)
        with lease.finish() as (session, job):
            job.decided_at = now()
            keyed = session.get_one(KeyedModel, job.model_id)
            found = standing(session, keyed)
            if found.state != AUTHORISED:
                job.verdict, job.reason = "refused", f"the model is {found.state}: its owner no longer vouches for it"
                return
            receipts.keep(session, job.id, made.book, keyed.owner)
            job.verdict, job.items_done = "answered", len(made.book.items)
            job.output_key, job.output_bytes = key, len(made.content)
            job.output_digest, job.output_record = hashlib.sha256(made.content).digest(), to_hex(made.record)


def load(spec: ModelSpec, upload: StoredUpload, objects: ObjectStore) -> nn.Sequential:
    """The stock module of a spec with uploaded weights, f32, for inference.

    Raises:
        MalformedMessageError: the file is not of the spec.
        DigestMismatchError: the store holds other bytes than those that were uploaded.
    """
    with upload.open(objects) as content:
        tensors = read_file(content, file_spec(spec), upload.total_bytes)
    with torch.device("meta"):
        module = build(spec, seed=0)
    # Copied: the arrays lie on the bytes that were read, which torch may not write to.
    module.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}, assign=True)
    return module.eval()


def _run(
    lease: Lease[Inference], objects: ObjectStore, model: KeyedModel, weights: StoredUpload, batch: StoredUpload, book: ReceiptBook
) -> Answer:
    spec = ModelSpec.parse(model.spec)
    x = _rows(lease, objects, spec, batch)
    module = load(spec, weights, objects)
    y = np.empty((len(x), spec.tabular.outputs), np.float32)
    size = max(1, min(CHUNK_ROWS, CHUNK_ELEMENTS // max(spec.tabular.widths)))
    shown = time.monotonic()
    for start in range(0, len(x), size):
        lease.check()
        if time.monotonic() - shown > PROGRESS_S:
            shown = time.monotonic()
            _show(lease, len(x), start)
        chunk = x[start : start + size]
        with torch.inference_mode():
            y[start : start + size] = module(torch.from_numpy(chunk)).numpy()
        for row, output in zip(chunk, y[start : start + size], strict=True):
            try:
                digest = tensor_digest(output)
            except EncodingError as error:
                raise EncodingError(f"the model's output for row {len(book.items)}: {error}") from error
            book.add(tensor_digest(row), digest)
    content = io.BytesIO()
    written = write_file(content, output_spec(spec), {"y": y})
    return Answer(content.getvalue(), written.record, book)


def _rows(lease: Lease[Inference], objects: ObjectStore, spec: ModelSpec, upload: StoredUpload) -> NDArray[np.float32]:
    """The rows, f32 [n, d], once the whole file was checked."""
    expected = batch_spec(spec)
    with upload.open(objects) as content:
        items = check_header(read_header(content, upload.total_bytes), expected)["n"]
        if items > MAX_ITEMS or 4 * items * spec.tabular.outputs > MAX_BATCH_BYTES:
            raise MalformedMessageError(
                f"expected at most {MAX_ITEMS} rows, and {MAX_BATCH_BYTES} bytes of output, got {items} rows: split them"
            )
        _show(lease, items, 0)
        digest = TensorFileDigest(expected, upload.total_bytes)
        content.seek(0)
        while piece := content.read(READ_BYTES):
            lease.check()
            digest.update(piece)
        digest.finish()
        content.seek(0)
        # Copied: torch may not be given memory that it can not write to.
        return read_file(content, expected, upload.total_bytes)["x"].copy()


def _show(lease: Lease[Inference], items: int, done: int) -> None:
    with lease.commit() as (_, job):
        job.items, job.items_done = items, done
