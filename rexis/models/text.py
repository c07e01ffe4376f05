"""Configs of text classifiers on a frozen BERT encoder that every site has already. Torch-free.

The encoder is named by the digest of its weights and tokenizer (`rexis.training.text_base`); it is no part of the model, and nothing of it
travels. `bert-head` trains a linear layer on the encoder's outputs, which a site computes once. `bert-lora` trains low-rank additions to
the encoder's attention with it, so that each step passes through the encoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from rexis.models.bert import MAX_LAYERS, MAX_WIDTH, check_count
from rexis.models.mlp import check_parameters

# Mean over the tokens, scaled to length 1 (Reimers & Gurevych, EMNLP 2019), or the encoder's own tanh layer over the first token.
Pooling = Literal["mean", "pooler"]
MAX_CLASSES = 1 << 12
MAX_RANK, MAX_ALPHA = 256, 1 << 12
# Of a block's attention, from its input or, the last, from what it attended to; all of them square.
PROJECTIONS = ("query", "key", "value", "output")


@dataclass(frozen=True)
class BertHeadConfig:
    """A linear classifier on the pooled output of a frozen encoder.

    Attributes:
        base: digest of the encoder and its tokenizer, 64 hexadecimal digits behind 0x.
        hidden: width of the encoder's output.
        outputs: logits.
        pooling: how the outputs of a text's tokens become one vector.

    Raises:
        ValueError: a value out of bounds.
    """

    base: str
    hidden: int
    outputs: int
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        check_base(self.base)
        check_count("hidden", self.hidden, MAX_WIDTH)
        check_count("outputs", self.outputs, MAX_CLASSES)
        check_pooling(self.pooling)
        check_parameters(self.shapes)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of the layer's weight and bias."""
        return MappingProxyType({"0.weight": (self.outputs, self.hidden), "0.bias": (self.outputs,)})


@dataclass(frozen=True)
class BertLoraConfig:
    """Low-rank additions to a frozen encoder's attention (Hu et al., ICLR 2022), W + alpha/rank B A, and a classifier on its pooled output.

    A is drawn from the seed of the first model and B begins at zero. A federation averages A and B each by itself, and the product of means
    is not the mean of products, mean(B) mean(A) ≠ mean(B A): the rounds are those of FedAvg on the factors and not on the weights (Sun et
    al., FFA-LoRA, ICLR 2024; Singhal et al., FedEx-LoRA, ACL 2025, who send the difference as well). With `freeze_a` A stays what the first
    model has, only B and the classifier are trained and sent, and the mean is exact.

    Attributes:
        base, hidden, outputs, pooling: as of `BertHeadConfig`.
        layers: blocks of the encoder; each has additions.
        projections: of each block, some of `PROJECTIONS` in their order.
        rank, alpha: of each addition.
        freeze_a: see above.

    Raises:
        ValueError: a value out of bounds.
    """

    base: str
    hidden: int
    layers: int
    outputs: int
    projections: tuple[str, ...]
    rank: int
    alpha: int
    pooling: Pooling = "mean"
    freeze_a: bool = field(default=False, metadata={"optional": True})

    def __post_init__(self) -> None:
        check_base(self.base)
        check_pooling(self.pooling)
        given = self.projections
        if not isinstance(given, list | tuple) or not given or list(given) != [name for name in PROJECTIONS if name in given]:
            raise ValueError(f"projections: expected some of {', '.join(PROJECTIONS)}, in this order")
        object.__setattr__(self, "projections", tuple(given))
        for name, bound in (
            ("hidden", MAX_WIDTH),
            ("layers", MAX_LAYERS),
            ("outputs", MAX_CLASSES),
            ("rank", MAX_RANK),
            ("alpha", MAX_ALPHA),
        ):
            check_count(name, getattr(self, name), bound)
        if type(self.freeze_a) is not bool:
            raise ValueError(f"freeze_a: expected true or false, got {self.freeze_a!r:.40}")
        if self.rank > self.hidden:
            raise ValueError(f"rank: expected at most the width {self.hidden}, got {self.rank}")
        check_parameters(self.shapes)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every factor, block by block, and of the classifier."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            for name in self.projections:
                shapes[f"layer.{layer}.{name}.A"] = (self.rank, self.hidden)
                shapes[f"layer.{layer}.{name}.B"] = (self.hidden, self.rank)
        return MappingProxyType({**shapes, "classifier.weight": (self.outputs, self.hidden), "classifier.bias": (self.outputs,)})

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the tensors that stay what the first model has."""
        return frozenset(name for name in self.shapes if self.freeze_a and name.endswith(".A"))


def check_base(value: Any) -> None:
    """Return if this is 32 bytes in lower-case hexadecimal behind 0x.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or len(value) != 66 or value[:2] != "0x" or not set(value[2:]) <= set("0123456789abcdef"):
        raise ValueError(f"base: expected 0x and 64 lower-case hexadecimal digits, got {value!r:.70}")


def check_pooling(value: Any) -> None:
    """Return if this is a way of pooling.

    Raises:
        ValueError: it is not.
    """
    if value not in get_args(Pooling):
        raise ValueError(f"pooling: expected {' or '.join(get_args(Pooling))}, got {value!r:.40}")
