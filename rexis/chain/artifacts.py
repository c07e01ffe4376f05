"""Compiled contracts as package data: interface, bytecode, and what they were compiled from. No compiler, no node.

`contracts/script/compile.py` writes the files; a test compiles again and compares every byte.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rexis.encoding import from_hex


@dataclass(frozen=True)
class Artifact:
    """One compiled contract.

    Attributes:
        contract: its name.
        source: path of its source below `contracts/`.
        compiler: exact version of solc.
        settings: the compiler's settings.
        sources: keccak256 of every source that went in, by path, in hexadecimal.
        abi: the JSON interface.
        bytecode: creation code without constructor arguments.
        runtime: deployed code, with zeros where immutables stand.
        immutables: (start, length) in bytes of each place that the constructor fills.
    """

    contract: str
    source: str
    compiler: str
    settings: dict[str, Any]
    sources: dict[str, str]
    abi: list[dict[str, Any]]
    bytecode: bytes
    runtime: bytes
    immutables: tuple[tuple[int, int], ...]

    def has_runtime(self, code: bytes) -> bool:
        """Whether deployed code is this contract's, whatever its immutables are."""
        masked = bytearray(code)
        for start, length in self.immutables:
            masked[start : start + length] = bytes(length)
        return bytes(masked) == self.runtime


@cache
def contract_names() -> tuple[str, ...]:
    """Names of all compiled contracts and libraries, in alphabetical order."""
    folder = files("rexis.chain") / "artifacts"
    return tuple(sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")))


@cache
def artifact(name: str) -> Artifact:
    """Load a compiled contract; treat it as read-only, it is shared.

    Raises:
        ValueError: no contract has this name.
    """
    if name not in contract_names():
        raise ValueError(f"no contract {name!r}; there are {', '.join(contract_names())}")
    record = json.loads((files("rexis.chain") / "artifacts" / f"{name}.json").read_text(encoding="utf-8"))
    return Artifact(
        contract=record["contract"],
        source=record["source"],
        compiler=record["compiler"],
        settings=record["settings"],
        sources=record["sources"],
        abi=record["abi"],
        bytecode=from_hex(record["bytecode"]),
        runtime=from_hex(record["runtime"]),
        immutables=tuple((slot["start"], slot["length"]) for slot in record["immutables"]),
    )
