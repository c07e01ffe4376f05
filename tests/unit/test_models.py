"""Model specs: one document, one digest; hostile documents are refused; modules and specs agree."""

import hashlib

import pytest
import torch
from torch import nn

from rexis.errors import MalformedMessageError, UnsupportedLayerError
from rexis.models.builders import build, describe
from rexis.models.mlp import ACTIVATIONS, MAX_DEPTH, MAX_WIDTH, LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec

MLP = ModelSpec(MLPConfig(30, (64, 8), 2, "tanh"))
LOGISTIC = ModelSpec(LogisticConfig(13))


def mlp_document(**changes: object) -> dict[str, object]:
    return {"version": 1, "family": "mlp", "config": {"inputs": 30, "hidden": [64], "outputs": 2, "activation": "relu"} | changes}


def test_digest_is_the_hash_of_the_bytes_written_out_by_hand() -> None:
    canonical = (
        b'rexis/model-spec/1\0{"config":{"inputs":13,"outputs":1},"family":"logistic",'
        b'"tensors":[{"name":"0.weight","shape":[1,13]},{"name":"0.bias","shape":[1]}],"version":1}'
    )
    assert LOGISTIC.digest() == hashlib.sha256(canonical).digest()


@pytest.mark.parametrize("spec", [MLP, LOGISTIC])
def test_document_round_trip(spec: ModelSpec) -> None:
    assert ModelSpec.parse(spec.document()) == spec
    assert ModelSpec.parse(spec.document()).digest() == spec.digest()


def test_every_field_changes_the_digest() -> None:
    documents = [
        mlp_document(),
        mlp_document(inputs=31),
        mlp_document(hidden=[64, 64]),
        mlp_document(outputs=3),
        mlp_document(activation="gelu"),
    ]
    assert len({ModelSpec.parse(document).digest() for document in documents}) == len(documents)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"family": "mlp", "config": mlp_document()["config"]},
        mlp_document() | {"version": 2},
        mlp_document() | {"version": True},
        mlp_document() | {"family": "resnet"},
        mlp_document() | {"family": ["mlp"]},
        mlp_document() | {"code": "import os"},
        mlp_document() | {"config": None},
        mlp_document(dropout="0.1"),
        mlp_document(inputs=0),
        mlp_document(inputs=-30),
        mlp_document(inputs=True),
        mlp_document(inputs=30.0),
        mlp_document(inputs="30"),
        mlp_document(inputs=MAX_WIDTH + 1),
        mlp_document(hidden=[]),
        mlp_document(hidden=64),
        mlp_document(hidden="64"),
        mlp_document(hidden=[[64]]),
        mlp_document(hidden=[1] * MAX_DEPTH),
        mlp_document(hidden=[MAX_WIDTH] * 3),
        mlp_document(activation="exec"),
        mlp_document(activation=["relu"]),
    ],
)
def test_hostile_documents_are_refused(document: object) -> None:
    with pytest.raises(MalformedMessageError):
        ModelSpec.parse(document)


def test_missing_config_field_is_refused_not_defaulted() -> None:
    with pytest.raises(MalformedMessageError, match="activation"):
        ModelSpec.parse({"version": 1, "family": "mlp", "config": {"inputs": 30, "hidden": [64], "outputs": 2}})


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_built_module_has_the_shapes_of_its_spec(activation: str) -> None:
    spec = ModelSpec(MLPConfig(5, (7, 3), 2, activation))
    model = build(spec, seed=1)
    assert [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()] == list(spec.shapes.items())
    assert describe(model) == spec
    assert model(torch.zeros(4, 5)).shape == (4, 2)


def test_logistic_regression_is_one_linear_layer() -> None:
    model = build(LOGISTIC, seed=1)
    assert len(model) == 1
    assert describe(model) == LOGISTIC


def test_initial_weights_belong_to_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = build(MLP, seed=1), build(MLP, seed=1), build(MLP, seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Linear(3, 2), "Linear"),
        (nn.Sequential(), "Sequential"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), "Sequential"),
        (nn.Sequential(nn.Linear(3, 2, bias=False)), "bias"),
        (nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1), nn.Linear(4, 2)), "Softmax"),
        (nn.Sequential(nn.Linear(3, 4), nn.GELU(approximate="tanh"), nn.Linear(4, 2)), "GELU"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 2)), "in_features=5"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), "relu, tanh"),
    ],
)
def test_other_structures_are_refused_by_name(model: nn.Module, named: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=named):
        describe(model)
