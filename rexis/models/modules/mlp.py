"""An `nn.Sequential` of `nn.Linear` and activations: stock modules, so that weights load anywhere."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn

from rexis.errors import UnsupportedLayerError
from rexis.models.mlp import LogisticConfig, MLPConfig

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType({"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh})


def build(config: MLPConfig | LogisticConfig, dtype: torch.dtype) -> nn.Sequential:
    """The module of a config, with torch's default initialisation from the process-wide generator."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(config.widths):
        if layers and isinstance(config, MLPConfig):
            layers.append(_ACTIVATIONS[config.activation]())
        layers.append(nn.Linear(inputs, outputs, dtype=dtype))
    return nn.Sequential(*layers)


def assemble(config: MLPConfig | LogisticConfig, state: Mapping[str, Tensor]) -> nn.Sequential:
    """The module that holds these very tensors."""
    with torch.device("meta"):
        model = build(config, torch.float32)
    model.load_state_dict(dict(state), assign=True)
    return model


def describe(model: nn.Module) -> MLPConfig | LogisticConfig:
    """The config of a module that `build` could have made.

    Raises:
        UnsupportedLayerError: another structure; the message names the layer.
    """
    if not isinstance(model, nn.Sequential) or len(model) % 2 == 0:
        raise UnsupportedLayerError(f"expected an nn.Sequential that begins and ends with nn.Linear, got {type(model).__name__}")
    linear = [_linear(layer) for layer in list(model)[::2]]
    for before, after in pairwise(linear):
        if before.out_features != after.in_features:
            raise UnsupportedLayerError(f"expected {before.out_features} inputs after {before}, got {after}")
    activations = {_activation_name(layer) for layer in list(model)[1::2]}
    if len(activations) > 1:
        raise UnsupportedLayerError(f"expected one activation throughout, got {', '.join(sorted(activations))}")
    inputs, outputs = linear[0].in_features, linear[-1].out_features
    if not activations:
        return LogisticConfig(inputs, outputs)
    return MLPConfig(inputs, tuple(layer.out_features for layer in linear[:-1]), outputs, activations.pop())


def _linear(layer: nn.Module) -> nn.Linear:
    if type(layer) is not nn.Linear or layer.bias is None:
        raise UnsupportedLayerError(f"expected nn.Linear with a bias, got {layer}")
    return layer


def _activation_name(layer: nn.Module) -> str:
    for name, factory in _ACTIVATIONS.items():
        if type(layer) is factory and not (isinstance(layer, nn.GELU) and layer.approximate != "none"):
            return name
    raise UnsupportedLayerError(f"expected an activation among {', '.join(_ACTIVATIONS)}, got {layer}")
