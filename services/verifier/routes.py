"""HTTP operations of the verifier."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from services.foundation.database import SessionDep
from services.foundation.sign_in import CallerDep
from services.verifier import batches, receipts
from services.verifier.dependencies import ReadableBatchDep, ReadableReceiptDep, SignedReceiptDep
from services.verifier.schemas import Address, BatchView, BundleBody, ReceiptView

router = APIRouter(prefix="/v1", tags=["receipts"])


@router.post("/receipts", status_code=201, responses={200: {"model": ReceiptView, "description": "The receipt was here already"}})
def deposit_receipt(
    receipt: SignedReceiptDep,
    caller: CallerDep,
    session: SessionDep,
    response: Response,
    owner: Annotated[Address | None, Query(description="whose model answered; only the issuer may say, and only once")] = None,
) -> ReceiptView:
    """Hand in an inference receipt that its issuer signed. Open to any account that signed in: the issuer or who got the receipt.

    The same receipt twice is one receipt. It waits until the owner whom its issuer named vouches for its model on chain, and is then
    committed in a batch. If the issuer named nobody, it is the only owner who vouches; if several do, it waits.
    `batch` and `index` are not kept as given, because the signature does not cover them.
    """
    stored, is_new = receipts.deposit(session, receipt, caller.address, owner=owner)
    if not is_new:
        response.status_code = 200
    return ReceiptView.of(stored, batches.standing(session, stored))


@router.get("/receipts/{digest}")
def get_receipt(stored: ReadableReceiptDep, session: SessionDep) -> ReceiptView:
    """A receipt by its digest. Open to its issuer and to those who handed it in; to others it does not exist."""
    return ReceiptView.of(stored, batches.standing(session, stored))


@router.get("/receipts/{digest}/bundle", response_model=BundleBody)
def get_receipt_bundle(stored: ReadableReceiptDep, session: SessionDep) -> Response:
    """The receipt with the proof that its batch on chain holds it, to be checked offline by anyone whom its holder shows it to.

    Open to whom the receipt is. Before the batch is on chain the answer is 409.
    """
    return Response(batches.bundle(session, stored).to_bytes(), media_type="application/json")


@router.get("/batches/{batch_id}")
def get_receipt_batch(batch: ReadableBatchDep) -> BatchView:
    """A batch of receipts, what is staked on it and who challenged it.

    Open to who issued or handed in one of its receipts; to others it does not exist.
    """
    return BatchView.of(batch)
