"""The BERT encoder as data: its config and the tensors that follow from it. Torch-free.

Post-layer-norm encoder of Devlin et al. (NAACL 2019) as HuggingFace names its parts, so that checkpoints load under their own names.
Dropout and special ids are no part of it: they change no tensor, and a job's special ids move with its vocabulary key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, prod
from types import MappingProxyType
from typing import Any

ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "tanh")
MAX_VOCABULARY = 1 << 20
MAX_WIDTH = 1 << 16
MAX_LAYERS = 256
MAX_PARAMETERS = 1 << 31


@dataclass(frozen=True)
class BertConfig:
    """`BertModel`, or `BertForSequenceClassification` if it has outputs.

    Attributes:
        vocabulary, positions, types: rows of the three embedding tables.
        hidden: width d of the residual stream, a multiple of `heads`.
        intermediate: width inside the feed-forward blocks.
        outputs: logits of the classifier; 0 for the encoder alone.
        pooler: whether the tanh layer over the first token is there; a classifier needs it.
        affine: whether the layer norms have a gain and a bias. Without them dense keys are admitted (`rexis.ee.families.bert`).
        activation: one of `ACTIVATIONS`; gelu is the exact one, gelu_new the tanh approximation.
        epsilon: of the layer norms, as Python prints the float.

    Raises:
        ValueError: a value out of bounds.
    """

    vocabulary: int
    positions: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    outputs: int
    types: int = field(default=2, metadata={"optional": True})
    activation: str = field(default="gelu", metadata={"optional": True})
    epsilon: str = field(default="1e-12", metadata={"optional": True})
    affine: bool = field(default=True, metadata={"optional": True})
    pooler: bool = field(default=True, metadata={"optional": True})

    def __post_init__(self) -> None:
        for name, bound in (
            ("vocabulary", MAX_VOCABULARY),
            ("positions", MAX_VOCABULARY),
            ("hidden", MAX_WIDTH),
            ("layers", MAX_LAYERS),
            ("heads", MAX_WIDTH),
            ("intermediate", MAX_WIDTH),
            ("types", MAX_WIDTH),
        ):
            check_count(name, getattr(self, name), bound)
        if type(self.outputs) is not int or not 0 <= self.outputs <= MAX_WIDTH:
            raise ValueError(f"outputs: expected a number of 0 to {MAX_WIDTH}, got {self.outputs!r:.40}")
        for name in ("pooler", "affine"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name}: expected true or false, got {getattr(self, name)!r:.40}")
        if self.hidden % self.heads:
            raise ValueError(f"expected a hidden width that is a multiple of the {self.heads} heads, got {self.hidden}")
        if self.outputs and not self.pooler:
            raise ValueError("a classifier reads the pooler: expected pooler true beside outputs")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {self.activation!r:.40}")
        check_epsilon(self.epsilon)
        parameters = sum(prod(shape) for shape in self.shapes.values())
        if parameters > MAX_PARAMETERS:
            raise ValueError(f"expected at most {MAX_PARAMETERS} parameters, got {parameters}")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def prefix(self) -> str:
        """What stands before the names of the encoder's tensors."""
        return "bert." if self.outputs else ""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, in the order of the torch module's parameters."""
        d, inner, at = self.hidden, self.intermediate, self.prefix
        shapes: dict[str, tuple[int, ...]] = {
            f"{at}embeddings.word_embeddings.weight": (self.vocabulary, d),
            f"{at}embeddings.position_embeddings.weight": (self.positions, d),
            f"{at}embeddings.token_type_embeddings.weight": (self.types, d),
            **self._norm(f"{at}embeddings.LayerNorm"),
        }
        for layer in range(self.layers):
            block = f"{at}encoder.layer.{layer}"
            for part in ("query", "key", "value"):
                shapes |= _linear(f"{block}.attention.self.{part}", d, d)
            shapes |= _linear(f"{block}.attention.output.dense", d, d) | self._norm(f"{block}.attention.output.LayerNorm")
            shapes |= _linear(f"{block}.intermediate.dense", d, inner)
            shapes |= _linear(f"{block}.output.dense", inner, d) | self._norm(f"{block}.output.LayerNorm")
        if self.pooler:
            shapes |= _linear(f"{at}pooler.dense", d, d)
        if self.outputs:
            shapes |= _linear("classifier", d, self.outputs)
        return MappingProxyType(shapes)

    def _norm(self, name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (self.hidden,), f"{name}.bias": (self.hidden,)} if self.affine else {}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def check_count(name: str, value: Any, bound: int) -> None:
    """Return if a value of a config is a number of 1 to `bound`.

    Raises:
        ValueError: it is not.
    """
    if type(value) is not int or not 0 < value <= bound:
        raise ValueError(f"{name}: expected a number of 1 to {bound}, got {value!r:.40}")


def check_epsilon(text: Any) -> None:
    """Return if a text is a number in (0, 1) in the one form that Python prints.

    Raises:
        ValueError: it is not.
    """
    try:
        number = float(text) if isinstance(text, str) and len(text) <= 32 else 0.0
    except ValueError:
        number = 0.0
    if not (isfinite(number) and 0 < number < 1) or repr(number) != text:
        raise ValueError(f"epsilon: expected a number in (0, 1) as Python prints it, like '1e-12', got {text!r:.40}")
