"""What is fixed when the first stages are closed: U1, whose keys count, and U2, who secret-shared; with a record of each.

Participants build these from the signed messages themselves, so they and the aggregator refuse the same things. Each record contains the
one before: who consents to the survivors (see `survivors`) has consented to one view of everybody's keys, shares and masked vectors.
"""

from collections.abc import Container, Mapping, Set
from dataclasses import dataclass
from functools import cached_property

from rexis.encoding import abi_encode, domain_tag, from_hex, keccak256
from rexis.errors import BelowThresholdError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.secagg_messages import Envelope
from rexis.secagg import graph, groups
from rexis.secagg.key_agreement import PublicKeys
from rexis.secagg.terms import RoundTerms


@dataclass(frozen=True)
class KeyDirectory:
    """U1: the participants whose keys count, and who is whose neighbour.

    Attributes:
        keys: position → public keys.
        graph_seed: 32 bytes that nobody knew when the roster was fixed, the hash of a block; zero for the complete graph.

    Raises:
        BelowThresholdError: too few for the sum ever to be revealed, in all, in one neighbourhood or in one group.
        MalformedMessageError: one key twice.
    """

    terms: RoundTerms
    keys: Mapping[int, PublicKeys]
    graph_seed: bytes = bytes(32)

    def __post_init__(self) -> None:
        if len(self.graph_seed) != 32:
            raise ValueError(f"expected 32 bytes of graph seed, got {len(self.graph_seed)}")
        check_number(self.terms, "participants who announced keys", len(self.keys))
        self.check_groups(self.keys.keys())
        distinct = {key for keys in self.keys.values() for key in (keys.mask, keys.encryption)}
        if len(distinct) != 2 * len(self.keys):
            raise MalformedMessageError("expected distinct keys, got one key twice: somebody repeats another's")
        check_neighbourhoods(self, frozenset(self.keys), frozenset(self.keys))

    @classmethod
    def freeze(cls, terms: RoundTerms, messages: Mapping[int, Envelope], graph_seed: bytes) -> "KeyDirectory":
        """From verified messages by position."""
        return cls(terms, {position: read_keys(position, message) for position, message in sorted(messages.items())}, graph_seed)

    @cached_property
    def neighbours(self) -> dict[int, frozenset[int]]:
        """Position → whom it shares masks with."""
        joined: dict[int, frozenset[int]] = {}
        for group in self.groups:
            joined |= graph.neighbours(group, self.terms.degree, self.graph_seed)
        return {position: joined[position] & self.keys.keys() for position in self.keys}

    @cached_property
    def groups(self) -> tuple[frozenset[int], ...]:
        """Positions that are summed together, as drawn from the whole roster; without groups everybody."""
        return self.terms.groups_of(self.graph_seed)

    def check_groups(self, present: Set[int]) -> None:
        """Refuse a part of a group, and fewer groups than the robust rule takes (BelowThresholdError)."""
        if self.terms.groups is not None:
            groups.check_groups(self.terms.groups, self.groups, self.terms.group_thresholds, present)

    def holders(self, position: int) -> frozenset[int]:
        """Who holds shares of that participant's secrets: its neighbours and itself."""
        return self.neighbours[position] | {position}

    @property
    def is_complete(self) -> bool:
        """Whether everybody is everybody's neighbour, in each group."""
        return graph.is_complete(len(self.terms.roster), self.terms.degree)

    def threshold(self, position: int) -> int:
        """Shares that rebuild a secret of that participant."""
        degree = self.terms.degree
        if self.terms.groups is not None:
            return next(self.terms.group_thresholds[len(group)].threshold for group in self.groups if position in group)
        if degree is None or self.is_complete:
            return self.terms.thresholds.threshold
        return graph.neighbourhood_threshold(len(self.terms.roster), self.terms.thresholds.collusion_bound, degree)

    @cached_property
    def record(self) -> bytes:
        """32 bytes over context, parameters, graph seed and all keys; part of every encrypted share."""
        positions = sorted(self.keys)
        return keccak256(
            abi_encode(
                ["string", "bytes32", "bytes32", "bytes32", "uint64[]", "bytes32[]", "bytes32[]"],
                [
                    domain_tag("secagg/keys-record", 1).decode(),
                    self.terms.ctx,
                    self.terms.parameters,
                    self.graph_seed,
                    positions,
                    [self.keys[position].mask for position in positions],
                    [self.keys[position].encryption for position in positions],
                ],
            )
        )


@dataclass(frozen=True)
class ShareDirectory:
    """U2: the participants who secret-shared, and so can drop out from now on without spoiling the sum.

    Attributes:
        digests: position → payload digest of its message, 32 bytes.

    Raises:
        BelowThresholdError: too few, in all, in one neighbourhood or in one group.
    """

    keys: KeyDirectory
    digests: Mapping[int, bytes]

    def __post_init__(self) -> None:
        check_number(self.keys.terms, "participants who shared their secrets", len(self.digests))
        self.keys.check_groups(self.positions)
        check_neighbourhoods(self.keys, self.positions, self.positions)

    @classmethod
    def freeze(cls, keys: KeyDirectory, messages: Mapping[int, Envelope]) -> "ShareDirectory":
        """From verified messages by position."""
        for position, message in messages.items():
            check_shares(keys, position, message)
        return cls(keys, {position: message.payload_digest for position, message in sorted(messages.items())})

    @property
    def terms(self) -> RoundTerms:
        """Terms of the attempt."""
        return self.keys.terms

    @cached_property
    def positions(self) -> frozenset[int]:
        """Members of U2."""
        return frozenset(self.digests)

    def masked_with(self, position: int) -> frozenset[int]:
        """Whose pairwise masks are in that participant's vector."""
        return self.keys.neighbours[position] & self.positions

    @cached_property
    def record(self) -> bytes:
        """32 bytes over the keys' record and all messages of this stage."""
        positions = sorted(self.digests)
        return keccak256(
            abi_encode(
                ["string", "bytes32", "uint64[]", "bytes32[]"],
                [
                    domain_tag("secagg/shares-record", 1).decode(),
                    self.keys.record,
                    positions,
                    [self.digests[position] for position in positions],
                ],
            )
        )


def read_keys(position: int, message: Envelope) -> PublicKeys:
    """The keys of a verified message.

    Raises:
        MalformedMessageError: for another position than its sender's, or no usable keys.
    """
    payload = message.payload
    if payload["position"] != position:
        raise MalformedMessageError(f"{message.sender} has position {position}, got keys for position {payload['position']}")
    return PublicKeys(from_hex(payload["mask"], 32), from_hex(payload["encryption"], 32))


def check_shares(keys: KeyDirectory, position: int, message: Envelope) -> None:
    """Check that a verified message has one ciphertext for each neighbour.

    Raises:
        UnexpectedMessageError: from a participant whose keys do not count.
        MalformedMessageError: a neighbour is missing, or somebody else is addressed.
    """
    check_member(message, position, keys.keys, "announced keys in time")
    due = keys.terms.addresses(keys.neighbours[position])
    if [entry["to"] for entry in message.payload["ciphertexts"]] != due:
        raise MalformedMessageError(f"{message.sender}: expected a ciphertext for each of its {len(due)} neighbours, and for nobody else")


def check_member(message: Envelope, position: int, members: Container[int], what: str) -> None:
    """Refuse a message from somebody who dropped out at an earlier stage (UnexpectedMessageError)."""
    if position not in members:
        raise UnexpectedMessageError(f"{message.sender} is not among those who {what}: it dropped out of this attempt")


def check_number(terms: RoundTerms, what: str, number: int) -> None:
    """Refuse to go on with fewer than could ever be revealed together (BelowThresholdError)."""
    if number < terms.thresholds.min_survivors:
        raise BelowThresholdError(what, terms.thresholds.min_survivors, number)


def check_neighbourhoods(keys: KeyDirectory, dealers: Set[int], present: Set[int]) -> None:
    """Refuse to go on when the secrets of a dealer could not be rebuilt by those present (BelowThresholdError)."""
    for position in sorted(dealers):
        held, needed = len(keys.holders(position) & present), keys.threshold(position)
        if held < needed:
            raise BelowThresholdError(f"neighbourhood of {keys.terms.address(position)}", needed, held)
