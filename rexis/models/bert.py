"""Config of a BERT encoder (Devlin et al., NAACL 2019): HuggingFace's `BertModel` and `BertForSequenceClassification`. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MAX_WIDTH = 1 << 14
MAX_LAYERS = 256
MAX_VOCABULARY = 1 << 20
ACTIVATIONS = ("gelu", "relu", "silu")


@dataclass(frozen=True)
class BertConfig:
    """A post-LayerNorm encoder with learned positions.

    Attributes:
        vocabulary, positions, types: rows of the three embedding tables.
        hidden: width of the residual stream; a multiple of `heads`.
        layers, heads, intermediate: of the encoder.
        outputs: logits of the classifier; 0 for the encoder with its pooler alone.
        activation: of the intermediate layer; gelu is the exact one.
        epsilon: of LayerNorm, as its shortest decimal text.
        affine: False if every LayerNorm has γ = 1 and β = 0, frozen.
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

    def __post_init__(self) -> None:
        bounds = {"vocabulary": MAX_VOCABULARY, "positions": MAX_WIDTH * 16, "hidden": MAX_WIDTH, "layers": MAX_LAYERS, "heads": MAX_WIDTH}
        for name, bound in {**bounds, "intermediate": MAX_WIDTH * 8, "types": MAX_WIDTH}.items():
            value = getattr(self, name)
            if type(value) is not int or not 0 < value <= bound:
                raise ValueError(f"{name}: expected 1 to {bound}, got {value!r:.40}")
        if type(self.outputs) is not int or not 0 <= self.outputs <= MAX_WIDTH:
            raise ValueError(f"outputs: expected 0 to {MAX_WIDTH}, got {self.outputs!r:.40}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden: expected a multiple of {self.heads} heads, got {self.hidden}")
        if self.activation not in ACTIVATIONS or type(self.affine) is not bool:
            raise ValueError(f"expected an activation among {', '.join(ACTIVATIONS)} and affine yes or no")

    @property
    def prefix(self) -> str:
        """What the names of the encoder's tensors begin with."""
        return "bert." if self.outputs else ""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, in the order of the torch module's parameters."""
        d, shapes = self.hidden, dict[str, tuple[int, ...]]()
        bert = self.prefix
        for table, rows in (("word", self.vocabulary), ("position", self.positions), ("token_type", self.types)):
            shapes[f"{bert}embeddings.{table}_embeddings.weight"] = (rows, d)

        def norm(name: str) -> None:
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (d,), (d,)

        def linear(name: str, inputs: int, outputs: int) -> None:
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

        norm(f"{bert}embeddings.LayerNorm")
        for layer in range(self.layers):
            at = f"{bert}encoder.layer.{layer}"
            for part in ("query", "key", "value"):
                linear(f"{at}.attention.self.{part}", d, d)
            linear(f"{at}.attention.output.dense", d, d)
            norm(f"{at}.attention.output.LayerNorm")
            linear(f"{at}.intermediate.dense", d, self.intermediate)
            linear(f"{at}.output.dense", self.intermediate, d)
            norm(f"{at}.output.LayerNorm")
        linear(f"{bert}pooler.dense", d, d)
        if self.outputs:
            linear("classifier", d, self.outputs)
        return MappingProxyType(shapes)
