"""What every party of one attempt of one round knows before the first message, read from the chain and the manifest it commits to."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

from rexis.encoding import abi_encode, checksum_address, domain_tag, keccak256
from rexis.errors import EquivocationError, UnexpectedMessageError
from rexis.protocol.plan_parts import GroupPlan
from rexis.protocol.secagg_messages import MAX_PARTICIPANTS, SALT_BYTES, Envelope, Stage, secagg_context
from rexis.secagg.graph import is_complete, neighbourhood_threshold
from rexis.secagg.groups import draw_groups, group_thresholds, whole_groups
from rexis.secagg.masks import RingBits, RingDtype, ring_dtype
from rexis.secagg.thresholds import Thresholds, thresholds


@dataclass(frozen=True)
class RoundTerms:
    """One attempt of one round.

    A participant takes all of it from its own chain node and from the manifest whose hash stands there, nothing from the aggregator's word.

    Attributes:
        chain_id, registry: where the federation stands; `registry` is a checksum address.
        federation: 32-byte id.
        round, attempt: numbers.
        manifest_hash: 32 bytes; the manifest holds everything below and more.
        base_model: 32 bytes, record of the model that is trained from; for a statistic, the digest of its definition and data set version.
        roster: checksum addresses; the order gives positions 1..n, the x coordinates of the shares.
        thresholds: at least those of `thresholds.thresholds` against an active adversary.
        length: d, entries of an uploaded vector, extra slots included.
        ring_bits: 32 or 16 for models, 64 for statistics.
        degree: k of the neighbour graph, None for the complete one.
        masked: whether vectors are masked; without masks the aggregator sees each, and `length` ends with a salt.
        groups: how the roster is split, each group with a sum of its own; None for one sum over all.

    Raises:
        ValueError: ids of another size, a roster with a repeated address, or numbers out of range.
        BelowThresholdError: thresholds or a degree under which one update could be exposed.
    """

    chain_id: int
    registry: str
    federation: bytes
    round: int
    attempt: int
    manifest_hash: bytes
    base_model: bytes
    roster: tuple[str, ...]
    thresholds: Thresholds
    length: int
    ring_bits: RingBits = 32
    degree: int | None = None
    masked: bool = True
    groups: GroupPlan | None = None

    def __post_init__(self) -> None:
        for name, value in (("federation", self.federation), ("manifest_hash", self.manifest_hash), ("base_model", self.base_model)):
            if len(value) != 32:
                raise ValueError(f"{name}: expected 32 bytes, got {len(value)}")
        if any(address != checksum_address(address) for address in (self.registry, *self.roster)):
            raise ValueError("expected checksum addresses of registry and roster")
        if len(set(self.roster)) != len(self.roster) or len(self.roster) > MAX_PARTICIPANTS:
            raise ValueError(f"expected at most {MAX_PARTICIPANTS} distinct addresses, got {len(self.roster)}")
        if min(self.round, self.attempt) < 0 or self.length < 1 or self.ring_bits not in (16, 32, 64):
            raise ValueError(
                f"expected numbers from 0, a length from 1 and 16, 32 or 64 bits, got round {self.round}, attempt {self.attempt}, "
                f"length {self.length} and {self.ring_bits} bits"
            )
        self._check_thresholds()

    def _check_thresholds(self) -> None:
        given = self.thresholds
        least = thresholds(len(self.roster), given.collusion_bound)
        if given.participants != len(self.roster) or given.threshold < least.threshold or given.min_survivors > len(self.roster):
            raise ValueError(f"expected thresholds for {len(self.roster)} participants of at least t = {least.threshold}, got {given}")
        if given.min_survivors < max(given.threshold, least.min_survivors):
            raise ValueError(f"expected min_survivors of at least max(t, t_c + 2), got {given}")
        if self.degree is not None and not is_complete(len(self.roster), self.degree):
            neighbourhood_threshold(len(self.roster), given.collusion_bound, self.degree)
        if self.groups is not None:
            if self.degree is not None:
                raise ValueError("expected groups, which are complete inside, or a degree, got both")
            group_thresholds(len(self.roster), self.groups.count, given.collusion_bound)

    @cached_property
    def ctx(self) -> bytes:
        """32 bytes that every hash, key derivation and signature of this attempt includes."""
        return secagg_context(self.chain_id, self.registry, self.federation, self.round, self.attempt, self.manifest_hash)

    @cached_property
    def parameters(self) -> bytes:
        """Digest of what the manifest says about the protocol (32 bytes): who reads it differently cannot open the others' shares."""
        given = self.thresholds
        numbers = [given.collusion_bound, given.threshold, given.min_survivors, self.length, self.ring_bits, self.degree or 0]
        if self.groups is not None:
            numbers += [self.groups.count, self.groups.least]
        return keccak256(
            abi_encode(
                ["string", "bytes32", "address[]", "uint64[]"],
                [domain_tag("secagg/parameters", 1).decode(), self.base_model, list(self.roster), numbers],
            )
        )

    @cached_property
    def group_thresholds(self) -> Mapping[int, Thresholds]:
        """Size of a group → its thresholds; empty without groups."""
        given = self.thresholds
        return {} if self.groups is None else group_thresholds(given.participants, self.groups.count, given.collusion_bound)

    def groups_of(self, seed: bytes) -> tuple[frozenset[int], ...]:
        """Positions that are summed together, for a seed of 32 bytes; without groups one set of everybody."""
        if self.groups is None:
            return (frozenset(range(1, len(self.roster) + 1)),)
        return tuple(map(frozenset, draw_groups(seed, len(self.roster), self.groups.count)))

    def whole(self, seed: bytes, present: Set[int]) -> frozenset[int]:
        """Those present whose group, drawn with that seed, can still be opened; without groups all of them."""
        return frozenset(present) if self.groups is None else whole_groups(self.groups_of(seed), self.group_thresholds, present)

    @property
    def salt_entries(self) -> int:
        """Entries at the end of an uploaded vector that are random, where there are no masks."""
        return 0 if self.masked else 8 * SALT_BYTES // self.ring_bits

    @property
    def dtype(self) -> RingDtype:
        """Little-endian entries of a vector."""
        return ring_dtype(self.ring_bits)

    def address(self, position: int) -> str:
        """Checksum address at a position from 1."""
        return self.roster[position - 1]

    def addresses(self, positions: Iterable[int]) -> list[str]:
        """Their addresses in the order of messages: ascending."""
        return sorted(map(self.address, positions), key=str.lower)

    def position(self, address: str) -> int:
        """Position of an address, from 1.

        Raises:
            UnexpectedMessageError: it is not in the roster.
        """
        if address not in self.roster:
            raise UnexpectedMessageError(f"{address} is not in the roster of this round: it has no part in it")
        return self.roster.index(address) + 1

    def verified_position(self, envelope: Envelope, stage: Stage) -> int:
        """Check stage, sender and signature of a message.

        Returns:
            The sender's position.

        Raises:
            UnexpectedMessageError: of another stage, or from outside the roster.
            SignatureError: not signed by its sender, or for another chain, federation, round or attempt.
        """
        if envelope.stage is not stage:
            raise UnexpectedMessageError(f"expected messages of the stage {stage}, got one of {envelope.stage} from {envelope.sender}")
        position = self.position(envelope.sender)
        envelope.verify(self.chain_id, self.registry, self.ctx)
        return position

    def collect(self, envelopes: Sequence[Envelope], stage: Stage, own: Envelope | None = None) -> dict[int, Envelope]:
        """Position → verified message. The same message may come twice.

        Args:
            envelopes: of one stage, from the aggregator.
            own: what this participant itself sent at that stage.

        Raises:
            EquivocationError: one sender signed two different messages, or `own` was replaced.
            UnexpectedMessageError, SignatureError: see `verify`.
        """
        found: dict[int, Envelope] = {}
        for envelope in envelopes:
            position = self.position(envelope.sender) if envelope == own else self.verified_position(envelope, stage)
            first = found.setdefault(position, envelope)
            if first.payload != envelope.payload or (own is not None and own.sender == envelope.sender and own.payload != envelope.payload):
                raise EquivocationError(f"{envelope.sender} signed two different messages of the stage {stage}")
        return found
