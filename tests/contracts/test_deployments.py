"""Deployment records, deploying, and connecting: everything that contradicts a record is refused by name."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rexis.chain.artifacts import artifact
from rexis.chain.connection import Chain
from rexis.chain.deployer import CONTRACTS, CREATED, LOCAL_TOKEN, TARGETS, deploy_contracts
from rexis.chain.deployments import Deployment, load, read, write
from rexis.chain.signer import LocalSigner, development_signer
from rexis.errors import ConfigurationError, UnavailableError, WrongChainError


def test_the_local_record_ships_and_names_all_contracts() -> None:
    shipped = load(31337)
    assert sorted(shipped.contracts) == sorted([*CONTRACTS, *CREATED, LOCAL_TOKEN])
    # Older state of a local chain, and records of services, hold these two: they must stay where they are.
    assert shipped.contracts["Forwarder"].address == "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    assert shipped.contracts["DatasetRegistry"].address == "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
    assert shipped.genesis_hash is None
    assert shipped.start_block == 0


def test_every_contract_behind_the_forwarder_trusts_it_and_is_a_target(chain: Chain, deployment: Deployment) -> None:
    forwarder = chain.contract("Forwarder")
    for name in TARGETS:
        assert chain.contract(name).functions.trustedForwarder().call() == forwarder.address
        assert forwarder.functions.isTarget(deployment.contracts[name].address).call() is True
    assert forwarder.functions.DELEGATIONS().call() == deployment.contracts["KeyDelegation"].address
    assert "KeyDelegation" in TARGETS
    assert chain.contract("AccessManager").functions.REGISTRY().call() == deployment.contracts["DatasetRegistry"].address
    assert chain.contract("InferenceRegistry").functions.MODELS().call() == deployment.contracts["ModelRegistry"].address


def test_the_delegations_are_those_that_the_forwarder_asks(chain: Chain, anvil: str, deployment: Deployment) -> None:
    """A record that names another contract of delegations, or a chain that holds another one in its place, is refused."""
    right = deployment.contracts["KeyDelegation"]
    elsewhere = replace(right, address=deployment.contracts["ModelRegistry"].address)
    owner = development_signer(0)
    with pytest.raises(WrongChainError, match=f"expected the KeyDelegation of Forwarder at {elsewhere.address}, got {right.address}"):
        deploy_contracts(anvil, owner, replace(deployment, contracts={**deployment.contracts, "KeyDelegation": elsewhere}))
    chain.web3.provider.make_request("anvil_setCode", [right.address, "0x00"])
    with pytest.raises(WrongChainError, match=f"{right.address} with code hash"):
        chain.check()
    for recorded in (deployment, replace(deployment, contracts={"Forwarder": deployment.contracts["Forwarder"]})):
        with pytest.raises(WrongChainError, match="KeyDelegation"):
            deploy_contracts(anvil, owner, recorded)


def test_a_chain_of_an_older_version_gains_the_contracts_that_it_lacks(chain: Chain, anvil: str, deployment: Deployment) -> None:
    """The state that the first version left: two contracts, and the deployer's nonce after them."""
    provider, owner = chain.web3.provider, development_signer(0)
    later = [name for name in (*CONTRACTS, LOCAL_TOKEN) if name not in ("Forwarder", "DatasetRegistry")]
    for name in later:
        address = deployment.contracts[name].address
        provider.make_request("anvil_setCode", [address, "0x"])
        provider.make_request("anvil_setNonce", [address, "0x0"])
        if name not in TARGETS:
            continue
        sent = chain.contract("Forwarder").functions.setTarget(address, False).transact({"from": owner.address})
        chain.web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)
    provider.make_request("anvil_setNonce", [owner.address, "0x3"])
    old = replace(deployment, contracts={name: deployment.contracts[name] for name in ("Forwarder", "DatasetRegistry")})

    made = deploy_contracts(anvil, owner, old)
    assert made.contracts["DatasetRegistry"] == deployment.contracts["DatasetRegistry"]
    for name in later:
        assert made.contracts[name].address == deployment.contracts[name].address
        assert name not in TARGETS or chain.contract("Forwarder").functions.isTarget(made.contracts[name].address).call() is True


def test_play_money_is_accepted_on_the_local_chain_and_can_not_exist_elsewhere(chain: Chain, deployment: Deployment) -> None:
    token = deployment.contracts[LOCAL_TOKEN].address
    assert chain.contract("PaymentTokens").functions.isAccepted(token).call() is True
    # The constructor asks for the chain's id, which a call with another one can not show: forge does (contracts/test/LocalCredit.t.sol).
    assert chain.contract(LOCAL_TOKEN).functions.LOCAL_CHAIN_ID().call() == 31337


def test_a_record_is_read_as_it_was_written(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "31337.json"
    write(deployment, path)
    write(deployment, path)
    assert read(path) == deployment
    assert [file.name for file in tmp_path.iterdir()] == ["31337.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("genesis_hash"),
        lambda record: record.update(chain_id="31337"),
        lambda record: record.update(chain_id=-1),
        lambda record: record.update(chain_id=True),
        lambda record: record.update(genesis_hash="0x12"),
        lambda record: record.update(contracts=[]),
        lambda record: record["contracts"]["Forwarder"].update(address="0x5FbDB2315678afecb367f032d93F642f64180aA3"),
        lambda record: record["contracts"]["Forwarder"].update(code_hash=None),
        lambda record: record["contracts"]["Forwarder"].update(arguments=[1.5]),
        lambda record: record["contracts"]["Forwarder"].pop("block"),
    ],
)
def test_damaged_records_are_refused(change: Callable[[dict[str, Any]], Any], deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write(deployment, path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match=r"record\.json"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b" " * (1 << 20) + b"{}"])
def test_files_that_are_no_records_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        read(path)


def test_missing_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="REXIS_DEPLOYMENT_FILE"):
        load(424242)
    with pytest.raises(ConfigurationError, match="No such file"):
        read(tmp_path / "nothing.json")


def test_deploying_on_an_empty_local_chain_gives_the_shipped_record(deployment: Deployment) -> None:
    made = {name: replace(contract, block=0, transaction=None) for name, contract in deployment.contracts.items()}
    assert made == load(31337).contracts


def test_deploying_again_does_nothing(chain: Chain, anvil: str, deployment: Deployment) -> None:
    before = chain.web3.eth.block_number
    assert deploy_contracts(anvil, development_signer(0), deployment) == deployment
    # Anyone may find out that all is there, an account without ether too.
    assert deploy_contracts(anvil, LocalSigner.generate(), deployment) == deployment
    assert chain.web3.eth.block_number == before


def test_deploying_goes_on_where_it_was_interrupted(chain: Chain, anvil: str, deployment: Deployment) -> None:
    """The forwarder is there, the registry is gone and not listed, as after a crash between two transactions."""
    eth, provider = chain.web3.eth, chain.web3.provider
    registry = deployment.contracts["DatasetRegistry"].address
    provider.make_request("anvil_setCode", [registry, "0x"])
    provider.make_request("anvil_setNonce", [registry, "0x0"])
    provider.make_request("anvil_setNonce", [development_signer(0).address, "0x1"])
    forwarder = chain.contract("Forwarder")
    listed = Chain(chain.web3, deployment).contract("Forwarder").functions.isTarget(registry)
    owner = development_signer(0)
    fields = {
        "chainId": 31337,
        "to": forwarder.address,
        "value": 0,
        "gas": 100_000,
        "nonce": 1,
        "gasPrice": 10**10,
        "data": bytes.fromhex(forwarder.encode_abi("setTarget", [registry, False])[2:]),
    }
    eth.wait_for_transaction_receipt(eth.send_raw_transaction(owner.sign_transaction(fields)), poll_latency=0.01)
    provider.make_request("anvil_setNonce", [owner.address, "0x1"])
    assert listed.call() is False

    again = deploy_contracts(anvil, owner, deployment)
    assert again.contracts["Forwarder"] == deployment.contracts["Forwarder"]
    assert again.contracts["DatasetRegistry"].code_hash == deployment.contracts["DatasetRegistry"].code_hash
    assert again.contracts["DatasetRegistry"].address == registry
    assert listed.call() is True


def test_a_contract_that_would_stand_elsewhere_is_not_deployed(chain: Chain, anvil: str, deployment: Deployment) -> None:
    chain.web3.provider.make_request("anvil_setCode", [deployment.contracts["DatasetRegistry"].address, "0x"])
    before = chain.web3.eth.block_number
    with pytest.raises(WrongChainError, match="should come to stand at"):
        deploy_contracts(anvil, development_signer(0), deployment)
    assert chain.web3.eth.block_number == before


def test_only_the_owner_can_complete_the_list_of_targets(chain: Chain, anvil: str, deployment: Deployment) -> None:
    forwarder = chain.contract("Forwarder")
    sent = forwarder.functions.setTarget(deployment.contracts["DatasetRegistry"].address, False).transact(
        {"from": development_signer(0).address}
    )
    chain.web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)
    with pytest.raises(ConfigurationError, match="only its owner 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"):
        deploy_contracts(anvil, development_signer(1), deployment)


def test_code_of_another_version_is_not_taken(anvil: str, chain: Chain, deployment: Deployment) -> None:
    other = replace(deployment.contracts["Forwarder"], code_hash=b"\x01" * 32)
    recorded = replace(deployment, contracts={**deployment.contracts, "Forwarder": other})
    with pytest.raises(WrongChainError, match="another version"):
        deploy_contracts(anvil, development_signer(0), recorded)
    with pytest.raises(WrongChainError, match="code hash 0x0101"):
        Chain.connect(anvil, recorded)


def test_another_chain_is_refused(anvil: str, chain: Chain, deployment: Deployment) -> None:
    for wrong, message in (
        (replace(deployment, chain_id=1), "expected chain id 1, got 31337"),
        (replace(deployment, genesis_hash=b"\x01" * 32), "genesis"),
    ):
        with pytest.raises(WrongChainError, match=message):
            Chain.connect(anvil, wrong)
        with pytest.raises(WrongChainError):
            deploy_contracts(anvil, development_signer(0), wrong)


def test_a_missing_contract_is_named(anvil: str, chain: Chain, deployment: Deployment) -> None:
    chain.web3.provider.make_request("anvil_setCode", [deployment.contracts["Forwarder"].address, "0x"])
    with pytest.raises(WrongChainError, match="expected Forwarder at 0x5FbD"):
        Chain.connect(anvil, deployment)
    with pytest.raises(WrongChainError, match="has no Ombudsman"):
        chain.contract("Ombudsman")


def test_a_chain_that_does_not_answer_is_unavailable(deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # It accepts, and never says a word.
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError):
            Chain.connect(url, deployment, timeout_s=0.3)
    for attempt in (lambda: Chain.connect(url, deployment), lambda: deploy_contracts(url, development_signer(0))):
        with pytest.raises(UnavailableError):
            attempt()


@pytest.mark.parametrize("status", [200, 404, 503])
@pytest.mark.parametrize(
    "body", [b"<html>sign in</html>", b"", b"null", b"[]", b"\xff", b'{"jsonrpc":"2.0","id":0}', b'{"jsonrpc":"2.0","id":0,"result":"zz"}']
)
def test_a_server_that_is_no_node_is_unavailable(body: bytes, status: int, deployment: Deployment) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for attempt in (lambda: Chain.connect(url, deployment), lambda: deploy_contracts(url, development_signer(0))):
            with pytest.raises(UnavailableError):
                attempt()
        server.shutdown()


def test_errors_do_not_show_the_nodes_address(deployment: Deployment) -> None:
    with pytest.raises(UnavailableError) as caught:
        Chain.connect("http://user:s3cret@127.0.0.1:1", deployment)
    assert "s3cret" not in str(caught.value)


def test_deployed_code_is_recognised_whatever_its_immutables_are(chain: Chain, deployment: Deployment) -> None:
    code = bytes(chain.web3.eth.get_code(chain.contract("Forwarder").address))
    compiled = artifact("Forwarder")
    assert code != compiled.runtime
    assert compiled.has_runtime(code)
    start, _ = compiled.immutables[0]
    changed = bytearray(code)
    changed[start] ^= 1
    assert compiled.has_runtime(bytes(changed))
    changed[start - 1] ^= 1
    assert not compiled.has_runtime(bytes(changed))
    assert not compiled.has_runtime(code + b"\x00")
    assert not compiled.has_runtime(b"")
