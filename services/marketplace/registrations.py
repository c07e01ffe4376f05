"""Registrations of data sets: a signed call to `DatasetRegistry.register` and the documents that its hashes stand for.

Source of the call's form: `contracts/src/DatasetRegistry.sol`; of the documents' hashes: wire formats, section 0.
"""

from dataclasses import dataclass
from typing import Any

from rexis.chain.calls import decode_call
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, MalformedMessageError
from services.marketplace.documents import CheckedDocument

REGISTRY = "DatasetRegistry"
MAX_URI_BYTES = 512
URI_SCHEMES = ("https://", "ipfs://")


@dataclass(frozen=True)
class Registration:
    """Arguments of `register`; see the contract."""

    content_root: bytes
    policy_hash: bytes
    metadata_hash: bytes
    uri: str
    parents: tuple[int, ...]
    royalty_bps: int

    @classmethod
    def decode(cls, data: bytes) -> "Registration":
        """Read the call data that an institution signed.

        Raises:
            MalformedMessageError: another function than `register`, or not exactly the encoding of its arguments.
        """
        function, arguments = decode_call(REGISTRY, data)
        if function != "register":
            raise MalformedMessageError(f"call: expected {REGISTRY}.register, got {REGISTRY}.{function}")
        given: dict[str, Any] = arguments["registration"]
        return cls(
            content_root=given["contentRoot"],
            policy_hash=given["policyHash"],
            metadata_hash=given["metadataHash"],
            uri=given["uri"],
            parents=tuple(given["parents"]),
            royalty_bps=given["royaltyBps"],
        )

    def check_documents(self, metadata: CheckedDocument, policy: CheckedDocument) -> None:
        """Check that the signed hashes are those of the submitted documents.

        Raises:
            DigestMismatchError: one of them is not.
        """
        for name, signed, document in (("metadataHash", self.metadata_hash, metadata), ("policyHash", self.policy_hash, policy)):
            if signed != document.digest:
                raise DigestMismatchError(f"{name} in the signed call, against the submitted document", document.digest, signed)

    def check_uri(self, public_url: str) -> None:
        """Check that `uri` can lead to the metadata: to this marketplace's copy, or to a place of the owner's.

        Raises:
            MalformedMessageError: it is too long, of another scheme, or holds a character that is not printable ASCII.
        """
        if len(self.uri.encode()) > MAX_URI_BYTES:
            raise MalformedMessageError(f"uri: expected at most {MAX_URI_BYTES} bytes, got {len(self.uri.encode())}")
        if not (self.uri.isascii() and self.uri.isprintable()):
            raise MalformedMessageError(f"uri: expected printable ASCII, got {self.uri[:80]!r}")
        own = document_uri(public_url, to_hex(self.metadata_hash))
        if self.uri != own and not self.uri.startswith(URI_SCHEMES):
            raise MalformedMessageError(f"uri: expected {own}, or a place of your own (https://… or ipfs://…), got {self.uri[:80]!r}")


def document_uri(public_url: str, digest: str) -> str:
    """Where this marketplace publishes the document with this digest (0x and 64 digits)."""
    return f"{public_url.rstrip('/')}/v1/documents/{digest}"
