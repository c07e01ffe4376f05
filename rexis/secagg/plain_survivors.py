"""Whose vectors are summed in a round without masks, and what is fixed of them on chain.

A vector without masks is salted: its last 32 bytes are random. Its digest is shown to the other members and enters a record on chain, and
training is deterministic, so that whoever guesses a site's rows could otherwise compare the digest with that of the guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from rexis.commitments import Leaf, LeafKind, MerkleTree, chain_context
from rexis.encoding import abi_encode, domain_tag, from_hex, keccak256
from rexis.errors import MalformedMessageError
from rexis.protocol.secagg_messages import Envelope, survivors_hash
from rexis.secagg.survivors import FixedSurvivors
from rexis.secagg.terms import RoundTerms
from rexis.secagg.transcript import check_number


@dataclass(frozen=True)
class PlainSurvivors:
    """The participants whose vectors are complete; the sum is over them and nobody else.

    Attributes:
        terms: of an attempt without masks.
        digests: position → digest of its vector (`UploadManifest.digest`), 32 bytes.

    Raises:
        BelowThresholdError: fewer than the federation agreed on.
        ValueError: terms of an attempt with masks.
    """

    terms: RoundTerms
    digests: Mapping[int, bytes]

    def __post_init__(self) -> None:
        check_plain(self.terms)
        check_number(self.terms, "survivors of the round", len(self.digests))

    @classmethod
    def freeze(cls, terms: RoundTerms, messages: Mapping[int, Envelope]) -> "PlainSurvivors":
        """From verified messages by position."""
        return cls(terms, {position: read_plain(terms, message) for position, message in sorted(messages.items())})

    @cached_property
    def positions(self) -> frozenset[int]:
        """Who they are."""
        return frozenset(self.digests)

    @cached_property
    def fixed(self) -> FixedSurvivors:
        """Hash of the set, and record of its vectors: the tree of `SurvivorSet.fixed` under another context, that of no masks."""
        terms = self.terms
        values = [domain_tag("secagg/plain-record", 1).decode(), terms.ctx, terms.parameters]
        context = chain_context(terms.chain_id, terms.registry, keccak256(abi_encode(["string", "bytes32", "bytes32"], values)))
        addresses = terms.addresses(self.positions)
        leaves = [Leaf(self.digests[position], sub=position) for position in map(terms.position, addresses)]
        return FixedSurvivors(survivors_hash(terms.ctx, addresses), MerkleTree(LeafKind.UPDATE, context, leaves).record)


def check_plain(terms: RoundTerms) -> None:
    """Refuse terms of an attempt with masks (ValueError): nothing of it is ever sent, or summed, without them."""
    if terms.masked:
        raise ValueError("expected terms of an attempt without masks, got one whose vectors are masked")


def read_plain(terms: RoundTerms, message: Envelope) -> bytes:
    """The digest of the vector of a verified message.

    Raises:
        MalformedMessageError: a vector of another length or ring.
    """
    payload = message.payload
    if (payload["length"], payload["bits"]) != (terms.length, terms.ring_bits):
        raise MalformedMessageError(
            f"{message.sender}: expected {terms.length} entries of {terms.ring_bits} bits, got {payload['length']} of {payload['bits']}"
        )
    return from_hex(payload["digest"], 32)
