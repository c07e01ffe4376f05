"""Asking a keyed model at a trainer: rows are encrypted here, answers checked against their receipts and decrypted here.

    asked = Questioner(trainer, key, chain_id).ask(model_id, x)
    asked.outputs        # as the plain model would have answered, up to float error

A receipt holds the trainer to its answer: it is checked, row by row, against the very bytes that were sent and came back, before anything
is decrypted. It does not show that the answer is right. Under a key whose `knowledge` is not private the rows are protected by obfuscation
only: whoever holds the plain weights and sees the keyed ones can decrypt them.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rexis import ee
from rexis.agent.model_files import outputs_file_spec, write_rows
from rexis.client.trainer import Inference, Model, TrainerClient
from rexis.client.uploads import upload_file
from rexis.client.verifier import VerifierClient
from rexis.commitments import Receipt, tensor_digest
from rexis.errors import DigestMismatchError, KeyFileError, MalformedMessageError, ServiceError, SignatureError, UnavailableError
from rexis.protocol.batch import digest_file, read_file
from rexis.protocol.receipt_signature import verify_receipt

CLOCK_SKEW = timedelta(minutes=5)

Step = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Asked:
    """A question and its checked answer.

    Attributes:
        model: the model that was asked.
        inference: the trainer's record of the question.
        outputs: plain, f64 [n, outputs].
        keyed_inputs: what was sent, f32 [n, inputs].
        keyed_outputs: what came back, f32 [n, outputs].
        receipts: of each row, in order, verified.
        protection: what may be said of how the rows were protected from the trainer; by the key, not by the trainer's own word.
    """

    model: Model
    inference: Inference
    outputs: Tensor
    keyed_inputs: NDArray[np.float32]
    keyed_outputs: NDArray[np.float32]
    receipts: tuple[Receipt, ...]
    protection: str


class Questioner:
    """Asks models under one key.

    Args:
        trainer: signed in.
        key: the key of the models.
        chain_id: chain that receipts are signed for.
        issuer: account that must have signed the receipts; None takes whichever signed the first.
        verifier: where the receipts are deposited, so that this side can read them there later; None deposits none.
        timeout_s: longest wait for an answer.
        counter: of the key's budget of records, if it has one.
    """

    def __init__(
        self,
        trainer: TrainerClient,
        key: ee.Key,
        chain_id: int,
        *,
        issuer: str | None = None,
        verifier: VerifierClient | None = None,
        timeout_s: float = 600.0,
        counter: ee.RecordCounter | None = None,
    ) -> None:
        self._trainer, self._key, self._chain_id = trainer, key, chain_id
        self._issuer, self._verifier, self._timeout_s = issuer, verifier, timeout_s
        self._counter = counter

    def ask(self, model_id: str, x: Tensor, *, on_step: Step = lambda _name, _done, _total: None) -> Asked:
        """Ask a model about rows.

        Args:
            x: plain rows, floats [n, inputs].
            on_step: told what is going on: name of the step, how much of it is done, of how much.

        Raises:
            KeyFileError: the model is of another architecture, or keyed with another key.
            ServiceError: the trainer refuses the question or can not answer it; the message says why.
            VerificationError: a receipt is not for what was sent, came back, and this model; nothing was decrypted.
            UnavailableError: no answer in time.
            PrivacyBudgetExceededError: more rows than are left of the key's budget of records.
        """
        model = self._trainer.model(model_id)
        self._check_key(model)
        with TemporaryDirectory(prefix="rexis-") as folder:
            file = Path(folder) / "rows.safetensors"
            keyed = np.ascontiguousarray(ee.encrypt_inputs(x.double(), self._key, counter=self._counter).float().numpy())
            write_rows(file, model.spec, torch.from_numpy(keyed))
            upload_id = upload_file(self._trainer.connection, file, progress=lambda done, total: on_step("uploading", done, total))
        asked_at = datetime.now(UTC)
        inference = self._trainer.infer(model.id, upload_id, idempotency_key=f"inference-{upload_id}")

        def show(found: Inference) -> None:
            on_step("computing", found.items_done, found.items or len(keyed))

        inference = self._trainer.wait_for_inference(inference.id, timeout_s=self._timeout_s, on_progress=show)
        if inference.state != "answered":
            raise _unanswered(inference)
        answers = self._answers(inference, model, len(keyed))
        # One more than there are rows: a trainer that never stops is not listened to for ever.
        receipts = tuple(receipt for _, receipt in islice(self._trainer.receipts(inference.id), len(keyed) + 1))
        check_receipts(receipts, model.record, keyed, answers, self._chain_id, issuer=self._issuer, asked_at=asked_at)
        outputs = ee.decrypt_outputs(torch.from_numpy(answers).double(), self._key)
        asked = Asked(model, inference, outputs, keyed, answers, receipts, self._key.protection)
        self._deposit(receipts, on_step)
        return asked

    def _check_key(self, model: Model) -> None:
        if model.spec != self._key.spec:
            raise KeyFileError(f"the key is for {self._key.spec.document()}, model {model.id} is {model.spec.document()}")
        if model.keyed.key_id != self._key.id:
            raise KeyFileError(f"model {model.id} is keyed with {model.keyed.key_id}, this key is {self._key.id}")

    def _answers(self, inference: Inference, model: Model, rows: int) -> NDArray[np.float32]:
        content, spec = self._trainer.output(inference.id), outputs_file_spec(model.spec)
        found = digest_file(io.BytesIO(content), spec, len(content))
        if inference.output_record is not None and found.record != inference.output_record:
            raise DigestMismatchError(f"record of the output of inference {inference.id}", inference.output_record, found.record)
        if found.lengths["n"] != rows:
            raise MalformedMessageError(f"inference {inference.id}: expected answers to {rows} rows, got {found.lengths['n']}")
        return read_file(io.BytesIO(content), spec, len(content))["y"].copy()

    def _deposit(self, receipts: Sequence[Receipt], on_step: Step) -> None:
        if self._verifier is None:
            return
        # One claim has one receipt, however many rows it answers.
        unique = list({receipt.digest: receipt for receipt in receipts}.values())
        for done, receipt in enumerate(unique, start=1):
            self._verifier.deposit_receipt(receipt)
            on_step("depositing receipts", done, len(unique))


def check_receipts(
    receipts: Sequence[Receipt],
    model: bytes,
    inputs: NDArray[np.float32],
    outputs: NDArray[np.float32],
    chain_id: int,
    *,
    issuer: str | None = None,
    asked_at: datetime | None = None,
) -> None:
    """Check the receipt of every row against what was sent and what came back.

    Args:
        receipts: one for each row, in order.
        model: record of the model that was asked, 32 bytes.
        inputs: keyed rows that were sent, f32 [n, inputs].
        outputs: keyed answers, f32 [n, outputs].
        issuer: who must have signed; None takes the first one's issuer for all.
        asked_at: when the question was asked: receipts are of that time or later.

    Raises:
        MalformedMessageError: not one receipt for each row, or one of another time.
        DigestMismatchError: a receipt is for another model, input or output.
        SignatureError: another account signed.
    """
    if not len(receipts) == len(inputs) == len(outputs):
        raise MalformedMessageError(
            f"expected a receipt and an answer for each of {len(inputs)} rows, got {len(receipts)} and {len(outputs)}"
        )
    expected_issuer = issuer or (receipts[0].issuer if receipts else None)
    verified: dict[bytes, Receipt] = {}
    for row, (receipt, sent, answered) in enumerate(zip(receipts, inputs, outputs, strict=True)):
        for name, expected, got in (
            ("model", model, receipt.model),
            ("input", tensor_digest(sent), receipt.input),
            ("output", tensor_digest(answered), receipt.output),
        ):
            if expected != got:
                raise DigestMismatchError(f"receipt of row {row}: {name}", expected, got)
        if receipt.issuer != expected_issuer:
            raise SignatureError(f"receipt of row {row}: expected one by {expected_issuer}, got one by {receipt.issuer}")
        # A minute is all that a receipt tells, so an honest one may seem to be up to a minute older than the question.
        earliest = None if asked_at is None else asked_at - CLOCK_SKEW - timedelta(minutes=1)
        if (earliest is not None and receipt.issued < earliest) or receipt.issued > datetime.now(UTC) + CLOCK_SKEW:
            raise MalformedMessageError(f"receipt of row {row}: expected one of the time of the question, got {receipt.issued.isoformat()}")
        if verified.get(receipt.digest) != receipt:
            verify_receipt(receipt, chain_id)
            verified[receipt.digest] = receipt


def _unanswered(inference: Inference) -> Exception:
    reason = inference.reason or "the trainer gives no reason"
    if inference.state == "refused":
        title = "The trainer refused the question"
        return ServiceError(
            409, {"type": "urn:rexis:problem:refused", "title": title, "status": 409, "detail": f"{inference.id}: {reason}"}
        )
    return UnavailableError(f"the trainer failed to answer {inference.id}: {reason}; ask again")
