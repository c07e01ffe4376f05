"""The curves of noise before the key: each attack falls, the measure of use falls later, and μ is what is proved (spec 1e)."""

import numpy as np
import pytest

from rexis.attacks.noise_curve import noise_curve
from tests.attacks.cohorts import halves
from tests.attacks.keyed_weights import Array


def test_attacks_fall_with_noise() -> None:
    generator = np.random.default_rng(1)
    world = halves(generator)

    def class_distance(rows: Array) -> float:
        """How far apart the classes' means are: noise in the rows alone hardly moves it."""
        return float(np.linalg.norm(rows[world.labels == 0].mean(axis=0) - rows[world.labels == 1].mean(axis=0)))

    found = noise_curve(world.rows, world.reference, generator=generator, sigmas=(0.0, 1.0, 4.0), utility=class_distance)
    none, one, four = found.levels
    assert (none.mu, one.mu, four.mu) == (np.inf, 1.0, 0.25)
    assert none.pairs_r2 > 1 - 1e-9
    assert none.cohort_r2 > 0.7
    assert 0.55 < one.pairs_r2 < 0.75
    assert 0.35 < one.cohort_r2 < 0.75
    assert one.reidentified < 0.25 < 0.7 < none.reidentified
    assert four.pairs_r2 < 0.2
    assert four.cohort_r2 < 0.2
    assert four.reidentified < 0.03
    assert one.utility == pytest.approx(none.utility, rel=0.1)
    assert found.figures["reidentified_at_4"] == four.reidentified
    assert set(found.figures) >= {"cohort_r2_at_0", "pairs_r2_at_1", "utility_at_4"}


def test_without_a_measure_of_use_none_is_reported() -> None:
    generator = np.random.default_rng(2)
    found = noise_curve(generator.laplace(size=(40, 3)), generator.laplace(size=(40, 3)), generator=generator, sigmas=(0.5,))
    assert not any(name.startswith("utility") for name in found.figures)
    with pytest.raises(ValueError, match="0 or more"):
        noise_curve(np.eye(4), np.eye(4), generator=generator, sigmas=(-1.0,))
