"""What an aggregator signs about one attempt, as it travels between aggregators and members (wire formats, section 5).

An approval is whole in itself: who signed, what, and the signature that the registry will check. Whoever holds two that contradict each
other holds evidence (`rexis.protocol.equivocation`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from rexis.encoding import from_hex, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.document_members import address, bytes32, integer, members_of
from rexis.protocol.federation_rounds import RoundResult, Survivors
from rexis.protocol.signatures import SIGNATURE_BYTES
from rexis.protocol.typed_data import verify_signer

Statement = Survivors | RoundResult

# As far as services count rounds, and as JSON's numbers are exact; the registry's integers are larger.
MAX_ROUND, MAX_EPSILON_MICRO = (1 << 31) - 1, (1 << 53) - 1
_SURVIVORS = "federation round attempt survivorsHash maskedRecord"
_RESULT = "federation round attempt survivorsHash accumulator updates baseModel aggregate model metrics epsilonMicro"


class Kind(StrEnum):
    """What is approved: whose vectors the sum holds, or what was made of it."""

    SURVIVORS = "survivors"
    RESULT = "result"


@dataclass(frozen=True)
class Approval:
    """One aggregator's signature under one statement about one attempt.

    Attributes:
        statement: what is signed.
        signer: checksum address.
        signature: 65 bytes.

    Raises:
        ValueError: a signature of another size.
    """

    statement: Statement
    signer: str
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.signature) != SIGNATURE_BYTES:
            raise ValueError(f"expected a signature of {SIGNATURE_BYTES} bytes, got {len(self.signature)}")

    @property
    def kind(self) -> Kind:
        """What is approved."""
        return kind_of(self.statement)

    @property
    def attempt(self) -> tuple[bytes, int, int]:
        """Federation, round and attempt that it is about."""
        return self.statement.federation, self.statement.round_number, self.statement.attempt

    def verify(self, chain_id: int, registry: str) -> None:
        """Check that the signer signed this statement for this registry.

        Raises:
            SignatureError: malformed, malleated, or by another key.
        """
        verify_signer(self.statement.typed_data(chain_id, registry), self.signature, self.signer)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "kind": self.kind.value,
            "signer": self.signer,
            "statement": statement_document(self.statement),
            "signature": to_hex(self.signature),
        }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an approval that came from someone else; its signature is not checked here.

        Raises:
            MalformedMessageError: unknown, missing or ill-formed members.
        """
        fields = members_of("approval", value, "kind signer statement signature")
        if fields["kind"] not in list(Kind):
            raise MalformedMessageError(f"approval: expected the kind survivors or result, got {str(fields['kind'])[:40]!r}")
        try:
            signature = from_hex(fields["signature"], SIGNATURE_BYTES)
        except (EncodingError, TypeError, AttributeError) as error:
            raise MalformedMessageError(f"approval: signature: {error}") from error
        return cls(parse_statement(Kind(fields["kind"]), fields["statement"]), address("signer", fields["signer"]), signature)


def kind_of(statement: Statement) -> Kind:
    """What a statement approves."""
    return Kind.SURVIVORS if isinstance(statement, Survivors) else Kind.RESULT


def statement_document(statement: Statement) -> dict[str, Any]:
    """The signed struct by its member names, bytes in hexadecimal."""
    return {name: to_hex(value) if isinstance(value, bytes) else value for name, value in statement.fields().items()}


def parse_statement(kind: Kind, value: Any) -> Statement:
    """Read the struct of this kind.

    Raises:
        MalformedMessageError: unknown, missing or ill-formed members.
    """
    fields = members_of(f"approval of {kind}", value, _SURVIVORS if kind is Kind.SURVIVORS else _RESULT)
    numbers = {name: integer(name, fields[name], 1, MAX_ROUND) for name in ("round", "attempt")}
    digests = {name: bytes32(name, fields[name]) for name in fields if name not in ("round", "attempt", "updates", "epsilonMicro")}
    if kind is Kind.SURVIVORS:
        return Survivors(digests["federation"], numbers["round"], numbers["attempt"], digests["survivorsHash"], digests["maskedRecord"])
    return RoundResult(
        federation=digests["federation"],
        round_number=numbers["round"],
        attempt=numbers["attempt"],
        survivors_hash=digests["survivorsHash"],
        accumulator=digests["accumulator"],
        updates=integer("updates", fields["updates"], 1, (1 << 32) - 1),
        base_model=digests["baseModel"],
        aggregate=digests["aggregate"],
        model=digests["model"],
        metrics=digests["metrics"],
        epsilon_micro=integer("epsilonMicro", fields["epsilonMicro"], 0, MAX_EPSILON_MICRO),
    )
