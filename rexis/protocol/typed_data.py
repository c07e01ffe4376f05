"""EIP-712 typed data: every signature that must be provable later is over one of these."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from eth_account.messages import encode_typed_data

from rexis.encoding import abi_encode, checksum_address, keccak256
from rexis.errors import SignatureError
from rexis.protocol.signatures import recover_address, sign_digest

DOMAIN_NAME = "Rexis"
DOMAIN_VERSION = "1"


@dataclass(frozen=True)
class Domain:
    """EIP-712 domain: what keeps a signature from counting on another chain or contract.

    Attributes:
        chain_id: EIP-155 id.
        verifying_contract: address that checks the signature, None for messages that only parties off chain check.
        name, version: "Rexis" and "1" unless the contract has its own.
    """

    chain_id: int
    verifying_contract: str | None = None
    name: str = DOMAIN_NAME
    version: str = DOMAIN_VERSION

    def __post_init__(self) -> None:
        if not 0 < self.chain_id < 2**256:
            raise ValueError(f"expected a chain id from 1, got {self.chain_id}")
        if self.verifying_contract is not None and self.verifying_contract != checksum_address(self.verifying_contract):
            raise ValueError(f"expected a checksum address as verifying contract, got {self.verifying_contract}")

    def fields(self) -> dict[str, Any]:
        """The domain as wallets expect it; members that are absent are left out, as EIP-712 says."""
        fields = {"name": self.name, "version": self.version, "chainId": self.chain_id}
        return fields if self.verifying_contract is None else fields | {"verifyingContract": self.verifying_contract}


@dataclass(frozen=True)
class TypedMessage:
    """One message of one struct type, whose members are all of atomic types or arrays of them.

    Attributes:
        domain: where the signature counts.
        type_string: as the contract has it, such as `Request(address from,address to,…)`.
        message: value of each member; bytes as `bytes`, addresses as checksum addresses.
    """

    domain: Domain
    type_string: str
    message: Mapping[str, Any]

    @property
    def primary_type(self) -> str:
        """Name of the struct."""
        return self.type_string.partition("(")[0]

    @property
    def types(self) -> dict[str, list[dict[str, str]]]:
        """Members of the struct in order, in the form of `eth_signTypedData_v4`."""
        return {self.primary_type: [{"name": name, "type": type_name} for type_name, name in _members(self.type_string)]}

    def preimage(self) -> bytes:
        """What is hashed and signed: 0x1901 ‖ domain separator ‖ struct hash, 66 bytes."""
        if "[" in self.type_string:
            signable = encode_typed_data(self.domain.fields(), self.types, dict(self.message))
            return bytes(b"\x19" + signable.version + signable.header + signable.body)
        return b"\x19\x01" + _separator(self.domain) + self._struct_hash()

    def _struct_hash(self) -> bytes:
        words = [_word(type_name, self.message[name]) for type_name, name in _members(self.type_string)]
        return keccak256(_type_hash(self.type_string) + b"".join(words))

    def hash(self) -> bytes:
        """The 32 bytes that are signed: keccak256 of `preimage`."""
        return keccak256(self.preimage())

    def sign(self, private_key: bytes) -> bytes:
        """Signature of 65 bytes by a 32-byte private key."""
        return sign_digest(self.hash(), private_key)


# One registry and a few types make up nearly all messages; eth_account hashes both anew for each of them.
@lru_cache(maxsize=64)
def _separator(domain: Domain) -> bytes:
    return bytes(encode_typed_data(domain.fields(), {"Empty": []}, {}).header)


@lru_cache(maxsize=64)
def _members(type_string: str) -> tuple[tuple[str, str], ...]:
    pairs = (member.partition(" ") for member in type_string.partition("(")[2].removesuffix(")").split(","))
    return tuple((type_name, name) for type_name, _, name in pairs)


def _word(type_name: str, value: Any) -> bytes:
    """The 32 bytes that stand for a member of an atomic type in its struct's hash."""
    if type_name == "string":
        return keccak256(value.encode("utf-8"))
    if type_name == "bytes":
        return keccak256(value)
    if type_name == "bytes32" and type(value) is bytes and len(value) == 32:
        return value
    if type_name == "address":
        return bytes.fromhex(checksum_address(value)[2:]).rjust(32, b"\0")
    return abi_encode([type_name], [value])


@lru_cache(maxsize=64)
def _type_hash(type_string: str) -> bytes:
    return keccak256(type_string.encode())


def recover_signer(typed: TypedMessage, signature: bytes) -> str:
    """Checksum address of the account (EOA) that signed.

    Raises:
        SignatureError: malformed, malleated, or not recoverable.
    """
    return recover_address(typed.hash(), signature)


def verify_signer(typed: TypedMessage, signature: bytes, expected: str) -> None:
    """Check that `expected` (an EOA, checksum address) signed.

    Raises:
        SignatureError: malformed, malleated, or by another key.
    """
    signer = recover_signer(typed, signature)
    if signer != expected:
        raise SignatureError(f"{typed.primary_type}: expected a signature by {expected}, got one by {signer}")
