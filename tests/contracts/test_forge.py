"""The Solidity tests, and proof that the committed artefacts are what the sources give: by solcjs, and by forge."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rexis.chain.artifacts import artifact, contract_names
from rexis.encoding import canonical_json, keccak256, to_hex

ROOT = Path(__file__).parents[2]

Forge = Callable[..., subprocess.CompletedProcess[str]]


def test_the_solidity_tests_pass(forge: Forge, forge_build: Path) -> None:
    ran = forge("test")
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    summary = re.search(r"(\d+) tests passed, 0 failed, 0 skipped", ran.stdout)
    assert summary is not None
    assert int(summary[1]) >= 78


def test_the_sources_are_formatted_and_lint_clean(forge: Forge) -> None:
    formatted = forge("fmt", "--check")
    assert formatted.returncode == 0, formatted.stdout
    linted = forge("lint", "src")
    assert linted.returncode == 0, linted.stderr


def test_the_committed_artefacts_are_what_the_sources_give() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "contracts.script.compile", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_committed_local_record_is_what_the_contracts_give() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "contracts.script.deploy", "--local", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", contract_names())
def test_forge_compiles_to_the_same_bytes(name: str, forge_build: Path) -> None:
    built = json.loads((forge_build / f"{name}.sol" / f"{name}.json").read_text())
    assert built["bytecode"]["object"] == to_hex(artifact(name).bytecode)
    assert built["deployedBytecode"]["object"] == to_hex(artifact(name).runtime)
    # forge orders the interface its own way.
    assert sorted(map(canonical_json, built["abi"])) == sorted(map(canonical_json, artifact(name).abi))


@pytest.mark.parametrize("name", contract_names())
def test_artefacts_name_the_sources_they_were_made_from(name: str) -> None:
    sources = artifact(name).sources
    assert artifact(name).source in sources
    for path, digest in sources.items():
        file = ROOT / "contracts" / path if path.startswith("src/") else ROOT / "contracts" / "node_modules" / path
        assert to_hex(keccak256(file.read_bytes())) == digest, path


def test_the_lock_names_no_host_and_pins_every_package() -> None:
    lock = json.loads((ROOT / "contracts" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert not [name for name, package in packages.items() if "resolved" in package]
    manifest = json.loads((ROOT / "contracts" / "package.json").read_text())
    for name, version in manifest["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert packages[f"node_modules/{name}"]["version"] == version
