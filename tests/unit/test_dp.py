"""Noise has the size it says, the accountant the figures of the literature, and the ledger refuses."""

import math

import numpy as np
import pytest

from rexis.dp.accountant import GaussianEvent, LaplaceEvent, divergence_epsilon, epsilon, noise_multiplier
from rexis.dp.budget import PrivacyBudget
from rexis.dp.mechanisms import GaussianMechanism, LaplaceMechanism
from rexis.errors import PrivacyBudgetExceededError

SAMPLES = 200_000
VALUE = 17.25


@pytest.mark.parametrize(
    ("mechanism", "deviation", "within_one_deviation"),
    [
        (GaussianMechanism(sensitivity=2.0, noise_multiplier=1.5), 3.0, math.erf(1 / math.sqrt(2))),
        (LaplaceMechanism(sensitivity=2.0, epsilon=0.5), 4.0 * math.sqrt(2), 1 - math.exp(-math.sqrt(2))),
    ],
)
def test_noise_has_its_mean_deviation_and_shape(
    mechanism: GaussianMechanism | LaplaceMechanism, deviation: float, within_one_deviation: float
) -> None:
    noise = mechanism.release(np.full(SAMPLES, VALUE)) - VALUE
    # Six standard errors: one false alarm in 5e8 runs.
    assert abs(noise.mean()) < 6 * deviation / math.sqrt(SAMPLES)
    assert noise.std() == pytest.approx(deviation, rel=0.03)
    assert (abs(noise) < deviation).mean() == pytest.approx(within_one_deviation, abs=0.007)
    assert abs(np.corrcoef(noise[::2], noise[1::2])[0, 1]) < 6 / math.sqrt(SAMPLES / 2)


@pytest.mark.parametrize("mechanism", [GaussianMechanism(1.0, 1.0), LaplaceMechanism(1.0, 1.0)])
def test_releases_are_fresh_keep_the_shape_and_lie_on_a_grid(mechanism: GaussianMechanism | LaplaceMechanism) -> None:
    value = np.arange(15.0).reshape(3, 5)
    first, second = mechanism.release(value), mechanism.release(value)
    assert first.shape == value.shape
    assert not (first == second).any()
    assert np.array_equal(first * 2**20, np.rint(first * 2**20))
    assert mechanism.release(3.0).shape == ()


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_parameters_must_be_positive(bad: float) -> None:
    for make in (lambda: GaussianMechanism(bad, 1), lambda: GaussianMechanism(1, bad), lambda: LaplaceMechanism(bad, 1)):
        with pytest.raises(ValueError, match="positive"):
            make()
    with pytest.raises(ValueError, match="finite"):
        LaplaceMechanism(1, 1).release([1.0, math.nan])


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        # specs/secure-aggregation.md 5, delta 1e-5.
        (GaussianEvent(1.1, sampling_probability=0.02, count=1000), 3.25),
        (GaussianEvent(8.0, count=100), 5.68),
        (GaussianEvent(4.0, count=100), 13.2),
        # Laplace of scale 1/0.1, ten times, is 1-DP by plain composition; PLD at small delta comes close from below.
        (LaplaceEvent(10.0), 0.1),
    ],
)
def test_epsilon_matches_published_figures(event: GaussianEvent | LaplaceEvent, expected: float) -> None:
    assert epsilon([event], 1e-5) == pytest.approx(expected, rel=5e-3)


def test_gaussian_epsilon_inverts_the_analytic_delta() -> None:
    # Balle and Wang, ICML 2018: delta(eps) = Phi(1/(2s) - eps s) - e^eps Phi(-1/(2s) - eps s).
    sigma = 2.0
    found = epsilon([GaussianEvent(sigma)], 1e-5)

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    delta = phi(1 / (2 * sigma) - found * sigma) - math.exp(found) * phi(-1 / (2 * sigma) - found * sigma)
    assert delta == pytest.approx(1e-5, rel=1e-2)


@pytest.mark.parametrize("event", [GaussianEvent(1.1, 0.02, 200), GaussianEvent(3.0, 0.5, 20), GaussianEvent(4.0, count=30)])
def test_the_divergence_bound_lies_above_the_loss_distributions(event: GaussianEvent) -> None:
    tight = epsilon([event], 1e-5)
    assert tight <= divergence_epsilon(event, 1e-5) <= 1.3 * tight


def test_equal_events_cost_the_same_in_one_piece_or_many() -> None:
    assert epsilon([GaussianEvent(3.0, 0.1, 5), LaplaceEvent(9.0), GaussianEvent(3.0, 0.1, 7)], 1e-5) == epsilon(
        [GaussianEvent(3.0, 0.1, 12), LaplaceEvent(9.0)], 1e-5
    )


def test_noise_multiplier_is_the_smallest_that_fits() -> None:
    multiplier = noise_multiplier(3.0, 1e-5, count=100)
    assert multiplier == pytest.approx(13.9, abs=0.05)
    assert epsilon([GaussianEvent(multiplier, count=100)], 1e-5) <= 3.0 < epsilon([GaussianEvent(multiplier * 0.99, count=100)], 1e-5)


def test_no_events_cost_nothing() -> None:
    assert epsilon([], 1e-6) == 0.0


def test_budget_is_spent_then_refuses_and_keeps_its_ledger() -> None:
    budget = PrivacyBudget(1.0, 1e-6)
    event = GaussianEvent(10.0)
    spent = [budget.spend(event) for _ in range(3)]
    assert spent == sorted(spent)
    assert budget.spent == spent[-1] == epsilon([event] * 3, 1e-6)
    with pytest.raises(PrivacyBudgetExceededError, match="total is 1"):
        budget.spend(GaussianEvent(1.0))
    assert budget.events == (event,) * 3
    assert budget.spent == spent[-1]
    assert PrivacyBudget(1.0, 1e-6, spent=budget.events).spent == spent[-1]


def test_budget_of_earlier_releases_counts() -> None:
    event = LaplaceEvent(2.0)
    fresh, used = PrivacyBudget(1.2, 1e-6), PrivacyBudget(1.2, 1e-6, spent=[event, event])
    fresh.spend(event)
    with pytest.raises(PrivacyBudgetExceededError):
        used.spend(event)


@pytest.mark.parametrize(("total", "delta"), [(0.0, 1e-6), (-1.0, 1e-6), (math.nan, 1e-6), (1.0, 0.0), (1.0, 1.0)])
def test_a_budget_needs_epsilon_and_delta(total: float, delta: float) -> None:
    with pytest.raises(ValueError, match="expected epsilon"):
        PrivacyBudget(total, delta)


@pytest.mark.parametrize("arguments", [(0.0,), (-1.0,), (math.nan,), (1.0, 0.0), (1.0, 1.5), (1.0, 1.0, 0)])
def test_events_are_checked(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        GaussianEvent(*arguments)
