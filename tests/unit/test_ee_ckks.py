"""Scheme "ckks": the calls of EE on ciphertexts, once on 30-64-2 (a second to a row), and small models for the rest."""

import sys

import pytest
import torch
from torch import Tensor, nn

from rexis import ee
from rexis.ee.schemes.ckks import Ckks, Parameters
from rexis.ee.schemes.polynomials import Polynomial, fit, with_polynomial
from rexis.errors import ConfigurationError, KeyFileError, UnsupportedLayerError
from rexis.models.builders import build
from rexis.models.mlp import ACTIVATIONS, LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec


def rows(count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def worst(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_the_perceptron_of_the_benchmark() -> None:
    spec = ModelSpec(MLPConfig(30, (64,), 2))
    model, x = build(spec, seed=1), rows(2, 30)
    key = ee.keygen(model, knowledge="public", scheme="ckks", polynomial=(0.1, 0.5, 0.2))
    assert isinstance(key.scheme, Ckks)
    assert key.scheme.parameters.depth == 3
    assert key.protection == "homomorphic encryption"
    provider = ee.encrypt_model(model, key)
    sent = ee.encrypt_inputs(x, key)
    answer = provider(sent)
    with torch.no_grad():
        expected = with_polynomial(model, (0.1, 0.5, 0.2))(x)
    found = ee.decrypt_outputs(answer, key)
    assert worst(found, expected) < 1e-4
    # The price: a row of 120 bytes in f32 becomes hundreds of kilobytes, and the same row never the same bytes.
    assert sent.dtype == torch.uint8
    assert 300_000 < sent.shape[1] < 500_000
    assert not torch.equal(sent, ee.encrypt_inputs(x, key))
    # What the provider holds does not decrypt, by itself or under another key.
    context = provider.get_submodule("")._loaded
    assert not context.has_secret_key()
    other = ee.keygen(model, knowledge="public", scheme="ckks")
    with pytest.raises(KeyFileError, match="another secret key"):
        ee.decrypt_outputs(answer, other)


@pytest.mark.parametrize(
    ("config", "polynomial", "depth"),
    [
        (LogisticConfig(5, 3), None, 1),
        (MLPConfig(4, (3,), 2), (0.0, 0.0, 1.0), 3),
        (MLPConfig(4, (3,), 2, "tanh"), None, 4),
    ],
)
def test_small_models(config: MLPConfig | LogisticConfig, polynomial: tuple[float, ...] | None, depth: int) -> None:
    model, x = build(ModelSpec(config), seed=1), rows(2, config.inputs)
    key = ee.keygen(model, knowledge="private", scheme="ckks", polynomial=polynomial)
    assert isinstance(key.scheme, Ckks)
    assert key.scheme.parameters.depth == depth
    found = ee.decrypt_outputs(ee.encrypt_model(model, key)(ee.encrypt_inputs(x, key)), key)
    with torch.no_grad():
        assert worst(found, key.scheme.plain_model(model)(x)) < 1e-3


def test_parameters_stay_within_128_bits() -> None:
    assert Parameters.for_depth(1) == Parameters(1, 8192, (50, 40, 50))
    assert Parameters.for_depth(3) == Parameters(3, 8192, (49, 39, 39, 39, 49))
    assert Parameters.for_depth(5).ring == 16384
    for depth in range(1, 11):
        chosen = Parameters.for_depth(depth)
        assert sum(chosen.primes) <= {8192: 218, 16384: 438}[chosen.ring]
        assert len(chosen.primes) == depth + 2
    with pytest.raises(UnsupportedLayerError, match="at most 10 levels"):
        Parameters.for_depth(11)


@pytest.mark.parametrize(("activation", "worst_error"), list(zip(ACTIVATIONS, (0.5, 0.5, 0.4, 0.3, 0.4), strict=True)))
def test_the_fitted_polynomial_is_near_its_activation_and_another_function(activation: str, worst_error: float) -> None:
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    exact = build(ModelSpec(MLPConfig(1, (1,), 1, activation)), seed=0)[1](x)
    error = (Polynomial(fit(activation))(x) - exact).abs().max().item()
    assert 0.01 < error < worst_error


def test_what_is_not_carried_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ModelSpec(MLPConfig(4, (3,), 2))
    for config in (MLPConfig(4, (3,), 2, normalisation="layer"), MLPConfig(4, (3,) * 8, 2), LogisticConfig(5000, 2)):
        with pytest.raises(UnsupportedLayerError, match="scheme='ckks'"):
            ee.keygen(ModelSpec(config), knowledge="private", scheme="ckks")
    with pytest.raises(UnsupportedLayerError, match="with a polynomial"):
        ee.keygen(ModelSpec(LogisticConfig(5, 2)), knowledge="private", scheme="ckks", polynomial=(0.0, 0.0, 1.0))
    for polynomial in ((1.0, 2.0), (0.0, 0.0, 0.0), (1.0,) * 9, (0.0, 0.0, float("nan"))):
        with pytest.raises(ValueError, match="polynomial: expected"):
            ee.keygen(small, knowledge="private", scheme="ckks", polynomial=polynomial)
    with pytest.raises(ValueError, match="for inference"):
        ee.keygen(small, mode="train", knowledge="private", scheme="ckks")
    key = ee.keygen(small, knowledge="private", scheme="ckks")
    for wrong in (rows(2, 5), rows(2, 4) * 1e4, rows(2, 4).long(), rows(2, 4) * float("nan")):
        with pytest.raises(ValueError, match="expected floats within"):
            ee.encrypt_inputs(wrong, key)
    for frames in (rows(2, 4), torch.zeros(2, 10, dtype=torch.uint8), torch.full((1, 40), 255, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="expected CKKS ciphertexts"):
            ee.decrypt_outputs(frames, key)
    with pytest.raises(ValueError, match="is not saved"):
        key.save("nowhere", "p")
    with pytest.raises(ValueError, match="keys nothing"):
        _ = key.bare
    with pytest.raises(ValueError, match="weights are plain"):
        ee.decrypt_model(nn.Linear(1, 1), key)
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'rexis\[ckks\]'"):
        ee.keygen(small, knowledge="private", scheme="ckks")
