"""The laws of Equivariant Encryption, over random architectures, keys and inputs."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rexis import ee
from rexis.ee.groups import (
    FastOrthogonal,
    Group,
    Linear,
    MeanPreserving,
    MonomialScaling,
    Orthogonal,
    Permutation,
    PlaneRotations,
    PlaneScalings,
    QuarterTurns,
    ScaledPermutation,
    SignedPermutation,
)
from rexis.models.builders import build
from rexis.models.mlp import ACTIVATIONS, LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec
from rexis.training.local import classification_loss

GROUPS = (
    *(Permutation, SignedPermutation, ScaledPermutation, MonomialScaling),
    *(Orthogonal, MeanPreserving, FastOrthogonal, Linear),
    *(QuarterTurns, PlaneRotations, PlaneScalings),
)
widths = st.integers(1, 24)
specs = st.one_of(
    st.builds(MLPConfig, widths, st.lists(widths, min_size=1, max_size=3).map(tuple), widths, st.sampled_from(ACTIVATIONS)),
    st.builds(LogisticConfig, widths, widths),
).map(ModelSpec)
seeds = st.integers(0, 2**32 - 1)
modes = st.sampled_from(["infer", "train"])
suites = st.sampled_from(["dense", "permutation"])


def rows(count: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make_key(spec: ModelSpec, mode: ee.keys.Mode, suite: ee.keys.Suite, seed: int) -> ee.Key:
    return ee.keygen(spec, mode=mode, suite=suite, knowledge="private", seed=seed.to_bytes(32))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


@settings(max_examples=60, deadline=None)
@given(spec=specs, mode=modes, suite=suites, seed=seeds)
def test_the_keyed_model_on_keyed_inputs_decrypts_to_the_model(
    spec: ModelSpec, mode: ee.keys.Mode, suite: ee.keys.Suite, seed: int
) -> None:
    key, x = make_key(spec, mode, suite, seed), rows(64, spec.config.inputs, seed)
    model = build(spec, seed=seed, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        encrypted = ee.encrypt_model(model, key)
        keyed = ee.encrypt_inputs(x, key)
        found = ee.decrypt_outputs(encrypted(keyed), key)
        assert type(encrypted) is type(model)
        assert keyed.shape == x.shape
        assert relative_error(found, expected) <= 1e-9
        single = ee.decrypt_outputs(ee.encrypt_model(model.float(), key)(ee.encrypt_inputs(x.float(), key)), key)
        assert single.dtype == torch.float32
        assert relative_error(single, expected) <= 1e-5


@settings(max_examples=40, deadline=None)
@given(spec=specs, mode=modes, suite=suites, seed=seeds)
def test_decrypting_a_keyed_model_gives_the_weights_back(spec: ModelSpec, mode: ee.keys.Mode, suite: ee.keys.Suite, seed: int) -> None:
    key, model = make_key(spec, mode, suite, seed), build(spec, seed=seed)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decrypted = ee.decrypt_model(ee.encrypt_model(model, key), key)
    for name, value in decrypted.state_dict().items():
        assert torch.equal(model.state_dict()[name], before[name])
        if suite == "permutation":
            assert torch.equal(value, before[name])
        else:
            assert (value - before[name]).norm() <= 1e-5 * max(1.0, before[name].norm().item())


@settings(max_examples=100, deadline=None)
@given(group=st.sampled_from(GROUPS), half=st.integers(1, 20), seed=seeds)
def test_group_laws(group: type[Group], half: int, seed: int) -> None:
    dimension, identity = 2 * half, torch.eye(2 * half, dtype=torch.float64)
    transform = group.draw(seed.to_bytes(32), "x", dimension, 3.0)
    x, matrix = rows(5, dimension, seed), transform.apply(identity, axis=0)
    for found, expected in (
        (transform.apply(x), x @ matrix.T),
        (transform.apply(x.T, axis=0), matrix @ x.T),
        (transform.inverse().apply(transform.apply(x)), x),
        (transform.apply(transform.inverse().apply(x)), x),
        (transform.contragredient().apply(identity, axis=0), torch.linalg.inv(matrix).T),
        (transform.inverse().contragredient().apply(identity, axis=0), matrix.T),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    assert torch.linalg.cond(matrix) <= (1 + 1e-9 if group.orthogonal else 3.0 + 1e-9)
    assert transform.dimension == dimension
    assert transform.monomial == bool(((matrix.abs() - 1).abs() < 1e-12).sum() == dimension and (matrix != 0).sum() == dimension)


@pytest.mark.parametrize("config", [MLPConfig(30, (64,), 2), MLPConfig(30, (64, 64), 2, "gelu"), MLPConfig(768, (256,), 2)])
def test_the_error_in_fp32_is_within_three_times_the_plain_models_own(config: MLPConfig) -> None:
    ratios = []
    for seed in range(15 if config.inputs < 100 else 5):
        model, x = build(ModelSpec(config), seed=seed), rows(512, config.inputs, seed, torch.float32)
        key = make_key(ModelSpec(config), "infer", "dense", seed)
        with torch.no_grad():
            plain, found = model(x), ee.decrypt_outputs(ee.encrypt_model(model, key)(ee.encrypt_inputs(x, key)), key)
            exact = model.double()(x.double())
        ratios.append(relative_error(found, exact) / relative_error(plain, exact))
    assert statistics.median(ratios) <= 3


def test_a_wrong_key_decrypts_to_nothing_like_the_output() -> None:
    spec = ModelSpec(MLPConfig(30, (64,), 8))
    model, x = build(spec, seed=1, dtype=torch.float64), rows(64, 30, 1)
    right, wrong = make_key(spec, "infer", "dense", 1), make_key(spec, "infer", "dense", 2)
    output = ee.encrypt_model(model, right)(ee.encrypt_inputs(x, right))
    assert relative_error(ee.decrypt_outputs(output, right), model(x)) < 1e-9
    assert relative_error(ee.decrypt_outputs(output, wrong), model(x)) > 0.3


def sgd(model: nn.Module, x: Tensor, labels: Tensor, *, momentum: float, weight_decay: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for _ in range(20):
        optimizer.zero_grad()
        torch.autograd.backward(classification_loss(model(x), labels))
        optimizer.step()


@settings(max_examples=15, deadline=None)
@given(activation=st.sampled_from(ACTIVATIONS), suite=suites, seed=seeds, momentum=st.sampled_from([0.0, 0.9]))
def test_sgd_on_keyed_weights_rows_and_labels_is_sgd_on_plain_ones(
    activation: str, suite: ee.keys.Suite, seed: int, momentum: float
) -> None:
    spec = ModelSpec(MLPConfig(12, (16,), 4, activation))
    key, x = make_key(spec, "train", suite, seed), rows(48, 12, seed)
    labels = torch.arange(48) % 4
    plain = build(spec, seed=seed, dtype=torch.float64)
    keyed = ee.encrypt_model(plain, key)
    start = torch.cat([parameter.flatten() for parameter in plain.parameters()]).detach().clone()
    # Row c of the keyed output is class indices[c]: the label of a class is where it went.
    keyed_labels = key.site_keys["layer1/out"].transform.inverse().apply(torch.arange(4))[labels]
    sgd(plain, x, labels, momentum=momentum, weight_decay=0.01)
    sgd(keyed, ee.encrypt_inputs(x, key), keyed_labels, momentum=momentum, weight_decay=0.01)
    moved = torch.cat([parameter.flatten() for parameter in plain.parameters()]).detach() - start
    assert moved.norm() > 0.01
    for found, expected in zip(ee.decrypt_model(keyed, key).parameters(), plain.parameters(), strict=True):
        assert (found - expected).abs().max() <= 1e-9 * moved.norm()


def test_training_with_a_shift_before_trained_weights_is_another_training() -> None:
    """Why mode "train" has no shifts: the same run under an "infer" key ends somewhere else."""
    spec = ModelSpec(MLPConfig(12, (16,), 4))
    key, x = make_key(spec, "infer", "dense", 1), rows(48, 12, 1)
    labels = torch.arange(48) % 4
    plain = build(spec, seed=1, dtype=torch.float64)
    keyed = ee.encrypt_model(plain, key)
    sgd(plain, x, labels, momentum=0.9, weight_decay=0.0)
    sgd(keyed, ee.encrypt_inputs(x, key), labels, momentum=0.9, weight_decay=0.0)
    worst = max((a - b).abs().max() for a, b in zip(ee.decrypt_model(keyed, key).parameters(), plain.parameters(), strict=True))
    assert worst > 1e-3


def test_the_keyed_module_keeps_dtype_layout_and_mode_and_nothing_else_of_the_callers_model() -> None:
    spec = ModelSpec(MLPConfig(5, (6,), 2))
    model = build(spec, seed=1).eval()
    model.patient_list = ["never"]
    encrypted = ee.encrypt_model(model, make_key(spec, "infer", "dense", 1))
    assert not encrypted.training
    assert not hasattr(encrypted, "patient_list")
    for parameter in encrypted.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.is_contiguous()
        assert parameter.requires_grad
    assert build(spec, seed=9).load_state_dict(encrypted.state_dict()).missing_keys == []
