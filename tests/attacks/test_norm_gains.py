"""LayerNorm gains against a permutation key: 13 short vectors place every coordinate."""

import numpy as np
import pytest

from rexis.attacks.matching import share_matched
from rexis.attacks.norm_gains import match_gains, norm_profiles
from tests.attacks.keyed_weights import WIDTH, bert, drifted, keyed_bert, permutation_matrix

# MiniLM's shape: 384 coordinates in 13 LayerNorms.
COORDINATES, NORMS = 384, 13


def placed(drift: float) -> float:
    """Share of the coordinates that are placed right after a drift of the gains, in their standard deviations."""
    generator = np.random.default_rng(5)
    gains = 1 + 0.1 * generator.normal(size=(COORDINATES, NORMS))
    order = generator.permutation(COORDINATES)
    moved = gains + drift * gains.std(axis=0) * generator.normal(size=gains.shape)
    return share_matched(match_gains(gains, moved[order]), order)


@pytest.mark.parametrize("drift", [0.0, 0.01, 0.05, 0.2])
def test_gains_alone_give_the_permutation_away(drift: float) -> None:
    assert placed(drift) == 1.0


def test_drift_as_large_as_the_spread_hides_it_from_the_gains() -> None:
    assert placed(1.0) < 0.7
    assert placed(3.0) < 0.05


def test_profiles_are_read_from_a_keyed_model() -> None:
    generator = np.random.default_rng(6)
    base = bert(generator)
    keyed = keyed_bert(drifted(base, 0.01, generator), permutation_matrix(generator, WIDTH), generator)
    truth = np.argmax(keyed.residual, axis=1)
    assert share_matched(match_gains(norm_profiles(base), norm_profiles(keyed.state)), truth) == 1.0
    assert norm_profiles(base, shifts=True).shape == (WIDTH, 2 * norm_profiles(base).shape[1])


def test_gains_of_ones_own_hold() -> None:
    generator = np.random.default_rng(7)
    mine, others = (1 + 0.1 * generator.normal(size=(COORDINATES, NORMS)) for _ in range(2))
    order = generator.permutation(COORDINATES)
    assert share_matched(match_gains(others, mine[order]), order) < 0.05
