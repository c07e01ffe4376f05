"""What an institution, the marketplace and the verifier's API import must not load torch; checked in a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("rexis.models.spec", {"torch", "numpy"}),
        ("rexis.policy", {"torch", "numpy"}),
        ("rexis.disclosure.gate", {"torch", "scipy"}),
        ("rexis.dp.mechanisms", {"torch", "scipy"}),
        ("rexis.dp.budget", {"torch"}),
        ("rexis.chain.connection", {"py_ecc.bls", "py_ecc.bls12_381", "py_ecc.optimized_bls12_381"}),
        ("rexis.protocol.typed_data", {"py_ecc.bls", "py_ecc.bls12_381", "py_ecc.optimized_bls12_381"}),
        ("rexis.secagg.masks", {"torch", "scipy"}),
        ("rexis.secagg.quantization", {"torch", "scipy"}),
        ("rexis.secagg.shamir", {"torch", "numpy"}),
        ("rexis.secagg.thresholds", {"torch", "numpy"}),
    ],
)
def test_import_does_not_load(module: str, unwanted: set[str]) -> None:
    script = f"import sys, {module}; print(*sorted({unwanted!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_what_is_deferred_is_there_for_whoever_uses_it() -> None:
    script = (
        "import rexis.encoding\n"
        "import eth_keyfile.keyfile as keyfile\n"
        "early = keyfile.bls.SkToPk(5), keyfile.curve_order\n"
        "from py_ecc import bls, bls12_381\n"
        "assert early == (bls.G2ProofOfPossession.SkToPk(5), bls12_381.curve_order)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
