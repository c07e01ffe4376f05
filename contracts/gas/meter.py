"""A chain on which each call is signed, sent and weighed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from web3 import Web3
from web3.exceptions import ContractLogicError
from web3.types import RPCEndpoint

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain, open_web3
from rexis.chain.deployer import LOCAL_TOKEN, deploy_contracts
from rexis.chain.deployments import load
from rexis.chain.permits import sign_permit
from rexis.chain.reverts import decode_revert
from rexis.chain.signer import LOCAL_CHAIN_ID, LocalSigner, Signer, development_signer
from rexis.encoding import keccak256
from rexis.errors import ChainError
from rexis.protocol.relayed_call import RelayedCall
from services.local.anvil import passing_anvil

# 2027-01-01; anvil would take the clock, and a byte of a time stamp that happens to be zero is cheaper.
GENESIS = 1_798_761_600
INNER_GAS = 3_000_000
OUTER_GAS = 6_000_000
HOUR = 3600


class Meter:
    """Sends calls and writes down the gas of their transactions, base cost and call data included.

    Attributes:
        gas: name of a call → gas units.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.gas: dict[str, int] = {}
        self.payer = development_signer(1)
        self._weighing = True
        self._nonces: dict[str, int] = {}

    @property
    def now(self) -> int:
        """Time of the latest block."""
        return int(self.chain.web3.eth.get_block("latest")["timestamp"])

    def account(self, name: str) -> LocalSigner:
        """The account of this name, always the same, without ether."""
        return LocalSigner(keccak256(f"rexis gas account {name}".encode()))

    def address(self, contract: str) -> str:
        """Address of a deployed contract."""
        return self.chain.deployment.contracts[contract].address

    def call(self, contract: str, function: str, *arguments: Any) -> Any:
        """Ask; costs nothing."""
        return self.chain.contract(contract).get_function_by_name(function)(*arguments).call()

    def mint(self, who: Signer, amount: int) -> None:
        """Give an account play money."""
        self.sent(None, LOCAL_TOKEN, "mint", who.address, amount)

    def permit(self, who: Signer, contract: str, amount: int) -> dict[str, Any]:
        """An account's permit for a contract, over exactly this amount of its play money."""
        return sign_permit(self.chain.web3, who, self.address(LOCAL_TOKEN), self.address(contract), amount, self.now + HOUR)

    @contextmanager
    def unweighed(self) -> Iterator[None]:
        """What happens inside is part of the story, but not weighed, whatever its names."""
        self._weighing = False
        yield
        self._weighing = True

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self._request("evm_setNextBlockTimestamp", self.now + seconds)
        self.mine(1)

    def mine(self, blocks: int) -> None:
        """Add empty blocks, one second each."""
        self._request("anvil_mine", hex(blocks), "0x1")

    def relayed(self, name: str | None, who: Signer, contract: str, function: str, *arguments: Any) -> None:
        """Through the Forwarder, paid by somebody else; without a name it is part of the story, but not weighed."""
        # Neighbouring nonces share a word of the bitmap: agents take random ones, and so does this.
        number = self._nonces[who.address] = self._nonces.get(who.address, 0) + 1
        call = RelayedCall(
            sender=who.address,
            to=self.address(contract),
            gas=INNER_GAS,
            nonce=int.from_bytes(keccak256(f"{who.address} {number}".encode())),
            deadline=self.now + HOUR,
            data=encode_call(contract, function, *arguments),
        )
        fields = {"from": call.sender, "to": call.to, "gas": call.gas, "nonce": call.nonce, "deadline": call.deadline, "data": call.data}
        signature = who.sign_typed_data(call.typed_data(self.chain.deployment.chain_id, self.address("Forwarder")))
        self._send(name and f"{name}, relayed", self.payer, "Forwarder", encode_call("Forwarder", "execute", fields, signature))

    def sent(self, name: str | None, contract: str, function: str, *arguments: Any, who: Signer | None = None) -> None:
        """By an account that holds ether, without the Forwarder."""
        self._send(name and f"{name}, sent", who or self.payer, contract, encode_call(contract, function, *arguments))

    def _send(self, name: str | None, payer: Signer, contract: str, data: bytes) -> None:
        eth = self.chain.web3.eth
        self._check(payer.address, self.address(contract), data)
        self._request("evm_setNextBlockTimestamp", self.now + 1)
        fields = {
            "chainId": self.chain.deployment.chain_id,
            "to": self.address(contract),
            "value": 0,
            "data": data,
            "gas": OUTER_GAS,
            "nonce": eth.get_transaction_count(payer.address),
            "gasPrice": 10**10,
        }
        receipt = eth.wait_for_transaction_receipt(eth.send_raw_transaction(payer.sign_transaction(fields)), poll_latency=0.005)
        if receipt["status"] != 1:
            raise ChainError(f"{name or contract}: the call failed, so there is nothing to weigh")
        if name is not None and self._weighing:
            self.gas[name] = int(receipt["gasUsed"])

    def _check(self, payer: str, to: str, data: bytes) -> None:
        """Raises what the contract would refuse the call with."""
        try:
            self.chain.web3.eth.call(
                {"from": Web3.to_checksum_address(payer), "to": Web3.to_checksum_address(to), "data": Web3.to_hex(data)}
            )
        except ContractLogicError as error:
            raise decode_revert(bytes.fromhex(str(error.data).removeprefix("0x"))) from error

    def _request(self, method: str, *parameters: Any) -> None:
        self.chain.web3.manager.request_blocking(RPCEndpoint(method), list(parameters))


@contextmanager
def weighed_chain() -> Iterator[Meter]:
    """A meter on a new chain with all contracts, whose deployments are weighed already."""
    with passing_anvil(genesis_time=GENESIS) as url:
        # Not as many as the deployment happens to take: times are in hashes of blocks, which are the beacons of evaluations.
        open_web3(url).manager.request_blocking(RPCEndpoint("anvil_setBlockTimestampInterval"), [1])
        deployment = deploy_contracts(url, development_signer(0), load(LOCAL_CHAIN_ID))
        meter = Meter(Chain.connect(url, deployment))
        for name, contract in sorted(deployment.contracts.items()):
            if contract.transaction is not None:
                receipt = meter.chain.web3.eth.get_transaction_receipt(contract.transaction)
                meter.gas[f"deploy {name}"] = int(receipt["gasUsed"])
        yield meter


Scenario = Callable[[Meter], None]
