"""The verifier: inference receipts."""

from typing import Any

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.commitments import Receipt
from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError


class VerifierClient:
    """Calls to one verifier."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def deposit_receipt(self, receipt: Receipt) -> bytes:
        """Hand in a signed receipt and return its digest; the same receipt twice is one receipt.

        Raises:
            ServiceError: the signature is not the issuer's, or the issuer signed the claim before with another salt.
        """
        answer = Fields("receipt", self.connection.post("/v1/receipts", receipt.to_json(), repeatable=True))
        digest = answer.digest("digest")
        if digest != receipt.digest:
            raise MalformedMessageError(f"expected the verifier to confirm receipt {to_hex(receipt.digest)}, got {to_hex(digest)}")
        return digest

    def receipt(self, digest: bytes, *, issuer: str | None = None) -> Receipt:
        """A receipt that the caller issued or handed in; `issuer` chooses where several signed the same claim.

        Raises:
            ServiceError: 404 if there is none.
            MalformedMessageError: the verifier sent another receipt.
        """
        query: dict[str, str | int] = {} if issuer is None else {"issuer": issuer}
        value: Any = self.connection.get(f"/v1/receipts/{to_hex(digest)}", query=query)
        receipt = Receipt.parse(Fields("receipt", value).object("receipt"))
        if receipt.digest != digest:
            raise MalformedMessageError(f"expected receipt {to_hex(digest)}, got {to_hex(receipt.digest)}")
        return receipt
