"""Receipts that the trainer signs for its answers, one for each row, and their way to the verifier.

A claim (model, input, output, minute) has one receipt: made twice in a minute, it gets the one that was signed first, because two salts
for one claim would make the issuer a liar. Salts open commitments, so a receipt is shown to whoever asked the row only.
"""

import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from rexis.chain.signer import Signer
from rexis.client.verifier import VerifierClient
from rexis.commitments import Receipt
from rexis.commitments.positional_tree import SALT_BYTES
from rexis.encoding import canonical_json, parse_canonical_json, to_hex
from rexis.errors import ServiceError
from rexis.protocol.receipt_signature import receipt_message
from services.foundation.database import lock, now, transaction
from services.trainer.models import Inference, InferenceItem, IssuedReceipt

MAX_RECEIPT_BYTES = 4096
DEPOSITED_AT_ONCE = 100
_SELECTED_AT_ONCE = 500
# Answers of a service that mean "later", not "never".
_TRANSIENT = frozenset({401, 408, 425, 429})

log = structlog.get_logger(__name__)


def this_minute() -> datetime:
    """Time of issue of a receipt that is made now: a finer one would expose the moment of care."""
    return datetime.now(UTC).replace(second=0, microsecond=0)


class ReceiptBook:
    """Receipts of one run: rows of the same claim share one.

    Args:
        model: model record, 32 bytes.
        signer: the issuer.
        chain_id: chain that the signatures are for.
    """

    def __init__(self, model: bytes, signer: Signer, chain_id: int) -> None:
        self._model, self._signer, self._chain_id = model, signer, chain_id
        self._issued = this_minute()
        self._signed: dict[bytes, Receipt] = {}
        self.items: list[bytes] = []

    def add(self, input_digest: bytes, output_digest: bytes) -> None:
        """Sign for the next row; digests of its tensors, 32 bytes each."""
        salt = secrets.token_bytes(SALT_BYTES)
        receipt = Receipt(self._model, input_digest, output_digest, salt, self._issued, self._signer.address)
        if receipt.digest not in self._signed:
            signature = self._signer.sign_typed_data(receipt_message(receipt, self._chain_id))
            self._signed[receipt.digest] = replace(receipt, signature=signature)
        self.items.append(receipt.digest)

    @property
    def receipts(self) -> Iterable[Receipt]:
        """Each receipt once."""
        return self._signed.values()

    @property
    def issuer(self) -> str:
        """Checksum address."""
        return self._signer.address


def keep(session: Session, inference_id: uuid.UUID, book: ReceiptBook, owner: str) -> None:
    """Store a run's receipts, together with its result; a claim that has a receipt already keeps that one.

    Args:
        owner: checksum address of the model's owner.
    """
    lock(session, f"receipts of {book.issuer}")
    made = {to_hex(receipt.digest): receipt for receipt in book.receipts}
    digests = list(made)
    known: set[str] = set()
    for start in range(0, len(digests), _SELECTED_AT_ONCE):
        some = IssuedReceipt.digest.in_(digests[start : start + _SELECTED_AT_ONCE])
        known.update(session.scalars(select(IssuedReceipt.digest).where(some, IssuedReceipt.issuer == book.issuer)))
    session.add_all(
        IssuedReceipt(digest=digest, issuer=book.issuer, owner=owner, content=canonical_json(receipt.to_json()))
        for digest, receipt in made.items()
        if digest not in known
    )
    session.flush()
    session.add_all(
        InferenceItem(inference_id=inference_id, item=item, digest=to_hex(digest), issuer=book.issuer)
        for item, digest in enumerate(book.items)
    )
    session.flush()


def page(session: Session, inference: Inference, *, after: int | None, limit: int) -> Sequence[tuple[int, Receipt]]:
    """Rows and their receipts, in order of the rows, starting behind the row `after`."""
    query = (
        select(InferenceItem.item, IssuedReceipt.content)
        .join(IssuedReceipt, (IssuedReceipt.digest == InferenceItem.digest) & (IssuedReceipt.issuer == InferenceItem.issuer))
        .where(InferenceItem.inference_id == inference.id)
        .order_by(InferenceItem.item)
        .limit(limit)
    )
    if after is not None:
        query = query.where(InferenceItem.item > after)
    return [(item, _parse(content)) for item, content in session.execute(query)]


def deposit_once(engine: Engine, verifier: VerifierClient) -> int:
    """Background job: hand up to `DEPOSITED_AT_ONCE` receipts to the verifier, each with the owner of the model; returns how many.

    A receipt may be handed in twice, which the verifier takes as once. One that it will never take is marked with its reason, so that it
    does not hold up those after it.

    Raises:
        UnavailableError: the verifier does not answer; the rest is handed in later.
        ServiceError: it can not take receipts now.
    """
    waiting = IssuedReceipt.deposited_at.is_(None), IssuedReceipt.refusal.is_(None)
    with transaction(engine, read_only=True) as session:
        rows = session.scalars(select(IssuedReceipt).where(*waiting).limit(DEPOSITED_AT_ONCE)).all()
    done: list[IssuedReceipt] = []
    try:
        for row in rows:
            try:
                verifier.deposit_receipt(_parse(row.content), row.owner)
                done.append(row)
            except ServiceError as error:
                if error.status >= 500 or error.status in _TRANSIENT:
                    raise
                log.error("the verifier refuses a receipt", receipt=row.digest, status=error.status, reason=str(error))
                with transaction(engine) as session:
                    session.get_one(IssuedReceipt, (row.digest, row.issuer)).refusal = str(error)
    finally:
        with transaction(engine) as session:
            for row in done:
                session.get_one(IssuedReceipt, (row.digest, row.issuer)).deposited_at = now()
    return len(done)


def _parse(content: bytes) -> Receipt:
    return Receipt.parse(parse_canonical_json(content, max_bytes=MAX_RECEIPT_BYTES))
