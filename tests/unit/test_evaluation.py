"""Ids, nonces, transcript, seed and signed structs of an evaluation against the independent reference (wire formats, section 9)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rexis.commitments.positional_tree import chain_context
from rexis.commitments.transcript import Commitments, evaluation_seed, transcript_digest
from rexis.encoding import from_hex
from rexis.protocol.evaluation import (
    Attestation,
    EvaluationOpening,
    evaluation_nonce_commitment,
    random_evaluation_nonce,
    resolution,
    revocation,
)
from rexis.protocol.typed_data import verify_signer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "evaluation.json").read_text())
CHAIN_ID, REGISTRY = VECTORS["chainId"], VECTORS["registry"]
WORDS = {name: from_hex(value, 32) for name, value in VECTORS["committed"].items()}
WORD = WORDS["spec"]
COMMITTED = Commitments(*WORDS.values())
BEACON = from_hex(VECTORS["beacon"], 32)


def opening(case: dict) -> EvaluationOpening:
    return EvaluationOpening(
        WORDS["spec"],
        VECTORS["modelOwner"],
        WORDS["model"],
        case["dataOwner"],
        WORDS["data"],
        WORDS["key"],
        case["sequence"],
        VECTORS["quorum"],
        *VECTORS["times"],
        VECTORS["auditors"],
    )


@pytest.mark.parametrize("case", VECTORS["evaluations"], ids=["owner first", "owner between", "owner last"])
def test_an_evaluation_equals_the_vector(case: dict) -> None:
    evaluation = from_hex(case["evaluation"], 32)
    assert opening(case).evaluation_id(CHAIN_ID, REGISTRY, VECTORS["provider"]) == evaluation
    assert chain_context(CHAIN_ID, REGISTRY, evaluation) == from_hex(case["context"], 32)
    nonces = {party["party"]: from_hex(party["nonce"], 32) for party in case["parties"]}
    for party in case["parties"]:
        commitment = from_hex(party["commitment"], 32)
        assert evaluation_nonce_commitment(evaluation, party["party"], nonces[party["party"]]) == commitment
    transcript = transcript_digest(CHAIN_ID, REGISTRY, evaluation, COMMITTED)
    assert transcript == from_hex(case["transcript"], 32)
    # Whatever the order of the mapping, and the case of the addresses.
    assert evaluation_seed(transcript, BEACON, dict(reversed(nonces.items()))) == from_hex(case["seed"], 32)
    assert evaluation_seed(transcript, BEACON, {party.lower(): nonce for party, nonce in nonces.items()}) == from_hex(case["seed"], 32)


def test_what_auditors_sign_equals_the_vectors() -> None:
    attested, revoked, resolved = VECTORS["signed"]
    words = [from_hex(attested["message"][name], 32) for name in ("evaluation", "seed", "certificate")]
    evaluation, _, certificate = words
    made = (
        Attestation(*words, attested["message"]["level"], attested["message"]["validUntil"]).typed_data(CHAIN_ID, REGISTRY),
        revocation(CHAIN_ID, REGISTRY, evaluation, certificate, revoked["message"]["reason"]),
        resolution(CHAIN_ID, REGISTRY, evaluation, certificate, resolved["message"]["disputer"], upheld=True),
    )
    for entry, typed in zip(VECTORS["signed"], made, strict=True):
        assert typed.type_string == entry["eip712"]["type"]
        assert typed.hash() == from_hex(entry["eip712"]["digest"], 32)
        for signer, signature in entry["signatures"].items():
            verify_signer(typed, from_hex(signature, 65), signer)


@pytest.mark.parametrize("position", range(8))
def test_every_commitment_moves_the_transcript(position: int) -> None:
    evaluation = from_hex(VECTORS["evaluations"][0]["evaluation"], 32)
    values = list(WORDS.values())
    values[position] = bytes([values[position][0] ^ 1]) + values[position][1:]
    assert transcript_digest(CHAIN_ID, REGISTRY, evaluation, Commitments(*values)) != transcript_digest(
        CHAIN_ID, REGISTRY, evaluation, COMMITTED
    )


def test_values_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="claimHash: expected 32 bytes, got 31"):
        replace(COMMITTED, claim_hash=WORD[:31])
    for transcript, beacon, nonces in ((WORD[:31], WORD, {"0x": WORD}), (WORD, b"", {"0x": WORD}), (WORD, WORD, {"0x": WORD + b"\x00"})):
        with pytest.raises(ValueError, match="values of 32 bytes"):
            evaluation_seed(transcript, beacon, nonces)
    with pytest.raises(ValueError, match="got none"):
        evaluation_seed(WORD, WORD, {})


def test_what_the_contract_would_refuse_is_not_signed() -> None:
    good = Attestation(WORD, WORD, WORD, 1, 1_900_000_000)
    for changes in ({"certificate": WORD[:31]}, {"seed": b""}, {"level": 0}, {"level": 4}, {"valid_until": 0}, {"valid_until": 2**48}):
        with pytest.raises(ValueError, match=next(iter(changes)).split("_")[0]):
            replace(good, **changes)
    opened = opening(VECTORS["evaluations"][0])
    first, second = VECTORS["auditors"]
    for changes, refused in (
        ({"auditors": [second, first]}, "ascending"),
        ({"auditors": [first, first]}, "ascending"),
        ({"auditors": [first]}, "quorum"),
        ({"quorum": 1}, "quorum"),
        ({"quorum": 3}, "quorum"),
        ({"run_until": opened.nonce_until}, "times"),
        ({"nonce_until": 0}, "times"),
        ({"attest_until": 2**48}, "times"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": 2**64}, "sequence"),
        ({"spec_hash": WORD[:31]}, "spec_hash"),
    ):
        with pytest.raises(ValueError, match=refused):
            replace(opened, **changes)
    with pytest.raises(ValueError, match="certificate"):
        revocation(CHAIN_ID, REGISTRY, WORD, b"", 4)


def test_nonces_are_fresh() -> None:
    assert len({random_evaluation_nonce() for _ in range(100)}) == 100
    assert len(random_evaluation_nonce()) == 32
