"""Configs of multilayer perceptrons and of their smallest case, logistic regression. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from types import MappingProxyType
from typing import Any

ACTIVATIONS = ("relu", "leaky_relu", "gelu", "silu", "tanh")
NORMALISATIONS = ("none", "layer")
MAX_WIDTH = 1 << 16
MAX_DEPTH = 64
MAX_PARAMETERS = 1 << 31


@dataclass(frozen=True)
class Layer:
    """One linear layer of a model and what belongs to it.

    Attributes:
        inputs, outputs: widths.
        linear: name of the linear layer, which its weight and bias begin with.
        norm: name of the LayerNorm behind it, or None.
        joined: whether the layer's input is added to what its activation gives.
    """

    inputs: int
    outputs: int
    linear: str
    norm: str | None = None
    joined: bool = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of its tensors."""
        shapes: dict[str, tuple[int, ...]] = {f"{self.linear}.weight": (self.outputs, self.inputs), f"{self.linear}.bias": (self.outputs,)}
        if self.norm is not None:
            shapes |= {f"{self.norm}.weight": (self.outputs,), f"{self.norm}.bias": (self.outputs,)}
        return shapes


@dataclass(frozen=True)
class MLPConfig:
    """A multilayer perceptron: linear layers with one elementwise activation between them, none after the last.

    Attributes:
        inputs, outputs: widths of the ends.
        hidden: widths between, at least one.
        activation: one of `ACTIVATIONS`; gelu is the exact one, not the tanh approximation, and leaky_relu has slope 0.01.
        normalisation: "layer" for a LayerNorm with weight and bias between each hidden linear layer and its activation.
        residual: whether each hidden layer as wide as the hidden layer before it is joined to it: h + activation(linear(h)).
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: str = "relu"
    normalisation: str = field(default="none", metadata={"optional": True})
    residual: bool = field(default=False, metadata={"optional": True})

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", _widths("hidden", self.hidden))
        check_widths(self.widths)
        for name, value, choices in (("activation", self.activation, ACTIVATIONS), ("normalisation", self.normalisation, NORMALISATIONS)):
            if value not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r:.40}")
        if type(self.residual) is not bool:
            raise ValueError(f"residual: expected true or false, got {self.residual!r:.40}")
        if self.residual and not any(before == after for before, after in pairwise(self.hidden)):
            raise ValueError(f"residual: expected two neighbouring hidden layers of equal width, got {list(self.hidden)}")
        check_parameters(self.shapes)

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from input to output."""
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The linear layers from input to output, as the torch module names them."""
        layers: list[Layer] = []
        place = 0
        for index, (inputs, outputs) in enumerate(pairwise(self.widths[:-1])):
            joined = self.residual and index > 0 and inputs == outputs
            names = [f"{place}.{part}" if joined else str(place + part) for part in range(2)]
            layers.append(Layer(inputs, outputs, names[0], names[1] if self.normalisation == "layer" else None, joined))
            place += 1 if joined else 2 if self.normalisation == "none" else 3
        return (*layers, Layer(self.hidden[-1], self.outputs, str(place)))

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, in the order of the torch module's parameters (an activation stands between two layers)."""
        return _shapes(self.layers)


@dataclass(frozen=True)
class LogisticConfig:
    """Logistic regression: one linear layer to one logit, or to one logit per class."""

    inputs: int
    outputs: int = 1

    def __post_init__(self) -> None:
        check_widths(self.widths)
        check_parameters(self.shapes)

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from input to output."""
        return (self.inputs, self.outputs)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The linear layer."""
        return (Layer(self.inputs, self.outputs, "0"),)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of the weight and the bias."""
        return _shapes(self.layers)


def _shapes(layers: tuple[Layer, ...]) -> Mapping[str, tuple[int, ...]]:
    return MappingProxyType({name: shape for layer in layers for name, shape in layer.shapes.items()})


def _widths(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not 0 < len(values) < MAX_DEPTH:
        raise ValueError(f"{name}: expected 1 to {MAX_DEPTH - 1} widths")
    return tuple(values)


def check_widths(widths: tuple[int, ...]) -> None:
    """Return if each is a number of 1 to `MAX_WIDTH`.

    Raises:
        ValueError: one is not.
    """
    for width in widths:
        if type(width) is not int or not 0 < width <= MAX_WIDTH:
            raise ValueError(f"expected widths of 1 to {MAX_WIDTH}, got {width!r:.40}")


def check_parameters(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Return if there are at most `MAX_PARAMETERS`.

    Raises:
        ValueError: there are more.
    """
    parameters = sum(prod(shape) for shape in shapes.values())
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"expected at most {MAX_PARAMETERS} parameters, got {parameters}")
