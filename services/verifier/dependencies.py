"""What the verifier's routes ask for, loaded and checked before a handler runs."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from rexis.chain.contract_accounts import check_wallet_signature
from rexis.commitments import Receipt
from rexis.errors import SignatureError
from rexis.protocol.receipt_signature import receipt_message, verify_receipt
from services.foundation.assembly import connected_chain
from services.foundation.database import SessionDep
from services.foundation.sign_in import CallerDep
from services.verifier import batches, receipts
from services.verifier.models import StoredReceipt
from services.verifier.schemas import Address, Hex32, ReceiptBody


def _signed_receipt(request: Request, body: ReceiptBody, _caller: CallerDep) -> Receipt:
    """The receipt of the body, signed by its issuer: by a key, or as a contract account (ERC-1271), for which alone the chain is asked."""
    receipt = Receipt.parse(body.model_dump())
    receipts.check_time(receipt)
    chain_id = request.app.state.settings.chain_id
    try:
        verify_receipt(receipt, chain_id)
    except SignatureError as refused:
        message = receipt_message(receipt, chain_id)
        check_wallet_signature(connected_chain(request).web3, receipt.issuer, message.hash(), receipt.signature, refused)
    return receipt


def _readable_receipt(
    session: SessionDep,
    caller: CallerDep,
    digest: Annotated[Hex32, Path(description="digest of the receipt")],
    issuer: Annotated[Address | None, Query(description="needed if several issuers signed the same claim")] = None,
) -> StoredReceipt:
    return receipts.readable(session, digest, caller.address, issuer=issuer)


def _readable_batch(
    session: SessionDep, caller: CallerDep, batch_id: Annotated[Hex32, Path(description="id of the batch")]
) -> batches.BatchStanding:
    return batches.readable(session, batch_id, caller.address)


SignedReceiptDep = Annotated[Receipt, Depends(_signed_receipt)]
ReadableReceiptDep = Annotated[StoredReceipt, Depends(_readable_receipt)]
ReadableBatchDep = Annotated[batches.BatchStanding, Depends(_readable_batch)]
