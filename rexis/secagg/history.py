"""What an institution remembers of its earlier attempts, so that no two sums that differ by its update are ever opened.

After one answer in the unmask stage a participant sends nothing in any other attempt of that round, and it never trains twice on one
base model: otherwise two survivor sets differ by one site, and their sums by its update.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from rexis.encoding import canonical_json, from_hex, parse_canonical_json, to_hex
from rexis.errors import EncodingError, MalformedMessageError, UnexpectedMessageError
from rexis.secagg.terms import RoundTerms

VERSION = 1
MAX_RECORD_BYTES = 4096
_FIELDS = frozenset({"version", "chainId", "registry", "federation", "round", "attempt", "baseModel", "vector", "outcome"})


class Outcome(StrEnum):
    """How an attempt stands for this participant."""

    OPEN = "open"
    DROPPED = "dropped"
    ANSWERED = "answered"
    # Of an attempt without masks: the vector itself was given, so that giving the same one again tells nothing more.
    SENT = "sent"


@dataclass(frozen=True)
class AttemptRecord:
    """What outlives the secrets of an attempt. Store it sealed: the digest of a small table of counts can be guessed.

    Attributes:
        chain_id, registry, federation, round: which round.
        attempt: number of the attempt.
        base_model: 32 bytes, see `RoundTerms`.
        vector: 32 bytes, digest of the vector before masking; None while none was masked.
        outcome: whether it is still open, and if not, whether shares were given, or the vector itself.
    """

    chain_id: int
    registry: str
    federation: bytes
    round: int
    attempt: int
    base_model: bytes
    vector: bytes | None
    outcome: Outcome

    @classmethod
    def of(cls, terms: RoundTerms, vector: bytes | None, outcome: Outcome) -> "AttemptRecord":
        """Record of an attempt under those terms."""
        return cls(terms.chain_id, terms.registry, terms.federation, terms.round, terms.attempt, terms.base_model, vector, outcome)

    def is_of_round(self, terms: RoundTerms) -> bool:
        """Whether it is an attempt of the same round."""
        return (self.chain_id, self.registry, self.federation, self.round) == (
            terms.chain_id,
            terms.registry,
            terms.federation,
            terms.round,
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(
            {
                "version": VERSION,
                "chainId": self.chain_id,
                "registry": self.registry,
                "federation": to_hex(self.federation),
                "round": self.round,
                "attempt": self.attempt,
                "baseModel": to_hex(self.base_model),
                "vector": None if self.vector is None else to_hex(self.vector),
                "outcome": self.outcome.value,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "AttemptRecord":
        """Read what `to_bytes` writes.

        Raises:
            MalformedMessageError: anything else.
        """
        try:
            value = parse_canonical_json(data, max_bytes=MAX_RECORD_BYTES)
            if not isinstance(value, dict) or set(value) != _FIELDS or value["version"] != VERSION:
                raise MalformedMessageError(
                    f"attempt record: expected version {VERSION} and exactly the fields {', '.join(sorted(_FIELDS))}"
                )
            return cls(
                chain_id=int(value["chainId"]),
                registry=str(value["registry"]),
                federation=from_hex(value["federation"], 32),
                round=int(value["round"]),
                attempt=int(value["attempt"]),
                base_model=from_hex(value["baseModel"], 32),
                vector=None if value["vector"] is None else from_hex(value["vector"], 32),
                outcome=Outcome(value["outcome"]),
            )
        except (EncodingError, ValueError, TypeError) as error:
            raise MalformedMessageError(f"attempt record: {error}") from error


def vector_bound_by(terms: RoundTerms, earlier: Iterable[AttemptRecord]) -> bytes | None:
    """The digest that the vector of a new attempt must have because of earlier ones, None if it is free.

    Raises:
        UnexpectedMessageError: an earlier attempt forbids this one; the message says which and why.
    """
    bound: bytes | None = None
    for record in earlier:
        if record.is_of_round(terms):
            where = f"round {record.round}, attempt {record.attempt}"
            if record.outcome is Outcome.ANSWERED:
                raise UnexpectedMessageError(f"{where} was answered: nothing is sent in any other attempt of that round")
            if record.attempt >= terms.attempt:
                raise UnexpectedMessageError(
                    f"{where} was taken part in: expected a later attempt than {terms.attempt}, or its restored state"
                )
            if record.outcome is Outcome.OPEN:
                raise UnexpectedMessageError(f"{where} is still open: drop out of it first")
        if record.base_model != terms.base_model or record.vector is None:
            continue
        if record.outcome is Outcome.ANSWERED or (record.outcome is Outcome.SENT and not record.is_of_round(terms)):
            raise UnexpectedMessageError(
                f"an update of base model {to_hex(terms.base_model)} was summed in round {record.round}: never twice"
            )
        if bound not in (None, record.vector):
            raise UnexpectedMessageError(f"two vectors of base model {to_hex(terms.base_model)} are on record: neither is sent")
        bound = record.vector
    return bound
