"""Bytes of transactions, before and after signing: EIP-1559, and legacy with chain id (EIP-155) for chains without a base fee.

Written out here because every signer needs both ends: what is hashed, which a vault signs, and what is sent. Tests compare each byte with
eth-account's.
"""

from collections.abc import Mapping
from typing import Any

import rlp

from rexis.encoding import checksum_address, from_hex
from rexis.protocol.signatures import SIGNATURE_BYTES

DYNAMIC_FEE_TYPE = b"\x02"
_COMMON = frozenset({"chainId", "nonce", "gas", "to", "value", "data"})
_DYNAMIC_FEE = frozenset({"maxFeePerGas", "maxPriorityFeePerGas"})
_LEGACY_FEE = frozenset({"gasPrice"})


def unsigned_bytes(transaction: Mapping[str, Any]) -> bytes:
    """What is hashed and signed.

    Args:
        transaction: in the names of JSON-RPC: chainId, nonce, gas, value, data (bytes or 0x-hexadecimal), to (absent when it creates a
            contract), and either gasPrice or maxFeePerGas with maxPriorityFeePerGas; amounts in wei as integers.

    Raises:
        KeyError: a field is missing; without a chain id it would count on every chain.
        ValueError: a field that is not signed here, such as an access list, or a value out of range.
        EncodingError: an address or data in another form.
    """
    chain_id, fields = _fields(transaction)
    if "gasPrice" in transaction:
        return bytes(rlp.encode([*fields, chain_id, b"", b""]))
    return DYNAMIC_FEE_TYPE + bytes(rlp.encode(fields))


def signed_bytes(transaction: Mapping[str, Any], signature: bytes) -> bytes:
    """The raw transaction, ready to be sent; `signature` is one of 65 bytes over keccak256 of `unsigned_bytes`."""
    if len(signature) != SIGNATURE_BYTES:
        raise ValueError(f"expected a signature of {SIGNATURE_BYTES} bytes, got {len(signature)}")
    r, s, parity = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64] - 27
    chain_id, fields = _fields(transaction)
    if "gasPrice" in transaction:
        return bytes(rlp.encode([*fields, 2 * chain_id + 35 + parity, r, s]))
    return DYNAMIC_FEE_TYPE + bytes(rlp.encode([*fields, parity, r, s]))


def _fields(transaction: Mapping[str, Any]) -> tuple[int, list[Any]]:
    fees = _LEGACY_FEE if "gasPrice" in transaction else _DYNAMIC_FEE
    if unknown := set(transaction) - _COMMON - fees:
        raise ValueError(f"expected a transaction of {', '.join(sorted(_COMMON | fees))}, got also {', '.join(sorted(unknown))}")
    chain_id = _natural(transaction, "chainId")
    if chain_id == 0:
        raise ValueError("expected a chain id from 1: 0 would count on every chain")
    data = transaction["data"]
    destination = from_hex(checksum_address(transaction["to"]).lower(), 20) if transaction.get("to") is not None else b""
    call = [
        _natural(transaction, "gas"),
        destination,
        _natural(transaction, "value"),
        bytes(data) if isinstance(data, bytes) else from_hex(data),
    ]
    nonce = _natural(transaction, "nonce")
    if fees is _LEGACY_FEE:
        return chain_id, [nonce, _natural(transaction, "gasPrice"), *call]
    access_list: list[Any] = []
    dynamic = [chain_id, nonce, _natural(transaction, "maxPriorityFeePerGas"), _natural(transaction, "maxFeePerGas")]
    return chain_id, [*dynamic, *call, access_list]


def _natural(transaction: Mapping[str, Any], name: str) -> int:
    value = transaction[name]
    if type(value) is not int or not 0 <= value < 2**256:
        raise ValueError(f"{name}: expected a whole number of at most 256 bits, got {value!r}")
    return value
