"""Configs of multilayer perceptrons and of their smallest case, logistic regression. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from types import MappingProxyType
from typing import Any

ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
MAX_WIDTH = 1 << 16
MAX_DEPTH = 64
MAX_PARAMETERS = 1 << 31


@dataclass(frozen=True)
class MLPConfig:
    """A multilayer perceptron: linear layers with one elementwise activation between them, none after the last.

    Attributes:
        inputs, outputs: widths of the ends.
        hidden: widths between, at least one.
        activation: one of `ACTIVATIONS`; gelu is the exact one, not the tanh approximation.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", _widths("hidden", self.hidden))
        _check_widths((self.inputs, *self.hidden, self.outputs))
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {self.activation!r:.40}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from input to output."""
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, in the order of the torch module's parameters (an activation stands between two layers)."""
        return _linear_shapes(self.widths)


@dataclass(frozen=True)
class LogisticConfig:
    """Logistic regression: one linear layer to one logit, or to one logit per class."""

    inputs: int
    outputs: int = 1

    def __post_init__(self) -> None:
        _check_widths((self.inputs, self.outputs))

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from input to output."""
        return (self.inputs, self.outputs)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of the weight and the bias."""
        return _linear_shapes(self.widths)


def _linear_shapes(widths: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes[f"{2 * layer}.weight"] = (outputs, inputs)
        shapes[f"{2 * layer}.bias"] = (outputs,)
    return MappingProxyType(shapes)


def _widths(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not 0 < len(values) < MAX_DEPTH:
        raise ValueError(f"{name}: expected 1 to {MAX_DEPTH - 1} widths")
    return tuple(values)


def _check_widths(widths: tuple[int, ...]) -> None:
    for width in widths:
        if type(width) is not int or not 0 < width <= MAX_WIDTH:
            raise ValueError(f"expected widths of 1 to {MAX_WIDTH}, got {width!r:.40}")
    parameters = sum(prod(pair) + pair[1] for pair in pairwise(widths))
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"expected at most {MAX_PARAMETERS} parameters, got {parameters}")
