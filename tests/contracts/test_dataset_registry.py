"""What the registry promises, over relayed calls: provenance, versions, states, owners (chain.md, section 8)."""

from collections.abc import Callable
from typing import Any

import pytest
from web3.logs import DISCARD

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.errors import ContractRevertedError

ACTIVE, DEPRECATED, WITHDRAWN = range(3)

Act = Callable[..., Any]


def registration(root: int = 1, **changes: Any) -> dict[str, Any]:
    given = {
        "contentRoot": root.to_bytes(32, "big"),
        "policyHash": b"\x02" * 32,
        "metadataHash": b"\x03" * 32,
        "uri": "https://marketplace.example/v1/documents/0303",
        "parents": [],
        "royaltyBps": 0,
    }
    return given | changes


def refused(act: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value.error, caught.value.arguments


def test_a_registration_is_read_back_and_its_events_carry_everything(chain: Chain, act: Act, institution: LocalSigner) -> None:
    act(institution, "register", registration(1))
    act(institution, "register", registration(2))
    receipt = act(institution, "register", registration(3, parents=[1, 2], royaltyBps=250))

    registry = chain.contract("DatasetRegistry")
    functions, events = registry.functions, registry.events
    (registered,) = events.DatasetRegistered().process_receipt(receipt, errors=DISCARD)
    assert dict(registered["args"]) == {
        "id": 3,
        "owner": institution.address,
        "contentRoot": (3).to_bytes(32, "big"),
        "policyHash": b"\x02" * 32,
        "metadataHash": b"\x03" * 32,
        "uri": registration()["uri"],
    }
    derived = events.DatasetDerived().process_receipt(receipt, errors=DISCARD)
    assert [dict(event["args"]) for event in derived] == [{"id": 3, "parent": 1}, {"id": 3, "parent": 2}]
    (royalty,) = events.RoyaltySet().process_receipt(receipt, errors=DISCARD)
    assert dict(royalty["args"]) == {"id": 3, "receiver": institution.address, "royaltyBps": 250}

    assert functions.parentsOf(3).call() == [1, 2]
    assert functions.tokenURI(3).call() == registration()["uri"]
    assert functions.royaltyInfo(3, 10_000).call() == [institution.address, 250]
    assert functions.policyOf(3).call() == [b"\x02" * 32, 1, True]
    stored = functions.get(3).call()
    assert stored[:6] == ((3).to_bytes(32, "big"), b"\x02" * 32, b"\x03" * 32, 1, 1, 0)
    assert stored[6:] == (chain.web3.eth.get_block(receipt["blockNumber"])["timestamp"], ACTIVE)
    assert functions.datasetOf(institution.address, (3).to_bytes(32, "big")).call() == 3


@pytest.mark.parametrize(
    ("parents", "error", "arguments"),
    [
        ([2, 1], "ParentsNotAscending", {"previous": 2, "parent": 1}),
        ([1, 1], "ParentsNotAscending", {"previous": 1, "parent": 1}),
        ([0], "ParentsNotAscending", {"previous": 0, "parent": 0}),
        ([1, 4], "UnknownParent", {"parent": 4}),
        ([2**256 - 1], "UnknownParent", {"parent": 2**256 - 1}),
        ([3], "ParentWithdrawn", {"parent": 3}),
        (list(range(1, 18)), "TooManyParents", {"length": 17, "limit": 16}),
    ],
)
def test_parents_that_break_provenance_are_refused(
    parents: list[int], error: str, arguments: dict[str, int], act: Act, institution: LocalSigner
) -> None:
    for root in (1, 2, 3):
        act(institution, "register", registration(root))
    act(institution, "setState", 3, WITHDRAWN)
    # The child would be number 4, so that 4 is itself.
    assert refused(lambda: act(institution, "register", registration(9, parents=parents))) == (error, arguments)


@pytest.mark.parametrize(
    ("changes", "error", "arguments"),
    [
        ({"contentRoot": bytes(32)}, "ZeroHash", {}),
        ({"policyHash": bytes(32)}, "ZeroHash", {}),
        ({"metadataHash": bytes(32)}, "ZeroHash", {}),
        ({"uri": "x" * 513}, "UriTooLong", {"length": 513, "limit": 512}),
        ({"royaltyBps": 1001}, "RoyaltyTooHigh", {"royaltyBps": 1001, "limit": 1000}),
    ],
)
def test_registrations_out_of_bounds_are_refused(
    changes: dict[str, Any], error: str, arguments: dict[str, int], act: Act, institution: LocalSigner
) -> None:
    assert refused(lambda: act(institution, "register", registration(**changes))) == (error, arguments)


def test_content_is_unique_per_registrant_and_not_globally(chain: Chain, act: Act, institution: LocalSigner) -> None:
    other = LocalSigner.generate()
    act(institution, "register", registration(5))
    root = "0x" + (5).to_bytes(32, "big").hex()
    twice = {"registrant": institution.address, "contentRoot": root, "id": 1}
    assert refused(lambda: act(institution, "register", registration(5))) == ("ContentAlreadyRegistered", twice)
    act(other, "register", registration(5))
    assert chain.contract("DatasetRegistry").functions.ownerOf(2).call() == other.address
    # Giving the token away does not free the content to be sold again.
    act(institution, "transferFrom", institution.address, other.address, 1)
    assert refused(lambda: act(institution, "register", registration(5))) == ("ContentAlreadyRegistered", twice)


def test_withdrawn_is_terminal(chain: Chain, act: Act, institution: LocalSigner) -> None:
    act(institution, "register", registration())
    receipt = act(institution, "setState", 1, DEPRECATED)
    (changed,) = chain.contract("DatasetRegistry").events.StateChanged().process_receipt(receipt, errors=DISCARD)
    assert dict(changed["args"]) == {"id": 1, "previous": ACTIVE, "state": DEPRECATED}
    assert refused(lambda: act(institution, "setState", 1, DEPRECATED)) == ("StateUnchanged", {"id": 1, "state": DEPRECATED})
    act(institution, "setState", 1, ACTIVE)
    act(institution, "setState", 1, WITHDRAWN)
    for change in (
        ("setState", 1, ACTIVE),
        ("setState", 1, WITHDRAWN),
        ("setPolicy", 1, b"\x04" * 32, "", 1),
        ("setMetadata", 1, b"\x04" * 32, "", 1),
    ):
        assert refused(lambda change=change: act(institution, *change)) == ("DatasetWithdrawn", {"id": 1})


def test_versions_grow_with_every_change(chain: Chain, act: Act, institution: LocalSigner) -> None:
    act(institution, "register", registration())
    events = chain.contract("DatasetRegistry").events
    for version in (2, 3):
        policy, previous = bytes([version]) * 32, bytes([version - 1]) * 32 if version > 2 else b"\x02" * 32
        receipt = act(institution, "setPolicy", 1, policy, "https://marketplace.example/new", version - 1)
        (changed,) = events.PolicyChanged().process_receipt(receipt, errors=DISCARD)
        assert dict(changed["args"]) == {
            "id": 1,
            "previousHash": previous,
            "policyHash": policy,
            "version": version,
            "uri": "https://marketplace.example/new",
        }
        (update,) = events.MetadataUpdate().process_receipt(receipt, errors=DISCARD)
        assert update["args"]["_tokenId"] == 1
    receipt = act(institution, "setMetadata", 1, b"\x09" * 32, "https://marketplace.example/newer", 1)
    (described,) = events.MetadataChanged().process_receipt(receipt, errors=DISCARD)
    assert (described["args"]["previousHash"], described["args"]["metadataHash"], described["args"]["version"]) == (
        b"\x03" * 32,
        b"\x09" * 32,
        2,
    )
    stored = chain.contract("DatasetRegistry").functions.get(1).call()
    assert stored[:5] == ((1).to_bytes(32, "big"), b"\x03" * 32, b"\x09" * 32, 3, 2)
    assert chain.contract("DatasetRegistry").functions.tokenURI(1).call() == "https://marketplace.example/newer"
    assert refused(lambda: act(institution, "setPolicy", 1, bytes(32), "", 3)) == ("ZeroHash", {})


def test_a_policy_that_was_signed_before_a_stricter_one_arrives_too_late(
    chain: Chain, act: Act, institution: LocalSigner, call_to: Act, sign: Act, execute: Act
) -> None:
    act(institution, "register", registration())
    lax = call_to(institution.address, "setPolicy", 1, b"\x04" * 32, "", 1)
    act(institution, "setPolicy", 1, b"\x05" * 32, "", 1)
    late = ("VersionMismatch", {"id": 1, "expected": 2, "got": 1})
    assert refused(lambda: execute(lax, sign(institution, lax))) == late
    assert chain.contract("DatasetRegistry").functions.policyOf(1).call() == [b"\x05" * 32, 2, True]


def test_a_transfer_starts_an_epoch_and_moves_the_rights(chain: Chain, act: Act, institution: LocalSigner) -> None:
    buyer = LocalSigner.generate()
    act(institution, "register", registration(royaltyBps=100))
    functions = chain.contract("DatasetRegistry").functions
    assert functions.ownerEpoch(1).call() == 0
    receipt = act(institution, "transferFrom", institution.address, buyer.address, 1)
    (epoch,) = chain.contract("DatasetRegistry").events.OwnerEpochChanged().process_receipt(receipt, errors=DISCARD)
    assert dict(epoch["args"]) == {"id": 1, "owner": buyer.address, "ownerEpoch": 1}
    assert functions.ownerEpoch(1).call() == 1
    denied = ("NotDatasetOwner", {"id": 1, "caller": institution.address})
    assert refused(lambda: act(institution, "setState", 1, WITHDRAWN)) == denied
    assert refused(lambda: act(institution, "setPolicy", 1, b"\x04" * 32, "", 1)) == denied
    assert refused(lambda: act(institution, "setMetadata", 1, b"\x04" * 32, "", 1)) == denied
    act(buyer, "setState", 1, DEPRECATED)
    # The royalty stays with who made the data set.
    assert functions.royaltyInfo(1, 10_000).call() == [institution.address, 100]


def test_nobody_speaks_for_an_institution_without_the_forwarder(
    chain: Chain, act: Act, institution: LocalSigner, relayer: LocalSigner, transact: Callable[..., Any]
) -> None:
    """The appended sender counts only if the forwarder appended it."""
    act(institution, "register", registration())
    forged = encode_call("DatasetRegistry", "setState", 1, WITHDRAWN) + bytes.fromhex(institution.address[2:])
    denied = ("NotDatasetOwner", {"id": 1, "caller": relayer.address})
    assert refused(lambda: transact(chain.contract("DatasetRegistry").address, forged)) == denied


def test_unknown_data_sets_are_named(chain: Chain, act: Act, institution: LocalSigner) -> None:
    assert refused(lambda: act(institution, "setState", 7, WITHDRAWN)) == ("ERC721NonexistentToken", {"tokenId": 7})
    assert chain.contract("DatasetRegistry").functions.count().call() == 0


def test_gas_stays_near_what_the_specification_measured(act: Act, institution: LocalSigner) -> None:
    """chain.md section 4 measured 264,850 without, and the forwarder adds signature, nonce word and call data."""
    act(institution, "register", registration(1))
    receipt = act(institution, "register", registration(2))
    assert receipt["gasUsed"] < 340_000
