"""Evidence that an aggregator signed two different statements about what can only have one.

Two signatures are the whole evidence: anybody checks them with the registry's address and nothing else, and nobody can make them who
does not have the aggregator's key.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from rexis.encoding import to_hex
from rexis.errors import EquivocationError, UnexpectedMessageError
from rexis.protocol.approvals import Approval, Kind
from rexis.protocol.document_members import members_of


@dataclass(frozen=True)
class Equivocation:
    """Two approvals of one aggregator and one kind for one attempt, under different statements.

    Raises:
        UnexpectedMessageError: they do not contradict each other, so they are no evidence against anybody.
    """

    first: Approval
    second: Approval

    def __post_init__(self) -> None:
        ours, theirs = self.first, self.second
        if (ours.signer, ours.kind, ours.attempt) != (theirs.signer, theirs.kind, theirs.attempt):
            raise UnexpectedMessageError(
                f"no evidence of equivocation: expected one signer, one kind and one attempt, got {_subject(ours)} and {_subject(theirs)}"
            )
        if ours.statement == theirs.statement:
            raise UnexpectedMessageError(f"no evidence of equivocation: {ours.signer} signed the same statement twice")

    @property
    def signer(self) -> str:
        """Checksum address of who signed both."""
        return self.first.signer

    @property
    def kind(self) -> Kind:
        """What was signed twice."""
        return self.first.kind

    def verify(self, chain_id: int, registry: str) -> None:
        """Check both signatures; if this returns, the evidence is good.

        Args:
            chain_id, registry: where the federation stands; `registry` is a checksum address.

        Raises:
            SignatureError: one of them is not the signer's: no evidence against it.
        """
        for approval in (self.first, self.second):
            approval.verify(chain_id, registry)

    def error(self) -> EquivocationError:
        """What whoever has the evidence raises."""
        federation, round_number, attempt = self.first.attempt
        return EquivocationError(
            f"{self.signer} signed two different {self.kind} statements for round {round_number}, attempt {attempt} of federation "
            f"{to_hex(federation)}: its signatures count for nothing here any more"
        )

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"first": self.first.document(), "second": self.second.document()}

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read evidence that came from someone else; its signatures are not checked here.

        Raises:
            MalformedMessageError: unknown, missing or ill-formed members.
            UnexpectedMessageError: the two do not contradict each other.
        """
        fields = members_of("equivocation", value, "first second")
        return cls(Approval.parse(fields["first"]), Approval.parse(fields["second"]))


def contradictions(approvals: Iterable[Approval]) -> tuple[Equivocation, ...]:
    """Evidence among approvals from any number of places, one for each signer, kind and attempt; signatures are not checked here."""
    seen: dict[tuple[str, Kind, tuple[bytes, int, int]], Approval] = {}
    found: dict[tuple[str, Kind, tuple[bytes, int, int]], Equivocation] = {}
    for approval in approvals:
        key = approval.signer, approval.kind, approval.attempt
        before = seen.setdefault(key, approval)
        if before.statement != approval.statement:
            found.setdefault(key, Equivocation(before, approval))
    return tuple(found.values())


def _subject(approval: Approval) -> str:
    _, round_number, attempt = approval.attempt
    return f"{approval.kind} of round {round_number}, attempt {attempt} by {approval.signer}"
