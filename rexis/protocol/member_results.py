"""What a member of a federation with the group pad says a round made (wire formats, section 5).

The aggregators see the sum under the pads. Members have the key, take the pads off, compute the round's result, and sign it; aggregators
put on chain what at least the federation's threshold of members signed alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from rexis.encoding import checksum_address, from_hex, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.approvals import MAX_ROUND
from rexis.protocol.document_members import address, bytes32, integer, members_of
from rexis.protocol.signatures import SIGNATURE_BYTES
from rexis.protocol.typed_data import Domain, TypedMessage, verify_signer

VERSION = 1
MEMBER_RESULT_TYPE = (
    "MemberResult(bytes32 federation,uint64 round,uint64 attempt,bytes32 survivorsHash,bytes32 aggregate,bytes32 groupKey,"
    "bytes32 model,bytes32 metrics)"
)
# In the place of model and metrics: under this member's key the sum is none that honest sites can have made.
NO_RESULT = bytes(32)
_DIGESTS = ("federation", "survivors_hash", "aggregate", "group_key", "model", "metrics")


@dataclass(frozen=True)
class MemberResult:
    """One member's statement about one attempt.

    Attributes:
        member: checksum address.
        federation: id, 32 bytes.
        round, attempt: from 1.
        survivors_hash: as fixed on chain, 32 bytes.
        aggregate: digest of the padded sum that was shown to this member, 32 bytes.
        group_key: commitment of the key that it took the pads off with, 32 bytes.
        model, metrics: record of the new model and digest of the round's metrics, 32 bytes each; `NO_RESULT` if there is none.
        signature: 65 bytes, empty until signed.

    Raises:
        ValueError: a field of another form.
    """

    member: str
    federation: bytes
    round: int
    attempt: int
    survivors_hash: bytes
    aggregate: bytes
    group_key: bytes
    model: bytes
    metrics: bytes
    signature: bytes = b""

    def __post_init__(self) -> None:
        if self.member != checksum_address(self.member) or len(self.signature) not in (0, SIGNATURE_BYTES):
            raise ValueError("expected a checksum address and a signature of 65 bytes")
        for name in _DIGESTS:
            if len(getattr(self, name)) != 32:
                raise ValueError(f"{name}: expected 32 bytes, got {len(getattr(self, name))}")

    @property
    def said(self) -> tuple[bytes, ...]:
        """What has to be alike in the statements of one attempt."""
        return self.survivors_hash, self.aggregate, self.group_key, self.model, self.metrics

    def typed_data(self, chain_id: int, registry: str) -> TypedMessage:
        """What the member signs; `registry` is the checksum address of the federation registry."""
        message = {
            "federation": self.federation,
            "round": self.round,
            "attempt": self.attempt,
            "survivorsHash": self.survivors_hash,
            "aggregate": self.aggregate,
            "groupKey": self.group_key,
            "model": self.model,
            "metrics": self.metrics,
        }
        return TypedMessage(Domain(chain_id, registry), MEMBER_RESULT_TYPE, message)

    def signed(self, signature: bytes) -> Self:
        """The statement with its signature."""
        return replace(self, signature=signature)

    def verify(self, chain_id: int, registry: str) -> None:
        """Check that the member signed this.

        Raises:
            SignatureError: it did not.
        """
        verify_signer(self.typed_data(chain_id, registry), self.signature, self.member)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        digests = {name: to_hex(getattr(self, name)) for name in (*_DIGESTS, "signature")}
        return {"version": VERSION, "member": self.member, "round": self.round, "attempt": self.attempt, **digests}

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a statement that came from someone else; its signature is not checked here.

        Raises:
            MalformedMessageError: unknown, missing or ill-formed members.
        """
        fields = members_of("member result", value, f"version member round attempt signature {' '.join(_DIGESTS)}")
        if type(fields["version"]) is not int or fields["version"] != VERSION:
            raise MalformedMessageError(f"expected version {VERSION} of a member result, got {str(fields['version'])[:40]}")
        try:
            signature = from_hex(fields["signature"], SIGNATURE_BYTES)
        except (EncodingError, TypeError, AttributeError) as error:
            raise MalformedMessageError(f"member result: signature: {error}") from error
        return cls(
            member=address("member", fields["member"]),
            round=integer("round", fields["round"], 1, MAX_ROUND),
            attempt=integer("attempt", fields["attempt"], 1, MAX_ROUND),
            **{name: bytes32(name, fields[name]) for name in _DIGESTS},
            signature=signature,
        )


def largest(results: Sequence[MemberResult]) -> tuple[MemberResult, ...]:
    """The largest group of statements that say the same; of equal ones, that of the lowest address."""
    alike = [tuple(each for each in results if each.said == one.said) for one in sorted(results, key=lambda one: one.member.lower())]
    return max(alike, key=len, default=())


def disagreement(results: Sequence[MemberResult]) -> str:
    """For people: which members say what. Digests and addresses only."""
    lines = []
    for said in dict.fromkeys(each.said for each in results):
        one = next(each for each in results if each.said == said)
        members = ", ".join(each.member for each in results if each.said == said)
        what = "no model that honest sites can have made" if one.model == NO_RESULT else f"the model {to_hex(one.model)}"
        lines.append(f"{members} found {what} in the sum {to_hex(one.aggregate)} with the group key {to_hex(one.group_key)}")
    return "; ".join(lines)
