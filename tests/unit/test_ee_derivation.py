"""Key derivation against the independent vectors of tests/vectors/ee_keys.json."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rexis.ee import derivation

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "ee_keys.json").read_text())
SEED = bytes.fromhex(VECTORS["seed"])


def test_stream() -> None:
    assert derivation.stream(SEED, "job/0/layer0/in", 32).hex() == VECTORS["stream_job_0_layer0_in_32_bytes"]


def test_permutation() -> None:
    vector = VECTORS["permutation_8"]
    assert derivation.permutation(SEED, vector["label"], 8).tolist() == vector["value"]


def test_long_permutation() -> None:
    # The vector names no label; it is the second layer's.
    value = derivation.permutation(SEED, "job/0/layer1/hidden", 384).astype("<u4")
    assert hashlib.sha256(value.tobytes()).hexdigest() == VECTORS["permutation_384_sha256_of_le_u32"]


def test_gaussian() -> None:
    vector = VECTORS["gaussian_6"]
    np.testing.assert_allclose(derivation.gaussian(SEED, vector["label"], 6), vector["value"], rtol=0, atol=1e-14)


def test_orthogonal() -> None:
    vector = VECTORS["orthogonal_5"]
    value = derivation.orthogonal(SEED, vector["label"], 5)
    np.testing.assert_allclose(value, vector["value"], rtol=0, atol=vector["tolerance"])


def test_uniform_and_signs_read_the_words_as_specified() -> None:
    words = [int.from_bytes(derivation.stream(SEED, "x", 24)[i : i + 8], "little") for i in (0, 8, 16)]
    assert derivation.words(SEED, "x", 3).tolist() == words
    assert derivation.uniform(SEED, "x", 3).tolist() == [((w >> 11) + 0.5) * 2.0**-53 for w in words]
    assert derivation.signs(SEED, "x", 3).tolist() == [-1.0 if w & 1 else 1.0 for w in words]


def test_orthogonal_is_haar_in_its_first_two_moments() -> None:
    # An uncorrected QR fails the first line: its diagonal has one sign.
    matrices = np.stack([derivation.orthogonal(SEED, f"draw/{i}", 4) for i in range(2000)])
    assert abs(matrices.mean(axis=0)).max() < 6 * 0.5 / np.sqrt(2000)
    np.testing.assert_allclose(np.square(matrices).mean(axis=0), 0.25, atol=0.03)


def test_labels_and_seeds_are_independent() -> None:
    streams = {derivation.stream(seed, label, 32) for seed in (SEED, bytes(32)) for label in ("a", "b", "a/b")}
    assert len(streams) == 6


@pytest.mark.parametrize(("seed", "label"), [(SEED[:31], "a"), (SEED + b"x", "a"), (b"", "a"), (SEED, "")])
def test_seed_and_label_are_checked(seed: bytes, label: str) -> None:
    with pytest.raises(ValueError, match="32 bytes and a label"):
        derivation.subkey(seed, label)
