"""Canonical bytes: the only place that decides what is hashed or signed (wire formats, section 0).

JSON that is hashed follows RFC 8785 with decimals as strings; heavy bytes go through SHA-256; on-chain structures are
keccak256 over `abi.encode`; every hashed structure starts with, or contains, a domain tag `rexis/<thing>/<version>`.
"""

import hashlib
import importlib
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import rfc8785
from eth_abi.abi import encode as encode_abi
from eth_abi.exceptions import EncodingError as AbiEncodingError
from eth_abi.exceptions import ParseError
from eth_hash.auto import keccak

from rexis.errors import EncodingError

_INTERPRETER_RECURSION_LIMIT = 1000
_BLS_CURVE_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001


class _Deferred:
    """Stands for `py_ecc.bls.G2ProofOfPossession` until somebody uses it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("py_ecc.bls").G2ProofOfPossession, name)


def _import_keystores() -> None:
    """Import eth_keyfile, which eth_account and web3 do, without two things that it does to every process.

    For validators' keys (EIP-2335) it loads the pairings of py_ecc, most of a second of computing, so these wait here until they are
    used. And py_ecc raises the interpreter's recursion limit to 100,000; from there a hundred kilobytes of "[" end the process with a
    segmentation fault inside json instead of a RecursionError, so the limit is put back.
    """
    stand_ins: dict[str, dict[str, Any]] = {
        "py_ecc.bls": {"G2ProofOfPossession": _Deferred()},
        "py_ecc.bls12_381": {"curve_order": _BLS_CURVE_ORDER},
    }
    placed = {name: members for name, members in stand_ins.items() if name not in sys.modules}
    for name, members in placed.items():
        sys.modules[name] = module = ModuleType(name)
        for member, value in members.items():
            setattr(module, member, value)
    try:
        importlib.import_module("eth_keyfile.keyfile")
    finally:
        for name in placed:
            del sys.modules[name]
        sys.setrecursionlimit(_INTERPRETER_RECURSION_LIMIT)


_import_keystores()

# I-JSON (RFC 7493): beyond this, readers that hold numbers as doubles disagree about the value.
MAX_SAFE_INTEGER = 2**53 - 1
# Far below Python's recursion limit, far above any structure of ours: a deeper document is an attack on the parser.
MAX_DEPTH = 64

# Integers and strings of ASCII are written as RFC 8785 says, 20 times faster than by a library in Python.
_WRITER = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":"))

_MISSING = object()
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_FIXED_BYTES = re.compile(r"bytes([0-9]+)(?:\[[0-9]*\])*", re.ASCII)
_TAG_NAME = re.compile(r"[a-z0-9]+(?:[-/][a-z0-9]+)*", re.ASCII)


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as the EVM has it (not SHA3-256), 32 bytes."""
    return keccak(data)


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def domain_tag(thing: str, version: int) -> bytes:
    """ASCII tag that keeps hashes of different things apart: `domain_tag("tensor", 1)` is `b"rexis/tensor/1"`.

    Raises:
        ValueError: the name is not lower-case words joined by "-" or "/", or the version is below 1.
    """
    if not _TAG_NAME.fullmatch(thing) or version < 1:
        raise ValueError(f"a domain tag is lower-case words and a version from 1, got {thing!r} and {version}")
    return f"rexis/{thing}/{version}".encode("ascii")


def canonical_json(value: Any) -> bytes:
    """Encode a JSON value in its one canonical form (RFC 8785).

    Args:
        value: dicts with string keys, lists, tuples, strings, booleans, None, and integers within ±(2^53 - 1).

    Raises:
        EncodingError: a float (write decimals as strings: languages disagree about their digits), an integer out of range,
            text that is not Unicode (a lone surrogate), another type, or a nesting deeper than `MAX_DEPTH`.
    """
    _check_json(value, 0)
    return _canonical(value)


def _canonical(value: Any) -> bytes:
    try:
        text = _WRITER.encode(value)
        # Code points and UTF-16 code units, by which RFC 8785 sorts keys, differ in order only beyond the basic plane.
        return text.encode("utf-8") if text.isascii() else rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise EncodingError(f"no canonical JSON: {error}") from error


def parse_json(data: bytes, *, max_bytes: int) -> Any:
    """Decode JSON that someone else wrote, in any layout, but with one meaning.

    Raises:
        EncodingError: longer than `max_bytes`, not JSON in UTF-8, a duplicate key, a float, or a value without canonical form.
    """
    if len(data) > max_bytes:
        raise EncodingError(f"expected at most {max_bytes} bytes of JSON, got {len(data)}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_parse_integer,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise EncodingError(f"not JSON in UTF-8: {error}") from error
    _check_json(value, 0)
    return value


def parse_canonical_json(data: bytes, *, max_bytes: int) -> Any:
    """Decode bytes that must already be canonical JSON, so that one value has one digest.

    Raises:
        EncodingError: what `parse_json` refuses, or any byte that differs from the canonical form (white space, key order, escapes).
    """
    value = parse_json(data, max_bytes=max_bytes)
    if _canonical(value) != data:
        raise EncodingError("expected canonical JSON (RFC 8785: sorted keys, no white space, shortest escapes), got another form")
    return value


def abi_encode(types: Sequence[str], values: Sequence[Any]) -> bytes:
    """Solidity's `abi.encode` (head and tail, padded to 32 bytes; never `encodePacked`).

    Unlike eth_abi, a `bytes32` of fewer than 32 bytes is refused instead of padded: two values must not share an encoding.

    Raises:
        EncodingError: a type that Solidity does not know or a tuple (list its members), a value out of its range, or counts
            that differ.
    """
    if len(types) != len(values):
        raise EncodingError(f"expected one value for each of {len(types)} ABI types, got {len(values)}")
    for type_name, value in zip(types, values, strict=True):
        if "(" in type_name:
            raise EncodingError(f"expected no tuple type, got {type_name}: list its members")
        if fixed := _FIXED_BYTES.fullmatch(type_name):
            _check_fixed_bytes(value, int(fixed[1]), type_name)
    try:
        return encode_abi(types, values)
    except (AbiEncodingError, ParseError, ValueError, TypeError, OverflowError) as error:
        raise EncodingError(f"not encodable as ({','.join(types)}): {error}") from error


def to_hex(data: bytes) -> str:
    """`0x` and lower-case hexadecimal digits, two a byte."""
    return "0x" + bytes(data).hex()


def from_hex(text: str, size: int | None = None) -> bytes:
    """Decode what `to_hex` writes; `size` is the exact number of bytes, None admits any.

    Raises:
        EncodingError: another form (upper case, no prefix, an odd digit) or another size.
    """
    try:
        data = bytes.fromhex(text[2:]) if isinstance(text, str) else None
    except ValueError:
        data = None
    # `fromhex` also reads capitals and white space.
    if data is None or text != "0x" + data.hex():
        raise EncodingError(f"expected 0x and lower-case hexadecimal digits, got {_excerpt(text)}")
    if size is not None and len(data) != size:
        raise EncodingError(f"expected {size} bytes in hexadecimal, got {len(data)}")
    return data


def checksum_address(text: str) -> str:
    """The EIP-55 form of an address given in lower case, in upper case, or with a right checksum.

    Raises:
        EncodingError: not 0x and 40 digits, or mixed case with a wrong checksum (a mistyped digit).
    """
    if not isinstance(text, str):
        raise EncodingError(f"expected an address, 0x and 40 hexadecimal digits, got {_excerpt(text)}")
    return _checksum_address(text)


# The same few parties' addresses come with every message.
@lru_cache(maxsize=4096)
def _checksum_address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise EncodingError(f"expected an address, 0x and 40 hexadecimal digits, got {_excerpt(text)}")
    digits = text[2:].lower()
    nibbles = keccak256(digits.encode("ascii")).hex()
    checksummed = "0x" + "".join(digit.upper() if nibble >= "8" else digit for digit, nibble in zip(digits, nibbles, strict=False))
    if text[2:] not in (digits, digits.upper()) and text != checksummed:
        raise EncodingError(f"the checksum of address {text} is wrong: a digit was mistyped, or its case was changed")
    return checksummed


def require_text(what: str, text: str) -> None:
    """Refuse text that people could not read as it is stored.

    Raises:
        EncodingError: only blanks, a control character other than line feed and tab (databases refuse some of them), or an invisible
            one that changes how the rest is shown (Unicode categories Cc, Cf and Cs).
    """
    if not text.strip():
        raise EncodingError(f"{what}: expected text, got only blanks")
    hidden = next((sign for sign in text if sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cf", "Cs")), None)
    if hidden is not None:
        raise EncodingError(f"{what}: expected text without control or invisible characters, got U+{ord(hidden):04X}")


def _check_fixed_bytes(value: Any, size: int, of: str) -> None:
    if isinstance(value, list | tuple):
        for item in value:
            _check_fixed_bytes(item, size, of)
    elif isinstance(value, bytes | bytearray) and len(value) != size:
        raise EncodingError(f"expected {size} bytes for {of}, got {len(value)}")


def _check_json(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise EncodingError(f"expected at most {MAX_DEPTH} levels of JSON, got more")
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise EncodingError("expected an integer within ±(2^53 - 1), got a larger one; write those as strings")
    elif isinstance(value, float):
        raise EncodingError(f"expected no float, got {value!r}; write decimals as strings")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise EncodingError(f"expected string keys, got {type(key).__name__}")
            if type(item) is not str:
                _check_json(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            if type(item) is not str:
                _check_json(item, depth + 1)
    else:
        raise EncodingError(f"expected a JSON value, got {type(value).__name__}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        # A dictionary takes each key out once; whose turn comes again is the one that stands twice.
        twice = next(key for key, _ in pairs if unique.pop(key, _MISSING) is _MISSING)
        raise EncodingError(f"duplicate key {twice!r}: two readers could take different values")
    return unique


def _parse_integer(digits: str) -> int:
    # Bounded before int(): conversion time grows with the square of the length.
    if len(digits) > 17:
        raise EncodingError(f"expected an integer within ±(2^53 - 1), got one of {len(digits)} characters")
    return int(digits)


def _refuse_number(text: str) -> Any:
    raise EncodingError(f"expected no float, got {text[:40]}; decimals travel as strings")


def _excerpt(value: object) -> str:
    return repr(value)[:80] if isinstance(value, str) else type(value).__name__
