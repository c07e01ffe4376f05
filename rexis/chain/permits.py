"""Permits of ERC-20 tokens (ERC-2612): whoever pays signs once more, and needs neither ether nor an approval before.

A wrong domain makes a permit that the token refuses, or worse, one of another token; so the name and version that a token tells are
compared with its own separator before anything is signed.
"""

from dataclasses import dataclass
from typing import Any

from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import BadFunctionCallOutput, ContractLogicError

from rexis.chain.artifacts import artifact
from rexis.chain.connection import NODE_FAILURES
from rexis.chain.signer import Signer
from rexis.encoding import abi_encode, keccak256, to_hex
from rexis.errors import ChainError, UnavailableError
from rexis.protocol.typed_data import Domain, TypedMessage

PERMIT_TYPE = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"

_VERSION_ABI = {"type": "function", "name": "version", "stateMutability": "view", "inputs": [], "outputs": [{"type": "string"}]}


@dataclass(frozen=True)
class Permit:
    """Lets `spender` move `value` of the owner's tokens until `deadline`.

    Attributes:
        owner, spender: checksum addresses.
        value: in the token's smallest unit.
        nonce: the owner's next one at the token; a permit counts once.
        deadline: Unix time in seconds.
    """

    owner: str
    spender: str
    value: int
    nonce: int
    deadline: int

    def typed_data(self, domain: Domain) -> TypedMessage:
        """The message that the owner signs for the token of this domain."""
        message = {"owner": self.owner, "spender": self.spender, "value": self.value, "nonce": self.nonce, "deadline": self.deadline}
        return TypedMessage(domain, PERMIT_TYPE, message)


def domain_of(web3: Web3, token: str) -> Domain:
    """The EIP-712 domain of a token: by ERC-5267 where it has that, else by its name and version.

    Args:
        token: checksum address.

    Raises:
        ChainError: it has no permit, or its separator is of another domain than it tells.
        UnavailableError: the node does not answer.
    """
    contract = _contract(web3, token)
    try:
        chain_id = web3.eth.chain_id
        separator = _ask(contract, "DOMAIN_SEPARATOR")
        if separator is None:
            raise ChainError(f"token {token}: expected one with permit (ERC-2612), got no DOMAIN_SEPARATOR; approve the amount instead")
        told = _ask(contract, "eip712Domain")
        name, version = told[1:3] if told is not None else (_ask(contract, "name"), _ask(contract, "version") or "1")
    except NODE_FAILURES as error:
        raise UnavailableError(f"the chain does not answer ({type(error).__name__})") from error
    domain = Domain(chain_id, token, name=str(name), version=str(version))
    if _separator(domain) != bytes(separator):
        raise ChainError(
            f"token {token}: expected the separator {to_hex(_separator(domain))} of name {domain.name!r}, version {domain.version!r} "
            f"on chain {chain_id}, got {to_hex(bytes(separator))}; approve the amount instead"
        )
    return domain


def sign_permit(web3: Web3, signer: Signer, token: str, spender: str, value: int, deadline: int) -> dict[str, Any]:
    """Sign a permit over the signer's next nonce, in the form of the contracts' struct `Escrow.Permit`.

    Args:
        token, spender: checksum addresses.
        value: exactly what the call takes, in the token's smallest unit.
        deadline: Unix time in seconds.

    Raises:
        ChainError, UnavailableError: as `domain_of`.
    """
    domain = domain_of(web3, token)
    try:
        nonce = int(_contract(web3, token).functions.nonces(to_checksum_address(signer.address)).call())
    except NODE_FAILURES as error:
        raise UnavailableError(f"the chain does not answer ({type(error).__name__})") from error
    signature = signer.sign_typed_data(Permit(signer.address, spender, value, nonce, deadline).typed_data(domain))
    return {"deadline": deadline, "v": signature[64], "r": signature[:32], "s": signature[32:64]}


def no_permit() -> dict[str, Any]:
    """Stands for none, where the amount was approved before."""
    return {"deadline": 0, "v": 0, "r": bytes(32), "s": bytes(32)}


def _contract(web3: Web3, token: str) -> Contract:
    return web3.eth.contract(address=to_checksum_address(token), abi=[*artifact("LocalCredit").abi, _VERSION_ABI])


def _ask(contract: Contract, function: str) -> Any:
    """What the token answers, None if it has no such function."""
    try:
        return contract.functions[function]().call()
    except (BadFunctionCallOutput, ContractLogicError):
        return None


def _separator(domain: Domain) -> bytes:
    parts = [keccak256(text.encode()) for text in (DOMAIN_TYPE, domain.name, domain.version)]
    return keccak256(
        abi_encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], [*parts, domain.chain_id, domain.verifying_contract])
    )
