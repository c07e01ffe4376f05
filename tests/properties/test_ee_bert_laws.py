"""The laws of Equivariant Encryption for BERT, over random architectures, weights, keys and batches, in HuggingFace's stock classes."""

import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rexis import ee
from rexis.ee.groups import MeanPreserving, Orthogonal
from rexis.ee.site_keys import SiteKey
from rexis.errors import UnsupportedLayerError, UnsupportedOptimizerError
from rexis.models.bert import ACTIVATIONS, BertConfig
from rexis.models.builders import build
from rexis.models.spec import ModelSpec
from rexis.training.encrypted import Batch, Recipe, encrypt_batch, train_encrypted, train_split

TINY = BertConfig(vocabulary=30, positions=8, hidden=12, layers=2, heads=3, intermediate=20, outputs=3)
PLAIN_NORMS = replace(TINY, affine=False)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def configs(draw: st.DrawFn, **fixed: object) -> BertConfig:
    heads = draw(st.integers(1, 3))
    values: dict[str, object] = {
        "vocabulary": draw(st.integers(4, 40)),
        "positions": 8,
        "hidden": heads * draw(st.integers(1, 4)) + heads,
        "layers": draw(st.integers(1, 2)),
        "heads": heads,
        "intermediate": draw(st.integers(1, 20)),
        "outputs": draw(st.integers(0, 4)),
        "types": draw(st.integers(1, 3)),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "affine": draw(st.booleans()),
    }
    return BertConfig(**{**values, **fixed})


def model_of(config: BertConfig, seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Weights of size one everywhere, also in biases and gains, where a wrong formula would otherwise hide."""
    model = build(ModelSpec(config), seed=seed, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 1 + 0.5 * noise)
    return model


def batch_of(config: BertConfig, seed: int, rows: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, 6, dtype=torch.int64)
    mask[0, 4:] = 0
    return {
        "input_ids": torch.randint(config.vocabulary, (rows, 6), generator=generator),
        "attention_mask": mask,
        "token_type_ids": torch.randint(config.types, (rows, 6), generator=generator),
    }


def keyed(batch: dict[str, Tensor], key: ee.Key) -> dict[str, Tensor]:
    return batch | {"input_ids": ee.encrypt_inputs(batch["input_ids"], key)}


def answer(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        output = model(**batch)
    logits: Tensor = output.logits if hasattr(output, "logits") else output.last_hidden_state
    return logits


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@settings(max_examples=25, deadline=None)
@given(config=configs(), mode=st.sampled_from(["infer", "train"]), dense=st.booleans(), condition=st.sampled_from([1.0, 3.0]), seed=seeds)
def test_the_keyed_model_answers_as_the_plain_one(config: BertConfig, mode: ee.keys.Mode, dense: bool, condition: float, seed: int) -> None:
    suite: ee.keys.Suite = "dense" if dense and not config.affine else "permutation"
    model, batch = model_of(config, seed), batch_of(config, seed)
    key = ee.keygen(
        model, mode=mode, suite=suite, knowledge="private", seed=seed.to_bytes(32), condition=condition if mode == "infer" else 1.0
    )
    encrypted = ee.encrypt_model(model, key)
    assert type(encrypted) is type(model)
    assert ee.describe(encrypted) == key.spec
    expected = answer(model, batch)
    assert relative_error(ee.decrypt_outputs(answer(encrypted, keyed(batch, key)), key), expected) < 1e-9
    embedded = {name: value for name, value in batch.items() if name != "input_ids"}
    rows = model.get_input_embeddings()(batch["input_ids"]).detach()
    found = answer(encrypted, embedded | {"inputs_embeds": ee.encrypt_inputs(rows, key)})
    assert relative_error(ee.decrypt_outputs(found, key), expected) < 1e-9
    for (name, back), plain in zip(ee.decrypt_model(encrypted, key).named_parameters(), model.parameters(), strict=True):
        assert (back - plain).abs().max() < 1e-9, name


def test_every_weight_is_moved() -> None:
    """A tensor that no key touches would stand in the clear; token types and positions keep their rows only."""
    for config, suite in ((TINY, "permutation"), (PLAIN_NORMS, "dense")):
        model = model_of(config, 1)
        encrypted = ee.encrypt_model(model, ee.keygen(model, suite=suite, knowledge="private", seed=bytes(32)))
        for (name, plain), hidden in zip(model.named_parameters(), encrypted.parameters(), strict=True):
            assert not torch.equal(plain, hidden), name


def test_dense_keys_under_gain_and_bias_are_refused_with_the_attack_that_shows_why() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"residual.*eigenvectors are the key.*use permutation") as refusal:
        ee.keygen(ModelSpec(TINY), suite="dense", knowledge="private")
    (named,) = re.findall(r"tests/attacks/\w+\.py", str(refusal.value))
    assert (Path(__file__).parents[2] / named).is_file()
    assert ee.keygen(ModelSpec(TINY), suite="permutation", knowledge="private").monomial


@pytest.mark.parametrize(("config", "group"), [(TINY, MeanPreserving), (PLAIN_NORMS, Orthogonal)])
def test_what_is_refused_is_really_wrong(config: BertConfig, group: type) -> None:
    """Dense keys under a gain, and orthogonal keys that do not keep the mean, forced past the rule: off by the size of the logits."""
    model, batch = model_of(config, 2), batch_of(config, 2)
    key = ee.keygen(model, suite="permutation", knowledge="private", seed=bytes(32))
    forced = dict(key.site_keys) | {"residual": SiteKey(group.draw(bytes(32), "x", config.hidden), torch.zeros(12, dtype=torch.float64))}
    encrypted = ee.modules.encrypt(model, forced)
    assert relative_error(ee.decrypt_outputs(answer(encrypted, keyed(batch, key)), key), answer(model, batch)) > 0.05


def test_special_ids_move_with_the_vocabulary() -> None:
    model = model_of(TINY, 1)
    model.config.pad_token_id, model.config.eos_token_id = 0, [2, 3]
    model.get_input_embeddings().padding_idx = 0
    key = ee.keygen(model, suite="permutation", knowledge="private", seed=bytes(range(32)))
    moved = ee.encrypt_inputs(torch.tensor([0, 2, 3]), key).tolist()
    assert moved != [0, 2, 3]
    encrypted = ee.encrypt_model(model, key)
    assert [encrypted.config.pad_token_id, *encrypted.config.eos_token_id] == moved
    assert encrypted.get_input_embeddings().padding_idx == moved[0]
    back = ee.decrypt_model(encrypted, key)
    assert (back.config.pad_token_id, back.config.eos_token_id, back.get_input_embeddings().padding_idx) == (0, [2, 3], 0)


def batches_of(config: BertConfig, seed: int) -> list[Batch]:
    return [Batch(batch_of(config, seed, rows=12), torch.arange(12) % config.outputs)] * 12


@pytest.mark.parametrize("labels", ["permuted", "split"])
@pytest.mark.parametrize(
    ("config", "suite", "recipe"),
    [
        (TINY, "permutation", Recipe("sgd", 0.05, {"momentum": 0.9, "weight_decay": 0.01}, clipping_norm=1.0)),
        (TINY, "permutation", Recipe("adamw", 1e-3, {"weight_decay": 0.1})),
        (PLAIN_NORMS, "dense", Recipe("sgd", 0.05, {"momentum": 0.9})),
        (PLAIN_NORMS, "dense", Recipe("adam-per-tensor", 1e-3)),
        (PLAIN_NORMS, "dense", Recipe("muon", 1e-3)),
    ],
)
def test_fine_tuning_keyed_is_fine_tuning_plain(config: BertConfig, suite: ee.keys.Suite, recipe: Recipe, labels: ee.keys.Labels) -> None:
    model, batches = model_of(config, 3), batches_of(config, 3)
    key = ee.keygen(model, mode="train", suite=suite, knowledge="private", seed=bytes(range(32)), labels=labels)
    encrypted = ee.encrypt_model(model, key)
    recipe.admit(encrypted, key)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train_encrypted(model, batches, recipe)
    if labels == "split":
        train_split(encrypted, batches, key, recipe)
    else:
        train_encrypted(encrypted, [encrypt_batch(batch, key) for batch in batches], recipe)
    moved = max((parameter - start[name]).abs().max().item() for name, parameter in model.named_parameters())
    assert moved > 5e-3
    back = dict(ee.decrypt_model(encrypted, key).named_parameters())
    for name, parameter in model.named_parameters():
        # Muon scales what it is given to one size, also the rounding that a key bias has for a gradient.
        if recipe.optimizer != "muon" or "key.bias" not in name:
            assert (back[name] - parameter).abs().max() <= 1e-9 * moved, name
    batch = batch_of(config, 4)
    assert relative_error(ee.decrypt_outputs(answer(encrypted.eval(), keyed(batch, key)), key), answer(model.eval(), batch)) < 1e-9


def test_the_padding_row_trains_in_neither_model() -> None:
    """Without the move the keyed model would hold back another word's row."""
    model, batches = model_of(TINY, 3), batches_of(TINY, 3)
    model.get_input_embeddings().padding_idx = 4
    ids, mask = batches[0].inputs["input_ids"], batches[0].inputs["attention_mask"]
    ids[:, 1] = 4
    key = ee.keygen(model, mode="train", suite="permutation", knowledge="private", seed=bytes(range(32)))
    encrypted = ee.encrypt_model(model, key)
    start = ee.decrypt_model(encrypted, key).get_input_embeddings().weight.detach()
    train_encrypted(encrypted, [encrypt_batch(batch, key) for batch in batches], Recipe("sgd", 0.1))
    moved = ee.decrypt_model(encrypted, key).get_input_embeddings().weight.detach() != start
    assert not moved[4].any()
    used = set(ids[mask == 1].tolist()) - {4}
    assert {row for row in range(TINY.vocabulary) if moved[row].any()} == used


def largest_difference(first: nn.Module, second: nn.Module, part: str) -> float:
    pairs = zip(first.named_parameters(), second.parameters(), strict=True)
    return max((one - other).abs().max().item() for (name, one), other in pairs if name.endswith(part))


def test_adamw_turns_rounding_into_motion_of_the_key_bias_unless_it_is_frozen() -> None:
    """Softmax ignores a constant, so that the bias of the keys has no gradient but rounding, which Adam scales up to its step."""
    for frozen in (False, True):
        model, batches = model_of(TINY, 3, torch.float32), batches_of(TINY, 3)
        key = ee.keygen(model, mode="train", suite="permutation", knowledge="private", seed=bytes(range(32)))
        encrypted = ee.encrypt_model(model, key)
        for each in (model, encrypted):
            for name, parameter in each.named_parameters():
                parameter.requires_grad_(not (frozen and name.endswith("key.bias")))
        train_encrypted(model, batches, Recipe("adamw", 1e-3))
        train_encrypted(encrypted, [encrypt_batch(batch, key) for batch in batches], Recipe("adamw", 1e-3))
        back = ee.decrypt_model(encrypted, key)
        assert largest_difference(back, model, "key.weight") < 1e-5
        assert (largest_difference(back, model, "key.bias") < 1e-6) == frozen


def test_adamw_under_a_dense_key_is_refused_and_another_training() -> None:
    model, batches, recipe = model_of(PLAIN_NORMS, 3), batches_of(PLAIN_NORMS, 3), Recipe("adamw", 1e-3)
    key = ee.keygen(model, mode="train", suite="dense", knowledge="private", seed=bytes(range(32)))
    encrypted = ee.encrypt_model(model, key)
    with pytest.raises(UnsupportedOptimizerError):
        recipe.admit(encrypted, key)
    train_encrypted(model, batches, recipe)
    train_encrypted(encrypted, [encrypt_batch(batch, key) for batch in batches], recipe)
    pairs = zip(ee.decrypt_model(encrypted, key).parameters(), model.parameters(), strict=True)
    assert max((found - expected).abs().max() for found, expected in pairs) > 1e-3


@pytest.mark.parametrize(
    ("dtype", "condition", "bound"), [(torch.float32, 1.0, 3.0), (torch.float32, 10.0, 10.0), (torch.bfloat16, 1.0, 3.0)]
)
@pytest.mark.parametrize("affine", [True, False])
def test_the_error_of_a_precision_is_of_the_size_of_the_plain_models_own(
    affine: bool, dtype: torch.dtype, condition: float, bound: float
) -> None:
    """f32 within three times, as DESIGN section 7 asks, for activations of size one; test_ee_shift_laws has others. Condition numbers above
    1 cost what they say."""
    config = BertConfig(vocabulary=50, positions=16, hidden=48, layers=2, heads=4, intermediate=96, outputs=4, affine=affine)
    ratios, worst = [], 0.0
    for seed in range(5):
        model, batch = model_of(config, seed), batch_of(config, seed, rows=8)
        suite: ee.keys.Suite = "permutation" if affine else "dense"
        key = ee.keygen(model, suite=suite, knowledge="private", seed=seed.to_bytes(32), condition=condition)
        exact = answer(model, batch)
        encrypted = ee.encrypt_model(model, key).to(dtype)
        found = relative_error(ee.decrypt_outputs(answer(encrypted, keyed(batch, key)).double(), key), exact)
        ratios.append(found / relative_error(answer(model.to(dtype), batch).double(), exact))
        worst = max(worst, found)
    assert statistics.median(ratios) <= bound
    assert worst <= (1e-5 if dtype is torch.float32 else 0.2)
