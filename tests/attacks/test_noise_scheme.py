"""Noise before the key: its guarantee holds against an attacker with the key itself and is reached by him, and known pairs read as much as
`specs/equivariant-encryption.md` 1e says, and a little more."""

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rexis import ee
from rexis.attacks.known_pairs import recover_key
from rexis.attacks.readings import explained_variance
from rexis.ee import analytics
from rexis.ee.schemes import Noise
from rexis.ee.schemes.metric_privacy import MetricPrivacy

KEY = analytics.keygen(30, seed=bytes(range(32)))


def cohort() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Breast cancer, half and half, standardised by the first half."""
    features, labels = (torch.from_numpy(values) for values in load_breast_cancer(return_X_y=True))
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    own, held = order[:285], order[285:]
    mean, scale = features[own].mean(dim=0), features[own].std(dim=0)
    return (features[own] - mean) / scale, labels[own], (features[held] - mean) / scale, labels[held]


def sent(x: Tensor, sigma: float) -> Tensor:
    return ee.encrypt_inputs(x, replace(KEY, scheme=Noise(sigma)), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("sigma", "distance"), [(0.5, 0.5), (1.0, 1.0), (1.0, 3.0)])
def test_with_the_key_in_hand_two_records_are_told_apart_just_as_often_as_mu_says(sigma: float, distance: float) -> None:
    first = torch.randn(30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.arange(1.0, 31.0, dtype=torch.float64), dim=0)
    second = first + distance * direction
    draws = 20_000
    # The best test there is, by Neyman and Pearson: the likelihood ratio along the line between the two.
    says_second = []
    for record in (first, second):
        noisy = KEY.site_keys["layer0/in"].decrypt(sent(record.expand(draws, 30), sigma))
        says_second.append(((noisy - first) @ direction > distance / 2).double().mean().item())
    advantage = says_second[1] - says_second[0]
    assert advantage == pytest.approx(MetricPrivacy(sigma).advantage(distance), abs=0.015)
    assert advantage < 0.9


# Spec 1e, 60 known pairs: what its attacker read of the other records, and the most that ours may.
FIGURES = [(0.1, 0.98, 1.0), (0.3, 0.91, 0.95), (0.5, 0.82, 0.9), (1.0, 0.59, 0.73), (2.0, 0.24, 0.48), (4.0, 0.02, 0.2)]


@pytest.mark.parametrize(("sigma", "at_least", "at_most"), FIGURES)
def test_sixty_known_pairs(sigma: float, at_least: float, at_most: float) -> None:
    x, _, _, _ = cohort()
    rows, seen, pairs = x.numpy(), sent(x, sigma).numpy(), 60
    recovered = recover_key(rows[:pairs], seen[:pairs], noisy=True)
    assert at_least - 0.02 <= explained_variance(rows[pairs:], recovered.decrypt(seen[pairs:])) <= at_most


def test_what_the_noise_costs_the_owner() -> None:
    x, labels, held, held_labels = cohort()
    for sigma, least in ((0.5, 0.94), (1.0, 0.93), (4.0, 0.75)):
        noisy = KEY.site_keys["layer0/in"].decrypt(sent(x, sigma))
        assert LogisticRegression(max_iter=2000).fit(noisy, labels).score(held, held_labels) >= least
