"""What the FederationRegistry computes about a round, and what aggregators sign for it (wire formats, section 5)."""

from collections.abc import Mapping
from dataclasses import dataclass

from rexis.commitments.positional_tree import SALT_BYTES
from rexis.encoding import abi_encode, keccak256
from rexis.protocol.typed_data import Domain, TypedMessage

SURVIVORS_TYPE = "Survivors(bytes32 federation,uint64 round,uint64 attempt,bytes32 survivorsHash,bytes32 maskedRecord)"
RESULT_TYPE = (
    "Result(bytes32 federation,uint64 round,uint64 attempt,bytes32 survivorsHash,bytes32 accumulator,uint32 updates,"
    "bytes32 baseModel,bytes32 aggregate,bytes32 model,bytes32 metrics,uint64 epsilonMicro)"
)
NO_METRICS = bytes(32)


def federation_id(chain_id: int, registry: str, founder: str, config_hash: bytes) -> bytes:
    """Id of the federation that `founder` creates of this configuration (32 bytes); known before it is on chain.

    keccak256(abi.encode(uint256 chainId, address registry, address founder, bytes32 configHash)).

    Raises:
        EncodingError: a bad address, a hash of another size, or a negative chain id.
    """
    return keccak256(abi_encode(["uint256", "address", "address", "bytes32"], [chain_id, registry, founder, config_hash]))


def update_commitment(ctx: bytes, participant: str, digest: bytes, salt: bytes) -> bytes:
    """What a participant commits to on chain before a sum is known (32 bytes).

    keccak256(abi.encode(bytes32 ctx, address participant, bytes32 digest, bytes16 salt)): with the participant inside nobody can
    copy it, and without the salt nobody can test a guess.

    Args:
        ctx: 32 bytes from `secagg_context`.
        participant: checksum address.
        digest: tensor digest of the update as it was quantised, before masking, 32 bytes.
        salt: 16 random bytes, kept in the journal.

    Raises:
        EncodingError: a value of another form.
    """
    return keccak256(abi_encode(["bytes32", "address", "bytes32", f"bytes{SALT_BYTES}"], [ctx, participant, digest, salt]))


def accumulate(ctx: bytes, commitments: Mapping[str, bytes]) -> bytes:
    """The accumulator over the survivors (32 bytes): which updates, and no others, the sum of a round holds.

    a_0 = ctx, a_i = keccak256(abi.encode(bytes32 a_(i-1), address participant, bytes32 commitment)) in ascending order of address.

    Args:
        ctx: 32 bytes from `secagg_context`.
        commitments: what each survivor committed to on chain, 32 bytes by checksum address.

    Raises:
        EncodingError: a value of another form.
    """
    accumulator = ctx
    for participant in sorted(commitments, key=str.lower):
        encoded = abi_encode(["bytes32", "address", "bytes32"], [accumulator, participant, commitments[participant]])
        accumulator = keccak256(encoded)
    return accumulator


@dataclass(frozen=True)
class Survivors:
    """Whose masked vectors are in the sum of a round; the quorum's signatures fix it once.

    Attributes:
        federation: id, 32 bytes.
        round_number, attempt: from 1.
        survivors_hash: from `secagg_messages.survivors_hash`, 32 bytes.
        masked_record: record of the masked vectors (tree of kind `update`), 32 bytes.

    Raises:
        ValueError: a field of another size.
    """

    federation: bytes
    round_number: int
    attempt: int
    survivors_hash: bytes
    masked_record: bytes

    def __post_init__(self) -> None:
        _check(self.fields())

    def fields(self) -> dict[str, bytes | int]:
        """The struct that is signed, by its member names."""
        return {
            "federation": self.federation,
            "round": self.round_number,
            "attempt": self.attempt,
            "survivorsHash": self.survivors_hash,
            "maskedRecord": self.masked_record,
        }

    def typed_data(self, chain_id: int, registry: str) -> TypedMessage:
        """What each aggregator signs; `registry` is the checksum address of the federation registry."""
        return TypedMessage(Domain(chain_id, registry), SURVIVORS_TYPE, self.fields())


@dataclass(frozen=True)
class RoundResult:
    """What a round made of its base model; the quorum's signatures put it on chain.

    Attributes:
        federation: id, 32 bytes.
        round_number, attempt: from 1.
        survivors_hash, accumulator: as fixed on chain, 32 bytes each.
        updates: number of survivors.
        base_model: record of the model that the updates start from, 32 bytes.
        aggregate: digest of the sum that was unmasked, 32 bytes.
        model: record of the new model, 32 bytes.
        metrics: digest of the canonical metrics of the round, or `NO_METRICS`.
        epsilon_micro: privacy loss spent by the federation so far, in millionths of ε; 0 where no differential privacy is claimed.

    Raises:
        ValueError: a field of another size.
    """

    federation: bytes
    round_number: int
    attempt: int
    survivors_hash: bytes
    accumulator: bytes
    updates: int
    base_model: bytes
    aggregate: bytes
    model: bytes
    metrics: bytes = NO_METRICS
    epsilon_micro: int = 0

    def __post_init__(self) -> None:
        _check(self.fields())

    def fields(self) -> dict[str, bytes | int]:
        """The struct by its member names: the argument of `finalise`, and the message that is signed."""
        return {
            "federation": self.federation,
            "round": self.round_number,
            "attempt": self.attempt,
            "survivorsHash": self.survivors_hash,
            "accumulator": self.accumulator,
            "updates": self.updates,
            "baseModel": self.base_model,
            "aggregate": self.aggregate,
            "model": self.model,
            "metrics": self.metrics,
            "epsilonMicro": self.epsilon_micro,
        }

    def typed_data(self, chain_id: int, registry: str) -> TypedMessage:
        """What each aggregator signs; `registry` is the checksum address of the federation registry."""
        return TypedMessage(Domain(chain_id, registry), RESULT_TYPE, self.fields())


def approvals(signatures: Mapping[str, bytes]) -> list[dict[str, str | bytes]]:
    """Aggregators' signatures by checksum address, in the order in which `fixSurvivors` and `finalise` take them."""
    return [{"signer": signer, "signature": signatures[signer]} for signer in sorted(signatures, key=str.lower)]


def _check(fields: Mapping[str, bytes | int]) -> None:
    for name, value in fields.items():
        bits = 32 if name == "updates" else 64
        if isinstance(value, bytes) and len(value) != 32:
            raise ValueError(f"{name}: expected 32 bytes, got {len(value)}")
        if isinstance(value, int) and not 0 <= value < 1 << bits:
            raise ValueError(f"{name}: expected an unsigned integer of {bits} bits, got {value}")
