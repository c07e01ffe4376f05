"""Independent component analysis: a total break of independent columns, and no attack on correlated or Gaussian ones (spec 1d (d))."""

import numpy as np
import pytest

from rexis.attacks.independent_components import component_reading, recover_components
from tests.attacks.cohorts import halves, keyed

D = 30


@pytest.mark.parametrize("law", ["laplace", "exponential", "uniform"])
def test_independent_columns_come_out_of_the_key(law: str) -> None:
    generator = np.random.default_rng(1)
    plain = getattr(generator, law)(size=(2000, D))
    found = component_reading(keyed(plain, generator), truth=plain, generator=generator)
    # 0.97 to 0.99 over ten seeds.
    assert found.figures["r2"] > 0.95
    assert found.figures["gain"] > 0.7
    assert found.figures["exposed_columns"] == 1
    # Columns, in their order and with their sign.
    assert np.corrcoef(found.components[:, 4], plain[:, 4])[0, 1] > 0.95


def test_gaussian_columns_do_not() -> None:
    generator = np.random.default_rng(2)
    plain = generator.standard_normal((500, 8))
    found = component_reading(keyed(plain, generator), truth=plain, generator=generator)
    assert found.figures["gain"] < 0.15
    assert found.figures["exposed_columns"] == 0


def test_correlated_columns_score_below_what_the_upload_scores_unattacked() -> None:
    """Spec 4: |correlation| of 0.46 against 0.73 before the attack, so that a report must not read R² alone."""
    generator = np.random.default_rng(3)
    plain = halves(generator).rows
    found = component_reading(keyed(plain, generator), truth=plain, generator=generator)
    assert found.figures["r2"] < 0.35 < 0.45 < found.figures["keyed_r2"]
    assert found.figures["gain"] == 0
    assert found.figures["exposed_columns"] < 0.1


def test_columns_that_depend_on_each_other_exactly_are_counted_once() -> None:
    generator = np.random.default_rng(4)
    plain = generator.laplace(size=(2000, 4))
    plain = np.column_stack([plain, plain[:, 0] + plain[:, 1]])
    assert recover_components(keyed(plain, generator), generator=generator).shape == (2000, 4)
    assert component_reading(keyed(plain, generator), truth=plain, generator=generator).figures["best_column_r2"] > 0.95
