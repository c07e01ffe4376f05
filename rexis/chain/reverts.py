"""Revert data to named and explained errors: nodes return a selector and arguments, and web3 leaves them as they are."""

from functools import cache
from typing import Any

from rexis.chain.artifacts import artifact, contract_names
from rexis.chain.calls import SELECTOR_BYTES, decode_arguments, selector
from rexis.chain.explanations import EXPLANATIONS, NO_REASON, UNKNOWN_ERROR
from rexis.encoding import to_hex
from rexis.errors import ContractRevertedError, MalformedMessageError

# Longest piece of undecodable data that goes into an error: it comes from a node, and ends in logs and problem documents.
MAX_RAW_BYTES = 128

_BUILT_IN = (
    {"type": "error", "name": "Error", "inputs": [{"name": "message", "type": "string"}]},
    {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
)


def decode_revert(data: bytes) -> ContractRevertedError:
    """The error that a contract reverted with, to be raised or stored by the caller.

    Its arguments are ready for JSON: bytes as 0x-hexadecimal, addresses with checksum, integers as integers. A library's error names
    the library, whichever contract used it. An error that several contracts declare has "" as its contract; so have the built-in
    `Error` and `Panic`, and an unknown one, whose name is its selector and whose one argument `data` is the start of the raw bytes.
    """
    found = _declared().get(data[:SELECTOR_BYTES])
    if found is not None:
        contract, entry = found
        try:
            arguments = decode_arguments(entry["inputs"], data[SELECTOR_BYTES:])
        except MalformedMessageError:
            # A selector is only 4 bytes long: what follows it is some other error's.
            found = None
        else:
            plain = {name: _plain(value) for name, value in arguments.items()}
            return ContractRevertedError(contract, entry["name"], plain, EXPLANATIONS.get(entry["name"], ""))
    explanation = UNKNOWN_ERROR if data else NO_REASON
    return ContractRevertedError("", to_hex(data[:SELECTOR_BYTES]), {"data": to_hex(data[:MAX_RAW_BYTES])}, explanation)


@cache
def _declared() -> dict[bytes, tuple[str, dict[str, Any]]]:
    errors: dict[bytes, tuple[str, dict[str, Any]]] = {selector(entry): ("", entry) for entry in _BUILT_IN}
    for name in contract_names():
        for entry in _errors_of(name):
            key = selector(entry)
            errors[key] = ("" if key in errors else name, entry)
    # The compiler repeats a library's errors in the interface of every contract that uses it.
    for name in contract_names():
        if len(_errors_of(name)) == len(artifact(name).abi):
            errors |= {selector(entry): (name, entry) for entry in _errors_of(name)}
    return errors


def _errors_of(name: str) -> list[dict[str, Any]]:
    return [entry for entry in artifact(name).abi if entry["type"] == "error"]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return to_hex(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
