"""A plaintext model on keyed rows: what it gives away to whoever knows its first layer, and what it keeps from whoever does not."""

import pytest
import torch
from torch import Tensor, nn

from rexis import ee
from rexis.attacks.plain_activations import figures, read_rows
from rexis.attacks.readings import explained_variance
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec

D = 30
ROWS = torch.randn(200, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def reading(hidden: int, known: nn.Module) -> float:
    """R² of the provider's reading, with the plain model that it believes was mapped."""
    model = build(ModelSpec(MLPConfig(D, (hidden,), 2)), seed=1, dtype=torch.float64)
    key = ee.keygen(model, mode="train", suite="inputs", knowledge="private", seed=bytes(range(32)))
    start, rows = ee.encrypt_model(model, key), ee.encrypt_inputs(ROWS, key)
    with torch.no_grad():
        activations = start.get_submodule("0")(rows)
    torch.testing.assert_close(activations, model.get_submodule("0")(ROWS), rtol=0, atol=1e-12)
    weight, bias = (parameter.detach().numpy() for parameter in known.get_submodule("0").parameters())
    return explained_variance(ROWS.numpy(), read_rows(weight, bias, activations.numpy()))


def plain(hidden: int, seed: int) -> nn.Module:
    return build(ModelSpec(MLPConfig(D, (hidden,), 2)), seed=seed, dtype=torch.float64)


def test_who_knows_the_initial_weights_reads_every_row() -> None:
    assert reading(64, plain(64, 1)) > 1 - 1e-12


def test_a_narrow_first_layer_gives_its_row_space_away() -> None:
    assert 0.2 < reading(10, plain(10, 1)) < 0.5


def test_who_does_not_know_them_reads_nothing_this_way() -> None:
    assert reading(64, plain(64, 2)) < 0.05


def test_the_mapped_first_layer_alone_gives_the_key_to_who_knows_the_plain_one() -> None:
    model = plain(64, 1)
    key = ee.keygen(model, mode="train", suite="inputs", knowledge="private", seed=bytes(range(32)))
    weight: Tensor = model.get_submodule("0").weight.detach()
    keyed: Tensor = ee.encrypt_model(model, key).get_submodule("0").weight.detach()
    found = torch.linalg.lstsq(weight, keyed).solution.T
    torch.testing.assert_close(found, key.site_keys["layer0/in"].transform.apply(torch.eye(D, dtype=torch.float64), axis=0))


def test_the_figures_of_a_report() -> None:
    model = plain(64, 1)
    key = ee.keygen(model, mode="train", suite="inputs", knowledge="members", seed=bytes(range(32)))
    keyed, rows = ee.encrypt_model(model, key), ee.encrypt_inputs(ROWS, key)
    known = figures(key, keyed, model, ROWS, rows)
    assert known["r2_base"] > 1 - 1e-12
    assert known["plain_site_share"] == pytest.approx(2 / 3)
    assert known["readable_share"] == 1.0
    assert figures(key, keyed, plain(64, 2), ROWS, rows)["r2_base"] < 0.05
    assert "r2_base" not in figures(key, keyed, None, ROWS, rows)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected weight"):
        read_rows(torch.zeros(4, 3), torch.zeros(4), torch.zeros(5, 3))
