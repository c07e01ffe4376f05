"""Perceptrons with LayerNorm, LeakyReLU, residual joins and folded BatchNorm, keyed: the same laws as without."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rexis import ee
from rexis.ee.groups import Permutation, ScaledPermutation
from rexis.errors import UnsupportedLayerError
from rexis.models.builders import build, describe
from rexis.models.mlp import ACTIVATIONS, NORMALISATIONS, MLPConfig
from rexis.models.modules.mlp import Residual
from rexis.models.spec import ModelSpec

widths = st.integers(2, 16)


@st.composite
def configs(draw: st.DrawFn) -> MLPConfig:
    runs = draw(st.lists(st.tuples(widths, st.integers(1, 3)), min_size=1, max_size=3))
    hidden = tuple(width for width, length in runs for _ in range(length))
    joinable = any(before == after for before, after in pairwise(hidden))
    activation, normalisation = draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from(NORMALISATIONS))
    return MLPConfig(draw(widths), hidden, draw(widths), activation, normalisation, joinable and draw(st.booleans()))


def rows(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model_of(config: MLPConfig, seed: int) -> nn.Module:
    """With LayerNorm weights that are not all alike."""
    model, generator = build(ModelSpec(config), seed=seed, dtype=torch.float64), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) + name.endswith("weight"))
    return model


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@settings(max_examples=50, deadline=None)
@given(
    config=configs(),
    mode=st.sampled_from(["infer", "train"]),
    suite=st.sampled_from(["dense", "permutation"]),
    condition=st.sampled_from([1.0, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_keyed_models_compute_decrypt_and_train_like_plain_ones(
    config: MLPConfig, mode: ee.keys.Mode, suite: ee.keys.Suite, condition: float, seed: int
) -> None:
    condition = 1.0 if mode == "train" else condition
    key = ee.keygen(ModelSpec(config), mode=mode, suite=suite, knowledge="private", seed=seed.to_bytes(32), condition=condition)
    model, x = model_of(config, seed), rows(32, config.inputs, seed)
    keyed, keyed_x = ee.encrypt_model(model, key), ee.encrypt_inputs(x, key)
    assert describe(keyed) == describe(model)
    assert relative_error(ee.decrypt_outputs(keyed(keyed_x), key), model(x)) <= 1e-9
    for found, expected in zip(ee.decrypt_model(keyed, key).parameters(), model.parameters(), strict=True):
        assert (found - expected).abs().max() <= 1e-9 * max(1.0, expected.abs().max().item())
    if mode == "infer":
        return
    labels = torch.arange(32) % config.outputs
    for each, given_x, given_labels in ((model, x, labels), (keyed, keyed_x, ee.encrypt_labels(labels, key))):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(each(given_x), given_labels).backward()
            optimizer.step()
    for found, expected in zip(ee.decrypt_model(keyed, key).parameters(), model.parameters(), strict=True):
        assert (found - expected).abs().max() <= 1e-8


def test_sites_joined_by_a_sum_share_one_key() -> None:
    key = ee.keygen(ModelSpec(MLPConfig(6, (8, 8, 8, 4, 4), 3, residual=True)), knowledge="private")
    assert list(key.site_keys) == ["layer0/in", "layer0/hidden", "layer3/hidden", "layer5/out"]
    unjoined = ee.keygen(ModelSpec(MLPConfig(6, (8, 8, 8, 4, 4), 3)), knowledge="private")
    assert len(unjoined.site_keys) == 7


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_positive_scales_pass_through_relu_and_its_leaky_kin_in_inference_only(activation: str) -> None:
    spec = ModelSpec(MLPConfig(6, (8,), 3, activation))
    assert isinstance(ee.keygen(spec, knowledge="private", condition=3.0).site_keys["layer0/hidden"].transform, ScaledPermutation)
    assert isinstance(ee.keygen(spec, mode="train", knowledge="private").site_keys["layer0/hidden"].transform, Permutation)


def test_layer_norm_admits_no_scales_and_no_signs() -> None:
    for activation in ("relu", "tanh"):
        key = ee.keygen(ModelSpec(MLPConfig(6, (8,), 3, activation, "layer")), knowledge="private", condition=3.0)
        assert isinstance(key.site_keys["layer0/hidden"].transform, Permutation)


def with_batch_norm() -> nn.Sequential:
    torch_generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()),
        Residual(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Linear(8, 3),
    ).double()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=torch_generator, dtype=torch.float64) + 0.5)
    return model


def test_batch_norm_is_folded_for_inference_and_refused_in_training() -> None:
    model, x = with_batch_norm().eval(), rows(20, 6, 1)
    key = ee.keygen(model, knowledge="private")
    keyed = ee.encrypt_model(model, key)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in keyed.modules())
    assert relative_error(ee.decrypt_outputs(keyed(ee.encrypt_inputs(x, key)), key), model(x)) <= 1e-9
    assert relative_error(ee.canonical_model(model)(x), model(x)) <= 1e-12
    with pytest.raises(UnsupportedLayerError, match="move with each batch"):
        ee.keygen(model, mode="train", knowledge="private")
    train = ee.keygen(ee.canonical_model(model), mode="train", knowledge="private")
    with pytest.raises(UnsupportedLayerError, match="move with each batch"):
        ee.encrypt_model(model, train)
    with pytest.raises(UnsupportedLayerError, match="statistics of each batch"):
        ee.encrypt_model(model.train(), key)
