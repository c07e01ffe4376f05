"""The declarative model spec: family and config, never code. Torch-free.

    {"version": 1, "family": "mlp", "config": {"inputs": 30, "hidden": [64], "outputs": 2, "activation": "relu"}}

A spec fixes the ordered names and shapes of the model's tensors; its digest is leaf 0 of the model record (wire formats, section 1).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from math import prod
from types import MappingProxyType
from typing import Any, Self

from rexis.encoding import canonical_json, domain_tag, sha256
from rexis.errors import MalformedMessageError

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


Config = MLPConfig | LogisticConfig

FAMILIES: Mapping[str, type[MLPConfig] | type[LogisticConfig]] = MappingProxyType({"mlp": MLPConfig, "logistic": LogisticConfig})


@dataclass(frozen=True)
class ModelSpec:
    """Family and config of a model.

    Raises:
        ValueError: a config out of bounds, by the config's own constructor. `parse` raises MalformedMessageError instead.
    """

    config: Config

    @property
    def family(self) -> str:
        """The family's name: a key of `FAMILIES`."""
        return next(name for name, config in FAMILIES.items() if isinstance(self.config, config))

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, in the order of the torch module's parameters (an activation stands between two layers)."""
        widths = self.config.widths
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            shapes[f"{2 * layer}.weight"] = (outputs, inputs)
            shapes[f"{2 * layer}.bias"] = (outputs,)
        return MappingProxyType(shapes)

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Read a spec that came from someone else.

        Raises:
            MalformedMessageError: unknown or missing fields, an unknown family, or a value out of bounds.
        """
        if not isinstance(document, Mapping) or set(document) != {"version", "family", "config"}:
            raise MalformedMessageError("a model spec has exactly the fields version, family and config")
        if type(document["version"]) is not int or document["version"] != 1:
            raise MalformedMessageError(f"expected model spec version 1, got {document['version']!r:.40}")
        family, config = document["family"], document["config"]
        if not isinstance(family, str) or family not in FAMILIES:
            raise MalformedMessageError(f"expected a family among {', '.join(FAMILIES)}, got {family!r:.40}")
        names = [field.name for field in fields(FAMILIES[family])]
        if not isinstance(config, Mapping) or set(config) != set(names):
            raise MalformedMessageError(f"the config of family {family} has exactly the fields {', '.join(names)}")
        try:
            return cls(FAMILIES[family](**config))
        except ValueError as error:
            raise MalformedMessageError(f"model spec of family {family}: {error}") from error

    def document(self) -> dict[str, Any]:
        """What `parse` reads; every field is written, so that one model has one document."""
        config = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.config).items()}
        return {"version": 1, "family": self.family, "config": config}

    def digest(self) -> bytes:
        """SHA-256 over `"rexis/model-spec/1\\0"` and the canonical JSON of the document with its ordered names and shapes, 32 bytes."""
        tensors = [{"name": name, "shape": shape} for name, shape in self.shapes.items()]
        return sha256(domain_tag("model-spec", 1) + b"\0" + canonical_json({**self.document(), "tensors": tensors}))


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
