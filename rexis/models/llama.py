"""Config of a Llama decoder (Touvron et al., 2023), as HuggingFace's `LlamaForCausalLM` builds it. Torch-free."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MAX_WIDTH = 1 << 16
MAX_LAYERS = 512
MAX_VOCABULARY = 1 << 20


@dataclass(frozen=True)
class LlamaConfig:
    """RMSNorm, rotary positions, grouped-query attention, SwiGLU; no biases.

    Attributes:
        vocabulary, hidden, layers, intermediate: sizes.
        heads, key_value_heads: query heads, and heads of keys and values, which divide them.
        head_width: of one head; even.
        positions: longest sequence.
        theta: base of the rotary frequencies, as its shortest decimal text.
        epsilon: of RMSNorm, as its shortest decimal text.
        tied: whether the output head is the embedding table. A keyed model is never tied.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    intermediate: int
    positions: int
    theta: str
    epsilon: str
    tied: bool = field(default=False, metadata={"optional": True})

    def __post_init__(self) -> None:
        bounds = {"vocabulary": MAX_VOCABULARY, "hidden": MAX_WIDTH, "layers": MAX_LAYERS, "heads": MAX_WIDTH, "key_value_heads": MAX_WIDTH}
        for name, bound in {**bounds, "head_width": MAX_WIDTH, "intermediate": MAX_WIDTH * 8, "positions": 1 << 24}.items():
            value = getattr(self, name)
            if type(value) is not int or not 0 < value <= bound:
                raise ValueError(f"{name}: expected 1 to {bound}, got {value!r:.40}")
        if self.heads % self.key_value_heads or self.hidden % self.heads or self.head_width % 2:
            raise ValueError(f"expected key_value_heads that divide {self.heads} heads, heads that divide hidden, and an even head_width")
        for name in ("theta", "epsilon"):
            text = getattr(self, name)
            if not isinstance(text, str) or not _is_canonical(text):
                raise ValueError(f"{name}: expected the shortest decimal text of a positive number, such as '1e-05', got {text!r:.40}")
        if type(self.tied) is not bool:
            raise ValueError(f"tied: expected yes or no, got {self.tied!r:.40}")

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, in the order of the torch module's parameters; a tied head is no tensor of its own."""
        d, shapes = self.hidden, dict[str, tuple[int, ...]]()
        queries, keys = self.heads * self.head_width, self.key_value_heads * self.head_width
        shapes["model.embed_tokens.weight"] = (self.vocabulary, d)
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            for part, rows in (("q", queries), ("k", keys), ("v", keys)):
                shapes[f"{at}.self_attn.{part}_proj.weight"] = (rows, d)
            shapes[f"{at}.self_attn.o_proj.weight"] = (d, queries)
            shapes[f"{at}.mlp.gate_proj.weight"] = (self.intermediate, d)
            shapes[f"{at}.mlp.up_proj.weight"] = (self.intermediate, d)
            shapes[f"{at}.mlp.down_proj.weight"] = (d, self.intermediate)
            shapes[f"{at}.input_layernorm.weight"] = (d,)
            shapes[f"{at}.post_attention_layernorm.weight"] = (d,)
        shapes["model.norm.weight"] = (d,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocabulary, d)
        return MappingProxyType(shapes)


def _is_canonical(text: str) -> bool:
    """Whether a text is the one way to write its positive number: two texts would be two digests of one model."""
    try:
        number = float(text)
    except ValueError:
        return False
    return 0 < number < math.inf and repr(number) == text
