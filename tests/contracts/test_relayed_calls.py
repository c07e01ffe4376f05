"""Calls that an institution without ether signs and a service relays: what goes through, and what is refused by name."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import ContractLogicError
from web3.logs import DISCARD

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.encoding import from_hex
from rexis.errors import ContractRevertedError, RexisError
from rexis.protocol.relayed_call import RelayedCall, random_nonce
from rexis.protocol.typed_data import verify_signer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "relayed_call.json").read_text())
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

Build = Callable[..., RelayedCall]
Sign = Callable[[LocalSigner, RelayedCall], bytes]
Execute = Callable[[RelayedCall, bytes], Any]


def registration(root: int = 1) -> dict[str, Any]:
    return {
        "contentRoot": root.to_bytes(32, "big"),
        "policyHash": b"\x02" * 32,
        "metadataHash": b"\x03" * 32,
        "uri": "https://marketplace.example/v1/documents/0303",
        "parents": [],
        "royaltyBps": 0,
    }


def refusal(act: Callable[[], Any]) -> ContractRevertedError:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value


def as_request(call: RelayedCall) -> tuple[Any, ...]:
    return (call.sender, call.to, call.gas, call.nonce, call.deadline, call.data)


def test_an_institution_without_ether_registers(
    chain: Chain, institution: LocalSigner, call_to: Build, sign: Sign, execute: Execute
) -> None:
    call = call_to(institution.address, "register", registration())
    receipt = execute(call, sign(institution, call))

    registry = chain.contract("DatasetRegistry")
    assert receipt["status"] == 1
    assert registry.functions.ownerOf(1).call() == institution.address
    (registered,) = registry.events.DatasetRegistered().process_receipt(receipt, errors=DISCARD)
    assert registered["args"]["owner"] == institution.address
    assert registered["args"]["uri"] == registration()["uri"]
    (executed,) = chain.contract("Forwarder").events.RequestExecuted().process_receipt(receipt, errors=DISCARD)
    assert (executed["args"]["from"], executed["args"]["nonce"]) == (institution.address, call.nonce)
    assert chain.web3.eth.get_balance(institution.address) == 0
    assert chain.web3.eth.get_transaction_count(institution.address) == 0


def test_a_contract_wallet_registers(
    chain: Chain,
    institution: LocalSigner,
    call_to: Build,
    sign: Sign,
    execute: Execute,
    deploy_test_contract: Callable[..., Contract],
) -> None:
    wallet = deploy_test_contract("SignatureWallet", institution.address).address
    call = call_to(wallet, "register", registration())
    execute(call, sign(institution, call))
    assert chain.contract("DatasetRegistry").functions.ownerOf(1).call() == wallet

    other = call_to(wallet, "register", registration(2))
    refused = refusal(lambda: execute(other, sign(LocalSigner.generate(), other)))
    assert (refused.contract, refused.error, refused.arguments) == ("Forwarder", "WalletRefusedSignature", {"wallet": wallet})


def test_an_expired_call_is_refused(chain: Chain, institution: LocalSigner, call_to: Build, sign: Sign, execute: Execute) -> None:
    call = call_to(institution.address, "register", registration())
    signature = sign(institution, call)
    chain.web3.provider.make_request("evm_setNextBlockTimestamp", [call.deadline + 1])
    chain.web3.provider.make_request("evm_mine", [])
    refused = refusal(lambda: execute(call, signature))
    assert (refused.contract, refused.error, refused.arguments["deadline"]) == ("Forwarder", "RequestExpired", call.deadline)
    assert refused.arguments["blockTimestamp"] > call.deadline


def test_a_replayed_call_is_refused(institution: LocalSigner, call_to: Build, sign: Sign, execute: Execute) -> None:
    call = call_to(institution.address, "register", registration())
    signature = sign(institution, call)
    execute(call, signature)
    refused = refusal(lambda: execute(call, signature))
    assert (refused.error, refused.arguments) == ("NonceAlreadyUsed", {"from": institution.address, "nonce": call.nonce})


def test_a_target_that_is_not_listed_is_refused(
    institution: LocalSigner, relayer: LocalSigner, call_to: Build, sign: Sign, execute: Execute
) -> None:
    call = call_to(institution.address, "register", registration(), to=relayer.address)
    refused = refusal(lambda: execute(call, sign(institution, call)))
    assert (refused.error, refused.arguments) == ("TargetNotAllowed", {"target": relayer.address})


@pytest.mark.parametrize("change", ["sender", "gas", "nonce", "deadline", "data"])
def test_a_tampered_call_is_refused(change: str, institution: LocalSigner, call_to: Build, sign: Sign, execute: Execute) -> None:
    call = call_to(institution.address, "register", registration())
    signature = sign(institution, call)
    tampered = replace(
        call,
        **{
            "sender": {"sender": LocalSigner.generate().address},
            "gas": {"gas": call.gas + 1},
            "nonce": {"nonce": call.nonce ^ 1},
            "deadline": {"deadline": call.deadline + 1},
            "data": {"data": encode_call("DatasetRegistry", "register", registration(2))},
        }[change],
    )
    refused = refusal(lambda: execute(tampered, signature))
    assert refused.error == "SignerMismatch"
    assert refused.arguments["expected"] == tampered.sender != refused.arguments["recovered"]


def test_a_signature_for_another_chain_is_refused(chain: Chain, institution: LocalSigner, call_to: Build, execute: Execute) -> None:
    call = call_to(institution.address, "register", registration())
    elsewhere = call.typed_data(chain.deployment.chain_id + 1, chain.deployment.contracts["Forwarder"].address)
    refused = refusal(lambda: execute(call, institution.sign_typed_data(elsewhere)))
    assert (refused.error, refused.arguments["expected"]) == ("SignerMismatch", institution.address)


def test_a_signature_for_another_forwarder_is_refused(chain: Chain, institution: LocalSigner, call_to: Build, execute: Execute) -> None:
    call = call_to(institution.address, "register", registration())
    elsewhere = call.typed_data(chain.deployment.chain_id, chain.deployment.contracts["DatasetRegistry"].address)
    refused = refusal(lambda: execute(call, institution.sign_typed_data(elsewhere)))
    assert refused.error == "SignerMismatch"


def test_a_high_s_signature_is_refused(institution: LocalSigner, call_to: Build, sign: Sign, execute: Execute) -> None:
    call = call_to(institution.address, "register", registration())
    signature = sign(institution, call)
    high = (CURVE_ORDER - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    mirrored = signature[:32] + high + bytes([55 - signature[64]])
    refused = refusal(lambda: execute(call, mirrored))
    assert (refused.contract, refused.error, refused.arguments) == ("", "ECDSAInvalidSignatureS", {"s": "0x" + high.hex()})


@pytest.mark.parametrize("length", [0, 64, 66])
def test_a_signature_of_another_length_is_refused(
    length: int, institution: LocalSigner, call_to: Build, sign: Sign, execute: Execute
) -> None:
    call = call_to(institution.address, "register", registration())
    refused = refusal(lambda: execute(call, (sign(institution, call) + b"\x00")[:length]))
    assert (refused.error, refused.arguments) == ("ECDSAInvalidSignatureLength", {"length": length})


def test_a_refused_inner_call_passes_its_error_on_and_keeps_the_nonce(
    chain: Chain, institution: LocalSigner, call_to: Build, sign: Sign, transact: Callable[..., Any], execute: Execute
) -> None:
    call = call_to(institution.address, "setState", 1, 2)
    signature = sign(institution, call)
    refused = refusal(lambda: execute(call, signature))
    assert (refused.contract, refused.error, refused.arguments) == ("DatasetRegistry", "ERC721NonexistentToken", {"tokenId": 1})

    # Sent unasked, it is mined as failed, and the request stays good for later.
    forwarder = chain.contract("Forwarder")
    mined = transact(forwarder.address, encode_call("Forwarder", "execute", as_request(call), signature), gas=900_000)
    assert mined["status"] == 0
    assert not forwarder.functions.nonceUsed(institution.address, call.nonce).call()
    first = call_to(institution.address, "register", registration())
    execute(first, sign(institution, first))
    assert execute(call, signature)["status"] == 1
    assert chain.contract("DatasetRegistry").functions.policyOf(1).call()[2] is False


def test_a_relayer_that_gives_too_little_gas_is_refused(
    chain: Chain, institution: LocalSigner, call_to: Build, sign: Sign, transact: Callable[..., Any]
) -> None:
    call = call_to(institution.address, "register", registration())
    data = encode_call("Forwarder", "execute", as_request(call), sign(institution, call))
    mined = transact(chain.contract("Forwarder").address, data, gas=call.gas)
    assert mined["status"] == 0
    assert not chain.contract("Forwarder").functions.nonceUsed(institution.address, call.nonce).call()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_parallel_calls_arrive_in_any_order(
    order: tuple[int, ...], chain: Chain, institution: LocalSigner, call_to: Build, sign: Sign, execute: Execute
) -> None:
    # Two nonces in one word of the bitmap, one far away.
    nonces = [7, 8, 2**256 - 1]
    calls = [call_to(institution.address, "register", registration(10 + n), nonce=nonce) for n, nonce in enumerate(nonces)]
    signatures = [sign(institution, call) for call in calls]
    for n in order:
        assert execute(calls[n], signatures[n])["status"] == 1
    assert chain.contract("DatasetRegistry").functions.count().call() == 3
    used = chain.contract("Forwarder").functions.nonceUsed
    assert [used(institution.address, nonce).call() for nonce in (6, 7, 8, 9, 2**256 - 1)] == [False, True, True, False, True]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sender=st.binary(min_size=20, max_size=20),
    to=st.binary(min_size=20, max_size=20),
    gas=st.integers(0, 2**256 - 1),
    nonce=st.integers(0, 2**256 - 1),
    deadline=st.integers(0, 2**48 - 1),
    data=st.binary(max_size=200),
)
def test_python_and_solidity_hash_alike(chain: Chain, sender: bytes, to: bytes, gas: int, nonce: int, deadline: int, data: bytes) -> None:
    call = RelayedCall(Web3.to_checksum_address(sender), Web3.to_checksum_address(to), gas, nonce, deadline, data)
    forwarder = chain.contract("Forwarder")
    expected = forwarder.functions.hashRequest(as_request(call)).call()
    assert call.typed_data(chain.deployment.chain_id, forwarder.address).hash() == expected


def test_the_contract_reproduces_the_vectors(chain: Chain) -> None:
    # The vectors fix a forwarder's address: its code is put there, and its EIP-712 domain follows.
    place = Web3.to_checksum_address(VECTORS["forwarder"])
    code = chain.web3.eth.get_code(chain.contract("Forwarder").address)
    chain.web3.provider.make_request("anvil_setCode", [place, "0x" + bytes(code).hex()])
    forwarder = chain.web3.eth.contract(address=place, abi=chain.contract("Forwarder").abi)
    assert VECTORS["chainId"] == chain.web3.eth.chain_id
    for vector in VECTORS["calls"]:
        call = RelayedCall.parse(vector["request"])
        assert forwarder.functions.hashRequest(as_request(call)).call() == from_hex(vector["eip712"]["digest"], 32)
        verify_signer(call.typed_data(VECTORS["chainId"], place), from_hex(vector["signature"], 65), call.sender)


def test_what_python_refuses_the_contract_refuses(chain: Chain, institution: LocalSigner, call_to: Build, sign: Sign) -> None:
    """One-bit changes of a signature: no one of the two accepts what the other does not."""
    call = call_to(institution.address, "register", registration())
    signature = sign(institution, call)
    forwarder = chain.contract("Forwarder")
    typed = call.typed_data(chain.deployment.chain_id, forwarder.address)
    forwarder.functions.verify(as_request(call), signature).call()
    for bit in range(0, 65 * 8, 7):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RexisError):
            verify_signer(typed, bytes(changed), call.sender)
        with pytest.raises(ContractLogicError, match="0x"):
            forwarder.functions.verify(as_request(call), bytes(changed)).call()


def test_only_the_owner_lists_targets(
    chain: Chain, relayer: LocalSigner, transact: Callable[..., Any], deploy_test_contract: Callable[..., Contract]
) -> None:
    forwarder = chain.contract("Forwarder").address
    target = deploy_test_contract("ForwardedTarget", forwarder).address
    refused = refusal(lambda: transact(forwarder, encode_call("Forwarder", "setTarget", target, True)))
    assert (refused.error, refused.arguments) == ("OwnableUnauthorizedAccount", {"account": relayer.address})


def test_random_nonces_do_not_repeat() -> None:
    assert len({random_nonce() for _ in range(1000)}) == 1000
