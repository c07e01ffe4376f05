"""`python -m benchmarks` prints what DESIGN section 6 names, and the figures hold."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EE_KEYS = {"relative_error", "plain_fp32_error", "runtime_ratio", "plain_plain_ratio", "expansion", "keygen_s", "encrypt_model_s"}
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def benchmarks(*arguments: str) -> str:
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_help_lists_the_subjects() -> None:
    assert "ee " in benchmarks("--help")


def test_ee_prints_one_json_object_with_sound_figures() -> None:
    printed = json.loads(benchmarks("ee", "--json", "--quick"))
    for name in ("mlp_30_64_2", "mlp_768_256_2"):
        figures = printed[name]
        assert set(figures) == EE_KEYS
        assert 0 < figures["relative_error"] <= min(1e-5, 3 * figures["plain_fp32_error"])
        assert figures["expansion"] == 1.0
        # A gate on speed belongs to `make bench`; here only: the same order of magnitude.
        assert 0.5 < figures["runtime_ratio"] < 2
        assert figures["keygen_s"] > 0
        assert figures["encrypt_model_s"] > 0


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_committed_results_name_machine_and_commit_and_no_host(path: Path) -> None:
    text = path.read_text()
    result = json.loads(text)
    assert {"subject", "quick", "commit", "machine"} < set(result)
    assert socket.gethostname() not in text
    assert str(ROOT) not in text


def test_results_are_there() -> None:
    assert {json.loads(path.read_text())["subject"] for path in RESULTS} >= {"ee"}
