"""Transcript of an evaluation, and the late seed that follows from it (wire formats, section 9); `Transcript.sol` computes the same.

The seed says which items auditors look at. Had the provider been able to know or choose it before its commitments, it would have made
only those items right; so it is mixed from everything that was committed to, a block that came later, and nonces of all parties.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from rexis.encoding import abi_encode, domain_tag, sha256

START = domain_tag("transcript", 1)


@dataclass(frozen=True)
class Commitments:
    """What an evaluation is committed to, 32 bytes each, in the order in which it is fixed: the first four before the run.

    Attributes:
        spec_hash: digest of the specification.
        model: record of the model.
        data_record: record of the test data.
        key_commitment: to the id of the key that the evaluation runs under.
        trace, outputs, scores: records of the boundary states, the encrypted outputs, and the decrypted, rounded scores.
        claim_hash: digest of the metrics that are claimed.

    Raises:
        ValueError: a value of another size.
    """

    spec_hash: bytes
    model: bytes
    data_record: bytes
    key_commitment: bytes
    trace: bytes
    outputs: bytes
    scores: bytes
    claim_hash: bytes

    def __post_init__(self) -> None:
        for tag, value in self.tagged():
            if len(value) != 32:
                raise ValueError(f"{tag}: expected 32 bytes, got {len(value)}")

    def tagged(self) -> tuple[tuple[str, bytes], ...]:
        """The values under the names by which the transcript takes them in."""
        return (
            ("specHash", self.spec_hash),
            ("modelRecord", self.model),
            ("dataRecord", self.data_record),
            ("keyCommit", self.key_commitment),
            ("traceRecord", self.trace),
            ("outputsRecord", self.outputs),
            ("scoresRecord", self.scores),
            ("claimHash", self.claim_hash),
        )


def transcript_digest(chain_id: int, registry: str, evaluation: bytes, commitments: Commitments) -> bytes:
    """The transcript's last digest (32 bytes).

    T_0 = SHA-256("rexis/transcript/1" ‖ abi.encode(uint256 chainId, address registry, bytes32 evaluation)),
    T_(k+1) = SHA-256(T_k ‖ tag ‖ u64le(len value) ‖ value).

    Args:
        registry: checksum address of the EvaluationRegistry.
        evaluation: id, 32 bytes.

    Raises:
        EncodingError: a bad address, an id of another size, or a negative chain id.
    """
    digest = sha256(START + abi_encode(["uint256", "address", "bytes32"], [chain_id, registry, evaluation]))
    for tag, value in commitments.tagged():
        digest = sha256(digest + tag.encode("ascii") + struct.pack("<Q", len(value)) + value)
    return digest


def evaluation_seed(transcript: bytes, beacon: bytes, nonces: Mapping[str, bytes]) -> bytes:
    """The seed (32 bytes): SHA-256(transcript ‖ beacon ‖ nonces in ascending order of address).

    Args:
        transcript: 32 bytes from `transcript_digest`.
        beacon: hash of the block that the run's commitment named, 32 bytes.
        nonces: 32 bytes of the data owner and of every auditor, by address.

    Raises:
        ValueError: a value of another size, or no nonces.
    """
    values = [nonces[address] for address in sorted(nonces, key=str.lower)]
    if not values:
        raise ValueError("expected the nonces of the data owner and of every auditor, got none: the seed would be the block producer's")
    for value in (transcript, beacon, *values):
        if len(value) != 32:
            raise ValueError(f"a seed is mixed from values of 32 bytes, got one of {len(value)}")
    return sha256(b"".join((transcript, beacon, *values)))
