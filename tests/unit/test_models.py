"""Model specs: one document, one digest; hostile documents are refused; modules and specs agree."""

import hashlib

import pytest
import torch
from torch import nn

from rexis.errors import MalformedMessageError, UnsupportedLayerError
from rexis.models.builders import build, describe
from rexis.models.mlp import ACTIVATIONS, MAX_DEPTH, MAX_WIDTH, LogisticConfig, MLPConfig
from rexis.models.modules.batch_norm import fold_batch_norm
from rexis.models.modules.mlp import Residual
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
        mlp_document(normalisation="layer"),
        mlp_document(hidden=[64, 64], residual=True),
        mlp_document(hidden=[64, 64], residual=True, normalisation="layer"),
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
        mlp_document(normalisation="batch"),
        mlp_document(normalisation=None),
        mlp_document(residual=True),
        mlp_document(hidden=[64, 32], residual=True),
        mlp_document(hidden=[64, 64], residual=1),
        # One model has one document: a default is not written.
        mlp_document(normalisation="none"),
        mlp_document(residual=False),
    ],
)
def test_hostile_documents_are_refused(document: object) -> None:
    with pytest.raises(MalformedMessageError):
        ModelSpec.parse(document)


def test_missing_config_field_is_refused_not_defaulted() -> None:
    with pytest.raises(MalformedMessageError, match="activation"):
        ModelSpec.parse({"version": 1, "family": "mlp", "config": {"inputs": 30, "hidden": [64], "outputs": 2}})


@pytest.mark.parametrize(
    "config",
    [
        *(MLPConfig(5, (7, 3), 2, activation) for activation in ACTIVATIONS),
        MLPConfig(5, (7, 3), 2, normalisation="layer"),
        MLPConfig(5, (5, 7, 7, 7, 3, 3), 2, residual=True),
        MLPConfig(5, (7, 7, 3, 3, 7), 2, "tanh", "layer", residual=True),
    ],
)
def test_built_module_has_the_shapes_of_its_spec(config: MLPConfig) -> None:
    spec = ModelSpec(config)
    model = build(spec, seed=1)
    assert [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()] == list(spec.shapes.items())
    assert describe(model) == spec
    assert model(torch.zeros(4, 5)).shape == (4, 2)


def test_a_residual_layer_adds_its_input_after_the_activation() -> None:
    model = build(ModelSpec(MLPConfig(5, (7, 7), 2, "tanh", "layer", residual=True)), seed=1)
    names = [f"{name}.{kind}" for name in ("0", "1", "3.0", "3.1", "4") for kind in ("weight", "bias")]
    assert [name for name, _ in model.named_parameters()] == names
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    first = torch.tanh(model[1](model[0](x)))
    torch.testing.assert_close(model(x), model[4](first + torch.tanh(model[3][1](model[3][0](first)))))


def test_batch_norm_is_folded_before_after_and_inside_a_residual_layer() -> None:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(
        nn.BatchNorm1d(5),
        nn.Linear(5, 6, bias=False),
        nn.BatchNorm1d(6, affine=False),
        nn.ReLU(),
        Residual(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()),
        nn.BatchNorm1d(6),
        nn.Linear(6, 2),
    ).double()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norm(model.eval())
    assert describe(folded) == ModelSpec(MLPConfig(5, (6, 6), 2, residual=True))
    x = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), "statistics of each batch"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU(), nn.Linear(4, 2)).eval(), "each batch"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).eval(), "directly after or before"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4)).eval(), "directly after or before"),
    ],
)
def test_batch_norm_that_can_not_be_folded_is_refused(model: nn.Sequential, reason: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=reason):
        fold_batch_norm(model)


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
        (nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2), nn.Linear(4, 2)), "LeakyReLU"),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, eps=1e-6), nn.ReLU(), nn.Linear(4, 2)), "1e-06"),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, elementwise_affine=False), nn.ReLU(), nn.Linear(4, 2)), "elementwise_affine=False"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2)), "LayerNorm"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), "canonical_model"),
        (nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), "canonical_model"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Residual(nn.Linear(4, 4), nn.ReLU(), nn.ReLU()), nn.Linear(4, 2)), "nothing after"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Residual(), nn.Linear(4, 2)), "residual layer, got none"),
        (nn.Sequential(Residual(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)), "hidden layer 0 .* is joined"),
        (
            nn.Sequential(*(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()), Residual(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)),
            "hidden layer 1 .* is not",
        ),
        (
            nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
            "layer, none",
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 2)), "in_features=5"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), "relu, tanh"),
    ],
)
def test_other_structures_are_refused_by_name(model: nn.Module, named: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=named):
        describe(model)
