"""What parties to an evaluation agree on, commit to and sign (wire formats, section 9); `EvaluationRegistry.sol` checks the same."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rexis.encoding import abi_encode, keccak256
from rexis.protocol.typed_data import Domain, TypedMessage

ATTESTATION_TYPE = "Attestation(bytes32 evaluation,bytes32 seed,bytes32 certificate,uint8 level,uint48 validUntil)"
REVOCATION_TYPE = "Revocation(bytes32 evaluation,bytes32 certificate,uint8 reason)"
RESOLUTION_TYPE = "Resolution(bytes32 evaluation,bytes32 certificate,address disputer,bool upheld)"

NONCE_BYTES = 32
# A quorum that revokes before there is a certificate says that the audit failed.
NO_CERTIFICATE = bytes(32)
LEVELS = (1, 2, 3)
_MAX_SECONDS = 2**48 - 1


@dataclass(frozen=True)
class EvaluationOpening:
    """Everything that is fixed before anything runs: the argument of `open`, and what an evaluation's id is made of.

    Attributes:
        spec_hash: digest of the specification, 32 bytes.
        model_owner: checksum address of who vouches for the model in the ModelRegistry.
        model: record of the model, 32 bytes.
        data_owner: checksum address; the evaluation counts as his from his first nonce commitment on.
        data_record: record of the test data, 32 bytes.
        key_commitment: to the id of the key that the evaluation runs under, 32 bytes.
        sequence: any number below 2^64; another one makes another evaluation of the same.
        quorum: auditors who must sign, above half of them.
        nonce_until, run_until, reveal_until, attest_until: last Unix seconds of the four stages, ascending.
        auditors: checksum addresses, strictly ascending.

    Raises:
        ValueError: a value out of its range, or auditors out of order.
    """

    spec_hash: bytes
    model_owner: str
    model: bytes
    data_owner: str
    data_record: bytes
    key_commitment: bytes
    sequence: int
    quorum: int
    nonce_until: int
    run_until: int
    reveal_until: int
    attest_until: int
    auditors: Sequence[str]

    def __post_init__(self) -> None:
        for name in ("spec_hash", "model", "data_record", "key_commitment"):
            _check_word(name, getattr(self, name))
        if not 0 <= self.sequence < 2**64:
            raise ValueError(f"sequence: expected a number below 2^64, got {self.sequence}")
        times = (self.nonce_until, self.run_until, self.reveal_until, self.attest_until)
        if list(times) != sorted(set(times)) or times[0] <= 0 or times[-1] > _MAX_SECONDS:
            raise ValueError(f"expected four ascending Unix times, got {times}")
        ascending = sorted({auditor.lower() for auditor in self.auditors})
        if [auditor.lower() for auditor in self.auditors] != ascending:
            raise ValueError("auditors: expected strictly ascending addresses, as the contract does")
        if not len(self.auditors) < 2 * self.quorum <= 2 * len(self.auditors):
            raise ValueError(f"quorum: expected more than half of {len(self.auditors)} auditors, got {self.quorum}")

    def fields(self) -> dict[str, Any]:
        """The struct by its member names, the argument of `open`."""
        return {
            "specHash": self.spec_hash,
            "modelOwner": self.model_owner,
            "model": self.model,
            "dataOwner": self.data_owner,
            "dataRecord": self.data_record,
            "keyCommitment": self.key_commitment,
            "sequence": self.sequence,
            "quorum": self.quorum,
            "nonceUntil": self.nonce_until,
            "runUntil": self.run_until,
            "revealUntil": self.reveal_until,
            "attestUntil": self.attest_until,
            "auditors": list(self.auditors),
        }

    def evaluation_id(self, chain_id: int, registry: str, provider: str) -> bytes:
        """Id of the evaluation that `provider` opens with this (32 bytes); known before it is on chain.

        Raises:
            EncodingError: a bad address, or a negative chain id.
        """
        terms = keccak256(
            abi_encode(
                ["uint16", "uint48", "uint48", "uint48", "uint48", "address[]"],
                [self.quorum, self.nonce_until, self.run_until, self.reveal_until, self.attest_until, list(self.auditors)],
            )
        )
        types = ["uint256", "address", "address", "bytes32", "address", "bytes32", "address", "bytes32", "bytes32", "uint64", "bytes32"]
        owners = [self.model_owner, self.model, self.data_owner, self.data_record]
        return keccak256(
            abi_encode(types, [chain_id, registry, provider, self.spec_hash, *owners, self.key_commitment, self.sequence, terms])
        )


def random_evaluation_nonce() -> bytes:
    """32 fresh bytes from the operating system: kept until the run is final, never used twice."""
    return secrets.token_bytes(NONCE_BYTES)


def evaluation_nonce_commitment(evaluation: bytes, party: str, nonce: bytes) -> bytes:
    """What a party commits to before there is a run (32 bytes).

    keccak256(abi.encode(bytes32 evaluation, address party, bytes32 nonce)): with the party inside nobody can copy it; the nonce is
    random, so nobody can guess it.

    Raises:
        EncodingError: a bad address, or a value of another size.
    """
    return keccak256(abi_encode(["bytes32", "address", f"bytes{NONCE_BYTES}"], [evaluation, party, nonce]))


@dataclass(frozen=True)
class Attestation:
    """What each auditor of a quorum signs to have a certificate attested.

    Attributes:
        evaluation: id, 32 bytes.
        seed: by which the auditor chose what to look at, 32 bytes: after a reorganisation of the chain it is another one.
        certificate: SHA-256 of the certificate, 32 bytes.
        level: 1 and 2 a sample, 3 everything.
        valid_until: Unix time in seconds.

    Raises:
        ValueError: a value out of its range.
    """

    evaluation: bytes
    seed: bytes
    certificate: bytes
    level: int
    valid_until: int

    def __post_init__(self) -> None:
        for name in ("evaluation", "seed", "certificate"):
            _check_word(name, getattr(self, name))
        if self.level not in LEVELS:
            raise ValueError(f"level: expected 1, 2 or 3, got {self.level}")
        if not 0 < self.valid_until <= _MAX_SECONDS:
            raise ValueError(f"validUntil: expected a Unix time of 48 bits, got {self.valid_until}")

    def fields(self) -> dict[str, bytes | int]:
        """The struct by its member names: an argument of `attest`, and the message that is signed."""
        return {
            "evaluation": self.evaluation,
            "seed": self.seed,
            "certificate": self.certificate,
            "level": self.level,
            "validUntil": self.valid_until,
        }

    def typed_data(self, chain_id: int, registry: str) -> TypedMessage:
        """What each auditor signs; `registry` is the checksum address of the EvaluationRegistry."""
        return TypedMessage(Domain(chain_id, registry), ATTESTATION_TYPE, self.fields())


def revocation(chain_id: int, registry: str, evaluation: bytes, certificate: bytes, reason: int) -> TypedMessage:
    """What each auditor of a quorum signs to revoke.

    Args:
        certificate: 32 bytes; `NO_CERTIFICATE` where none was attested.
        reason: number of the reason, see `rexis.chain.model_registry.reason_number`.

    Raises:
        ValueError: a value of another size.
    """
    _check_word("evaluation", evaluation)
    _check_word("certificate", certificate)
    message = {"evaluation": evaluation, "certificate": certificate, "reason": reason}
    return TypedMessage(Domain(chain_id, registry), REVOCATION_TYPE, message)


def resolution(chain_id: int, registry: str, evaluation: bytes, certificate: bytes, disputer: str, *, upheld: bool) -> TypedMessage:
    """What each auditor of a quorum signs to judge the dispute of `disputer` (checksum address).

    Raises:
        ValueError: a value of another size.
    """
    _check_word("evaluation", evaluation)
    _check_word("certificate", certificate)
    message = {"evaluation": evaluation, "certificate": certificate, "disputer": disputer, "upheld": upheld}
    return TypedMessage(Domain(chain_id, registry), RESOLUTION_TYPE, message)


def _check_word(name: str, value: bytes) -> None:
    if len(value) != 32:
        raise ValueError(f"{name}: expected 32 bytes, got {len(value)}")
