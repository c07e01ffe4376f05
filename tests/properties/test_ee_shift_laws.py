"""Shifts fit what they are added to: a model of any scale is as exact under a key as DESIGN section 7 asks."""

import statistics
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rexis import ee
from rexis.ee.groups import Orthogonal
from rexis.ee.key_generation import with_shift_scales
from rexis.ee.shift_scales import DEVIATION, SMALLEST, ShiftScales
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec

FRESH = BertConfig(vocabulary=50, positions=16, hidden=48, layers=2, heads=4, intermediate=96, outputs=3, affine=False)
SEEDS = range(6)


def fresh_model(config: BertConfig, seed: int, size: float = 1.0) -> nn.Module:
    """HuggingFace's initialisation, a standard deviation of 0.02, or a multiple of it."""
    model = build(ModelSpec(config), seed=seed, dtype=torch.float64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(size)
    return model


@torch.no_grad()
def answer(model: nn.Module, ids: Tensor) -> Tensor:
    output = model(input_ids=ids)
    found: Tensor = output.logits if hasattr(output, "logits") else output.last_hidden_state
    return found


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def errors(config: BertConfig, size: float, seed: int, dtype: torch.dtype, shifts: ShiftScales | None = None) -> tuple[float, float]:
    """Of the keyed and the plain model in a precision, against f64."""
    model = fresh_model(config, seed, size)
    ids = torch.randint(config.vocabulary, (8, 6), generator=torch.Generator().manual_seed(seed))
    key = ee.keygen(model, knowledge="private", seed=seed.to_bytes(32))
    key = key if shifts is None else replace(key, shifts=shifts)
    exact, encrypted = answer(model, ids), ee.encrypt_model(model, key).to(dtype)
    found = ee.decrypt_outputs(answer(encrypted, ee.encrypt_inputs(ids, key)), key)
    return relative_error(found, exact), relative_error(answer(model.to(dtype), ids), exact)


@pytest.mark.parametrize(("config", "size"), [(FRESH, 1.0), (FRESH, 0.1), (FRESH, 10.0), (replace(FRESH, outputs=0), 1.0)])
def test_a_model_of_any_scale_is_as_exact_as_the_plain_one(config: BertConfig, size: float) -> None:
    keyed, plain = zip(*(errors(config, size, seed, torch.float32) for seed in SEEDS), strict=True)
    assert max(keyed) <= 1e-5
    assert max(keyed) <= 3 * max(plain)
    assert statistics.median(map(float.__truediv__, keyed, plain)) <= 3
    assert errors(config, size, 1, torch.float64)[0] <= 1e-9


def test_bf16_keeps_its_digits_too() -> None:
    keyed, plain = zip(*(errors(FRESH, 1.0, seed, torch.bfloat16) for seed in SEEDS), strict=True)
    assert max(keyed) <= 3 * max(plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shifts_of_full_size_lose_what_that_leaves(dtype: torch.dtype) -> None:
    keyed, plain = zip(*(errors(FRESH, 1.0, seed, dtype, ShiftScales()) for seed in SEEDS), strict=True)
    assert max(keyed) > 3 * max(plain)


def test_each_kind_of_site_has_a_shift_of_its_own_size() -> None:
    model = fresh_model(FRESH, 1)
    key = ee.keygen(model, knowledge="private", seed=bytes(32))
    ids = torch.randint(FRESH.vocabulary, (8, 6), generator=torch.Generator().manual_seed(1))
    seen: dict[str, Tensor] = {}
    for name, site in (("bert.encoder.layer.0.attention.self.value", "layer0/values"), ("classifier", "out")):
        model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output, site=site: seen.update({site: output.detach()}))
    answer(model, ids)
    for site, output in seen.items():
        size = output.square().mean().sqrt()
        assert 0.1 * size < key.site_keys[site].shift.square().mean().sqrt() < size, site
    assert key.shifts.outputs < key.shifts.values == key.shifts.keys < 0
    assert not key.site_keys["layer0/queries"].shift.any()


def test_rows_of_features_keep_theirs_and_larger_outputs_get_no_larger_one() -> None:
    for size, expected in ((1e-3, -10), (1e3, 0)):
        model = build(ModelSpec(LogisticConfig(400, 1)), seed=1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(size / 20 if parameter.ndim > 1 else 0.0)
        key = ee.keygen(model, knowledge="private", seed=bytes(32))
        assert key.shifts == ShiftScales(outputs=expected)
        assert key.site_keys["layer0/in"].shift.std() == pytest.approx(DEVIATION, rel=0.15)
        assert isinstance(key.site_keys["layer0/in"].transform, Orthogonal)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert ee.keygen(model, knowledge="private").shifts.outputs == SMALLEST


def test_a_key_without_shifts_and_one_of_a_specification_have_no_scales() -> None:
    model = fresh_model(FRESH, 1)
    assert ee.keygen(ModelSpec(FRESH), knowledge="private").shifts == ShiftScales()
    for made in ({"suite": "permutation"}, {"mode": "train"}):
        assert ee.keygen(model, knowledge="private", **made).shifts == ShiftScales()
    split = ee.keygen(model, mode="train", labels="split", knowledge="private").shifts
    assert split.keys == split.values == 0 > split.outputs
    assert with_shift_scales(ee.keygen(ModelSpec(FRESH), knowledge="private"), ModelSpec(FRESH), model.state_dict().__getitem__).shifts == (
        ee.keygen(model, knowledge="private").shifts
    )
