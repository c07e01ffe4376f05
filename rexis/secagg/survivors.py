"""U3: whose masked vectors are summed. One set for each attempt, agreed on by signatures or by the chain before any share is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rexis.commitments import Leaf, LeafKind, MerkleTree, chain_context
from rexis.encoding import from_hex, to_hex
from rexis.errors import EquivocationError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.secagg_messages import Envelope, survivors_hash
from rexis.secagg.transcript import ShareDirectory, check_member, check_neighbourhoods, check_number


@dataclass(frozen=True)
class FixedSurvivors:
    """What is written once for each attempt, on chain or by t signatures.

    Attributes:
        survivors: 32 bytes, `survivors_hash` of their addresses.
        masked: 32 bytes, record of the masked vectors.
    """

    survivors: bytes
    masked: bytes


@dataclass(frozen=True)
class SurvivorSet:
    """U3: the participants whose masked vectors are complete; the sum is over them and nobody else.

    Attributes:
        digests: position → digest of its masked vector (`UploadManifest.digest`), 32 bytes.

    Raises:
        BelowThresholdError: a sum over so few could expose one of them, or a neighbourhood or a group lost too many.
    """

    shares: ShareDirectory
    digests: Mapping[int, bytes]

    def __post_init__(self) -> None:
        check_number(self.shares.terms, "survivors of the round", len(self.digests))
        self.shares.keys.check_groups(self.positions)
        check_neighbourhoods(self.shares.keys, self._concerned, self.positions)

    @classmethod
    def freeze(cls, shares: ShareDirectory, messages: Mapping[int, Envelope]) -> "SurvivorSet":
        """From verified messages by position."""
        return cls(shares, {position: read_masked(shares, position, message) for position, message in sorted(messages.items())})

    @cached_property
    def positions(self) -> frozenset[int]:
        """Members of U3."""
        return frozenset(self.digests)

    @cached_property
    def groups(self) -> tuple[frozenset[int], ...]:
        """The groups that are opened, each with its sum, in the order in which they were drawn; without groups one of everybody."""
        return tuple(group for group in self.shares.keys.groups if group & self.positions)

    @cached_property
    def dropped(self) -> frozenset[int]:
        """U2 without U3: survivors' vectors hold masks with them. Of a group that was left out nothing is in any sum."""
        return self._concerned - self.positions

    @cached_property
    def answerers(self) -> frozenset[int]:
        """Who may answer in the stage unmask: in the complete graph all of U2, in a sparse one the survivors only.

        Of groups, each of which is complete, all of U2 but the members of a group that was left out.
        In a sparse graph an aggregator could declare all honest neighbours of one site dropped, and still have them open its self mask.
        """
        return self._concerned if self.shares.keys.is_complete else self.positions

    @cached_property
    def fixed(self) -> FixedSurvivors:
        """Hash of the set, and record of its masked vectors: a tree of kind "update" over (digest, position as `sub`), by address.

        The tree's context is the shares' record on this registry: the same vectors under another view of the round have another record.
        """
        terms = self.shares.terms
        context = chain_context(terms.chain_id, terms.registry, self.shares.record)
        addresses = terms.addresses(self.positions)
        leaves = [Leaf(self.digests[position], sub=position) for position in map(terms.position, addresses)]
        return FixedSurvivors(survivors_hash(terms.ctx, addresses), MerkleTree(LeafKind.UPDATE, context, leaves).record)

    def consent(self) -> dict[str, Any]:
        """Payload of the stage survivors."""
        return {"survivors": self.shares.terms.addresses(self.positions), "masked": to_hex(self.fixed.masked)}

    def answer(self, position: int, shares: Mapping[int, tuple[bytes, bytes]]) -> dict[str, Any]:
        """Payload of the stage unmask: of survivors the share of the self seed, of others the share of the mask key, never both of one.

        Args:
            position: of the participant who answers.
            shares: position of each neighbour in U2, and its own → shares of (self seed, mask key).

        Raises:
            UnexpectedMessageError: this participant must not answer.
        """
        self._check_answerer(position)

        def shares_of(positions: frozenset[int], which: int) -> list[dict[str, str]]:
            held = {self.shares.terms.address(of): shares[of][which] for of in positions & self._answered_by(position)}
            return [{"of": address, "share": to_hex(held[address])} for address in sorted(held, key=str.lower)]

        return {
            "survivors": to_hex(self.fixed.survivors),
            "self": shares_of(self.positions, 0),
            "pairwise": shares_of(self.dropped, 1),
        }

    def check_answer(self, position: int, message: Envelope) -> None:
        """Check that a message of the stage unmask gives exactly the shares that are due.

        Raises:
            UnexpectedMessageError: of another survivor set, or of other participants.
        """
        self._check_answerer(position)
        if message.payload["survivors"] != to_hex(self.fixed.survivors):
            raise UnexpectedMessageError(f"{message.sender} answers for another survivor set than {to_hex(self.fixed.survivors)}")
        for field, positions in (("self", self.positions), ("pairwise", self.dropped)):
            due = self.shares.terms.addresses(positions & self._answered_by(position))
            if [entry["of"] for entry in message.payload[field]] != due:
                raise UnexpectedMessageError(
                    f"{message.sender}: {field}: expected shares of exactly {len(due)} participants: {', '.join(due)}"
                )

    @cached_property
    def _concerned(self) -> frozenset[int]:
        return self.shares.positions & frozenset().union(*self.groups)

    def _check_answerer(self, position: int) -> None:
        if position not in self.answerers:
            raise UnexpectedMessageError(f"{self.shares.terms.address(position)} is not among those who may answer: it dropped out")

    def _answered_by(self, position: int) -> frozenset[int]:
        return self.shares.keys.holders(position) & self.shares.positions


def read_masked(shares: ShareDirectory, position: int, message: Envelope) -> bytes:
    """The digest of the masked vector of a verified message.

    Raises:
        UnexpectedMessageError: from a participant who did not share its secrets.
        MalformedMessageError: a vector of another length or ring.
    """
    check_member(message, position, shares.positions, "shared its secrets in time")
    payload, terms = message.payload, shares.terms
    if (payload["length"], payload["bits"]) != (terms.length, terms.ring_bits):
        raise MalformedMessageError(
            f"{message.sender}: expected {terms.length} entries of {terms.ring_bits} bits, got {payload['length']} of {payload['bits']}"
        )
    return from_hex(payload["digest"], 32)


def check_consent(survivors: SurvivorSet, position: int, message: Envelope) -> None:
    """Check that a verified message of the stage survivors names this very set, over the same view of the round.

    Raises:
        UnexpectedMessageError: from a participant who did not share its secrets.
        EquivocationError: its sender was shown another set, other masked vectors, or other messages of the stages before.
    """
    check_member(message, position, survivors.shares.positions, "shared its secrets in time")
    if message.payload != survivors.consent():
        raise EquivocationError(
            f"{message.sender} signed survivors {', '.join(message.payload['survivors'])} with masked vectors {message.payload['masked']}, "
            f"expected {', '.join(survivors.consent()['survivors'])} with {to_hex(survivors.fixed.masked)}: the views of this round differ"
        )
