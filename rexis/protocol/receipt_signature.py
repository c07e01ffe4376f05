"""The issuer's EIP-712 signature of an inference receipt (wire formats, section 3)."""

from dataclasses import replace

from rexis.commitments.receipts import Receipt
from rexis.errors import SignatureError
from rexis.protocol.signatures import address_of
from rexis.protocol.typed_data import Domain, TypedMessage, verify_signer

RECEIPT_TYPE = "InferenceReceipt(bytes32 model,bytes32 input,bytes32 output,bytes16 salt,uint64 issued,address issuer)"


def receipt_message(receipt: Receipt, chain_id: int) -> TypedMessage:
    """What the issuer signs: all but batch and index, which are known only once the receipt is batched on chain."""
    message = {
        "model": receipt.model,
        "input": receipt.input,
        "output": receipt.output,
        "salt": receipt.salt,
        "issued": int(receipt.issued.timestamp()),
        "issuer": receipt.issuer,
    }
    return TypedMessage(Domain(chain_id), RECEIPT_TYPE, message)


def sign_receipt(receipt: Receipt, chain_id: int, private_key: bytes) -> Receipt:
    """The receipt with its issuer's signature.

    Raises:
        ValueError: the key is not the issuer's.
    """
    if address_of(private_key) != receipt.issuer:
        raise ValueError(f"expected the key of the issuer {receipt.issuer}, got the key of {address_of(private_key)}")
    return replace(receipt, signature=receipt_message(receipt, chain_id).sign(private_key))


def verify_receipt(receipt: Receipt, chain_id: int) -> None:
    """Check that the issuer signed this receipt for this chain.

    Raises:
        SignatureError: unsigned, malformed, malleated, or by another key.
    """
    if not receipt.signature:
        raise SignatureError("expected a signed receipt, got one without signature")
    verify_signer(receipt_message(receipt, chain_id), receipt.signature, receipt.issuer)
