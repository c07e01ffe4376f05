"""Llama under its keys: what the spec refuses, special ids, generation with the cache of keys and values."""

import dataclasses
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from rexis import ee
from rexis.ee.families import llama
from rexis.ee.groups import FastOrthogonal, Orthogonal, PlaneScalings, QuarterTurns
from rexis.errors import KeyFileError, MalformedMessageError, UnsupportedLayerError, VerificationError
from rexis.models.builders import build, describe
from rexis.models.llama import LlamaConfig
from rexis.models.modules.llama import library_config, read_document
from rexis.models.spec import ModelSpec

CONFIG = LlamaConfig(200, 24, 2, 6, 2, 8, 40, 64, "10000.0", "1e-05", tied=True)
PROMPTS = torch.tensor([[5, 9, 2, 33, 8], [1, 2, 3, 4, 5]])


def model_of(config: LlamaConfig = CONFIG, seed: int = 2) -> Any:
    model, generator = build(ModelSpec(config), seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            else:
                parameter.mul_(15)
    return model.eval()


def generated(model: Any, ids: Tensor, **options: Any) -> Tensor:
    tokens: Tensor = model.generate(ids, **{"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 40} | options)
    return tokens


@pytest.mark.parametrize("suite", ["dense", "permutation"])
@pytest.mark.parametrize("tied", [True, False])
def test_greedy_generation_with_a_cache_stops_and_pads_at_the_same_tokens(suite: ee.keys.Suite, tied: bool) -> None:
    model = model_of(dataclasses.replace(CONFIG, tied=tied))
    free = generated(model, PROMPTS)
    # One sequence ends where the other does not, and is filled up with the padding token.
    end = next(token for token in free[0, 12:30].tolist() if token not in free[1].tolist() and token not in free[0, :12].tolist())
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = [end], 7
    model.config.bos_token_id, model.config.eos_token_id = 1, end
    expected = generated(model, PROMPTS)
    assert end in expected[0].tolist()
    assert expected[0, -1] == 7
    assert len(set(expected[1].tolist())) > 5
    key = ee.keygen(model, suite=suite, knowledge="private", seed=bytes(32))
    keyed, keyed_prompts = ee.encrypt_model(model, key), ee.encrypt_inputs(PROMPTS, key)
    found = generated(keyed, keyed_prompts)
    assert not torch.equal(found, expected)
    assert torch.equal(ee.decrypt_outputs(found, key), expected)
    assert torch.equal(generated(keyed, keyed_prompts, use_cache=False), found)
    # A shorter prompt is filled up on its left, and the positions of the others move.
    padded, mask = PROMPTS.clone(), torch.ones_like(PROMPTS)
    padded[1, :2], mask[1, :2] = 7, 0
    expected = generated(model, padded, attention_mask=mask)
    assert torch.equal(ee.decrypt_outputs(generated(keyed, ee.encrypt_inputs(padded, key), attention_mask=mask), key), expected)


def test_special_ids_and_the_padding_row_move_with_the_vocabulary_and_back() -> None:
    settings = library_config(CONFIG)
    settings.pad_token_id, settings.bos_token_id, settings.eos_token_id = 7, 1, [2, 9]
    model = LlamaForCausalLM(settings)
    model.generation_config.suppress_tokens, model.generation_config.bad_words_ids = [4], [[5, 6], [8]]
    model.generation_config.max_length = 33
    key = ee.keygen(model, knowledge="private", seed=bytes(32))
    keyed: Any = ee.encrypt_model(model, key)

    def moved(*tokens: int) -> list[int]:
        return ee.encrypt_inputs(torch.tensor(tokens), key).tolist()

    assert moved(*range(200)) != list(range(200))
    assert [keyed.config.pad_token_id, keyed.config.bos_token_id, *keyed.config.eos_token_id] == moved(7, 1, 2, 9)
    generation = keyed.generation_config
    assert [generation.pad_token_id, generation.bos_token_id, *generation.eos_token_id] == moved(7, 1, 2, 9)
    assert generation.suppress_tokens == moved(4)
    assert generation.bad_words_ids == [moved(5, 6), moved(8)]
    assert generation.max_length == 33
    assert [keyed.model.embed_tokens.padding_idx] == moved(7)
    back: Any = ee.decrypt_model(keyed, key)
    assert back.generation_config.to_dict() == model.generation_config.to_dict()
    assert (back.config.pad_token_id, back.config.eos_token_id, back.model.embed_tokens.padding_idx) == (7, [2, 9], 7)
    model.generation_config.sequence_bias = {(3,): 1.0}
    with pytest.raises(UnsupportedLayerError, match="sequence_bias"):
        ee.encrypt_model(model, key)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("attention_bias", True, "attention_bias"),
        ("mlp_bias", True, "mlp_bias"),
        ("hidden_act", "gelu", "hidden_act"),
        ("attention_dropout", 0.1, "attention_dropout"),
        ("rope_parameters", {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}, "scaling"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}, "scaling"),
    ],
)
def test_a_llama_that_the_spec_does_not_express_is_refused(field: str, value: Any, message: str) -> None:
    settings = library_config(CONFIG)
    setattr(settings, field, value)
    with pytest.raises(UnsupportedLayerError, match=message):
        ee.keygen(LlamaForCausalLM(settings), knowledge="private")


def test_older_configs_are_read_and_malformed_ones_refused() -> None:
    document = library_config(CONFIG).to_dict()
    del document["rope_parameters"], document["head_dim"]
    older = document | {"rope_theta": 500000.0, "rope_scaling": None, "torch_dtype": "float16", "hidden_size": 48}
    assert read_document(older) == dataclasses.replace(CONFIG, theta="500000.0", hidden=48)
    with pytest.raises(UnsupportedLayerError, match="scaling"):
        read_document(older | {"rope_scaling": {"type": "linear", "factor": 2.0}})
    with pytest.raises(UnsupportedLayerError, match="unquantised"):
        read_document(document | {"quantization_config": {"quant_method": "gguf"}})
    for field, value in [("vocab_size", "many"), ("rms_norm_eps", None), ("rope_theta", "a"), ("num_key_value_heads", [1])]:
        with pytest.raises(MalformedMessageError, match="config of a Llama"):
            read_document(older | {field: value})
    with pytest.raises(UnsupportedLayerError, match="out of bounds"):
        read_document(older | {"vocab_size": 1 << 30})


def test_adapters_and_exchanged_layers_are_refused() -> None:
    adapted = get_peft_model(model_of(), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(UnsupportedLayerError, match="PeftModel"):
        describe(adapted)
    with pytest.raises(UnsupportedLayerError, match="parameter"):
        describe(adapted.get_base_model())
    exchanged = model_of()
    exchanged.model.norm = nn.LayerNorm(24, bias=False)
    with pytest.raises(UnsupportedLayerError, match=r"model\.norm"):
        describe(exchanged)
    with pytest.raises(KeyFileError, match="the key is for"):
        ee.encrypt_model(model_of(), ee.keygen(ModelSpec(dataclasses.replace(CONFIG, layers=1)), knowledge="private"))


def test_gains_that_a_provider_trained_although_they_were_folded_are_refused() -> None:
    key = ee.keygen(model_of(), mode="train", knowledge="private", seed=bytes(32))
    keyed: Any = ee.encrypt_model(model_of(), key)
    with torch.no_grad():
        keyed.model.layers[1].input_layernorm.weight[3] += 1e-3
    with pytest.raises(VerificationError, match=r"layers\.1\.input_layernorm"):
        ee.decrypt_model(keyed, key)


def test_a_wide_residual_stream_takes_the_fast_key() -> None:
    config = LlamaConfig(16, 2048, 1, 2, 1, 4, 8, 16, "10000.0", "1e-05")
    model, ids = model_of(config), torch.arange(10).reshape(2, 5)
    key = ee.keygen(model, knowledge="private", seed=bytes(32))
    assert isinstance(key.site_keys["residual"].transform, FastOrthogonal)
    with torch.no_grad():
        expected = model(ids).logits
        found = ee.decrypt_outputs(ee.encrypt_model(model, key)(ee.encrypt_inputs(ids, key)).logits, key)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_one_model_has_one_document() -> None:
    spec = ModelSpec(CONFIG)
    assert ModelSpec.parse(spec.document()) == spec == describe(model_of())
    assert spec.digest() != ModelSpec(dataclasses.replace(CONFIG, tied=False)).digest()
    wrong = {
        "theta": ["1e4", "inf", 10000.0],
        "epsilon": ["0.00001", "nan", "-1e-05"],
        "key_value_heads": [4, 0],
        "hidden": [25],
        "head_width": [7],
        "tied": [1],
    }
    for field, value in [(field, value) for field, values in wrong.items() for value in values]:
        with pytest.raises(MalformedMessageError):
            ModelSpec.parse({"version": 1, "family": "llama", "config": {**spec.document()["config"], field: value}})


def test_queries_and_keys_under_rotary_positions_take_one_complex_number_a_plane() -> None:
    """Dense blocks, planes of neighbouring coordinates and scales in training do not commute with what they meet."""
    keys = next(site for site in llama.sites(CONFIG) if site.name == "layer0/keys")
    with pytest.raises(UnsupportedLayerError, match="different frequencies"):
        keys.admit(Orthogonal, shift=False, mode="infer")
    with pytest.raises(UnsupportedLayerError, match="optimiser"):
        keys.admit(PlaneScalings, shift=False, mode="train")
    model = model_of()
    rows = torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cos, sin = (part.double() for part in model.model.rotary_emb(rows, torch.arange(9)[None]))

    def positioned(x: Tensor) -> Tensor:
        return x * cos + torch.cat([-x[..., 4:], x[..., :4]], dim=-1) * sin

    turn = QuarterTurns.draw(bytes(32), "planes", 8)
    neighbours = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    assert torch.allclose(turn.apply(positioned(rows)), positioned(turn.apply(rows)), rtol=0, atol=1e-12)
    wrong = turn.apply(rows[..., neighbours])[..., torch.argsort(neighbours)]
    assert (turn.apply(positioned(rows)[..., neighbours])[..., torch.argsort(neighbours)] - positioned(wrong)).abs().max() > 0.1
