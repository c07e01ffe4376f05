"""Known pairs break an EE input key: DESIGN section 1 says so, and here it happens."""

import torch

from rexis import ee
from rexis.attacks.known_pairs import explained_variance, recover_key
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec

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
