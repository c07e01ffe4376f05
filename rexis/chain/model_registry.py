"""What the ModelRegistry is told, and its reasons of revocation, as values. No node is asked."""

from dataclasses import dataclass
from typing import Any, Self

from rexis.chain.calls import decode_call
from rexis.errors import MalformedMessageError

REGISTRY = "ModelRegistry"
# In the order of the contract's enum; `none` stands for a model that was not revoked.
REASONS = ("none", "model-withdrawn", "data-withdrawn", "key-compromise", "audit-failed", "superseded", "tooling-bug")
MAX_URI_BYTES = 512
URI_SCHEMES = ("https://", "ipfs://")


@dataclass(frozen=True)
class Authorisation:
    """Arguments of `ModelRegistry.authorise`.

    Attributes:
        model: model record, 32 bytes.
        spec_digest: digest of the model spec, leaf 0 of the record, 32 bytes.
        uri: where the public description is.
    """

    model: bytes
    spec_digest: bytes
    uri: str

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read call data.

        Raises:
            MalformedMessageError: not a canonical call of `authorise`.
        """
        function, arguments = decode_call(REGISTRY, data)
        if function != "authorise":
            raise MalformedMessageError(f"call: expected {REGISTRY}.authorise, got {function}")
        return cls(arguments["model"], arguments["specDigest"], arguments["uri"])

    @property
    def arguments(self) -> tuple[Any, ...]:
        """In the order of the function."""
        return self.model, self.spec_digest, self.uri

    def check_uri(self, own: str) -> None:
        """Check that the URI can lead to a description: to the service's own copy at `own`, or to a place of the owner's.

        Raises:
            MalformedMessageError: too long, of another scheme, or with a character that is not printable ASCII.
        """
        if len(self.uri.encode()) > MAX_URI_BYTES or not (self.uri.isascii() and self.uri.isprintable()):
            raise MalformedMessageError(f"uri: expected at most {MAX_URI_BYTES} bytes of printable ASCII, got {self.uri[:80]!r}")
        if self.uri != own and not self.uri.startswith(URI_SCHEMES):
            raise MalformedMessageError(f"uri: expected {own}, or a place of your own (https://… or ipfs://…), got {self.uri[:80]!r}")


def reason_number(name: str) -> int:
    """Number of a reason of revocation on chain.

    Raises:
        ValueError: no such reason.
    """
    if name not in REASONS[1:]:
        raise ValueError(f"expected a reason among {', '.join(REASONS[1:])}, got {name[:40]!r}")
    return REASONS.index(name)
