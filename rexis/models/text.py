"""Configs of text classifiers on a frozen BERT encoder that every site has already. Torch-free.

The encoder is named by the digest of its weights and tokenizer (`rexis.training.text_base`); it is no part of the model, and nothing of it
travels. `bert-head` trains a linear layer on the encoder's outputs, which a site computes once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from rexis.models.bert import MAX_WIDTH, check_count

# Mean over the tokens, scaled to length 1 (Reimers & Gurevych, EMNLP 2019), or the encoder's own tanh layer over the first token.
Pooling = Literal["mean", "pooler"]
MAX_CLASSES = 1 << 12


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

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of the layer's weight and bias."""
        return MappingProxyType({"0.weight": (self.outputs, self.hidden), "0.bias": (self.outputs,)})


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
