"""Whoever holds the plaintext model recovers the key together with the provider: members of a federation, and its aggregator."""

from typing import Any

import pytest
import torch
from torch import nn

from rexis import ee
from rexis.attacks.members import RecoveredSites, recover_sites
from rexis.attacks.readings import explained_variance
from rexis.models.builders import build
from rexis.models.spec import MLPConfig, ModelSpec

SEED = bytes(range(32))
ROWS = torch.randn(50, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def layers(model: nn.Module) -> list[tuple[object, object]]:
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in model.modules() if isinstance(layer, nn.Linear)]


def attacked(config: MLPConfig, key: ee.Key, plain: nn.Module, dtype: torch.dtype = torch.float32) -> RecoveredSites:
    keyed = ee.encrypt_model(plain.to(dtype), key)
    return recover_sites(layers(plain), layers(keyed), odd_activation=config.activation == "tanh")


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("choices", [{"mode": "infer"}, {"mode": "infer", "condition": 3.0}, {"mode": "train"}], ids=str)
def test_the_plaintext_model_gives_every_site_away(activation: str, choices: dict[str, Any]) -> None:
    """Also under keys that are not orthogonal and scale hidden units."""
    config = MLPConfig(13, (32, 24), 3, activation)
    key = ee.keygen(ModelSpec(config), knowledge="members", seed=SEED, **choices)
    assert key.protection == "obfuscation only"
    model = build(ModelSpec(config), seed=1)
    found = attacked(config, key, model)
    assert found.residual < 1e-4
    assert explained_variance(ROWS.numpy(), found.inputs.decrypt(ee.encrypt_inputs(ROWS, key).numpy())) > 1 - 1e-6
    keyed_answers = ee.encrypt_model(model, key)(ee.encrypt_inputs(ROWS.float(), key)).detach()
    answers = model(ROWS.float()).detach()
    assert explained_variance(answers.numpy(), found.outputs.decrypt(keyed_answers.numpy())) > 1 - 1e-6


def test_a_model_that_is_not_the_one_gives_nothing_away() -> None:
    config = MLPConfig(13, (32, 24), 3)
    key = ee.keygen(ModelSpec(config), knowledge="private", seed=SEED)
    keyed = ee.encrypt_model(build(ModelSpec(config), seed=1), key)
    found = recover_sites(layers(build(ModelSpec(config), seed=2)), layers(keyed))
    assert found.residual > 0.1
    assert explained_variance(ROWS.numpy(), found.inputs.decrypt(ee.encrypt_inputs(ROWS, key).numpy())) < 0.2


def test_one_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden layer"):
        recover_sites(layers(nn.Linear(3, 2)), layers(nn.Linear(3, 2)))
