"""Skellam noise against its distribution, and the bound on what it costs against the exact Rényi divergence."""

import math

import numpy as np
import pytest
from scipy.special import ive

from rexis.dp.accountant import GaussianEvent, LaplaceEvent, SkellamEvent, epsilon
from rexis.dp.skellam import MAX_DEVIATION, SkellamNoise, renyi_divergence


def exact_divergence(order: int, shift: int, variance: float) -> float:
    """log Σ P(k)^α P(k - shift)^(1-α) / (α - 1), with P(k) = exp(-μ) I_k(μ)."""
    reach = round(40 * math.sqrt(variance)) + 60
    k = np.arange(-reach, reach + 1)
    here, there = np.log(ive(np.abs(k), variance)), np.log(ive(np.abs(k - shift), variance))
    exponents = order * here - (order - 1) * there
    largest = exponents.max()
    return float((largest + math.log(np.exp(exponents - largest).sum())) / (order - 1))


@pytest.mark.parametrize("variance", [1.0, 4.0, 16.0, 100.0])
@pytest.mark.parametrize("order", [2, 3, 8])
def test_the_bound_lies_above_the_exact_divergence_and_near_it_where_noise_is_large(variance: float, order: int) -> None:
    for shift in (1, 2, 5):
        exact, bound = exact_divergence(order, shift, variance), renyi_divergence(order, shift, shift, variance)
        assert exact <= bound
        if variance == 100.0:
            assert bound <= 1.06 * exact


def test_the_divergence_of_a_vector_is_the_sum_over_its_coordinates_and_the_bound_holds_for_it() -> None:
    shift, variance = np.array([1, 0, -2, 1, 3]), 9.0
    exact = sum(exact_divergence(4, abs(int(each)), variance) for each in shift if each)
    assert exact <= renyi_divergence(4, float(np.abs(shift).sum()), float(np.linalg.norm(shift)), variance)


def test_with_fine_steps_the_loss_is_the_gaussians() -> None:
    """Multiplier 4, ten times: in finer steps integers cost less and less."""
    gaussian = epsilon([GaussianEvent(4.0, count=10)], 1e-5)
    found = [epsilon([SkellamEvent(8.0 * scale, scale, (4.0 * scale) ** 2, 10)], 1e-5) for scale in (2.0, 30.0, 1000.0)]
    assert found == sorted(found, reverse=True)
    # A divergence converts less tightly than a loss distribution.
    assert gaussian < found[-1] < 1.1 * gaussian
    # A Gaussian's curve alpha/2 sigma² through the same conversion, in the limit.
    assert found[-1] == pytest.approx(epsilon([SkellamEvent(8e9, 1e9, (4e9) ** 2, 10)], 1e-5), rel=1e-3)


def test_a_ledger_with_both_kinds_costs_more_than_either() -> None:
    skellam, others = SkellamEvent(40.0, 10.0, 1600.0, 2), [GaussianEvent(5.0), LaplaceEvent(20.0)]
    both = epsilon([skellam, *others], 1e-5)
    assert both == epsilon([skellam], 5e-6) + epsilon(others, 5e-6)
    assert both > max(epsilon([skellam], 1e-5), epsilon(others, 1e-5))


@pytest.mark.parametrize("variance", [0.05, 3.0, 400.0])
def test_what_is_drawn_has_the_distribution(variance: float) -> None:
    count = 100_000
    drawn = SkellamNoise(variance).draw(count)
    reach = math.ceil(4 * math.sqrt(variance))
    cuts = np.unique(np.linspace(-reach, reach, 15).round())
    k = np.arange(-reach * 4 - 60, reach * 4 + 61)
    probabilities = ive(np.abs(k), variance)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-9)
    expected = np.array([probabilities[k <= cut].sum() for cut in cuts])
    found = np.array([(drawn <= cut).mean() for cut in cuts])
    # Six standard errors of each share.
    assert (np.abs(found - expected) <= 6 * np.sqrt(expected * (1 - expected) / count) + 1e-4).all()
    assert drawn.mean() == pytest.approx(0, abs=6 * math.sqrt(variance / count))
    assert drawn.var() == pytest.approx(variance, rel=0.05 + 0.2 * (variance < 1))


@pytest.mark.parametrize("variance", [2.0, 1e4, float(MAX_DEVIATION**2)])
def test_each_number_has_its_probability(variance: float) -> None:
    """From the thresholds that words are compared with; nothing beyond nine deviations is drawn."""
    noise = SkellamNoise(variance)
    tail = noise.tail[::-1].astype(np.float64) / 2.0**64
    probabilities = np.concatenate([[1.0], tail[:-1]]) - tail
    deviation = math.sqrt(variance)
    for size in sorted({0, 1, 2, *(round(factor * deviation) for factor in (0.5, 1, 2, 3, 4, 5, 6))}):
        expected = (2 if size else 1) * ive(size, variance)
        assert probabilities[size] == pytest.approx(expected, rel=1e-10 if size <= 3 * deviation else 1e-6)
    assert tail[math.ceil(9.5 * deviation) + 20] == 0
    assert len(tail) < 10 * deviation + 50


def test_the_widest_noise_is_as_wide_as_it_says_and_fresh() -> None:
    widest = SkellamNoise(float(MAX_DEVIATION**2))
    first, second = widest.draw(70_000), widest.draw(70_000)
    assert first.std() == pytest.approx(MAX_DEVIATION, rel=0.02)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03
    assert len(widest.draw(0)) == 0


def test_sums_of_shares_have_the_variances_sum() -> None:
    shares = sum(SkellamNoise(25.0).draw(50_000) for _ in range(4))
    assert np.var(shares) == pytest.approx(100.0, rel=0.04)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, MAX_DEVIATION**2 * 1.01])
def test_a_variance_without_a_table_is_refused(variance: float) -> None:
    with pytest.raises(ValueError, match="variance"):
        SkellamNoise(variance)


def test_events_and_orders_are_checked() -> None:
    for arguments in ((0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, math.inf, 1.0), (1.0, 1.0, 1.0, 0)):
        with pytest.raises(ValueError, match="expected"):
            SkellamEvent(*arguments)
    with pytest.raises(ValueError, match="order"):
        renyi_divergence(1, 1.0, 1.0, 1.0)
