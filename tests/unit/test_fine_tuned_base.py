"""MiniLM fine-tuned and called private is caught: by its entries, and keyed by its singular values.

The weights themselves are a benchmark's; here stand matrices that have its shipped landmarks, in an encoder of its width.
"""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rexis import ee
from rexis.errors import PrivacyError
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.public_bases import ENTRIES, SINGULAR_VALUES, Landmark, base_match, public_bases
from rexis.models.spec import ModelSpec
from rexis.training.encrypted import Batch, Recipe, train_encrypted

CONFIG = BertConfig(vocabulary=60, positions=512, hidden=384, layers=1, heads=12, intermediate=1536, outputs=3)
MINILM = public_bases()[0]


def with_entries(landmark: Landmark, weight: Tensor) -> Tensor:
    """A matrix of a landmark's size that has its entries."""
    made = weight.detach() * (landmark.entries.std() / weight.std())
    made.view(-1)[torch.arange(ENTRIES) * (weight.numel() - 1) // (ENTRIES - 1)] = torch.from_numpy(landmark.entries).float()
    return made


def with_spectrum(landmark: Landmark, weight: Tensor) -> Tensor:
    """A matrix that has a landmark's singular values, and nothing else of it."""
    left, _, right = torch.linalg.svd(weight.detach(), full_matrices=False)
    places = np.linspace(0, min(weight.shape) - 1, SINGULAR_VALUES).astype(int)
    values = np.interp(np.arange(min(weight.shape)), places, landmark.spectrum)
    return left * torch.from_numpy(values).float() @ right


@cache
def fine_tuned(made: str) -> nn.Module:
    """Ten steps of AdamW at the rate of a fine-tune, on a model of MiniLM's landmarks."""
    model, left = build(ModelSpec(CONFIG), seed=1), list(MINILM.landmarks)
    with torch.no_grad():
        for parameter in model.parameters():
            landmark = next((each for each in left if each.shape == tuple(parameter.shape) and each.spectrum.size), None)
            if landmark is not None:
                left.remove(landmark)
                parameter.copy_((with_entries if made == "entries" else with_spectrum)(landmark, parameter))
    start = model.get_parameter("bert.encoder.layer.0.intermediate.dense.weight").detach().clone()
    ids = torch.randint(60, (4, 8), generator=torch.Generator().manual_seed(1))
    train_encrypted(model, [Batch({"input_ids": ids}, torch.arange(4) % 3)] * 10, Recipe("adamw", 5e-5, {"weight_decay": 0.01}))
    assert (model.get_parameter("bert.encoder.layer.0.intermediate.dense.weight") - start).abs().max() > 1e-4
    return model


def test_by_its_entries() -> None:
    model = fine_tuned("entries")
    match = base_match(model.state_dict())
    assert match is not None
    assert (match.name, match.by) == (MINILM.name, "entries")
    with pytest.raises(PrivacyError, match="all-MiniLM-L6-v2"):
        ee.keygen(model, suite="permutation", knowledge="private")


@pytest.mark.parametrize("keyed", [False, True])
def test_by_its_singular_values(keyed: bool) -> None:
    """As of a copy whose coordinates somebody moved before it was fine-tuned, or moves now."""
    model = fine_tuned("spectrum")
    if keyed:
        key = ee.keygen(model, suite="permutation", knowledge="public", accept_known_base_risk=True, seed=bytes(32))
        model = ee.encrypt_model(model, key)
    match = base_match(model.state_dict())
    assert match is not None
    assert (match.name, match.by) == (MINILM.name, "spectrum")
    with pytest.raises(PrivacyError, match="singular values"):
        ee.keygen(model, suite="permutation", knowledge="private")


def test_an_encoder_of_its_shapes_alone_is_not_taken_for_it() -> None:
    assert base_match(build(ModelSpec(CONFIG), seed=2).state_dict()) is None
