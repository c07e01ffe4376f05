"""Deploying the contracts, once: what a record already names, and the chain holds, stays."""

from collections.abc import Mapping
from dataclasses import replace

from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.exceptions import ContractLogicError
from web3.types import TxParams, TxReceipt
from web3.utils.address import get_create_address

from rexis.chain.artifacts import artifact
from rexis.chain.calls import encode_call
from rexis.chain.connection import NODE_FAILURES, genesis_hash, open_web3
from rexis.chain.deployments import Argument, DeployedContract, Deployment
from rexis.chain.reverts import decode_revert
from rexis.chain.signer import LOCAL_CHAIN_ID, Signer
from rexis.encoding import abi_encode, keccak256, to_hex
from rexis.errors import ChainError, ConfigurationError, UnavailableError, WrongChainError

# In order of deployment, so that addresses follow from the deployer's nonces: append, never insert. Each with its constructor's
# arguments: the signer, or contracts before it.
CONTRACTS: Mapping[str, tuple[str, ...]] = {
    "Forwarder": ("signer",),
    "DatasetRegistry": ("Forwarder", "signer"),
    "AccessManager": ("Forwarder", "DatasetRegistry"),
    "FederationRegistry": ("Forwarder",),
    "ModelRegistry": ("Forwarder",),
    "PaymentTokens": ("signer",),
    "InferenceRegistry": ("Forwarder", "ModelRegistry", "PaymentTokens"),
    "ComputeJobs": ("Forwarder", "AccessManager", "PaymentTokens", "signer"),
    "RewardDistributor": ("Forwarder", "FederationRegistry", "PaymentTokens"),
    "EvaluationRegistry": ("Forwarder", "ModelRegistry"),
}
# Made by a contract above in its own constructor: by whom, and under what name it tells the address. They take no nonce of the deployer's.
CREATED: Mapping[str, tuple[str, str]] = {"KeyDelegation": ("Forwarder", "DELEGATIONS")}
# Behind the forwarder, which every one of them trusts from its constructor on.
TARGETS = (*(name for name, arguments in CONTRACTS.items() if arguments[0] == "Forwarder"), *CREATED)
# Play money: escrows accept it on the local chain, and it can not exist on another.
LOCAL_TOKEN = "LocalCredit"
RECEIPT_TIMEOUT_S = 300.0


def deploy_contracts(rpc_url: str, signer: Signer, recorded: Deployment | None = None, *, timeout_s: float = 10.0) -> Deployment:
    """Bring a chain to the state in which all contracts are there and the forwarder calls them; do nothing where it is so.

    The signer pays and becomes the owner of the contracts that have one; `transferOwnership` hands them to a multisig.

    Args:
        recorded: what was deployed before, or where it has to come to stand (the shipped record of the local chain).
        timeout_s: longest wait for one answer of the node, in seconds.

    Returns:
        The record with this chain's genesis; to be written down by the caller.

    Raises:
        UnavailableError: the node does not answer.
        WrongChainError: the chain contradicts `recorded`, or a contract would come to stand at another address than recorded.
        ConfigurationError: a target is not on the forwarder's list, and the signer is not the forwarder's owner.
        ChainError: a transaction failed.
    """
    web3 = open_web3(rpc_url, timeout_s=timeout_s)
    try:
        return _Deployer(web3, signer, recorded).run()
    except ContractLogicError as error:
        data = error.data if isinstance(error.data, str) else "0x"
        raise decode_revert(bytes.fromhex(data.removeprefix("0x"))) from error
    except NODE_FAILURES as error:
        raise UnavailableError(f"the chain does not answer as expected ({type(error).__name__}); run again") from error


class _Deployer:
    def __init__(self, web3: Web3, signer: Signer, recorded: Deployment | None) -> None:
        self.web3, self.signer = web3, signer
        self.chain_id, genesis = web3.eth.chain_id, genesis_hash(web3)
        if recorded is not None and recorded.chain_id != self.chain_id:
            raise WrongChainError(f"expected chain id {recorded.chain_id}, got {self.chain_id}")
        if recorded is not None and recorded.genesis_hash not in (None, genesis):
            raise WrongChainError(f"chain {self.chain_id}: its genesis 0x{genesis.hex()} is not the record's: it was replaced by a new one")
        self.recorded = recorded.contracts if recorded is not None else {}
        self.deployment = Deployment(self.chain_id, genesis, {})

    def run(self) -> Deployment:
        for name, arguments in CONTRACTS.items():
            self._ensure(name, tuple(self._address(argument) for argument in arguments))
            for created, (creator, getter) in CREATED.items():
                if creator == name:
                    self._record_created(created, creator, getter)
            if name in TARGETS:
                self._ensure_target(self._address(name))
        if self.chain_id == LOCAL_CHAIN_ID:
            self._ensure(LOCAL_TOKEN, ())
            self._ensure_accepted(self._address(LOCAL_TOKEN))
        return self.deployment

    def _address(self, name: str) -> str:
        return self.signer.address if name == "signer" else self.deployment.contracts[name].address

    def _ensure(self, name: str, arguments: tuple[Argument, ...]) -> DeployedContract:
        recorded = self.recorded.get(name)
        contract = self._found(name, recorded) if recorded is not None else None
        if contract is None:
            contract = self._deploy(name, arguments, recorded)
        self.deployment = replace(self.deployment, contracts={**self.deployment.contracts, name: contract})
        return contract

    def _found(self, name: str, recorded: DeployedContract) -> DeployedContract | None:
        code = bytes(self.web3.eth.get_code(to_checksum_address(recorded.address)))
        if code and keccak256(code) != recorded.code_hash:
            raise WrongChainError(
                f"chain {self.chain_id}: the code of {name} at {recorded.address} is not the recorded one: another version of Rexis "
                "deployed it; use that version's record, or start from an empty chain"
            )
        return recorded if code else None

    def _deploy(self, name: str, arguments: tuple[Argument, ...], recorded: DeployedContract | None) -> DeployedContract:
        compiled = artifact(name)
        types = [component["type"] for entry in compiled.abi if entry["type"] == "constructor" for component in entry["inputs"]]
        encoded = abi_encode(types, list(arguments))
        sender = to_checksum_address(self.signer.address)
        address = get_create_address(sender, self.web3.eth.get_transaction_count(sender))
        if recorded is not None and address != recorded.address:
            raise WrongChainError(
                f"chain {self.chain_id}: {name} should come to stand at {recorded.address}, but the next contract of {self.signer.address} "
                f"stands at {address}: somebody used this chain or this key before; start from an empty chain"
            )
        receipt = self._send(None, compiled.bytecode + encoded)
        code = bytes(self.web3.eth.get_code(to_checksum_address(address)))
        if receipt["contractAddress"] != address or not compiled.has_runtime(code):
            raise ChainError(f"{name}: what stands at {address} after transaction {to_hex(receipt['transactionHash'])} is not its code")
        return DeployedContract(
            address=address,
            code_hash=keccak256(code),
            block=receipt["blockNumber"],
            transaction=bytes(receipt["transactionHash"]),
            arguments=arguments,
            compiler=compiled.compiler,
        )

    def _record_created(self, name: str, creator: str, getter: str) -> None:
        maker, compiled = self.deployment.contracts[creator], artifact(name)
        contract = self.web3.eth.contract(address=to_checksum_address(maker.address), abi=artifact(creator).abi)
        address = str(contract.functions[getter]().call())
        recorded = self.recorded.get(name)
        if recorded is not None and address != recorded.address:
            raise WrongChainError(f"chain {self.chain_id}: expected the {name} of {creator} at {recorded.address}, got {address}")
        code = bytes(self.web3.eth.get_code(to_checksum_address(address)))
        if not compiled.has_runtime(code) and (recorded is None or self._found(name, recorded) is None):
            raise WrongChainError(f"chain {self.chain_id}: what stands at {address}, {creator}.{getter}(), is not {name}")
        made = DeployedContract(address, keccak256(code), maker.block, maker.transaction, (maker.address,), maker.compiler)
        self.deployment = replace(self.deployment, contracts={**self.deployment.contracts, name: made})

    def _ensure_target(self, target: str) -> None:
        self._ensure_listed("Forwarder", "isTarget", "setTarget", target)

    def _ensure_accepted(self, token: str) -> None:
        self._ensure_listed("PaymentTokens", "isAccepted", "setAccepted", token)

    def _ensure_listed(self, name: str, question: str, setter: str, listed: str) -> None:
        address = self._address(name)
        contract = self.web3.eth.contract(address=to_checksum_address(address), abi=artifact(name).abi)
        if contract.functions[question](listed).call():
            return
        if (owner := contract.functions.owner().call()) != self.signer.address:
            raise ConfigurationError(
                f"{listed} is not on the list of the {name}, and only its owner {owner} can call {setter}({listed}, true)"
            )
        self._send(address, encode_call(name, setter, listed, True))

    def _send(self, to: str | None, data: bytes) -> TxReceipt:
        eth, sender = self.web3.eth, to_checksum_address(self.signer.address)
        call: TxParams = {"from": sender, "data": Web3.to_hex(data)}
        if to is not None:
            call["to"] = to_checksum_address(to)
        fields = {**call, "chainId": self.chain_id, "nonce": eth.get_transaction_count(sender), "value": 0}
        # The state may change between estimate and execution.
        fields["gas"] = int(eth.estimate_gas(call) * 1.2)
        base_fee = eth.get_block("latest").get("baseFeePerGas")
        if base_fee is None:
            fields["gasPrice"] = eth.gas_price
        else:
            tip = eth.max_priority_fee
            fields |= {"maxFeePerGas": 2 * base_fee + tip, "maxPriorityFeePerGas": tip}
        sent = eth.send_raw_transaction(self.signer.sign_transaction(fields))
        receipt = eth.wait_for_transaction_receipt(sent, timeout=RECEIPT_TIMEOUT_S)
        if receipt["status"] != 1:
            raise ChainError(f"transaction {to_hex(bytes(sent))} failed although its estimate succeeded; run again")
        return receipt
