"""Who gets how much of a reward by the scores, what its publisher may publish, and what a payee checks before it claims."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rexis.agent.federation.rewards import amounts, check_amount, check_share, claim_call, publication, publish_call
from rexis.chain.calls import decode_call
from rexis.chain.deployments import load
from rexis.chain.reward_epochs import RewardEpoch, Status
from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, InclusionProofError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.contributions import ContributionStatement
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.reward_shares import MAX_SHARE_BYTES, RewardShare
from tests.unit.scored_federations import MEMBERS, SCORES, bundle_of, scored_document

DEPLOYMENT, PUBLISHER = load(31337), LocalSigner.generate()
FEDERATION, AMOUNT = b"\1" * 32, 1000
CONFIG = FederationConfig.parse(scored_document())
STATEMENT = ContributionStatement.of(CONFIG, bundle_of(CONFIG, FEDERATION, idle=1))
EPOCH = RewardEpoch(b"\2" * 32, Status.FUNDED, 0, bytes(32), 0, 0, FEDERATION, 1, 10, AMOUNT, PUBLISHER.address)
MADE = publication(DEPLOYMENT, CONFIG, STATEMENT, EPOCH, {})
PUBLISHED = replace(EPOCH, status=Status.PUBLISHED, number=1, record=MADE.record, leaves=8, total=MADE.total)


def test_the_amounts_follow_from_bands_and_cap() -> None:
    assert STATEMENT.bands == (0, *[1] * 8)
    assert list(amounts(CONFIG, STATEMENT, EPOCH).items()) == [(address, 0 if i == 0 else 125) for i, address in enumerate(MEMBERS)]
    capped = FederationConfig.parse(scored_document(scores={**SCORES, "cap": "0.1"}))
    statement = ContributionStatement.of(capped, bundle_of(capped, FEDERATION, idle=1))
    assert sum(amounts(capped, statement, EPOCH).values()) == 8 * 100


@pytest.mark.parametrize("changes", [{"federation": bytes(32)}, {"first_round": 2}, {"last_round": 9}, {"last_round": 11}])
def test_a_reward_of_other_rounds_is_not_divided_by_these_scores(changes: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedMessageError, match="expected one for"):
        amounts(CONFIG, STATEMENT, replace(EPOCH, **changes))


def test_salts_are_kept_and_otherwise_new() -> None:
    salts = {share.share.account: share.share.salt for share in MADE.shares}
    assert publication(DEPLOYMENT, CONFIG, STATEMENT, EPOCH, salts) == MADE
    other = publication(DEPLOYMENT, CONFIG, STATEMENT, EPOCH, {})
    assert not {share.share.salt for share in other.shares} & set(salts.values())
    with pytest.raises(UnexpectedMessageError, match="nobody gets anything"):
        publication(DEPLOYMENT, CONFIG, STATEMENT, replace(EPOCH, amount=7), {})


def test_the_publisher_signs_what_the_shares_are() -> None:
    call = publish_call(PUBLISHER, DEPLOYMENT, EPOCH, MADE, "urn:rexis:scores:0x12")
    assert call is not None
    function, given = decode_call("RewardDistributor", call.call.data)
    assert (function, given["record"], given["nLeaves"], given["total"], given["number"]) == ("publish", MADE.record, 8, 1000, 1)
    assert publish_call(PUBLISHER, DEPLOYMENT, PUBLISHED, MADE, "") is None
    rejected = replace(EPOCH, number=1)
    again = publish_call(PUBLISHER, DEPLOYMENT, rejected, MADE, "")
    assert again is not None
    assert decode_call("RewardDistributor", again.call.data)[1]["number"] == 2


@pytest.mark.parametrize(
    ("changes", "uri", "why"),
    [
        ({"publisher": MEMBERS[0]}, "", "expected its publisher"),
        ({"status": Status.PUBLISHED, "record": bytes(32)}, "", "salts are lost"),
        ({"status": Status.CLOSED}, "", "is closed"),
        ({}, "x" * 513, "at most 512 bytes"),
    ],
)
def test_what_would_be_refused_on_chain_is_not_signed(changes: dict[str, Any], uri: str, why: str) -> None:
    with pytest.raises(UnexpectedMessageError, match=why):
        publish_call(PUBLISHER, DEPLOYMENT, replace(EPOCH, **changes), MADE, uri)


def test_a_payee_finds_what_does_not_follow_from_the_scores() -> None:
    share = MADE.shares[3]
    check_share(share, DEPLOYMENT, PUBLISHED)
    check_amount(share, CONFIG, STATEMENT, PUBLISHED)
    function, given = decode_call("RewardDistributor", claim_call(PUBLISHER, DEPLOYMENT, share).call.data)
    assert (function, given["account"], given["amount"], given["index"]) == ("claim", share.share.account, 125, 3)

    # A publisher who gives less, properly published; and one who gives somebody else more.
    less = replace(share, share=replace(share.share, amount=124))
    with pytest.raises(InclusionProofError):
        check_share(less, DEPLOYMENT, PUBLISHED)
    with pytest.raises(UnexpectedMessageError, match="expected 125 by the scores, got 124: challenge"):
        check_amount(less, CONFIG, STATEMENT, PUBLISHED)
    with pytest.raises(UnexpectedMessageError, match="sum of the shares: expected 1000"):
        check_amount(share, CONFIG, STATEMENT, replace(PUBLISHED, total=MADE.total + 1))
    with pytest.raises(DigestMismatchError, match="scores"):
        check_amount(replace(share, statement=bytes(32)), CONFIG, STATEMENT, PUBLISHED)


@pytest.mark.parametrize("changes", [{"epoch": bytes(32)}, {"chain_id": 1}, {"distributor": MEMBERS[0]}])
def test_a_share_of_another_place_is_no_share_here(changes: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedMessageError, match="expected one of reward"):
        check_share(replace(MADE.shares[0], **changes), DEPLOYMENT, PUBLISHED)


@pytest.mark.parametrize("status", [Status.FUNDED, Status.CLOSED])
def test_nothing_is_claimed_of_what_is_not_published(status: Status) -> None:
    with pytest.raises(UnexpectedMessageError, match="nothing of it can be claimed"):
        check_share(MADE.shares[0], DEPLOYMENT, replace(PUBLISHED, status=status))


def test_a_share_has_one_document_and_hides_its_salt() -> None:
    share = MADE.shares[0]
    assert RewardShare.parse(json.dumps(share.document()).encode()) == share
    assert to_hex(share.share.salt)[2:] not in repr(share)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("account", MEMBERS[0].lower() + "0"),
        ("amount", 5),
        ("amount", "-1"),
        ("amount", "1e3"),
        ("amount", "٣"),
        ("amount", "9" * 79),
        ("amount", str(2**256)),
        ("salt", "0x12"),
        ("index", 8),
        ("shares", 0),
        ("proof", "0x"),
        ("proof", ["0x12"]),
        ("proof", ["0x" + 64 * "0"] * 18),
        ("epoch", None),
        ("more", 1),
    ],
)
def test_a_share_out_of_bounds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(MalformedMessageError):
        RewardShare.parse(json.dumps({**MADE.shares[0].document(), field: value}).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 10_000, b" " * (MAX_SHARE_BYTES + 1)])
def test_what_is_no_share_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        RewardShare.parse(content)
