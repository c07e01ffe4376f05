"""Where the contracts stand on each chain: records under version control, one file a chain id.

A record is what a party trusts: connecting compares chain id, genesis and the code at every address with it.
"""

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rexis.encoding import checksum_address, from_hex, to_hex
from rexis.errors import ConfigurationError, EncodingError

MAX_RECORD_BYTES = 1 << 20

Argument = str | int | bool


@dataclass(frozen=True)
class DeployedContract:
    """One contract on one chain.

    Attributes:
        address: checksum address.
        code_hash: keccak256 of the deployed code, 32 bytes.
        block: no event of this contract is in an earlier block.
        transaction: hash of the deploying transaction, 32 bytes; None where it differs from machine to machine.
        arguments: of its constructor, in order.
        compiler: exact version of solc.
    """

    address: str
    code_hash: bytes
    block: int
    transaction: bytes | None
    arguments: tuple[Argument, ...]
    compiler: str


@dataclass(frozen=True)
class Deployment:
    """All contracts on one chain.

    Attributes:
        chain_id: EIP-155 id.
        genesis_hash: hash of block 0, 32 bytes; None on the local chain, which is born anew on every machine.
        contracts: by contract name.
    """

    chain_id: int
    genesis_hash: bytes | None
    contracts: dict[str, DeployedContract]

    @property
    def start_block(self) -> int:
        """No event of any contract is in an earlier block."""
        return min((contract.block for contract in self.contracts.values()), default=0)


def load(chain_id: int) -> Deployment:
    """The record that ships with this version of Rexis.

    Raises:
        ConfigurationError: it ships none for this chain.
    """
    resource = files("rexis.chain") / "deployments" / f"{chain_id}.json"
    if not resource.is_file():
        raise ConfigurationError(
            f"Rexis ships no deployment record for chain {chain_id}; set REXIS_DEPLOYMENT_FILE to the operator's record"
        )
    return _parse(resource.read_bytes(), f"the shipped record of chain {chain_id}")


def read(path: Path) -> Deployment:
    """Read a record that an operator hands out.

    Raises:
        ConfigurationError: unreadable, too long, or not a deployment record.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"deployment record {path}: {error.strerror}") from error
    return _parse(data, f"deployment record {path}")


def write(deployment: Deployment, path: Path) -> None:
    """Replace a record on disk; a reader sees the old one or the new one, never half of it."""
    contracts = {
        name: {
            "address": contract.address,
            "code_hash": to_hex(contract.code_hash),
            "block": contract.block,
            "transaction": None if contract.transaction is None else to_hex(contract.transaction),
            "arguments": list(contract.arguments),
            "compiler": contract.compiler,
        }
        for name, contract in sorted(deployment.contracts.items())
    }
    genesis = None if deployment.genesis_hash is None else to_hex(deployment.genesis_hash)
    record = {"chain_id": deployment.chain_id, "genesis_hash": genesis, "contracts": contracts}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def _parse(data: bytes, where: str) -> Deployment:
    if len(data) > MAX_RECORD_BYTES:
        raise ConfigurationError(f"{where}: expected at most {MAX_RECORD_BYTES} bytes")
    try:
        record = json.loads(data)
        genesis = record["genesis_hash"]
        return Deployment(
            chain_id=_natural(record["chain_id"]),
            genesis_hash=None if genesis is None else from_hex(genesis, 32),
            contracts={name: _parse_contract(value) for name, value in record["contracts"].items()},
        )
    except KeyError as error:
        raise ConfigurationError(f"{where}: the field {error} is missing") from error
    except (ValueError, TypeError, AttributeError, EncodingError) as error:
        raise ConfigurationError(f"{where} is not a deployment record: {error}") from error


def _parse_contract(value: dict[str, Any]) -> DeployedContract:
    transaction = value["transaction"]
    arguments = tuple(value["arguments"])
    if not all(isinstance(argument, str | int | bool) for argument in arguments):
        raise TypeError("expected constructor arguments that are texts, integers or booleans")
    return DeployedContract(
        address=checksum_address(value["address"]),
        code_hash=from_hex(value["code_hash"], 32),
        block=_natural(value["block"]),
        transaction=None if transaction is None else from_hex(transaction, 32),
        arguments=arguments,
        compiler=str(value["compiler"]),
    )


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"expected an integer from 0, got {value!r}")
    return value
