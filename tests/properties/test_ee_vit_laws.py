"""Equivariant Encryption of vision transformers: images keyed patch by patch, dense keys, HuggingFace's stock class."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import ViTConfig as LibraryConfig
from transformers import ViTForImageClassification, ViTModel

from rexis import ee
from rexis.ee.groups import MeanPreserving
from rexis.ee.patches import along_patches
from rexis.errors import MalformedMessageError, UnsupportedLayerError
from rexis.models.builders import build
from rexis.models.spec import ModelSpec
from rexis.models.vit import ViTConfig
from rexis.training.encrypted import Batch, Recipe, encrypt_batch, train_encrypted

TINY = ViTConfig(image=6, patch=2, channels=3, hidden=12, layers=2, heads=3, intermediate=20, outputs=3)
seeds = st.integers(0, 2**32 - 1)


def model_of(config: ViTConfig, seed: int) -> nn.Module:
    """Weights of size one everywhere, also in biases and gains, where a wrong formula would otherwise hide."""
    model = build(ModelSpec(config), seed=seed, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 1 + 0.5 * noise)
    return model


def images_of(config: ViTConfig, seed: int, rows: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, config.channels, config.image, config.image, generator=generator, dtype=torch.float64)


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    found: Tensor = model(pixel_values=images).logits
    return found


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@settings(max_examples=20, deadline=None)
@given(
    patch=st.integers(1, 3),
    across=st.integers(1, 3),
    heads=st.integers(1, 3),
    mode=st.sampled_from(["infer", "train"]),
    suite=st.sampled_from(["dense", "permutation"]),
    seed=seeds,
)
def test_the_keyed_model_answers_as_the_plain_one(
    patch: int, across: int, heads: int, mode: ee.keys.Mode, suite: ee.keys.Suite, seed: int
) -> None:
    config = replace(TINY, image=patch * across, patch=patch, hidden=4 * heads, heads=heads)
    model, images = model_of(config, seed), images_of(config, seed)
    key = ee.keygen(model, mode=mode, suite=suite, knowledge="private", seed=seed.to_bytes(32))
    encrypted, hidden = ee.encrypt_model(model, key), ee.encrypt_inputs(images, key)
    assert type(encrypted) is ViTForImageClassification
    assert hidden.shape == images.shape
    assert relative_error(ee.decrypt_outputs(logits(encrypted, hidden), key), logits(model, images)) < 1e-9
    canonical = ee.canonical_model(model)
    assert relative_error(logits(canonical, images), logits(model, images)) < 1e-9
    for (name, back), plain in zip(ee.decrypt_model(encrypted, key).named_parameters(), canonical.parameters(), strict=True):
        assert (back - plain).abs().max() < 1e-9, name


def test_dense_keys_hide_every_weight_and_leave_nothing_of_the_norms() -> None:
    model = model_of(TINY, 1)
    key = ee.keygen(model, knowledge="private", seed=bytes(32))
    assert isinstance(key.site_keys["residual"].transform, MeanPreserving)
    for (name, plain), hidden in zip(model.named_parameters(), ee.encrypt_model(model, key).parameters(), strict=True):
        assert not torch.equal(plain, hidden), name
        if "layernorm" in name:
            assert torch.equal(hidden, torch.full_like(hidden, float(name.endswith("weight"))))
            assert not hidden.requires_grad


@pytest.mark.parametrize(("suite", "optimizer"), [("dense", "sgd"), ("permutation", "adamw")])
def test_fine_tuning_keyed_is_fine_tuning_the_canonical_model(suite: ee.keys.Suite, optimizer: str) -> None:
    plain, images, labels = ee.canonical_model(model_of(TINY, 2)), images_of(TINY, 2, rows=9), torch.arange(9) % 3
    key = ee.keygen(plain, mode="train", suite=suite, knowledge="private", seed=bytes(range(32)))
    encrypted, recipe = ee.encrypt_model(plain, key), Recipe(optimizer, 1e-2)
    recipe.admit(encrypted, key)
    start = plain.get_parameter("classifier.weight").detach().clone()
    batches = [Batch({"pixel_values": images}, labels)] * 10
    train_encrypted(plain, batches, recipe)
    train_encrypted(encrypted, [encrypt_batch(batch, key) for batch in batches], recipe)
    assert (plain.get_parameter("classifier.weight") - start).abs().max() > 1e-3
    for (name, back), expected in zip(ee.decrypt_model(encrypted, key).named_parameters(), plain.parameters(), strict=True):
        assert (back - expected).abs().max() < 1e-9, name


def test_patches_are_those_of_the_convolution() -> None:
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.float64).reshape(2, 3, 4, 6)
    kernel = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = nn.functional.conv2d(images, kernel, stride=2)
    rows: list[Tensor] = []
    assert torch.equal(along_patches(images, 2, lambda patches: (rows.append(patches), patches)[1]), images)
    torch.testing.assert_close((rows[0] @ kernel.flatten(1).T).permute(0, 3, 1, 2), expected)
    with pytest.raises(ValueError, match="patches of 4"):
        along_patches(images, 4, lambda patches: patches)


def test_specs_agree_and_others_are_refused() -> None:
    model = build(ModelSpec(TINY), seed=1)
    assert ee.describe(model) == ModelSpec(TINY)
    assert [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()] == list(TINY.shapes.items())
    assert ModelSpec.parse(ModelSpec(TINY).document()) == ModelSpec(TINY)
    with pytest.raises(MalformedMessageError, match="patch"):
        ModelSpec.parse({"version": 1, "family": "vit", "config": vars(TINY) | {"patch": 4, "activation": "relu", "epsilon": "1e-05"}})
    small = LibraryConfig(image_size=4, patch_size=2, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4)
    with pytest.raises(UnsupportedLayerError, match=r"ViTModel.*classifier"):
        ee.keygen(ViTModel(small), knowledge="private")
    without_bias = LibraryConfig(**{**small.to_dict(), "qkv_bias": False})
    with pytest.raises(UnsupportedLayerError, match="bias"):
        ee.keygen(ViTForImageClassification(without_bias), knowledge="private")
