"""What aggregators sign, as it is read from others, and the evidence that two signatures of one of them are."""

from dataclasses import replace
from typing import Any

import pytest

from rexis.client.approvals import check_approvals, check_evidence
from rexis.encoding import checksum_address, to_hex
from rexis.errors import EquivocationError, MalformedMessageError, SignatureError, UnexpectedMessageError
from rexis.protocol.approvals import Approval, Kind, Statement
from rexis.protocol.equivocation import Equivocation, contradictions
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_rounds import RoundResult, Survivors
from rexis.protocol.signatures import address_of
from tests.unit.test_federation_config import CONFIG

CHAIN, REGISTRY = 31337, checksum_address("0x" + 40 * "a")
KEYS = [bytes([number]) * 32 for number in (1, 2, 3)]
SIGNERS = [address_of(key) for key in KEYS]
FEDERATION_CONFIG = FederationConfig.parse({**CONFIG, "aggregators": sorted(SIGNERS, key=str.lower), "quorum": 2})
FEDERATION = FEDERATION_CONFIG.id(CHAIN, REGISTRY)
SURVIVORS = Survivors(FEDERATION, 3, 1, b"\1" * 32, b"\2" * 32)
RESULT = RoundResult(FEDERATION, 3, 1, b"\1" * 32, b"\2" * 32, 3, b"\3" * 32, b"\4" * 32, b"\5" * 32)


def signed(statement: Statement, key: bytes = KEYS[0]) -> Approval:
    return Approval(statement, address_of(key), statement.typed_data(CHAIN, REGISTRY).sign(key))


@pytest.mark.parametrize("statement", [SURVIVORS, RESULT])
def test_an_approval_is_read_as_it_was_written_and_is_its_signers(statement: Statement) -> None:
    approval = signed(statement)
    assert Approval.parse(approval.document()) == approval
    approval.verify(CHAIN, REGISTRY)
    for other in (replace(approval, signer=SIGNERS[1]), replace(approval, statement=replace(statement, attempt=2))):
        with pytest.raises(SignatureError):
            other.verify(CHAIN, REGISTRY)
    with pytest.raises(SignatureError):
        approval.verify(1, REGISTRY)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "keys"},
        {"kind": ["survivors"]},
        {"kind": "result"},
        {"signer": SIGNERS[0].lower()},
        {"signature": "0x00"},
        {"signature": None},
        {"statement": None},
        {"statement": {}},
        {"more": 1},
    ],
)
def test_what_is_no_approval_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        Approval.parse(signed(SURVIVORS).document() | change)


@pytest.mark.parametrize(
    "member", [{"round": 0}, {"round": True}, {"round": 1 << 31}, {"attempt": "1"}, {"survivorsHash": "0x" + 62 * "1"}, {"federation": 7}]
)
def test_statements_are_bounded(member: dict[str, Any]) -> None:
    document = signed(SURVIVORS).document()
    with pytest.raises(MalformedMessageError):
        Approval.parse({**document, "statement": document["statement"] | member})


def test_two_statements_of_one_kind_for_one_attempt_are_evidence_for_anybody() -> None:
    for statement, other in ((SURVIVORS, replace(SURVIVORS, masked_record=bytes(32))), (RESULT, replace(RESULT, model=bytes(32)))):
        evidence = Equivocation(signed(statement), signed(other))
        read = Equivocation.parse(evidence.document())
        read.verify(CHAIN, REGISTRY)
        assert read == evidence
        assert SIGNERS[0] in str(read.error())
        check_evidence(read, FEDERATION_CONFIG, CHAIN, REGISTRY)
        assert contradictions([signed(statement), signed(statement, KEYS[1]), signed(other), signed(other)]) == (evidence,)
        with pytest.raises(EquivocationError, match=SIGNERS[0]):
            check_approvals((signed(statement), signed(other)), FEDERATION_CONFIG, CHAIN, REGISTRY)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signed(SURVIVORS), signed(SURVIVORS)),
        (signed(SURVIVORS), signed(RESULT)),
        (signed(SURVIVORS), signed(replace(SURVIVORS, masked_record=bytes(32)), KEYS[1])),
        (signed(SURVIVORS), signed(replace(SURVIVORS, attempt=2))),
        (signed(SURVIVORS), signed(replace(SURVIVORS, round_number=4))),
        (signed(SURVIVORS), signed(replace(SURVIVORS, federation=bytes(32)))),
    ],
)
def test_what_an_honest_aggregator_signs_is_no_evidence(first: Approval, second: Approval) -> None:
    with pytest.raises(UnexpectedMessageError, match="no evidence"):
        Equivocation(first, second)
    with pytest.raises(UnexpectedMessageError, match="no evidence"):
        Equivocation.parse({"first": first.document(), "second": second.document()})
    assert contradictions([first, second]) == ()


def test_evidence_that_somebody_else_made_up_is_refused() -> None:
    """Also with a signature of the accused: of another statement, of another registry, or in a second form."""
    other = replace(SURVIVORS, masked_record=bytes(32))
    foreign = checksum_address("0x" + 40 * "b")
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    good = signed(other).signature
    malleated = good[:32] + (order - int.from_bytes(good[32:64], "big")).to_bytes(32, "big") + bytes([55 - good[64]])
    for signature in (
        other.typed_data(CHAIN, REGISTRY).sign(KEYS[1]),
        signed(SURVIVORS).signature,
        other.typed_data(CHAIN, foreign).sign(KEYS[0]),
        malleated,
    ):
        evidence = Equivocation(signed(SURVIVORS), Approval(other, SIGNERS[0], signature))
        with pytest.raises(SignatureError):
            evidence.verify(CHAIN, REGISTRY)
        with pytest.raises(SignatureError):
            check_evidence(evidence, FEDERATION_CONFIG, CHAIN, REGISTRY)


def test_signatures_of_strangers_and_of_other_federations_do_not_count() -> None:
    stranger = signed(SURVIVORS, b"\7" * 32)
    elsewhere = signed(replace(SURVIVORS, federation=bytes(32)))
    check_approvals((signed(SURVIVORS), signed(SURVIVORS, KEYS[1]), signed(RESULT)), FEDERATION_CONFIG, CHAIN, REGISTRY)
    for approval in (stranger, elsewhere):
        with pytest.raises(SignatureError, match="counts elsewhere"):
            check_approvals((approval,), FEDERATION_CONFIG, CHAIN, REGISTRY)
    assert {Kind.SURVIVORS, Kind.RESULT} == set(Kind)
    assert to_hex(FEDERATION) == signed(SURVIVORS).document()["statement"]["federation"]
