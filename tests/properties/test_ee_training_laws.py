"""Training commutes with the key: random architectures, keys, optimisers and objectives, in f64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rexis import ee
from rexis.ee.optimizers.rules import RULES, Commutes, admit
from rexis.errors import UnsupportedOptimizerError
from rexis.models.builders import build
from rexis.models.mlp import ACTIVATIONS, NORMALISATIONS, LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec
from rexis.training.encrypted import Batch, Objective, Recipe, encrypt_batch, train_encrypted, train_split

widths = st.integers(2, 12)
specs = st.one_of(
    st.builds(
        MLPConfig,
        widths,
        st.lists(widths, min_size=1, max_size=3).map(tuple),
        st.integers(1, 5),
        st.sampled_from(ACTIVATIONS),
        st.sampled_from(NORMALISATIONS),
    ),
    st.builds(LogisticConfig, widths, st.integers(1, 5)),
).map(ModelSpec)
exact_pairs = st.one_of(
    st.tuples(st.sampled_from(["dense", "permutation", "inputs"]), st.sampled_from(["sgd", "adam-per-tensor", "muon"])),
    st.tuples(st.just("permutation"), st.just("adamw")),
)
SETTINGS = {"sgd": {"momentum": 0.9, "nesterov": True}, "adamw": {}, "adam-per-tensor": {}, "muon": {}}
RATES = {"sgd": 0.05, "adamw": 1e-2, "adam-per-tensor": 1e-2, "muon": 1e-2}


def batches(spec: ModelSpec, seed: int, kind: str) -> list[Batch]:
    generator, config = torch.Generator().manual_seed(seed), spec.config
    found = []
    for _ in range(8):
        rows = torch.randn(24, config.inputs, generator=generator, dtype=torch.float64)
        if kind == "regression":
            labels = torch.randn(24, config.outputs, generator=generator, dtype=torch.float64)
        else:
            labels = torch.randint(max(config.outputs, 2), (24,), generator=generator)
        found.append(Batch(rows, labels))
    return found


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@settings(max_examples=40, deadline=None)
@given(
    spec=specs,
    pair=exact_pairs,
    kind=st.sampled_from(["classification", "regression"]),
    labels=st.sampled_from(["permuted", "split"]),
    seed=st.integers(0, 2**32 - 1),
    clipping_norm=st.sampled_from([None, 0.5]),
    decay=st.booleans(),
)
def test_training_on_keyed_batches_decrypts_to_training_on_plain_ones(
    spec: ModelSpec, pair: tuple[ee.keys.Suite, str], kind: str, labels: ee.keys.Labels, seed: int, clipping_norm: float, decay: bool
) -> None:
    suite, name = pair
    key = ee.keygen(spec, mode="train", suite=suite, knowledge="private", seed=seed.to_bytes(32), labels=labels)
    shifted = any(site.shift.any() for site in key.site_keys.values())
    chosen = {**SETTINGS[name], "weight_decay": 0.1 if decay and not shifted else 0.0}
    recipe, objective = Recipe(name, RATES[name], chosen, clipping_norm), Objective(kind)
    plain = build(spec, seed=seed, dtype=torch.float64)
    keyed, start = ee.encrypt_model(plain, key), flat(plain)
    recipe.admit(keyed, key)
    plain_batches = batches(spec, seed, kind)
    losses = train_encrypted(plain, plain_batches, recipe, objective)
    if labels == "split":
        keyed_losses = train_split(keyed, plain_batches, key, recipe, objective)
    else:
        keyed_losses = train_encrypted(keyed, [encrypt_batch(batch, key) for batch in plain_batches], recipe, objective)
    assert keyed_losses == pytest.approx(losses, rel=1e-9)
    assert (flat(plain) - start).norm() > 1e-3
    assert (flat(ee.decrypt_model(keyed, key)) - flat(plain)).norm() <= 1e-9 * flat(plain).norm()


@settings(max_examples=30, deadline=None)
@given(
    spec=specs,
    suite=st.sampled_from(["dense", "permutation"]),
    mode=st.sampled_from(["infer", "train"]),
    name=st.sampled_from(sorted(RULES)),
)
def test_the_table_admits_exactly_what_commutes(spec: ModelSpec, suite: ee.keys.Suite, mode: ee.keys.Mode, name: str) -> None:
    key = ee.keygen(spec, mode=mode, suite=suite, knowledge="private", seed=bytes(32))
    commutes = RULES[name].commutes
    # A width of one has no dense keys but a sign.
    monomial = all(site.transform.monomial for site in key.site_keys.values())
    if mode == "train" and (commutes is Commutes.ORTHOGONAL or (commutes is Commutes.MONOMIAL and monomial)):
        admit(name, key)
        return
    with pytest.raises(UnsupportedOptimizerError):
        admit(name, key)
