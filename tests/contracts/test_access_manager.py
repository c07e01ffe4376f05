"""Who may use which data set, over relayed calls: committees, grants, and what ends them (chain.md, section 8)."""

from collections.abc import Callable
from typing import Any

import pytest
from web3.logs import DISCARD

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.encoding import canonical_json, sha256
from rexis.errors import ContractRevertedError
from rexis.policy.duo import Permission
from rexis.protocol.relayed_call import RelayedCall

ABSENT, ACTIVE, EXPIRED, SUSPENDED, WITHDRAWN = range(5)
YEAR = 365 * 24 * 3600
HMB = Permission.HMB.number
CONDITIONS = sha256(canonical_json({"purpose": "HMB", "ethics": "2026-117"}))

Act = Callable[..., Any]


@pytest.fixture
def consumer() -> str:
    return LocalSigner.generate().address


@pytest.fixture
def owner(act: Act, institution: LocalSigner) -> LocalSigner:
    """Owner of data set 1."""
    registration = {
        "contentRoot": b"\x01" * 32,
        "policyHash": b"\x02" * 32,
        "metadataHash": b"\x03" * 32,
        "uri": "",
        "parents": [],
        "royaltyBps": 0,
    }
    act(institution, "register", registration)
    return institution


@pytest.fixture
def decide(act: Act) -> Act:
    return lambda who, function, *arguments: act(who, function, *arguments, contract="AccessManager")


@pytest.fixture
def terms(chain: Chain, consumer: str) -> Callable[..., dict[str, Any]]:
    def build(**changes: Any) -> dict[str, Any]:
        given = {
            "dataset": 1,
            "consumer": consumer,
            "purpose": HMB,
            "until": chain.web3.eth.get_block("latest")["timestamp"] + YEAR,
            "policyVersion": 1,
            "grantEpoch": 0,
            "conditionsHash": CONDITIONS,
        }
        return given | changes

    return build


@pytest.fixture
def status(chain: Chain, consumer: str) -> Callable[[], int]:
    """Of the grant for the purpose HMB; `hasAccess` must say the same."""
    functions = chain.contract("AccessManager").functions

    def read() -> int:
        found = int(functions.statusOf(1, consumer, HMB).call())
        assert functions.hasAccess(1, consumer, HMB).call() is (found == ACTIVE)
        return found

    return read


def refused(act: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value.error, caught.value.arguments


def test_a_grant_is_read_back_and_its_events_carry_everything(
    chain: Chain, decide: Act, owner: LocalSigner, consumer: str, terms: Act, status: Callable[[], int]
) -> None:
    manager = chain.contract("AccessManager")
    given = terms()
    receipt = decide(owner, "grant", given)
    (granted,) = manager.events.AccessGranted().process_receipt(receipt, errors=DISCARD)
    assert dict(granted["args"]) == {
        "dataset": 1,
        "consumer": consumer,
        "purpose": HMB,
        "grantedBy": owner.address,
        "until": given["until"],
        "conditionsHash": CONDITIONS,
        "policyHash": b"\x02" * 32,
        "policyVersion": 1,
        "ownerEpoch": 0,
        "grantEpoch": 1,
    }
    granted_at = chain.web3.eth.get_block(receipt["blockNumber"])["timestamp"]
    assert manager.functions.grantOf(1, consumer, HMB).call() == (granted_at, given["until"], 1, 0, 1, CONDITIONS)
    assert status() == ACTIVE
    for other in set(Permission) - {Permission.HMB}:
        assert manager.functions.hasAccess(1, consumer, other.number).call() is False

    receipt = decide(owner, "revoke", 1, consumer, HMB)
    (revoked,) = manager.events.AccessRevoked().process_receipt(receipt, errors=DISCARD)
    assert dict(revoked["args"]) == {"dataset": 1, "consumer": consumer, "purpose": HMB, "revokedBy": owner.address, "grantEpoch": 2}
    assert status() == ABSENT


def test_purposes_are_the_permissions_of_the_policy_module(chain: Chain) -> None:
    is_purpose = chain.contract("AccessManager").functions.isPurpose
    assert {number for number in range(64) if is_purpose(number).call()} == {permission.number for permission in Permission}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"purpose": 46}, "UnknownPurpose"),
        ({"consumer": "0x" + "00" * 20}, "InvalidConsumer"),
        ({"conditionsHash": bytes(32)}, "MissingConditions"),
        ({"until": 1}, "TermOutOfBounds"),
        ({"until": 2**48 - 1}, "TermOutOfBounds"),
        ({"policyVersion": 2}, "PolicyVersionMismatch"),
        ({"grantEpoch": 1}, "GrantEpochMismatch"),
        ({"dataset": 2}, "ERC721NonexistentToken"),
    ],
)
def test_terms_out_of_bounds_are_refused(changes: dict[str, Any], error: str, decide: Act, owner: LocalSigner, terms: Act) -> None:
    assert refused(lambda: decide(owner, "grant", terms(**changes)))[0] == error


def test_a_grant_that_was_signed_before_a_revocation_arrives_too_late(
    decide: Act,
    owner: LocalSigner,
    consumer: str,
    terms: Act,
    status: Callable[[], int],
    call_to: Callable[..., RelayedCall],
    sign: Callable[..., bytes],
    execute: Act,
) -> None:
    """A relay holds the signed grant back; the owner has changed his mind by then."""
    held_back = call_to(owner.address, "grant", terms(), contract="AccessManager")
    signature = sign(owner, held_back)
    decide(owner, "revoke", 1, consumer, HMB)
    late = ("GrantEpochMismatch", {"expected": 1, "got": 0})
    assert refused(lambda: execute(held_back, signature)) == late
    assert status() == ABSENT
    decide(owner, "grant", terms(grantEpoch=1))
    assert status() == ACTIVE


def test_a_policy_change_suspends_a_grant_until_it_is_confirmed(
    act: Act, decide: Act, owner: LocalSigner, terms: Act, status: Callable[[], int]
) -> None:
    decide(owner, "grant", terms())
    act(owner, "setPolicy", 1, b"\x04" * 32, "", 1)
    assert status() == SUSPENDED
    assert refused(lambda: decide(owner, "grant", terms(grantEpoch=1))) == ("PolicyVersionMismatch", {"expected": 2, "got": 1})
    decide(owner, "grant", terms(grantEpoch=1, policyVersion=2))
    assert status() == ACTIVE


def test_a_grant_ends_by_itself(
    decide: Act, owner: LocalSigner, terms: Act, status: Callable[[], int], warp: Callable[[int], None]
) -> None:
    given = terms()
    decide(owner, "grant", given)
    warp(given["until"])
    assert status() == ACTIVE
    warp(given["until"] + 1)
    assert status() == EXPIRED


def test_a_committee_decides_until_the_data_set_is_sold(
    chain: Chain, act: Act, decide: Act, owner: LocalSigner, consumer: str, terms: Act, status: Callable[[], int]
) -> None:
    members = sorted((LocalSigner.generate() for _ in range(3)), key=lambda member: member.address.lower())
    addresses = [member.address for member in members]
    receipt = decide(owner, "setCommittee", 1, addresses, 0)
    (appointed,) = chain.contract("AccessManager").events.CommitteeSet().process_receipt(receipt, errors=DISCARD)
    assert dict(appointed["args"]) == {"dataset": 1, "owner": owner.address, "ownerEpoch": 0, "version": 1, "members": addresses}
    decide(members[2], "grant", terms())
    assert status() == ACTIVE
    assert refused(lambda: decide(members[0], "setCommittee", 1, [], 1))[0] == "NotOwnerOfDataset"
    stranger = LocalSigner.generate()
    denied = ("NotOnCommittee", {"dataset": 1, "caller": stranger.address})
    assert refused(lambda: decide(stranger, "grant", terms(grantEpoch=1))) == denied
    assert refused(lambda: decide(stranger, "revoke", 1, consumer, HMB)) == denied

    buyer = LocalSigner.generate()
    act(owner, "transferFrom", owner.address, buyer.address, 1)
    assert status() == SUSPENDED
    for gone in (owner, *members):
        assert refused(lambda gone=gone: decide(gone, "grant", terms(grantEpoch=1)))[0] == "NotOnCommittee"
    decide(buyer, "grant", terms(grantEpoch=1))
    assert status() == ACTIVE


def test_a_dismissed_member_does_not_come_back_by_a_late_relay(decide: Act, owner: LocalSigner) -> None:
    member = LocalSigner.generate()
    decide(owner, "setCommittee", 1, [member.address], 0)
    decide(owner, "setCommittee", 1, [], 1)
    late = ("CommitteeVersionMismatch", {"expected": 2, "got": 0})
    assert refused(lambda: decide(owner, "setCommittee", 1, [member.address], 0)) == late


def test_committees_are_bounded_and_in_order(decide: Act, owner: LocalSigner) -> None:
    addresses = sorted((LocalSigner.generate().address for _ in range(17)), key=str.lower)
    assert refused(lambda: decide(owner, "setCommittee", 1, addresses, 0)) == ("CommitteeTooLarge", {"length": 17, "limit": 16})
    assert refused(lambda: decide(owner, "setCommittee", 1, addresses[1::-1], 0))[0] == "MembersNotAscending"


def test_withdrawn_data_is_open_to_nobody(act: Act, decide: Act, owner: LocalSigner, terms: Act, status: Callable[[], int]) -> None:
    decide(owner, "grant", terms())
    act(owner, "setState", 1, 1)
    assert status() == ACTIVE
    assert refused(lambda: decide(owner, "grant", terms(grantEpoch=1))) == ("DatasetNotActive", {"dataset": 1})
    act(owner, "setState", 1, 2)
    assert status() == WITHDRAWN


def test_nobody_grants_in_the_owners_name_without_the_forwarder(
    chain: Chain, owner: LocalSigner, relayer: LocalSigner, terms: Act, transact: Act
) -> None:
    forged = encode_call("AccessManager", "grant", terms()) + bytes.fromhex(owner.address[2:])
    denied = ("NotOnCommittee", {"dataset": 1, "caller": relayer.address})
    assert refused(lambda: transact(chain.contract("AccessManager").address, forged)) == denied


def test_gas_stays_bounded(decide: Act, owner: LocalSigner, terms: Act) -> None:
    assert decide(owner, "grant", terms())["gasUsed"] < 145_000
    assert decide(owner, "grant", terms(grantEpoch=1))["gasUsed"] < 105_000
