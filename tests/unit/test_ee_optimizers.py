"""Encrypted training against plaintext training on real tumour data: which optimiser is exact under which keys, and which is refused.

Bounds of DESIGN section 7; the deviations of table 1c in `specs/equivariant-encryption.md`.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from rexis import ee
from rexis.ee.groups import Linear, ScaledPermutation
from rexis.ee.optimizers import Muon, PerTensorAdam, build, rules
from rexis.ee.optimizers.muon import orthogonalize
from rexis.ee.site_keys import SiteKey
from rexis.errors import UnsupportedOptimizerError
from rexis.models import builders
from rexis.models.spec import MLPConfig, ModelSpec
from rexis.training.encrypted import Batch, Objective, Recipe, encrypt_batch, train_encrypted, train_split

CONFIG = MLPConfig(30, (64, 64), 2)
STEPS, BATCH = 100, 32
RECIPES = {
    "sgd": Recipe("sgd", 0.05),
    "sgd decayed": Recipe("sgd", 0.05, {"weight_decay": 0.01}),
    "momentum": Recipe("sgd", 0.02, {"momentum": 0.9, "weight_decay": 0.01}, clipping_norm=1.0),
    "nesterov": Recipe("sgd", 0.02, {"momentum": 0.9, "nesterov": True}),
    "adamw": Recipe("adamw", 1e-3, {"weight_decay": 0.1}),
    "adam-per-tensor": Recipe("adam-per-tensor", 1e-3, {"weight_decay": 0.1}),
    "muon": Recipe("muon", 0.01, {"weight_decay": 0.1}),
}
EXACT = [
    *((name, "dense") for name in RECIPES if name != "adamw"),
    *((name, "permutation") for name in ("momentum", "adamw", "adam-per-tensor", "muon")),
]


def tumours() -> tuple[Tensor, Tensor]:
    """Standardised f64 [569, 30], and the diagnosis."""
    found = load_breast_cancer()
    rows = torch.from_numpy(found.data)
    return (rows - rows.mean(dim=0)) / rows.std(dim=0), torch.from_numpy(found.target)


ROWS, LABELS = tumours()


def batches(dtype: torch.dtype, steps: int = STEPS) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    chosen = [torch.randperm(len(ROWS), generator=generator)[:BATCH] for _ in range(steps)]
    return [Batch(ROWS[rows].to(dtype), LABELS[rows]) for rows in chosen]


def train_key(suite: ee.keys.Suite = "dense", config: MLPConfig = CONFIG, labels: str = "permuted") -> ee.Key:
    return ee.keys.Key(bytes(range(32)), ModelSpec(config), "train", suite, "private", labels=labels)


def with_site(key: ee.Key, name: str, site_key: SiteKey) -> ee.Key:
    """The key with another element at one site, which its rule need not admit."""
    changed = replace(key)
    changed.__dict__["site_keys"] = MappingProxyType({**key.site_keys, name: site_key})
    return changed


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])


def differences(
    key: ee.Key, dtype: torch.dtype, train_plain: Callable[[nn.Module], object], train_keyed: Callable[[nn.Module], object]
) -> tuple[float, float]:
    """Relative differences of weights (Frobenius) and of logits (largest) between a keyed run, decrypted, and a plain one."""
    plain = builders.build(key.spec, seed=1, dtype=dtype)
    start, keyed = flat(plain), ee.encrypt_model(plain, key)
    train_plain(plain)
    train_keyed(keyed)
    assert (flat(plain) - start).norm() > 0.02 * start.norm()
    rows = ROWS.to(dtype)
    with torch.no_grad():
        expected, found = plain(rows), ee.decrypt_outputs(keyed(ee.encrypt_inputs(rows, key)), key)
    weights = (flat(ee.decrypt_model(keyed, key)) - flat(plain)).norm() / flat(plain).norm()
    return weights.item(), ((found - expected).abs().max() / expected.abs().max()).item()


def parity(recipe: Recipe, key: ee.Key, dtype: torch.dtype, objective: Objective | None = None, steps: int = STEPS) -> tuple[float, float]:
    """`differences` of a recipe in label mode, or in split mode if the key has it."""
    plain_batches = batches(dtype, steps)

    def train_keyed(model: nn.Module) -> None:
        if key.labels == "split":
            train_split(model, plain_batches, key, recipe, objective)
            return
        keyed_objective = objective
        if objective is not None and objective.class_weights is not None:
            keyed_objective = replace(objective, class_weights=ee.encrypt_class_weights(objective.class_weights, key))
        train_encrypted(model, [encrypt_batch(batch, key) for batch in plain_batches], recipe, keyed_objective)

    return differences(key, dtype, lambda model: train_encrypted(model, plain_batches, recipe, objective), train_keyed)


@pytest.mark.parametrize(("name", "suite"), EXACT)
def test_an_admitted_optimizer_trains_the_same_model_after_100_steps(name: str, suite: ee.keys.Suite) -> None:
    key, recipe = train_key(suite), RECIPES[name]
    recipe.admit(ee.encrypt_model(builders.build(key.spec, seed=1), key), key)
    assert max(parity(recipe, key, torch.float64)) <= 1e-9
    if suite == "permutation" and name != "adamw":
        return
    weights, logits = parity(recipe, key, torch.float32)
    assert logits <= 1e-4
    assert name == "muon" or weights <= 1e-4


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_signed_and_permuted_hidden_keys_carry_the_optimizers_too(activation: str) -> None:
    config = replace(CONFIG, activation=activation)
    for name, suite in (("momentum", "dense"), ("muon", "dense"), ("adamw", "permutation")):
        assert max(parity(RECIPES[name], train_key(suite, config), torch.float64, steps=40)) <= 1e-9


@pytest.mark.parametrize("name", ["momentum", "adam-per-tensor", "muon"])
def test_split_mode_trains_the_same_model_from_returned_gradients(name: str) -> None:
    recipe = RECIPES[name] if name == "adam-per-tensor" else replace(RECIPES[name], settings={})
    recipe = replace(recipe, settings={**recipe.settings, "weight_decay": 0.0})
    key = train_key(labels="split")
    assert key.site_keys["layer2/out"].shift.any()
    recipe.admit(ee.encrypt_model(builders.build(key.spec, seed=1), key), key)
    assert max(parity(recipe, key, torch.float64, steps=40)) <= 1e-9


def test_class_weights_move_with_the_labels_and_uniform_smoothing_stays() -> None:
    objective = Objective(class_weights=torch.tensor([3.0, 0.5], dtype=torch.float64), label_smoothing=0.1)
    # A key whose label permutation is not the identity, or the test says nothing.
    key = next(
        key
        for key in (replace(train_key(), seed=bytes([seed]) * 32) for seed in range(20))
        if ee.encrypt_labels(torch.tensor([0]), key).item() == 1
    )
    assert max(parity(RECIPES["momentum"], key, torch.float64, objective, steps=40)) <= 1e-9
    unkeyed = batches(torch.float64, 40)
    recipe = RECIPES["momentum"]
    wrong = differences(
        key,
        torch.float64,
        lambda model: train_encrypted(model, unkeyed, recipe, objective),
        lambda model: train_encrypted(model, [encrypt_batch(batch, key) for batch in unkeyed], recipe, objective),
    )
    assert max(wrong) > 1e-2


# What is refused, and what it would have done.


def deviation(recipe: Recipe, key: ee.Key) -> float:
    return parity(recipe, key, torch.float64, steps=40)[0]


def test_elementwise_adam_under_dense_keys_trains_another_model_and_is_refused() -> None:
    key = train_key()
    assert deviation(RECIPES["adamw"], key) > 1e-2
    keyed = ee.encrypt_model(builders.build(key.spec, seed=1), key)
    with pytest.raises(UnsupportedOptimizerError, match=r"permutations and signs.*suite 'dense'.*second moment for each entry"):
        ee.optimizer("adamw", keyed.parameters(), key=key, lr=1e-3)
    for stock in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad):
        with pytest.raises(UnsupportedOptimizerError, match="permutations and signs"):
            rules.admit_optimizer(stock(keyed.parameters()), key)
        rules.admit_optimizer(stock(keyed.parameters()), train_key("permutation"))


def test_clipping_single_entries_under_dense_keys_trains_another_model_and_is_refused() -> None:
    recipe = Recipe("sgd", 0.5, clipping_value=0.01)
    assert deviation(recipe, train_key()) > 1e-3
    assert max(parity(recipe, train_key("permutation"), torch.float64, steps=40)) <= 1e-9
    keyed = ee.encrypt_model(builders.build(ModelSpec(CONFIG), seed=1), train_key())
    with pytest.raises(UnsupportedOptimizerError, match=r"value clipping.*clip the norm"):
        recipe.admit(keyed, train_key())
    recipe.admit(keyed, train_key("permutation"))


def stock_muon(model: nn.Module, data: list[Batch]) -> None:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    optimizer = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.0)
    for batch in data:
        optimizer.zero_grad()
        torch.autograd.backward(Objective().loss(model(batch.inputs), batch.labels))
        optimizer.step()


def test_torchs_own_muon_rounds_in_bfloat16_trains_another_model_and_is_refused() -> None:
    key, plain_batches = train_key(), batches(torch.float32, 40)
    keyed_batches = [encrypt_batch(batch, key) for batch in plain_batches]
    weights, _ = differences(
        key, torch.float32, lambda model: stock_muon(model, plain_batches), lambda model: stock_muon(model, keyed_batches)
    )
    assert weights > 1e-3
    keyed = ee.encrypt_model(builders.build(key.spec, seed=1), key)
    matrices = [parameter for parameter in keyed.parameters() if parameter.ndim == 2]
    for suite in ("dense", "permutation"):
        with pytest.raises(UnsupportedOptimizerError, match="bfloat16"):
            rules.admit_optimizer(torch.optim.Muon(matrices), train_key(suite))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_newton_schulz_in_half_precision_is_refused(dtype: torch.dtype) -> None:
    keyed = ee.encrypt_model(builders.build(ModelSpec(CONFIG), seed=1), train_key()).to(dtype)
    with pytest.raises(UnsupportedOptimizerError, match="rounding in half precision"):
        ee.optimizer("muon", keyed.parameters(), key=train_key(), lr=0.01)
    with pytest.raises(UnsupportedOptimizerError, match="rounding in half precision"):
        orthogonalize(torch.ones(2, 3, dtype=dtype), 1e-7)


def test_a_shift_before_trained_weights_is_training_on_shifted_rows() -> None:
    key = train_key()
    site = key.site_keys["layer0/in"]
    shift = torch.randn(30, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shifted = with_site(key, "layer0/in", SiteKey(site.transform, shift))
    assert deviation(RECIPES["sgd"], shifted) > 1e-2

    moved, plain_batches = site.transform.inverse().apply(shift), batches(torch.float64, 40)

    def train_shifted(model: nn.Module) -> None:
        with torch.no_grad():
            model[0].bias -= model[0].weight @ moved
        train_encrypted(model, [Batch(batch.inputs + moved, batch.labels) for batch in plain_batches], RECIPES["sgd"])
        with torch.no_grad():
            model[0].bias += model[0].weight @ moved

    keyed_batches = [encrypt_batch(batch, shifted) for batch in plain_batches]
    computed = differences(shifted, torch.float64, train_shifted, lambda model: train_encrypted(model, keyed_batches, RECIPES["sgd"]))
    assert max(computed) <= 1e-9


@pytest.mark.parametrize(
    ("site", "group"), [("layer0/in", Linear), ("layer0/hidden", ScaledPermutation)], ids=["condition 3 before the first layer", "scales"]
)
def test_keys_that_scale_train_another_model_and_are_refused(site: str, group: type[Linear | ScaledPermutation]) -> None:
    key = train_key()
    dimension = key.site_keys[site].transform.dimension
    drawn = group.draw(bytes(32), "x", dimension, 3.0)
    scaled = with_site(key, site, SiteKey(drawn, torch.zeros(dimension, dtype=torch.float64)))
    assert deviation(RECIPES["sgd"], scaled) > 1e-3
    keyed = ee.encrypt_model(builders.build(key.spec, seed=1), scaled)
    with pytest.raises(UnsupportedOptimizerError, match=f"site {site} has a {group.__name__} key"):
        ee.optimizer("sgd", keyed.parameters(), key=scaled, lr=0.1)


def test_keys_for_inference_are_refused() -> None:
    key = replace(train_key(), mode="infer")
    keyed = ee.encrypt_model(builders.build(key.spec, seed=1), key)
    for name in ("sgd", "adamw", "adam-per-tensor", "muon"):
        with pytest.raises(UnsupportedOptimizerError, match="mode 'train', got mode 'infer'"):
            ee.optimizer(name, keyed.parameters(), key=key, lr=0.1)


def test_decay_of_a_shifted_bias_is_refused_and_of_the_others_exact() -> None:
    key = train_key(labels="split")
    keyed = ee.encrypt_model(builders.build(key.spec, seed=1), key)
    decayed = Recipe("sgd", 0.05, {"weight_decay": 0.1})
    assert deviation(decayed, key) > 1e-3
    with pytest.raises(UnsupportedOptimizerError, match=re.escape("4.bias")):
        decayed.admit(keyed, key)
    with pytest.raises(UnsupportedOptimizerError, match="vector without a name"):
        ee.optimizer("sgd", keyed.parameters(), key=key, lr=0.1, weight_decay=0.1)
    frozen = ee.encrypt_model(builders.build(key.spec, seed=1), key)
    frozen.get_parameter("4.bias").requires_grad_(False)
    ee.optimizer("sgd", frozen.named_parameters(), key=key, lr=0.1, weight_decay=0.1)

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        named = list(model.named_parameters())
        return [
            {"params": [(name, parameter) for name, parameter in named if name != "4.bias"], "weight_decay": 0.1},
            {"params": [(name, parameter) for name, parameter in named if name == "4.bias"]},
        ]

    def train(model: nn.Module, *, split: bool) -> None:
        optimizer = build("sgd", groups(model), lr=0.05) if not split else ee.optimizer("sgd", groups(model), key=key, lr=0.05)
        for batch in batches(torch.float64, 40):
            optimizer.zero_grad()
            outputs = model(ee.encrypt_inputs(batch.inputs, key) if split else batch.inputs)
            plain = ee.decrypt_outputs(outputs.detach(), key).requires_grad_() if split else outputs
            gradient = torch.autograd.grad(Objective().loss(plain, batch.labels), plain, retain_graph=True)[0]
            outputs.backward(ee.encrypt_gradient(gradient, key) if split else gradient)
            optimizer.step()

    found = differences(key, torch.float64, lambda model: train(model, split=False), lambda model: train(model, split=True))
    assert max(found) <= 1e-9


def test_unknown_optimizers_and_settings_are_refused() -> None:
    key = train_key()
    keyed = ee.encrypt_model(builders.build(key.spec, seed=1), key)
    with pytest.raises(UnsupportedOptimizerError, match="no rule is known"):
        ee.optimizer("lion", keyed.parameters(), key=key, lr=0.1)
    with pytest.raises(UnsupportedOptimizerError, match=r"torch\.optim.*LBFGS"):
        rules.admit_optimizer(torch.optim.LBFGS(keyed.parameters()), key)
    with pytest.raises(TypeError):
        ee.optimizer("sgd", keyed.parameters(), key=key, lr=0.1, clip_value=1.0)
    for wrong in ({"eps": 0.0}, {"betas": (1.0, 0.9)}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match="expected"):
            PerTensorAdam(keyed.parameters(), **wrong)
    with pytest.raises(ValueError, match="momentum"):
        Muon(keyed.parameters(), momentum=1.0)


def test_muon_takes_the_singular_values_of_a_matrix_near_one_and_steps_along_the_rest_at_unit_size() -> None:
    generator = torch.Generator().manual_seed(1)
    for shape in ((24, 8), (8, 24)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(*shape, generator=generator, dtype=torch.float64), 1e-7))
        assert values.min() > 0.6
        assert values.max() < 1.3
    table, matrix, bias = (nn.Parameter(torch.zeros(*shape)) for shape in ((9, 4), (9, 4), (9,)))
    for parameter in (table, matrix, bias):
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer = Muon([("model.embed_tokens.weight", table), ("layer.weight", matrix), ("layer.bias", bias)], lr=0.5, momentum=0.0)
    optimizer.step()
    for parameter in (table, bias):
        torch.testing.assert_close(parameter.detach(), -0.5 * parameter.grad / parameter.grad.square().mean().sqrt())
    torch.testing.assert_close(matrix.detach(), -0.5 * 1.5 * orthogonalize(matrix.grad, 1e-7))
    assert optimizer.step(lambda: 7.0) == 7.0


def test_per_tensor_adam_written_out() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = PerTensorAdam([parameter], 0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.5)
    first, second, expected = torch.zeros(2, dtype=torch.float64), 0.0, parameter.detach().clone()
    for step, gradient in enumerate(([3.0, 4.0], [-1.0, 2.0]), start=1):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        first = 0.9 * first + 0.1 * parameter.grad
        second = 0.99 * second + 0.01 * (gradient[0] ** 2 + gradient[1] ** 2) / 2
        corrected = first / (1 - 0.9**step) / ((second / (1 - 0.99**step)) ** 0.5 + 1e-8)
        expected = expected - 0.1 * 0.5 * expected - 0.1 * corrected
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-12)
    assert optimizer.step(lambda: 2.5) == 2.5
