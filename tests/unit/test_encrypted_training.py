"""What the two halves of an encrypted training step take and refuse; that they equal plaintext training is in the laws."""

import pytest
import torch
from torch import nn

from rexis import ee
from rexis.errors import UnsupportedLayerError
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec
from rexis.training.encrypted import (
    Batch,
    Objective,
    Recipe,
    encrypt_batch,
    model_outputs,
    output_gradient,
    returned_gradient_step,
    train_encrypted,
    train_split,
    training_step,
)

SPEC = ModelSpec(MLPConfig(6, (8,), 4))
RECIPE = Recipe("sgd", 0.1)
ROWS = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
CLASSES = torch.arange(10) % 4


def train_key(labels: ee.keys.Labels = "permuted", spec: ModelSpec = SPEC) -> ee.Key:
    return ee.keygen(spec, mode="train", knowledge="private", seed=bytes(range(32)), labels=labels)


def test_classes_go_where_their_logits_go_and_come_back() -> None:
    key, model = train_key(), build(SPEC, seed=1)
    keyed_labels = ee.encrypt_labels(CLASSES, key)
    assert not torch.equal(keyed_labels, CLASSES)
    assert torch.equal(ee.decrypt_labels(keyed_labels, key), CLASSES)
    with torch.no_grad():
        logits, keyed_logits = model(ROWS), ee.encrypt_model(model, key)(ee.encrypt_inputs(ROWS, key))
    torch.testing.assert_close(keyed_logits.gather(1, keyed_labels[:, None]), logits.gather(1, CLASSES[:, None]), rtol=0, atol=1e-5)
    # A prediction by the provider is a keyed class.
    assert torch.equal(ee.decrypt_labels(keyed_logits.argmax(dim=1), key), logits.argmax(dim=1))
    ignored = torch.tensor([-100, 2])
    assert ee.encrypt_labels(ignored, key)[0] == -100
    soft = torch.rand(10, 4)
    assert torch.equal(ee.encrypt_labels(soft, key).argmax(dim=1), ee.encrypt_labels(soft.argmax(dim=1), key))
    assert torch.equal(ee.decrypt_labels(ee.encrypt_labels(soft, key), key), soft)


def test_labels_that_the_model_does_not_have_are_refused() -> None:
    key = train_key()
    for labels in (torch.tensor([0, 4]), torch.rand(3, 5)):
        with pytest.raises(ValueError, match="expected"):
            ee.encrypt_labels(labels, key)
    with pytest.raises(ValueError, match="expected floats"):
        ee.encrypt_class_weights(torch.ones(3), key)
    binary = train_key(spec=ModelSpec(LogisticConfig(6)))
    assert torch.equal(ee.encrypt_labels(CLASSES % 2, binary), CLASSES % 2)
    with pytest.raises(ValueError, match="labels 0 and 1"):
        ee.encrypt_labels(CLASSES, binary)


def test_labels_and_gradients_go_where_the_key_says() -> None:
    permuted, split = train_key(), train_key("split")
    with pytest.raises(UnsupportedLayerError, match="labels='split'"):
        ee.encrypt_gradient(torch.zeros(10, 4), permuted)
    for refused in (lambda: ee.encrypt_labels(CLASSES, split), lambda: ee.encrypt_class_weights(torch.ones(4), split)):
        with pytest.raises(UnsupportedLayerError, match="labels stay with the owner"):
            refused()
    with pytest.raises(ValueError, match="expected floats"):
        ee.encrypt_gradient(torch.zeros(10, 3), split)
    assert encrypt_batch(Batch(ROWS, CLASSES), split).labels is None


def test_the_returned_gradient_is_that_of_the_keyed_outputs() -> None:
    key = train_key("split")
    outputs = torch.randn(10, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    loss = Objective().loss(ee.decrypt_outputs(outputs, key), CLASSES)
    (expected,) = torch.autograd.grad(loss, outputs)
    gradient, value = output_gradient(outputs, CLASSES, key, Objective())
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-14)
    assert value == loss.item()


def test_a_step_without_labels_or_with_a_broken_gradient_changes_nothing() -> None:
    model = build(SPEC, seed=1)
    optimizer, before = RECIPE.build(model), [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match="batch with labels"):
        training_step(model, Batch(ROWS), RECIPE, optimizer, Objective())
    with pytest.raises(ValueError, match="batches with labels"):
        train_split(model, [Batch(ROWS)], train_key("split"), RECIPE)
    for gradient in (torch.zeros(10, 3), torch.full((10, 4), torch.nan)):
        with pytest.raises(ValueError, match="finite gradient of shape"):
            returned_gradient_step(model, model_outputs(model, ROWS), gradient, RECIPE, optimizer)
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))


def test_inputs_of_a_transformer_are_keyed_by_name_and_unknown_ones_refused() -> None:
    spec = ModelSpec(BertConfig(vocabulary=40, positions=16, hidden=16, layers=1, heads=2, intermediate=24, outputs=2))
    key = ee.keygen(spec, mode="train", suite="permutation", knowledge="private", seed=bytes(range(32)))
    ids, mask = torch.arange(12).reshape(2, 6), torch.ones(2, 6, dtype=torch.int64)
    batch = encrypt_batch(Batch({"input_ids": ids, "attention_mask": mask}, torch.tensor([0, 1])), key)
    assert torch.equal(batch.inputs["input_ids"], ee.encrypt_inputs(ids, key))
    assert torch.equal(batch.inputs["attention_mask"], mask)
    model = build(spec, seed=1)
    losses = train_encrypted(ee.encrypt_model(model, key), [batch] * 2, Recipe("adamw", 1e-3))
    assert losses[1] < losses[0]
    with pytest.raises(ValueError, match="got patient_id"):
        encrypt_batch(Batch({"input_ids": ids, "patient_id": ids}), key)


def test_recipes_and_objectives_are_checked() -> None:
    for arguments in (("lion", 0.1), ("sgd", 0.0), ("sgd", 0.1, {}, -1.0), ("sgd", 0.1, {}, None, 0.0)):
        with pytest.raises(ValueError, match="expected"):
            Recipe(*arguments)
    for arguments in (("ranking",), ("classification", None, 1.0)):
        with pytest.raises(ValueError, match="expected"):
            Objective(*arguments)


def test_clipping_bounds_the_gradient_of_frozen_models_too() -> None:
    model = build(SPEC, seed=1)
    model.requires_grad_(False)
    nn.init.constant_(model[2].weight, 1.0)
    model[2].requires_grad_(True)
    recipe = Recipe("sgd", 0.1, clipping_norm=0.01)
    training_step(model, Batch(10 * ROWS, CLASSES), recipe, recipe.build(model), Objective())
    assert torch.stack([model[2].weight.grad.norm(), model[2].bias.grad.norm()]).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert model[0].weight.grad is None
