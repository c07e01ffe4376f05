"""Delegated keys through relayed calls: what an agent may sign for its institution, and how it tries to get more."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from web3.contract import Contract
from web3.exceptions import ContractLogicError
from web3.logs import DISCARD

from rexis.chain.account_signatures import check_account_signature
from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.delegated_signer import DelegatedSigner
from rexis.chain.delegations import (
    SIGN_IN,
    Delegation,
    Scope,
    agents_of,
    delegate_arguments,
    delegation_of,
    scope_names,
    scopes_of,
)
from rexis.chain.signer import LocalSigner
from rexis.encoding import keccak256
from rexis.errors import ConfigurationError, ContractRevertedError, RexisError, SignatureError
from rexis.protocol.relayed_call import RelayedCall
from rexis.protocol.typed_data import Domain, TypedMessage

CONTRACT = "KeyDelegation"
Act = Callable[..., Any]
Build = Callable[..., RelayedCall]
Sign = Callable[[LocalSigner, RelayedCall], bytes]
Execute = Callable[[RelayedCall, bytes], Any]


@pytest.fixture
def agent() -> LocalSigner:
    return LocalSigner.generate()


@pytest.fixture
def delegate(chain: Chain, act: Act) -> Callable[..., Any]:
    def relay(institution: LocalSigner, agent: LocalSigner, *names: str, version: int = 0, days: int = 30) -> Any:
        return act(institution, "delegate", *terms(chain, agent, *names, version=version, days=days), contract=CONTRACT)

    return relay


def terms(chain: Chain, agent: LocalSigner, *names: str, version: int = 0, days: int = 30) -> tuple[Any, ...]:
    present = datetime.fromtimestamp(chain.web3.eth.get_block("latest")["timestamp"], UTC)
    return delegate_arguments(agent.address, scopes_of(chain.deployment, names), present + timedelta(days=days), version)


def registration(root: int = 1) -> dict[str, Any]:
    digest = b"\x03" * 32
    return {
        "contentRoot": root.to_bytes(32, "big"),
        "policyHash": digest,
        "metadataHash": digest,
        "uri": "https://a.example",
        "parents": [],
        "royaltyBps": 0,
    }


def refusal(act: Callable[[], Any]) -> tuple[str, str, dict[str, Any]]:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value.contract, caught.value.error, caught.value.arguments


def test_an_agent_registers_for_its_institution(
    chain: Chain, institution: LocalSigner, agent: LocalSigner, delegate: Act, call_to: Build, sign: Sign, execute: Execute
) -> None:
    given = delegate(institution, agent, "registration", "grants", SIGN_IN)
    (event,) = chain.contract(CONTRACT).events.KeyDelegated().process_receipt(given, errors=DISCARD)
    told = event["args"]
    assert (told["institution"], told["agent"], told["version"]) == (institution.address, agent.address, 1)
    assert [(each["target"], each["selector"]) for each in told["scopes"]] == [
        (scope.target, scope.selector) for scope in scopes_of(chain.deployment, ["grants", "registration", SIGN_IN])
    ]

    call = call_to(institution.address, "register", registration())
    receipt = execute(call, sign(agent, call))
    assert chain.contract("DatasetRegistry").functions.ownerOf(1).call() == institution.address
    (executed,) = chain.contract("Forwarder").events.RequestExecuted().process_receipt(receipt, errors=DISCARD)
    assert (executed["args"]["from"], executed["args"]["signer"]) == (institution.address, agent.address)
    again = refusal(lambda: execute(call, sign(agent, call)))
    assert again[1:] == ("NonceAlreadyUsed", {"from": institution.address, "nonce": call.nonce})

    outside = call_to(institution.address, "transferFrom", institution.address, agent.address, 1)
    assert refusal(lambda: execute(outside, sign(agent, outside))) == (
        "Forwarder",
        "OutsideDelegation",
        {
            "from": institution.address,
            "signer": agent.address,
            "to": outside.to,
            "selector": "0x" + keccak256(b"transferFrom(address,address,uint256)")[:4].hex(),
        },
    )


def test_an_agent_has_no_way_to_more(
    chain: Chain, institution: LocalSigner, agent: LocalSigner, delegate: Act, call_to: Build, sign: Sign, execute: Execute
) -> None:
    delegate(institution, agent, "registration")
    accomplice = LocalSigner.generate()
    for function, arguments in (
        ("delegate", terms(chain, agent, "registration", "grants", version=1)),
        ("delegate", terms(chain, agent, "registration", version=1, days=700)),
        ("delegate", terms(chain, accomplice, "registration")),
        ("revoke", (accomplice.address,)),
        ("revoke", (agent.address,)),
    ):
        call = call_to(institution.address, function, *arguments, contract=CONTRACT)
        _, error, told = refusal(partial(execute, call, sign(agent, call)))
        assert (error, told["signer"], told["to"]) == ("OutsideDelegation", agent.address, call.to)
    # Nor does an institution give that away by mistake, even if it signs the scope by hand.
    address = chain.deployment.contracts[CONTRACT].address
    selector = encode_call(CONTRACT, "revoke", agent.address)[:4]
    by_hand = delegate_arguments(agent.address, [Scope(address, selector)], datetime.now(UTC) + timedelta(days=1), 1)
    call = call_to(institution.address, "delegate", *by_hand, contract=CONTRACT)
    assert refusal(lambda: execute(call, sign(institution, call)))[1:] == ("NotDelegable", {"target": address})


def test_whose_delegation_it_is_counts(
    chain: Chain, institution: LocalSigner, agent: LocalSigner, delegate: Act, call_to: Build, sign: Sign, execute: Execute
) -> None:
    other, below = LocalSigner.generate(), LocalSigner.generate()
    delegate(institution, agent, "registration")
    delegate(agent, below, "registration")
    for sender, signer in ((other, agent), (agent, institution), (institution, below), (institution, other)):
        call = call_to(sender.address, "register", registration())
        assert refusal(partial(execute, call, sign(signer, call))) == (
            "Forwarder",
            "SignerMismatch",
            {"expected": sender.address, "recovered": signer.address},
        )
    # The same call for another chain or forwarder recovers to a key that nobody delegated to.
    call = call_to(institution.address, "register", registration())
    forwarder = chain.deployment.contracts["Forwarder"].address
    for elsewhere in (call.typed_data(chain.deployment.chain_id + 1, forwarder), call.typed_data(chain.deployment.chain_id, call.to)):
        signature = agent.sign_typed_data(elsewhere)
        _, error, told = refusal(partial(execute, call, signature))
        assert (error, told["expected"], told["recovered"] != agent.address) == ("SignerMismatch", institution.address, True)
    # A signature of the agent's covers what it signed, and not a call that was changed on the way.
    signature = sign(agent, call)
    tampered = replace(call, data=encode_call("DatasetRegistry", "register", registration(2)))
    assert refusal(lambda: execute(tampered, signature))[1] == "SignerMismatch"


def test_a_late_relay_brings_nothing_back(
    chain: Chain, institution: LocalSigner, agent: LocalSigner, act: Act, call_to: Build, sign: Sign, execute: Execute
) -> None:
    early = call_to(institution.address, "delegate", *terms(chain, agent, "registration"), contract=CONTRACT)
    late = call_to(institution.address, "delegate", *terms(chain, agent, "grants"), contract=CONTRACT)
    waiting = call_to(institution.address, "register", registration())
    signatures = [sign(institution, early), sign(institution, late), sign(agent, waiting)]
    execute(early, signatures[0])
    revoked = act(institution, "revoke", agent.address, contract=CONTRACT)
    (event,) = chain.contract(CONTRACT).events.KeyRevoked().process_receipt(revoked, errors=DISCARD)
    assert (event["args"]["institution"], event["args"]["agent"], event["args"]["version"]) == (institution.address, agent.address, 2)
    # What the agent signed before, what the institution signed before, and the same delegation a second time.
    assert refusal(lambda: execute(waiting, signatures[2]))[1:] == (
        "DelegationRevoked",
        {"from": institution.address, "signer": agent.address},
    )
    assert refusal(lambda: execute(late, signatures[1]))[1:] == ("DelegationVersionMismatch", {"expected": 2, "got": 0})
    assert refusal(lambda: execute(early, signatures[0]))[1] == "NonceAlreadyUsed"
    # A revocation of a key that never had anything outdates what is still under way to it.
    unborn = LocalSigner.generate()
    first = call_to(institution.address, "delegate", *terms(chain, unborn, "grants"), contract=CONTRACT)
    act(institution, "revoke", unborn.address, contract=CONTRACT)
    assert refusal(lambda: execute(first, sign(institution, first)))[1] == "DelegationVersionMismatch"


def test_a_call_that_waited_past_the_end_of_the_delegation_is_refused(
    chain: Chain,
    institution: LocalSigner,
    agent: LocalSigner,
    delegate: Act,
    call_to: Build,
    sign: Sign,
    execute: Execute,
    warp: Callable[[int], None],
) -> None:
    delegate(institution, agent, "registration", days=1)
    until = chain.contract(CONTRACT).functions.delegationOf(institution.address, agent.address).call()[1]
    call = call_to(institution.address, "register", registration(), deadline=until + 3600)
    signature = sign(agent, call)
    # What a service runs before it promises would still go through.
    chain.contract("Forwarder").functions.verify(tuple(vars(call).values()), signature).call()
    warp(until + 1)
    _, error, told = refusal(lambda: execute(call, signature))
    assert (error, told["signer"], told["until"]) == ("DelegationExpired", agent.address, until)
    assert delegation_of(chain, institution.address, agent.address).until == datetime.fromtimestamp(until, UTC)


def test_a_contract_wallet_delegates(
    chain: Chain,
    institution: LocalSigner,
    agent: LocalSigner,
    call_to: Build,
    sign: Sign,
    execute: Execute,
    deploy_test_contract: Callable[..., Contract],
) -> None:
    wallet = deploy_test_contract("SignatureWallet", institution.address).address
    given = call_to(wallet, "delegate", *terms(chain, agent, "registration"), contract=CONTRACT)
    execute(given, sign(institution, given))
    call = call_to(wallet, "register", registration())
    execute(call, sign(agent, call))
    assert chain.contract("DatasetRegistry").functions.ownerOf(1).call() == wallet


def test_off_chain_and_on_chain_decide_alike(
    chain: Chain,
    institution: LocalSigner,
    agent: LocalSigner,
    act: Act,
    delegate: Act,
    call_to: Build,
    sign: Sign,
    warp: Callable[[int], None],
    deploy_test_contract: Callable[..., Contract],
) -> None:
    """Each account, signer and state of the delegation: what Python refuses the Forwarder refuses, and for a reason that says the same."""
    forwarder = chain.contract("Forwarder")
    wallet = deploy_test_contract("SignatureWallet", institution.address).address

    def compare(sender: str, signer: LocalSigner, function: str, *arguments: Any) -> str:
        call = call_to(sender, function, *arguments)
        signature, scope = sign(signer, call), Scope(call.to, call.data[:4])
        digest = call.typed_data(chain.deployment.chain_id, forwarder.address).hash()
        told = ""
        try:
            check_account_signature(chain, sender, digest, signature, scope)
        except SignatureError as error:
            told = str(error)
        accepted = True
        try:
            forwarder.functions.verify(tuple(vars(call).values()), signature).call()
        except ContractLogicError:
            accepted = False
        assert accepted == (told == "")
        return told

    registering, passing_on = ("register", registration()), ("transferFrom", institution.address, agent.address, 1)
    assert "expected a signature by" in compare(institution.address, agent, *registering)
    delegate(institution, agent, "registration", days=1)
    assert compare(institution.address, agent, *registering) == ""
    assert compare(institution.address, institution, *passing_on) == ""
    assert "does not cover DatasetRegistry.transferFrom" in compare(institution.address, agent, *passing_on)
    assert "does not accept" in compare(wallet, agent, *registering)
    assert compare(wallet, institution, *registering) == ""
    act(institution, "revoke", agent.address, contract=CONTRACT)
    assert "was revoked" in compare(institution.address, agent, *registering)
    delegate(institution, agent, "registration", version=2, days=1)
    warp(chain.web3.eth.get_block("latest")["timestamp"] + 86_401)
    assert "has expired" in compare(institution.address, agent, *registering)


def test_what_stands_is_read_from_the_chain(chain: Chain, institution: LocalSigner, agent: LocalSigner, act: Act, delegate: Act) -> None:
    assert delegation_of(chain, institution.address, agent.address) == Delegation(institution.address, agent.address, None, None, 0, ())
    delegate(institution, agent, "models", "AccessManager.setCommittee", SIGN_IN)
    delegate(institution, other := LocalSigner.generate(), "registration")
    found = delegation_of(chain, institution.address, agent.address)
    assert (found.state, found.version) == ("active", 1)
    assert sorted(scope_names(chain.deployment, found.scopes)) == [
        "AccessManager.setCommittee",
        "ModelRegistry.authorise",
        "ModelRegistry.revoke",
        "sign-in",
    ]
    assert agents_of(chain, institution.address) == sorted([agent.address, other.address])
    act(institution, "revoke", agent.address, contract=CONTRACT)
    assert agents_of(chain, institution.address) == [other.address]
    assert (delegation_of(chain, institution.address, agent.address).state, agents_of(chain, agent.address)) == ("revoked", [])


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([], "1 to 32"),
        (["everything"], "expected powers among sign-in, registration"),
        (["KeyDelegation.delegate"], "can not be delegated"),
        (["DatasetRegistry.ownerOf"], "a function that changes state"),
        (["DatasetRegistry.safeTransferFrom"], "a function that changes state"),
        (["Nothing.register"], "has no contract Nothing"),
    ],
)
def test_powers_that_do_not_exist_are_refused(chain: Chain, names: list[str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        scopes_of(chain.deployment, names)


def test_a_delegated_signer_signs_calls_and_nothing_else(
    institution: LocalSigner, agent: LocalSigner, call_to: Build, chain: Chain
) -> None:
    signer = DelegatedSigner(institution.address, agent)
    call = call_to(signer.address, "register", registration())
    typed = call.typed_data(chain.deployment.chain_id, chain.deployment.contracts["Forwarder"].address)
    assert signer.sign_typed_data(typed) == agent.sign_typed_data(typed)
    other = TypedMessage(Domain(31337, call.to, name="Rexis"), "Claim(uint256 number)", {"number": 1})
    for refused in (lambda: signer.sign_typed_data(other), lambda: signer.sign_transaction({"chainId": 31337})):
        with pytest.raises(RexisError, match="institution's own key"):
            refused()
