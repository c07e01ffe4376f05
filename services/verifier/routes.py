"""HTTP operations of the verifier."""

from fastapi import APIRouter, Response

from services.foundation.database import SessionDep
from services.foundation.sign_in import CallerDep
from services.verifier import receipts
from services.verifier.dependencies import ReadableReceiptDep, SignedReceiptDep
from services.verifier.schemas import ReceiptView

router = APIRouter(prefix="/v1/receipts", tags=["receipts"])


@router.post("", status_code=201, responses={200: {"model": ReceiptView, "description": "The receipt was here already"}})
def deposit_receipt(receipt: SignedReceiptDep, caller: CallerDep, session: SessionDep, response: Response) -> ReceiptView:
    """Hand in an inference receipt that its issuer signed. Open to any account that signed in: the issuer or who got the receipt.

    The same receipt twice is one receipt. `batch` and `index` are not kept, because the signature does not cover them.
    """
    stored, is_new = receipts.deposit(session, receipt, caller.address)
    if not is_new:
        response.status_code = 200
    return ReceiptView.of(stored)


@router.get("/{digest}")
def get_receipt(stored: ReadableReceiptDep) -> ReceiptView:
    """A receipt by its digest. Open to its issuer and to those who handed it in; to others it does not exist."""
    return ReceiptView.of(stored)
