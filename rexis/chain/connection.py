"""A node that is proven to be on the chain, and to hold the contracts, that the deployment record names."""

from contextlib import suppress
from typing import Any

import requests
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import Web3Exception
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.base import JSONBaseProvider
from web3.providers.rpc.utils import ExceptionRetryConfiguration

from rexis.chain import calls
from rexis.chain.artifacts import artifact
from rexis.chain.deployments import Deployment
from rexis.chain.endpoints import Endpoints
from rexis.encoding import keccak256
from rexis.errors import UnavailableError, WrongChainError

# No answer, an answer that is no JSON-RPC (ValueError: not JSON, not UTF-8, not a number), or one that reports an error.
NODE_FAILURES = (requests.RequestException, Web3Exception, ValueError)


class Chain:
    """Web3 and contracts for one deployment. Web3 is synchronous: use it in threads, never inside an event loop.

    Attributes:
        web3: connected; requests time out.
        deployment: the record that the node was compared with.
    """

    def __init__(self, web3: Web3, deployment: Deployment) -> None:
        self.web3 = web3
        self.deployment = deployment
        if isinstance(web3.provider, Endpoints):
            web3.provider.accept = lambda provider: self._check(_web3_over(provider))
        self._contracts: dict[str, Contract] = {}

    @classmethod
    def connect(cls, rpc_url: str, deployment: Deployment, *, timeout_s: float = 10.0) -> "Chain":
        """Open a connection and check it.

        Args:
            rpc_url: http or https address of a JSON-RPC node; of several, separated by commas, those that do not answer are tried later.
            timeout_s: longest wait for one answer, in seconds.

        Raises:
            UnavailableError: no node answers.
            WrongChainError: the chain id or genesis of one, or its code at an address, differs from the record.
        """
        chain = cls(open_web3(rpc_url, timeout_s=timeout_s), deployment)
        chain.check()
        if isinstance(chain.web3.provider, Endpoints):
            for provider in chain.web3.provider.providers:
                with suppress(*NODE_FAILURES):
                    chain._check(_web3_over(provider))
        return chain

    def check(self) -> None:
        """Compare the node with the record again, such as after it was away; raises as `connect` does."""
        try:
            self._check(self.web3)
        except NODE_FAILURES as error:
            # The address may carry a credential, so the message leaves it out.
            raise UnavailableError(f"the chain does not answer ({type(error).__name__}); is REXIS_CHAIN_RPC_URL right?") from error

    def _check(self, web3: Web3) -> None:
        record, eth = self.deployment, web3.eth
        if (chain_id := eth.chain_id) != record.chain_id:
            raise WrongChainError(f"expected chain id {record.chain_id}, got {chain_id}: this node is on another chain")
        if record.genesis_hash is not None and (genesis := genesis_hash(web3)) != record.genesis_hash:
            raise WrongChainError(
                f"chain {chain_id}: expected genesis 0x{record.genesis_hash.hex()}, got 0x{genesis.hex()}: it was replaced by a new one"
            )
        for name, contract in record.contracts.items():
            code = bytes(eth.get_code(Web3.to_checksum_address(contract.address)))
            if not code:
                raise WrongChainError(f"chain {chain_id}: expected {name} at {contract.address}, got no contract: deploy it first")
            if keccak256(code) != contract.code_hash:
                raise WrongChainError(
                    f"chain {chain_id}: expected {name} at {contract.address} with code hash 0x{contract.code_hash.hex()}, "
                    f"got 0x{keccak256(code).hex()}"
                )

    def contract(self, name: str) -> Contract:
        """The deployed contract, with its functions and events.

        Raises:
            WrongChainError: the record has no such contract.
        """
        if name not in self._contracts:
            if name not in self.deployment.contracts:
                raise WrongChainError(f"the deployment record of chain {self.deployment.chain_id} has no {name}")
            address = Web3.to_checksum_address(self.deployment.contracts[name].address)
            self._contracts[name] = self.web3.eth.contract(address=address, abi=artifact(name).abi)
        return self._contracts[name]

    def encode_call(self, contract: str, function: str, *arguments: Any) -> bytes:
        """Call data; see `rexis.chain.calls.encode_call`, which needs no connection."""
        return calls.encode_call(contract, function, *arguments)


def open_web3(rpc_url: str, *, timeout_s: float = 10.0) -> Web3:
    """Web3 over HTTP, nothing checked yet; several addresses, separated by commas, are nodes of one chain.

    Blocks of proof-of-authority chains are readable, on every chain: their longer extra data is a field on which nothing here depends.
    """
    # One more try after a lost connection: the node may have closed the kept-alive one meanwhile. Timeouts are not repeated.
    retry = ExceptionRetryConfiguration(errors=(requests.ConnectionError,), retries=2, backoff_factor=0.1)
    urls = [url.strip() for url in rpc_url.split(",")]
    nodes = [HTTPProvider(url, request_kwargs={"timeout": timeout_s}, exception_retry_configuration=retry) for url in urls]
    return _web3_over(nodes[0] if len(nodes) == 1 else Endpoints(nodes))


def _web3_over(provider: JSONBaseProvider) -> Web3:
    web3 = Web3(provider)
    web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
    # It asks for the chain's id before every call and estimate, a third of all requests, for a field that ours do not carry.
    web3.middleware_onion.remove("validation")
    return web3


def genesis_hash(web3: Web3) -> bytes:
    """Hash of block 0, 32 bytes."""
    return bytes(web3.eth.get_block(0)["hash"])
