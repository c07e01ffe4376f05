"""Distances and clusters of keyed rows: an orthogonal key hides none, noise blurs neighbours long before it blurs groups (spec 1d)."""

import numpy as np
import pytest

from rexis.attacks.geometry import geometry_reading, purity
from tests.attacks.cohorts import halves, keyed


def test_distances_neighbours_and_the_diagnosis_show_through_the_key() -> None:
    """Spec: correlation 1.000000, purity 90.5 % (88 to 94 % over six splits)."""
    generator = np.random.default_rng(1)
    world = halves(generator)
    found = geometry_reading(keyed(world.rows, generator), truth=world.rows, labels=world.labels, generator=generator).figures
    assert found["distance_correlation"] == pytest.approx(1, abs=1e-9)
    assert found["neighbours_kept"] == 1
    assert 0.85 < found["purity"] < 0.96
    assert found["purity_gain"] > 0.5


def test_noise_hides_neighbours_but_not_groups() -> None:
    generator = np.random.default_rng(2)
    world = halves(generator)
    seen = {sigma: keyed(world.rows, generator, noise=sigma) for sigma in (1.0, 8.0)}
    found = {
        sigma: geometry_reading(rows, truth=world.rows, labels=world.labels, generator=generator).figures for sigma, rows in seen.items()
    }
    assert found[1.0]["neighbours_kept"] < 0.35
    assert found[1.0]["purity"] > 0.8
    assert found[8.0]["neighbours_kept"] < 0.08
    assert found[8.0]["purity_gain"] < 0.2


def test_without_labels_there_is_no_purity() -> None:
    rows = np.random.default_rng(3).standard_normal((20, 3))
    found = geometry_reading(rows, truth=rows, generator=np.random.default_rng(3))
    assert len(found.clusters) == 0
    assert "purity" not in found.figures


def test_purity_counts_the_commonest_class_of_each_cluster() -> None:
    assert purity([0, 0, 0, 1, 1], [5, 5, 6, 6, 6]) == pytest.approx(0.8)


def test_labels_that_do_not_fit_are_refused() -> None:
    rows = np.eye(4)
    with pytest.raises(ValueError, match="one label for each of 4 rows"):
        geometry_reading(rows, truth=rows, labels=[0, 1], generator=np.random.default_rng(0))
