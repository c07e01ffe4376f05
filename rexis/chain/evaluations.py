"""Evaluations as the EvaluationRegistry of a chain tells them, and whether a certificate stands there (wire formats, section 9)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.chain.model_registry import REASONS
from rexis.chain.receipt_batches import verify_vouched
from rexis.commitments.transcript import Commitments, evaluation_seed, transcript_digest
from rexis.encoding import checksum_address, to_hex
from rexis.errors import CertificateError, DigestMismatchError, UnavailableError, VerificationError
from rexis.protocol.evaluation import evaluation_nonce_commitment

EVALUATIONS = "EvaluationRegistry"
# In the order of the contract's enum.
STATUSES = ("absent", "open", "run", "seeded", "attested", "disputed", "revoked", "expired")
COUNTS = ("started", "runs", "seeded", "attested", "disputed", "revoked", "expired")
NONE = bytes(32)


@dataclass(frozen=True)
class EvaluationState:
    """One evaluation at one block.

    Attributes:
        evaluation: id, 32 bytes.
        block_number, timestamp: of the block that the node answered from; a copy of this state is as old as they are.
        status: one of `STATUSES`.
        provider, model_owner, data_owner: checksum addresses.
        commitments: what it is committed to; zeros where the run is not there yet.
        parties: data owner and auditors in ascending order of address, with commitment and nonce (zeros where not given).
        quorum: auditors who must sign.
        number: the data owner's n-th evaluation on this record; 0 before he agreed.
        beacon_block: number of the beacon's block, 0 before the run.
        transcript, beacon, seed, certificate: 32 bytes each, zeros where not there yet.
        level, valid_until: of the certificate.
        reason: why it was revoked, one of `rexis.chain.model_registry.REASONS`.
    """

    evaluation: bytes
    block_number: int
    timestamp: int
    status: str
    provider: str
    model_owner: str
    data_owner: str
    commitments: Commitments
    parties: tuple[tuple[str, bytes, bytes], ...]
    quorum: int
    number: int
    beacon_block: int
    transcript: bytes
    beacon: bytes
    seed: bytes
    certificate: bytes
    level: int
    valid_until: int
    reason: str

    @property
    def nonces(self) -> Mapping[str, bytes]:
        """Revealed nonces by address."""
        return {party: nonce for party, _, nonce in self.parties if nonce != NONE}


def read_evaluation(chain: Chain, evaluation: bytes) -> EvaluationState:
    """Everything that the registry holds of an evaluation (32-byte id), from one block.

    Raises:
        VerificationError: there is no such evaluation.
        UnavailableError: the node does not answer.
    """
    contract = chain.contract(EVALUATIONS)
    names = _members(contract.get_function_by_name("get").abi)
    try:
        block = chain.web3.eth.get_block("latest")
        values, parties = contract.functions.get(evaluation).call(block_identifier=block["hash"])
    except NODE_FAILURES as error:
        raise _no_answer(error) from error
    told = dict(zip(names, values, strict=True))
    if told["status"] == 0:
        raise VerificationError(f"the registry holds no evaluation {to_hex(evaluation)}")
    fixed = (told["specHash"], told["model"], told["dataRecord"], told["keyCommitment"])
    return EvaluationState(
        evaluation=evaluation,
        block_number=block["number"],
        timestamp=block["timestamp"],
        status=STATUSES[told["status"]],
        provider=checksum_address(told["provider"]),
        model_owner=checksum_address(told["modelOwner"]),
        data_owner=checksum_address(told["dataOwner"]),
        commitments=Commitments(*fixed, *told["roots"]),
        parties=tuple((checksum_address(party), bytes(commitment), bytes(nonce)) for party, commitment, nonce in parties),
        quorum=told["quorum"],
        number=told["number"],
        beacon_block=told["beaconBlock"],
        transcript=told["transcript"],
        beacon=told["beacon"],
        seed=told["seed"],
        certificate=told["certificate"],
        level=told["level"],
        valid_until=told["validUntil"],
        reason=REASONS[told["reason"]],
    )


def verify_seed(state: EvaluationState, chain_id: int, registry: str) -> None:
    """Check that the seed follows from what was committed to, the beacon, and the nonces that the parties had committed to.

    Nobody has to be believed for it but for the beacon, which a node of that chain knows.

    Raises:
        VerificationError: there is no seed, a nonce is missing, or not the one that its party committed to.
        DigestMismatchError: transcript or seed are others.
    """
    if state.seed == NONE:
        raise VerificationError(f"evaluation {to_hex(state.evaluation)} has no seed: it is {state.status}")
    for party, commitment, nonce in state.parties:
        if nonce == NONE or evaluation_nonce_commitment(state.evaluation, party, nonce) != commitment:
            raise VerificationError(f"the nonce of {party} is not the one that it committed to before the run")
    transcript = transcript_digest(chain_id, registry, state.evaluation, state.commitments)
    if transcript != state.transcript:
        raise DigestMismatchError("transcript", transcript, state.transcript)
    seed = evaluation_seed(state.transcript, state.beacon, state.nonces)
    if seed != state.seed:
        raise DigestMismatchError("seed", seed, state.seed)


def verify_certificate(state: EvaluationState, certificate: bytes, chain_id: int, registry: str) -> None:
    """Check that this is the evaluation's certificate and stood at the state's block, as far as that needs no chain.

    What the owner of the model did since the state alone does not say.

    Args:
        certificate: SHA-256 of the certificate, 32 bytes.
        registry: checksum address of the EvaluationRegistry.

    Raises:
        CertificateError: another certificate, or it was never attested, is disputed, revoked, expired, or past its time.
        VerificationError: a seed that does not follow from what was committed to.
    """
    if state.certificate == NONE:
        raise CertificateError(f"evaluation {to_hex(state.evaluation)} has no certificate: it is {state.status}{_because(state)}")
    if state.certificate != certificate:
        raise CertificateError(
            f"expected the certificate of evaluation {to_hex(state.evaluation)}, {to_hex(state.certificate)}, got {to_hex(certificate)}"
        )
    if state.status != "attested":
        raise CertificateError(f"certificate {to_hex(certificate)} does not stand: it is {state.status}{_because(state)}")
    if state.timestamp > state.valid_until:
        raise CertificateError(f"certificate {to_hex(certificate)} was valid until Unix time {state.valid_until}, it is {state.timestamp}")
    verify_seed(state, chain_id, registry)


def verify_standing(chain: Chain, evaluation: bytes, certificate: bytes) -> None:
    """Check that this is the evaluation's certificate, and that it stands now.

    Args:
        evaluation: id, 32 bytes, from the certificate.
        certificate: SHA-256 of the certificate, 32 bytes.

    Raises:
        CertificateError: another certificate, or it was never attested, is disputed, revoked, expired, or past its time.
        VerificationError: no such evaluation, a seed that does not follow, or a model that its owner took back.
        UnavailableError: the node does not answer.
    """
    state = read_evaluation(chain, evaluation)
    verify_certificate(state, certificate, chain.deployment.chain_id, chain.deployment.contracts[EVALUATIONS].address)
    verify_vouched(chain, state.model_owner, state.commitments.model)


def evaluations_of(chain: Chain, data_owner: str, data_record: bytes) -> Mapping[str, int]:
    """How many evaluations on this data its owner (checksum address) agreed to, and what became of them, by `COUNTS`.

    Raises:
        UnavailableError: the node does not answer.
    """
    try:
        counts = chain.contract(EVALUATIONS).functions.evaluationsOf(data_owner, data_record).call()
    except NODE_FAILURES as error:
        raise _no_answer(error) from error
    return dict(zip(COUNTS, counts, strict=True))


def _members(abi: Any) -> list[str]:
    return [component["name"] for component in abi["outputs"][0]["components"]]


def _because(state: EvaluationState) -> str:
    return f" ({state.reason})" if state.status == "revoked" else ""


def _no_answer(error: Exception) -> UnavailableError:
    # The address may carry a credential, so the message leaves it out.
    return UnavailableError(f"the chain does not answer ({type(error).__name__}); is the node's URL right?")
