"""An `nn.Sequential` of linear layers, LayerNorms and activations: stock modules, so that weights load anywhere, but for the join of a
residual layer, which torch has no module for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn

from rexis.errors import UnsupportedLayerError
from rexis.models.cox import CoxConfig
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.text import BertHeadConfig

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
)
_ARGUMENTS = ("approximate", "negative_slope")


class Residual(nn.Sequential):
    """h + f(h), where f is the sequence of its parts."""

    def forward(self, h: Tensor) -> Tensor:
        joined: Tensor = h
        for part in self:
            joined = part(joined)
        return h + joined


def build(config: MLPConfig | LogisticConfig | CoxConfig | BertHeadConfig, dtype: torch.dtype) -> nn.Sequential:
    """The module of a config, with torch's default initialisation from the process-wide generator."""
    if isinstance(config, CoxConfig):
        return nn.Sequential(nn.Linear(config.inputs, config.outputs, bias=False, dtype=dtype))
    if isinstance(config, BertHeadConfig):
        return nn.Sequential(nn.Linear(config.hidden, config.outputs, dtype=dtype))
    modules: list[nn.Module] = []
    *hidden, last = config.layers
    for layer in hidden:
        parts: list[nn.Module] = [nn.Linear(layer.inputs, layer.outputs, dtype=dtype)]
        if layer.norm is not None:
            parts.append(nn.LayerNorm(layer.outputs, dtype=dtype))
        if isinstance(config, MLPConfig):
            parts.append(_ACTIVATIONS[config.activation]())
        modules += [Residual(*parts)] if layer.joined else parts
    return nn.Sequential(*modules, nn.Linear(last.inputs, last.outputs, dtype=dtype))


def assemble(config: MLPConfig | LogisticConfig | CoxConfig | BertHeadConfig, state: Mapping[str, Tensor]) -> nn.Sequential:
    """The module that holds these very tensors."""
    with torch.device("meta"):
        model = build(config, torch.float32)
    model.load_state_dict(dict(state), assign=True)
    return model


def describe(model: nn.Module) -> MLPConfig | LogisticConfig | CoxConfig:
    """The config of a module that `build` could have made.

    Raises:
        UnsupportedLayerError: another structure; the message names the layer.
    """
    if not isinstance(model, nn.Sequential) or not model or not isinstance(model[-1], nn.Linear):
        raise UnsupportedLayerError(f"expected an nn.Sequential that begins and ends with nn.Linear, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            raise UnsupportedLayerError(
                f"{module}: its mean and variance are no parameters and move with each batch of training; for inference fold it "
                "(rexis.ee.canonical_model), for training take a model with LayerNorm"
            )
    if len(model) == 1 and model[0].bias is None and model[0].out_features == 1:
        return CoxConfig(model[0].in_features)
    layers = list(_hidden_layers(list(model)[:-1]))
    last = _linear(model[-1])
    for before, after in pairwise([*(layer.linear for layer in layers), last]):
        if before.out_features != after.in_features:
            raise UnsupportedLayerError(f"expected {before.out_features} inputs after {before}, got {after}")
    if not layers:
        return LogisticConfig(last.in_features, last.out_features)
    joined = any(layer.joined for layer in layers)
    for index, layer in enumerate(layers):
        wide = index > 0 and layer.linear.in_features == layer.linear.out_features
        if joined and layer.joined is not wide:
            raise UnsupportedLayerError(
                f"expected every hidden layer as wide as the hidden layer before it to be joined, or none; hidden layer {index} "
                f"({layer.linear}) is {'joined' if layer.joined else 'not'}"
            )
    return MLPConfig(
        layers[0].linear.in_features,
        tuple(layer.linear.out_features for layer in layers),
        last.out_features,
        _one("activation", {layer.activation for layer in layers}),
        _one("normalisation", {"none" if layer.norm is None else "layer" for layer in layers}),
        joined,
    )


@dataclass(frozen=True, eq=False)
class _HiddenLayer:
    linear: nn.Linear
    norm: nn.LayerNorm | None
    activation: str
    joined: bool


def _hidden_layers(modules: list[nn.Module]) -> Iterator[_HiddenLayer]:
    while modules:
        joined = type(modules[0]) is Residual
        parts = list(modules.pop(0).children()) if joined else modules
        if not parts:
            raise UnsupportedLayerError("expected nn.Linear in a residual layer, got none")
        linear = _linear(parts.pop(0))
        norm = _norm(parts.pop(0), linear) if parts and isinstance(parts[0], nn.LayerNorm) else None
        if not parts:
            raise UnsupportedLayerError(f"expected an activation after {linear}, got none")
        yield _HiddenLayer(linear, norm, _activation_name(parts.pop(0)), joined)
        if joined and parts:
            raise UnsupportedLayerError(f"expected nothing after the activation of a residual layer, got {parts[0]}")


def _linear(layer: nn.Module) -> nn.Linear:
    if type(layer) is not nn.Linear or layer.bias is None:
        raise UnsupportedLayerError(f"expected nn.Linear with a bias, got {layer}")
    return layer


def _norm(layer: nn.Module, linear: nn.Linear) -> nn.LayerNorm:
    stock = nn.LayerNorm(linear.out_features, device="meta")
    if type(layer) is not nn.LayerNorm or layer.bias is None or (layer.normalized_shape, layer.eps) != (stock.normalized_shape, stock.eps):
        raise UnsupportedLayerError(f"expected {stock} after {linear}, got {layer}")
    return layer


def _activation_name(layer: nn.Module) -> str:
    for name, factory in _ACTIVATIONS.items():
        stock = factory()
        # Another slope, or the tanh approximation of GELU, is another function.
        if type(layer) is type(stock) and all(getattr(layer, name, None) == getattr(stock, name, None) for name in _ARGUMENTS):
            return name
    raise UnsupportedLayerError(f"expected an activation among {', '.join(_ACTIVATIONS)}, with torch's defaults, got {layer}")


def _one(what: str, found: set[str]) -> str:
    if len(found) > 1:
        raise UnsupportedLayerError(f"expected one {what} throughout, got {', '.join(sorted(found))}")
    return found.pop()
