"""Logs of our contracts, decoded: whoever wrote them, and whatever bytes they hold."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from eth_abi.abi import decode

from rexis.chain.artifacts import artifact
from rexis.encoding import keccak256


@cache
def _definitions(contract: str) -> dict[bytes, Any]:
    """The contract's events by their first topic, the hash of their signature; ours have no tuples."""
    events = [entry for entry in artifact(contract).abi if entry["type"] == "event"]
    return {keccak256(f"{event['name']}({','.join(entry['type'] for entry in event['inputs'])})".encode()): event for event in events}


def decode_event(contract: str, topics: Sequence[bytes], data: bytes) -> tuple[str, dict[str, Any]] | None:
    """Decode one log.

    Anyone may write any bytes into a string of a contract, so text that is not UTF-8, and the zero byte that databases refuse, are
    replaced by U+FFFD: one such event must not keep those after it from being read.

    Args:
        contract: name of the artifact whose ABI applies.
        topics: 32 bytes each.
        data: the part of the arguments that is not indexed.

    Returns:
        Name and arguments by name, bytes as bytes, addresses in lower case; None if the ABI has no such event.
    """
    definition = _definitions(contract).get(bytes(topics[0])) if topics else None
    if definition is None:
        return None
    indexed = [entry for entry in definition["inputs"] if entry["indexed"]]
    others = [entry for entry in definition["inputs"] if not entry["indexed"]]
    arguments = {entry["name"]: decode([entry["type"]], bytes(topic))[0] for entry, topic in zip(indexed, topics[1:], strict=True)}
    # A string is encoded like bytes; eth_abi would refuse the whole log for one bad character.
    plain = decode([entry["type"].replace("string", "bytes") for entry in others], data)
    for entry, value in zip(others, plain, strict=True):
        arguments[entry["name"]] = _text(value) if entry["type"] == "string" else value
    return definition["name"], arguments


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace").replace("\x00", "\ufffd")
