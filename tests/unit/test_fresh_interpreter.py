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
