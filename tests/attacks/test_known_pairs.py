"""Known pairs break an EE input key: DESIGN section 1 says so, and here it happens."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from rexis import ee
from rexis.attacks.known_pairs import known_pair_curve, recover_key
from rexis.attacks.readings import explained_variance
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec
from tests.attacks.cohorts import halves, keyed, standardised

D = 30
SPEC = ModelSpec(MLPConfig(D, (64,), 2))
KEY = ee.keygen(build(SPEC, seed=1), knowledge="private", seed=bytes(range(32)))
KNOWN = torch.randn(D + 1, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
UNSEEN = torch.randn(200, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def reading(pairs: int) -> float:
    """R² of the attacker's reading of unseen rows after that many known pairs."""
    recovered = recover_key(KNOWN[:pairs].numpy(), ee.encrypt_inputs(KNOWN[:pairs], KEY).numpy())
    return explained_variance(UNSEEN.numpy(), recovered.decrypt(ee.encrypt_inputs(UNSEEN, KEY).numpy()))


def test_d_plus_one_pairs_give_the_key_away() -> None:
    recovered = recover_key(KNOWN.numpy(), ee.encrypt_inputs(KNOWN, KEY).numpy())
    site = KEY.site_keys["layer0/in"]
    true_matrix = site.transform.apply(torch.eye(D, dtype=torch.float64), axis=0).numpy()
    assert abs(recovered.matrix - true_matrix).max() < 1e-9
    assert abs(recovered.shift - site.shift.numpy()).max() < 1e-9
    assert reading(D + 1) > 1 - 1e-12


def test_fp32_rows_are_enough() -> None:
    recovered = recover_key(KNOWN.float().numpy(), ee.encrypt_inputs(KNOWN.float(), KEY).numpy())
    assert explained_variance(UNSEEN.numpy(), recovered.decrypt(ee.encrypt_inputs(UNSEEN, KEY).numpy())) > 0.9999


def test_fewer_pairs_leave_the_rest_of_the_space_unread() -> None:
    # Independent columns: with half the pairs half of the directions stay hidden. Correlated data give more (spec, correction 5).
    assert reading(D // 2) < 0.6
    assert reading(2) < 0.15


def test_the_public_base_weights_give_the_whole_key_away_without_data() -> None:
    """What `accept_known_base_risk` accepts: W and W' = P W T^t of the first layer alone determine T."""
    model = build(SPEC, seed=1, dtype=torch.float64)
    encrypted = ee.encrypt_model(model, KEY)
    base, keyed = model[0].weight.detach(), encrypted.get_submodule("0").weight.detach()
    # Row norms survive T; they match the rows, and least squares over matched rows is T.
    order = torch.argsort(base.norm(dim=1))[torch.argsort(torch.argsort(keyed.norm(dim=1)))]
    recovered = recover_key(base[order].numpy(), keyed.numpy())
    site = KEY.site_keys["layer0/in"]
    true_matrix = site.transform.apply(torch.eye(D, dtype=torch.float64), axis=0).numpy()
    assert abs(recovered.matrix - true_matrix).max() < 1e-9


def test_correlated_columns_need_fewer() -> None:
    """Correction 5: ten pairs of thirty columns read five sixths of the variance of all other records (0.74 to 0.86 over 40 seeds)."""
    generator = np.random.default_rng(1)
    plain = halves(generator).rows
    found = known_pair_curve(keyed(plain, generator), truth=plain, generator=generator, pairs=(5, 10))
    assert 0.7 < found.curve[10] < 0.9
    assert 0.4 < found.curve[5] < found.curve[10]
    assert found.figures["r2_10_percent"] > 0.98
    assert found.figures["r2_d_plus_1"] > 1 - 1e-9
    assert found.figures["r2_1_percent"] < 0.3
    assert 5.5 < found.figures["effective_rank"] < 7.5
    assert found.figures["warn_pairs"] == 1


@pytest.mark.parametrize(("sigma", "least", "most"), [(0.1, 0.97, 0.995), (1.0, 0.6, 0.72), (4.0, 0.0, 0.2)])
def test_noise_blunts_sixty_pairs(sigma: float, least: float, most: float) -> None:
    """Spec 1e has .98, .59 and .02 for an attacker who does not filter; ridge regression reads .98, .66 and .11."""
    generator = np.random.default_rng(2)
    plain = halves(generator).rows
    found = known_pair_curve(keyed(plain, generator, noise=sigma), truth=plain, generator=generator, pairs=(60,), noisy=True)
    assert least < found.curve[60] < most


# Spec 1e: .61 / .87 / .93 / .95 / .96 with plain ridge.
@pytest.mark.parametrize(("pairs", "least", "most"), [(10, 0.6, 0.88), (31, 0.85, 0.97), (130, 0.94, 0.99), (280, 0.95, 0.995)])
def test_a_private_first_layer_takes_the_exact_break_and_leaves_the_approximate_one(pairs: int, least: float, most: float) -> None:
    generator = np.random.default_rng(4)
    plain = standardised(load_breast_cancer().data)
    hidden = np.maximum(plain @ generator.normal(size=(D, 64)) / D**0.5 + 0.1 * generator.normal(size=64), 0)
    found = known_pair_curve(keyed(hidden, generator), truth=plain, generator=generator, pairs=(pairs,), noisy=True)
    assert least < found.curve[pairs] < most


def test_independent_columns_have_full_rank() -> None:
    assert ee.effective_rank(np.random.default_rng(3).standard_normal((4000, D))) > D - 1
    assert ee.effective_rank(np.outer(np.arange(9.0), np.ones(D))) == pytest.approx(1)


def test_pairs_that_leave_nobody_unknown_are_refused() -> None:
    rows = np.eye(6)
    with pytest.raises(ValueError, match="between 1 and 4 known pairs of 6"):
        known_pair_curve(rows, truth=rows, generator=np.random.default_rng(0), pairs=(6,))
    with pytest.raises(ValueError, match="expected pairs"):
        known_pair_curve(rows, truth=rows[:5], generator=np.random.default_rng(0))
