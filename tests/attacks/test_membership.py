"""Membership inference by losses: an overfitted model tells its members, and a differentially private one can not beyond its bound."""

import numpy as np
import pytest
import torch
from numpy.random import Generator
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

from rexis import ee
from rexis.attacks.membership import Fit, Losses, LossFunction, auc_bound, calibrate, membership_reading, train_shadows
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec
from tests.attacks.keyed_weights import Array

D, MEMBERS, SHADOWS = 100, 100, 16
Sample = tuple[Array, Array]


def sample(generator: Generator, count: int) -> Sample:
    """Rows in the unit ball and noisy labels of one fixed rule."""
    rows = generator.standard_normal((count, D)) / (1.5 * D**0.5)
    rule = np.random.default_rng(0).standard_normal(D)
    labels = generator.random(count) < 1 / (1 + np.exp(-4 * rows @ rule))
    return rows / np.maximum(1, np.linalg.norm(rows, axis=1, keepdims=True)), labels.astype(np.int64)


def logistic(weights: Array) -> LossFunction:
    def losses(rows: Array, labels: Array) -> Losses:
        return np.asarray(np.logaddexp(0, -(2 * labels - 1) * (rows @ weights)), dtype=np.float64)

    return losses


def fit(penalty: float, noise: float = 0.0, generator: Generator | None = None) -> Fit:
    """Logistic regression with penalty · ‖w‖² / 2 beside the mean loss; noise on the weights, as in output perturbation."""

    def train(rows: Array, labels: Array) -> LossFunction:
        model = LogisticRegression(C=1 / (penalty * len(rows)), fit_intercept=False, max_iter=500).fit(rows, labels)
        return logistic(model.coef_[0] + (0.0 if generator is None else noise * generator.standard_normal(D)))

    return train


def attack(seed: int, train: Fit) -> dict[str, float]:
    generator = np.random.default_rng(seed)
    members, others, pool = sample(generator, MEMBERS), sample(generator, MEMBERS), sample(generator, 1000)
    candidates = (np.vstack([members[0], others[0]]), np.concatenate([members[1], others[1]]))
    losses = train(*members)
    shadows = train_shadows(train, pool, candidates, shadows=SHADOWS, records=MEMBERS, generator=generator)
    return dict(membership_reading(losses(*members), losses(*others), shadow_losses=shadows).figures)


def test_an_overfitted_model_tells_its_members() -> None:
    found = [attack(seed, fit(1e-3)) for seed in range(3)]
    # 0.76, 0.77 and 0.32 over eight seeds.
    assert np.mean([each["auc"] for each in found]) > 0.68
    assert np.mean([each["calibrated_auc"] for each in found]) > 0.68
    assert np.mean([each["calibrated_tpr_at_10_percent"] for each in found]) > 0.2


def test_shadow_models_tell_more_than_the_loss_alone_where_records_differ() -> None:
    """Half of the records are easy for every model, so that their loss is low whether or not they were members."""
    generator = np.random.default_rng(7)
    hard = np.tile([0.1, 3.0], 500)
    shadows = hard * np.exp(0.2 * generator.standard_normal((SHADOWS, 1000)))
    losses = hard * np.exp(0.2 * generator.standard_normal(1000))
    losses[:500] *= 0.6
    found = membership_reading(losses[:500], losses[500:], shadow_losses=shadows)
    assert found.figures["auc"] < 0.77
    assert found.figures["calibrated_auc"] > 0.9
    assert found.figures["advantage"] == pytest.approx(2 * found.figures["calibrated_auc"] - 1)
    assert np.array_equal(found.scores, calibrate(losses, shadows))


def test_differential_privacy_bounds_both() -> None:
    """Output perturbation (Chaudhuri et al., JMLR 12 (2011)): one record moves the weights by 2 / (n penalty) at most; 0.53 measured."""
    penalty, mu = 0.01, 0.5
    noise = 2 / (MEMBERS * penalty) / mu
    found = [attack(seed, fit(penalty, noise, np.random.default_rng(seed + 50))) for seed in range(5)]
    for statistic in ("auc", "calibrated_auc"):
        # Five attacks on 200 records each: a standard error of 0.02.
        assert np.mean([each[statistic] for each in found]) < auc_bound(mu) + 0.04
    assert auc_bound(mu) == pytest.approx(0.638, abs=1e-3)
    assert auc_bound(0) == 0.5


def test_a_keyed_model_tells_its_members_just_as_well() -> None:
    """EE is exact, so that its holder sees the same losses on keyed candidates."""
    model = build(ModelSpec(MLPConfig(30, (8,), 2)), seed=1, dtype=torch.float64)
    key = ee.keygen(model, mode="train", knowledge="private", seed=bytes(range(32)))
    rows = torch.randn(60, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(60) % 2
    with torch.no_grad():
        plain = cross_entropy(model(rows), labels, reduction="none").numpy()
        answers = ee.encrypt_model(model, key)(ee.encrypt_inputs(rows, key))
        keyed = cross_entropy(answers, ee.encrypt_labels(labels, key), reduction="none").numpy()
    assert abs(plain - keyed).max() < 1e-9
    assert membership_reading(keyed[:30], keyed[30:]).figures == membership_reading(plain[:30], plain[30:]).figures


def test_losses_of_no_difference_are_chance() -> None:
    found = membership_reading(np.ones(50), np.ones(70)).figures
    assert found == {"auc": 0.5, "tpr_at_1_percent": 0.0, "tpr_at_10_percent": 0.0, "advantage": 0.0}


def test_a_record_that_every_shadow_model_saw_is_refused() -> None:
    shadows = np.ones((3, 4))
    shadows[:, 1] = np.nan
    with pytest.raises(ValueError, match="unseen by at least one"):
        membership_reading([1.0, 2.0], [1.0, 2.0], shadow_losses=shadows)
    with pytest.raises(ValueError, match=r"shadow losses \[shadows, 4\]"):
        membership_reading([1.0, 2.0], [1.0, 2.0], shadow_losses=np.ones((3, 5)))
