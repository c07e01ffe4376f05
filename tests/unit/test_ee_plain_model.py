"""Scenario 2 with a plaintext model: rows keyed, first layer mapped, all else plain; trained, it is the plainly trained model."""

import pytest
import torch
from torch import Tensor, nn

from rexis import ee
from rexis.ee.plain_model import exposure
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec
from rexis.training.local import classification_loss

SPEC = ModelSpec(MLPConfig(12, (16, 8), 4))


def train(model: nn.Module, rows: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(60):
        batch = torch.arange(step * 16, step * 16 + 16) % len(rows)
        optimizer.zero_grad()
        torch.autograd.backward(classification_loss(model(rows[batch]), labels[batch]))
        optimizer.step()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_training_is_exact_and_only_the_first_layer_is_mapped(activation: str) -> None:
    spec = ModelSpec(MLPConfig(12, (16, 8), 4, activation))
    plain = build(spec, seed=1, dtype=torch.float64)
    key = ee.keygen(spec, mode="train", suite="inputs", knowledge="private", seed=bytes(32))
    keyed = ee.encrypt_model(plain, key)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    assert [name for name, value in keyed.state_dict().items() if not torch.equal(value, before[name])] == ["0.weight"]
    x = torch.randn(80, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(80) % 4
    train(plain, x, labels)
    train(keyed, ee.encrypt_inputs(x, key), ee.encrypt_labels(labels, key))
    moved = torch.stack([(value - before[name]).norm() for name, value in plain.state_dict().items()]).norm()
    assert moved > 0.1
    for name, value in ee.decrypt_model(keyed, key).state_dict().items():
        assert (value - plain.state_dict()[name]).abs().max() <= 1e-9 * moved
    # The layers above the first, and the answers, are the provider's in the clear.
    assert (keyed.state_dict()["4.weight"] - plain.state_dict()["4.weight"]).abs().max() <= 1e-9 * moved
    torch.testing.assert_close(keyed(ee.encrypt_inputs(x, key)), plain(x), rtol=0, atol=1e-9)
    assert torch.equal(ee.encrypt_labels(labels, key), labels)


def test_inference_admits_a_shift_and_any_condition() -> None:
    model = build(SPEC, seed=1, dtype=torch.float64)
    key = ee.keygen(model, suite="inputs", knowledge="private", condition=4.0, seed=bytes(32))
    x = torch.randn(20, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert key.site_keys["layer0/in"].shift.any()
    torch.testing.assert_close(ee.encrypt_model(model, key)(ee.encrypt_inputs(x, key)), model(x), rtol=0, atol=1e-9)


def test_the_facts() -> None:
    facts = exposure(ee.keygen(SPEC, mode="train", suite="inputs", knowledge="private"))
    assert facts.keyed_sites == ("layer0/in",)
    assert facts.plain_sites == ("layer0/hidden", "layer1/hidden", "layer2/out")
    assert (facts.columns, facts.readable_directions, facts.passed) == (12, 12, True)
    narrow = exposure(ee.keygen(ModelSpec(LogisticConfig(12, 3)), suite="inputs", knowledge="members"))
    assert (narrow.columns, narrow.readable_directions, narrow.passed) == (12, 3, False)
    assert "the rows are not protected" in narrow.statements[-1]
    assert narrow.document()["readable_directions"] == 3
    with pytest.raises(ValueError, match="suite 'inputs'"):
        exposure(ee.keygen(SPEC, knowledge="private"))
