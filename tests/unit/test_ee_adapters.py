"""LoRA on keyed weights against peft on plain ones: the same adapters after training, and the refusal of what has no key."""

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from rexis import ee
from rexis.ee.adapters import admit_config
from rexis.errors import UnsupportedLayerError
from rexis.models.builders import build
from rexis.models.spec import MLPConfig, ModelSpec
from rexis.training.encrypted import Batch, Recipe, encrypt_batch, train_encrypted

SPEC = ModelSpec(MLPConfig(30, (64, 64), 2))
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["0", "2"])
ADAPTED = {f"base_model.model.{layer}.lora_{factor}.weight" for layer in (0, 2) for factor in "AB"}
EXACT = [
    ("dense", Recipe("sgd", 0.1, {"momentum": 0.9, "nesterov": True})),
    ("dense", Recipe("adam-per-tensor", 1e-2)),
    ("dense", Recipe("muon", 0.02)),
    ("permutation", Recipe("adamw", 1e-2, {"weight_decay": 0.1})),
]


def train_key(suite: ee.keys.Suite) -> ee.Key:
    return ee.keygen(SPEC, mode="train", suite=suite, knowledge="private", seed=bytes(range(32)))


def adapted(model: nn.Module, config: LoraConfig = LORA) -> PeftModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return get_peft_model(copy.deepcopy(model), config)


def keyed_pair(plain: PeftModel, key: ee.Key, config: LoraConfig = LORA) -> PeftModel:
    """The keyed model with the keyed adapters of `plain`."""
    keyed = adapted(ee.encrypt_model(build(SPEC, seed=1, dtype=torch.float64), key), config)
    loaded = set_peft_model_state_dict(keyed, ee.encrypt_adapters(get_peft_model_state_dict(plain), key))
    assert loaded.unexpected_keys == []
    return keyed


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(2)
    found = []
    for _ in range(count):
        rows = torch.randn(32, 30, generator=generator, dtype=torch.float64)
        found.append(Batch(rows, (rows[:, 0] * rows[:, 1] > 0).long()))
    return found


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert set(found) == set(expected)
    return max(((found[name] - expected[name]).norm() / expected[name].norm()).item() for name in expected)


@pytest.mark.parametrize(("suite", "recipe"), EXACT)
def test_adapters_trained_on_keyed_weights_decrypt_to_those_trained_by_peft(suite: ee.keys.Suite, recipe: Recipe) -> None:
    key, plain = train_key(suite), adapted(build(SPEC, seed=1, dtype=torch.float64))
    keyed, start = keyed_pair(plain, key), copy.deepcopy(get_peft_model_state_dict(plain))
    assert set(start) == ADAPTED
    recipe.admit(keyed, key)
    train_encrypted(plain, batches(100), recipe)
    train_encrypted(keyed, [encrypt_batch(batch, key) for batch in batches(100)], recipe)
    trained, found = get_peft_model_state_dict(plain), get_peft_model_state_dict(keyed)
    assert min((trained[name] - start[name]).norm().item() for name in ADAPTED) > 0.1
    assert difference(ee.decrypt_adapters(found, key), trained) <= 1e-9
    assert difference(found, trained) > 0.1
    # Merged into the keyed weights and decrypted: the model that peft would merge.
    merged = ee.decrypt_model(keyed.merge_and_unload(), key)
    for tensor, expected in zip(merged.parameters(), plain.merge_and_unload().parameters(), strict=True):
        assert (tensor - expected).norm() <= 1e-9 * expected.norm()


def test_layers_saved_in_full_are_keyed_as_the_models_own() -> None:
    config = LoraConfig(r=2, target_modules=["0"], modules_to_save=["4"])
    key, plain = train_key("dense"), adapted(build(SPEC, seed=1, dtype=torch.float64), config)
    keyed, recipe = keyed_pair(plain, key, config), EXACT[0][1]
    train_encrypted(plain, batches(20), recipe)
    train_encrypted(keyed, [encrypt_batch(batch, key) for batch in batches(20)], recipe)
    expected = get_peft_model_state_dict(plain)
    assert "base_model.model.4.bias" in expected
    assert difference(ee.decrypt_adapters(get_peft_model_state_dict(keyed), key), expected) <= 1e-9


@pytest.mark.parametrize("suite", ["dense", "permutation"])
def test_decrypting_gives_the_adapters_back_in_their_dtype(suite: ee.keys.Suite) -> None:
    key, generator = train_key(suite), torch.Generator().manual_seed(1)
    state = {
        "base_model.model.2.lora_A.weight": torch.randn(4, 64, generator=generator),
        "base_model.model.2.lora_B.weight": torch.randn(64, 4, generator=generator),
    }
    keyed = ee.encrypt_adapters(state, key)
    back = ee.decrypt_adapters(keyed, key)
    for name, tensor in state.items():
        assert (keyed[name].dtype, keyed[name].shape) == (torch.float32, tensor.shape)
        assert (keyed[name] - tensor).norm() > 0.1 * tensor.norm()
        assert (back[name] - tensor).norm() <= 1e-6 * tensor.norm()
    wrong = ee.decrypt_adapters(keyed, replace(key, seed=bytes(32)))
    assert all((wrong[name] - tensor).norm() > 0.1 * tensor.norm() for name, tensor in state.items())


def test_what_has_no_key_is_refused() -> None:
    key = train_key("dense")
    for name in ("base_model.model.0.lora_magnitude_vector.weight", "base_model.model.9.lora_A.weight", "0.weight", "other"):
        with pytest.raises(UnsupportedLayerError, match="expected"):
            ee.encrypt_adapters({name: torch.zeros(4, 30)}, key)
    shifted = ee.keygen(SPEC, mode="infer", knowledge="private", seed=bytes(32))
    with pytest.raises(UnsupportedLayerError, match="shifts the inputs"):
        ee.encrypt_adapters({"base_model.model.0.lora_A.weight": torch.zeros(4, 30)}, shifted)
    admit_config(LORA)
    with pytest.raises(UnsupportedLayerError, match="lora_dropout 0"):
        admit_config(LoraConfig(lora_dropout=0.1))
    with pytest.raises(UnsupportedLayerError, match="DoRA"):
        admit_config(LoraConfig(use_dora=True))
