"""The verifier: inference receipts, and the bundles that show them in a batch on chain."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.commitments import Receipt
from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError, UnavailableError
from rexis.protocol.receipt_bundle import MAX_BUNDLE_BYTES, ReceiptBundle

POLL_S = 0.5


@dataclass(frozen=True)
class ReceiptStanding:
    """How far a receipt got: waiting, set-aside, promised or on-chain; why it is not farther; and its batch, 32 bytes, once it has one."""

    state: str
    reason: str | None
    batch: bytes | None


class VerifierClient:
    """Calls to one verifier."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def deposit_receipt(self, receipt: Receipt, owner: str | None = None) -> bytes:
        """Hand in a signed receipt and return its digest; the same receipt twice is one receipt.

        Args:
            owner: checksum address of the owner whose model answered; only the receipt's issuer may name one.

        Raises:
            ServiceError: the signature is not the issuer's, the issuer signed the claim before with another salt, or it is not the
                caller's to name this owner.
        """
        query = None if owner is None else {"owner": owner}
        answer = Fields("receipt", self.connection.post("/v1/receipts", receipt.to_json(), query=query, repeatable=True))
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
        value: Any = self.connection.get(f"/v1/receipts/{to_hex(digest)}", query=_chosen(issuer))
        receipt = Receipt.parse(Fields("receipt", value).object("receipt"))
        if receipt.digest != digest:
            raise MalformedMessageError(f"expected receipt {to_hex(digest)}, got {to_hex(receipt.digest)}")
        return receipt

    def standing(self, digest: bytes, *, issuer: str | None = None) -> ReceiptStanding:
        """How far a receipt got on its way to the chain; raises as `receipt` does."""
        answer = Fields("receipt", self.connection.get(f"/v1/receipts/{to_hex(digest)}", query=_chosen(issuer)))
        return ReceiptStanding(answer.text("state"), answer.optional_text("reason"), answer.optional_digest("batch"))

    def bundle(self, digest: bytes, *, issuer: str | None = None) -> bytes:
        """The bundle of a receipt: the file, byte for byte, of which all is verified but what only the chain can tell.

        Raises:
            ServiceError: 404 if there is no such receipt, 409 if it is not in a batch on chain yet.
            MalformedMessageError: the verifier sent no bundle, or another receipt's.
            VerificationError: it does not hold.
        """
        path = f"/v1/receipts/{to_hex(digest)}/bundle"
        content = self.connection.request("GET", path, query=_chosen(issuer), max_bytes=MAX_BUNDLE_BYTES).raw
        bundle = ReceiptBundle.parse(content)
        if bundle.receipt.digest != digest or issuer not in (None, bundle.receipt.issuer):
            raise MalformedMessageError(f"expected the bundle of receipt {to_hex(digest)}, got that of {to_hex(bundle.receipt.digest)}")
        bundle.verify()
        return content

    def wait_for_bundle(
        self,
        digest: bytes,
        *,
        issuer: str | None = None,
        timeout_s: float = 120.0,
        on_state: Callable[[ReceiptStanding], None] | None = None,
    ) -> bytes:
        """The bundle, once the receipt is in a batch on chain.

        Args:
            on_state: told whenever the receipt's standing changed.

        Raises:
            UnavailableError: it was not in time; the message says what it waits for.
        """
        deadline, last = time.monotonic() + timeout_s, None
        while True:
            found = self.standing(digest, issuer=issuer)
            if found != last and on_state is not None:
                on_state(found)
            last = found
            if found.state == "on-chain":
                return self.bundle(digest, issuer=issuer)
            if found.state == "set-aside" or time.monotonic() > deadline:
                raise UnavailableError(f"receipt {to_hex(digest)} is {found.state}: {found.reason or 'its batch is not on chain yet'}")
            time.sleep(POLL_S)


def _chosen(issuer: str | None) -> dict[str, str | int]:
    return {} if issuer is None else {"issuer": issuer}
