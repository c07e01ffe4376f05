"""Call data of contract functions, to and from Python values, by the committed ABIs. No node is asked."""

from collections.abc import Mapping
from typing import Any

from eth_abi.abi import decode as decode_abi
from eth_abi.abi import encode as encode_abi
from eth_abi.exceptions import DecodingError
from eth_abi.exceptions import EncodingError as AbiEncodingError

from rexis.chain.artifacts import artifact
from rexis.encoding import checksum_address, keccak256
from rexis.errors import EncodingError, MalformedMessageError

SELECTOR_BYTES = 4


def canonical_type(component: Mapping[str, Any]) -> str:
    """ABI type of an input or output with structs written out, such as `(bytes32,uint256[])[]`."""
    kind: str = component["type"]
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(canonical_type(member) for member in component["components"]) + ")" + kind.removeprefix("tuple")


def signature(entry: Mapping[str, Any]) -> str:
    """Signature of a function or error, such as `setState(uint256,uint8)`."""
    return f"{entry['name']}({','.join(canonical_type(component) for component in entry['inputs'])})"


def selector(entry: Mapping[str, Any]) -> bytes:
    """First 4 bytes of keccak256 of the signature."""
    return keccak256(signature(entry).encode("ascii"))[:SELECTOR_BYTES]


def encode_call(contract: str, function: str, *arguments: Any) -> bytes:
    """Call data of one function, such as `encode_call("DatasetRegistry", "setState", 7, 1)`; a struct is a
    mapping by member name, or a sequence.

    Args:
        function: its name, or its whole signature where a contract has two of one name.

    Raises:
        ValueError: no such function, or another number of arguments.
        EncodingError: an argument does not fit its type.
    """
    entries = [entry for entry in _functions(contract) if function in (entry["name"], signature(entry))]
    if len(entries) != 1:
        raise ValueError(f"{contract}: expected one function {function}, got {len(entries)}")
    return _encode(entries[0], arguments)


def decode_call(contract: str, data: bytes) -> tuple[str, dict[str, Any]]:
    """Function name and arguments by name of call data that somebody else made; structs become dicts, addresses checksum addresses.

    Raises:
        MalformedMessageError: no function of this contract, or bytes that are not exactly the encoding of its arguments.
    """
    entry = next((entry for entry in _functions(contract) if selector(entry) == data[:SELECTOR_BYTES]), None)
    if entry is None:
        raise MalformedMessageError(f"{contract} has no function with selector 0x{data[:SELECTOR_BYTES].hex()}")
    arguments = decode_arguments(entry["inputs"], data[SELECTOR_BYTES:])
    # One call has one encoding: what a wallet showed, what was checked and what runs are the same bytes.
    if _encode(entry, tuple(arguments.values())) != data:
        raise MalformedMessageError(f"{contract}.{entry['name']}: the call data is not in canonical form")
    return entry["name"], arguments


def decode_arguments(components: list[dict[str, Any]], data: bytes) -> dict[str, Any]:
    """ABI-encoded values by name; a nameless one is called `_0`, `_1`, … by its place.

    Raises:
        MalformedMessageError: bytes that are not an encoding of these types.
    """
    types = [canonical_type(component) for component in components]
    try:
        values = decode_abi(types, data)
    except (DecodingError, UnicodeDecodeError, OverflowError) as error:
        raise MalformedMessageError(f"not an encoding of ({','.join(types)}): {error}") from error
    named = zip(components, values, strict=True)
    return {component["name"] or f"_{place}": _from_abi(component, value) for place, (component, value) in enumerate(named)}


def _functions(contract: str) -> list[dict[str, Any]]:
    return [entry for entry in artifact(contract).abi if entry["type"] == "function"]


def _encode(entry: Mapping[str, Any], arguments: tuple[Any, ...]) -> bytes:
    inputs = entry["inputs"]
    if len(arguments) != len(inputs):
        raise ValueError(f"{signature(entry)}: expected {len(inputs)} arguments, got {len(arguments)}")
    values = [_to_abi(component, value) for component, value in zip(inputs, arguments, strict=True)]
    try:
        # Structs, which `rexis.encoding.abi_encode` leaves out: what is hashed off chain has none.
        return selector(entry) + encode_abi([canonical_type(component) for component in inputs], values)
    except (AbiEncodingError, TypeError, ValueError, OverflowError) as error:
        raise EncodingError(f"{signature(entry)}: {error}") from error


def _to_abi(component: Mapping[str, Any], value: Any) -> Any:
    kind = component["type"]
    if kind.endswith("]"):
        return [_to_abi(_element(component), item) for item in value]
    if kind == "tuple":
        return _members_to_abi(component, value)
    if kind.startswith("bytes") and kind != "bytes" and (not isinstance(value, bytes) or len(value) != int(kind[5:])):
        # eth_abi pads a shorter value: two values would share an encoding.
        raise EncodingError(f"{component['name']}: expected exactly {kind[5:]} bytes")
    return value


def _members_to_abi(component: Mapping[str, Any], value: Any) -> tuple[Any, ...]:
    members = component["components"]
    if isinstance(value, Mapping):
        names = [member["name"] for member in members]
        if set(value) != set(names):
            raise ValueError(f"{component['name']}: expected the members {', '.join(names)}, got {', '.join(map(str, value))}")
        value = [value[name] for name in names]
    if len(value) != len(members):
        raise ValueError(f"{component['name']}: expected {len(members)} members, got {len(value)}")
    return tuple(_to_abi(member, item) for member, item in zip(members, value, strict=True))


def _from_abi(component: Mapping[str, Any], value: Any) -> Any:
    kind = component["type"]
    if kind.endswith("]"):
        return [_from_abi(_element(component), item) for item in value]
    if kind == "tuple":
        members = zip(component["components"], value, strict=True)
        return {member["name"]: _from_abi(member, item) for member, item in members}
    return checksum_address(value) if kind == "address" else value


def _element(component: Mapping[str, Any]) -> dict[str, Any]:
    return {**component, "type": component["type"].rpartition("[")[0]}
