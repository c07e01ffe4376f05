"""LoRA on a keyed Llama: causal training on keyed ids against peft on the canonical model, and adapters of a published model."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from rexis import ee
from rexis.errors import UnsupportedOptimizerError
from rexis.models.builders import build
from rexis.models.llama import LlamaConfig
from rexis.models.spec import ModelSpec
from rexis.training.encrypted import Batch, Objective, Recipe, encrypt_batch, model_outputs, train_encrypted

CONFIG = LlamaConfig(
    vocabulary=97,
    hidden=32,
    layers=2,
    heads=4,
    key_value_heads=2,
    head_width=8,
    intermediate=48,
    positions=64,
    theta="10000.0",
    epsilon="1e-06",
    tied=True,
)
TARGETS = ["q_proj", "v_proj", "o_proj", "up_proj"]
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS)
CAUSAL = Objective("causal")


def published() -> nn.Module:
    """A Llama with gains of its own."""
    model = build(ModelSpec(CONFIG), seed=1)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            elif "embed" not in name:
                parameter.mul_(5)
    return model


def adapted(model: nn.Module) -> PeftModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return get_peft_model(copy.deepcopy(model), LORA)


def train_key(suite: ee.keys.Suite) -> ee.Key:
    return ee.keygen(published(), mode="train", suite=suite, knowledge="private", seed=bytes(range(32)))


def batches(count: int) -> list[Batch]:
    """Sequences that count on from a start, with a masked tail."""
    generator, found = torch.Generator().manual_seed(2), []
    for _ in range(count):
        ids = (torch.randint(97, (8, 1), generator=generator) + 5 * torch.arange(12)) % 97
        mask, labels = torch.ones_like(ids), ids.clone()
        mask[0, 9:], labels[0, 9:] = 0, -100
        found.append(Batch({"input_ids": ids, "attention_mask": mask}, labels))
    return found


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    ("suite", "recipe"),
    [
        ("dense", Recipe("adam-per-tensor", 5e-3, clipping_norm=1.0)),
        ("dense", Recipe("muon", 0.005)),
        ("permutation", Recipe("adamw", 5e-3)),
    ],
)
def test_adapters_trained_on_keyed_ids_are_those_trained_by_peft(suite: ee.keys.Suite, recipe: Recipe) -> None:
    key, model = train_key(suite), published()
    plain, keyed = adapted(ee.canonical_model(model)), adapted(ee.encrypt_model(model, key))
    set_peft_model_state_dict(keyed, ee.encrypt_adapters(get_peft_model_state_dict(plain), key))
    recipe.admit(keyed, key)
    losses = train_encrypted(plain, batches(20), recipe, CAUSAL)
    keyed_losses = train_encrypted(keyed, [encrypt_batch(batch, key) for batch in batches(20)], recipe, CAUSAL)
    assert losses[-1] < losses[0] - 0.02
    assert keyed_losses == pytest.approx(losses, rel=1e-4)
    inputs = batches(1)[0].inputs
    with torch.no_grad():
        expected = model_outputs(plain, inputs)
        found = ee.decrypt_outputs(model_outputs(keyed, encrypt_batch(Batch(inputs), key).inputs), key)
    assert ((found - expected).abs().max() / expected.abs().max()).item() <= 1e-4
    trained, decrypted = get_peft_model_state_dict(plain), ee.decrypt_adapters(get_peft_model_state_dict(keyed), key)
    if recipe.optimizer != "muon":
        assert max(relative(decrypted[name], trained[name]) for name in trained) <= 1e-4


def test_a_gain_that_was_folded_is_frozen_and_refused_to_optimizers() -> None:
    key = train_key("permutation")
    keyed = ee.encrypt_model(published(), key)
    Recipe("sgd", 0.1).admit(keyed, key)
    keyed.get_parameter("model.norm.weight").requires_grad_(True)
    with pytest.raises(UnsupportedOptimizerError, match=r"model\.norm\.weight is folded.*freeze it"):
        Recipe("sgd", 0.1).admit(keyed, key)


@pytest.mark.parametrize("suite", ["dense", "permutation"])
def test_adapters_of_a_published_model_take_its_gains_along(suite: ee.keys.Suite) -> None:
    key, model = train_key(suite), published()
    plain, keyed = adapted(model), adapted(ee.encrypt_model(model, key))
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    state = get_peft_model_state_dict(plain)
    keyed_state = ee.encrypt_adapters(state, key, base=model)
    set_peft_model_state_dict(keyed, keyed_state)
    inputs = batches(1)[0].inputs
    with torch.no_grad():
        expected, bare = model_outputs(plain, inputs), model_outputs(model, inputs)
        found = ee.decrypt_outputs(model_outputs(keyed, encrypt_batch(Batch(inputs), key).inputs), key)
    assert (expected - bare).abs().max() > 0.1 * bare.abs().max()
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    back = ee.decrypt_adapters(keyed_state, key, base=model)
    assert max(relative(back[name], state[name]) for name in state) <= 1e-5
    canonical = ee.decrypt_adapters(keyed_state, key)
    assert max(relative(canonical[name], state[name]) for name in state if "lora_A" in name) > 0.1
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent.get_parameter("model.layers.0.input_layernorm.weight")[3] = 0
    with pytest.raises(ValueError, match="gain of 0"):
        ee.decrypt_adapters(keyed_state, key, base=silent)
