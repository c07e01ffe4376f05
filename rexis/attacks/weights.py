"""The weights of a transformer as an attacker reads them: what one key, that of the residual stream, acts on, and how.

The names of tensors and the architecture are in the clear (`specs/equivariant-encryption.md` 3), so plain and keyed tensors are told
apart by name. Every head, FFN and vocabulary has a key of its own on the other axis; the products and Gram matrices below are free of
those keys, whatever they are: N' = Q N Qᵗ for the one unknown Q.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

# Parts of one block, by what stands between its place and `.weight` (BERT's names, Llama's names).
_BLOCK_PARTS = {
    "query": ("attention.self.query", "self_attn.q_proj"),
    "key": ("attention.self.key", "self_attn.k_proj"),
    "value": ("attention.self.value", "self_attn.v_proj"),
    "attention_out": ("attention.output.dense", "self_attn.o_proj"),
    "up": ("intermediate.dense", "mlp.gate_proj"),
    "down": ("output.dense",),
    "attention_gain": ("input_layernorm",),
    "up_gain": ("post_attention_layernorm",),
}
_PARTS = {name: part for part, names in _BLOCK_PARTS.items() for name in names}
_BLOCK_NAME = re.compile(r"(?:^|\.)layers?\.(\d+)\.(.+)\.weight$")
_WORDS = ("embeddings.word_embeddings.weight", "embed_tokens.weight")
_ORDERED = ("embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight")


@dataclass(frozen=True, eq=False)
class ResidualView:
    """What the key Q of a residual stream of width d does to a model's tensors.

    Attributes:
        conjugated: f64 [d, d] each; N' = Q N Qᵗ.
        tables: f64 [r, d] each; R' = Π R Qᵗ with an unknown permutation Π: word embeddings first, then rows of FFNs.
        ordered: f64 [r, d] each; R' = R Qᵗ, every row in its place.
    """

    conjugated: Mapping[str, Matrix]
    tables: Mapping[str, Matrix]
    ordered: Mapping[str, Matrix]


@dataclass(eq=False)
class _Reader:
    """Collects the parts of a view."""

    conjugated: dict[str, Matrix] = field(default_factory=dict)
    tables: dict[str, Matrix] = field(default_factory=dict)
    ordered: dict[str, Matrix] = field(default_factory=dict)

    def product(self, name: str, matrix: Matrix) -> None:
        self.conjugated[f"{name}, symmetric part"] = matrix + matrix.T
        self.conjugated[f"{name}, Gram of columns"] = matrix.T @ matrix
        self.conjugated[f"{name}, Gram of rows"] = matrix @ matrix.T

    def table(self, name: str, matrix: Matrix) -> None:
        self.tables[name] = matrix
        self.conjugated[name] = matrix.T @ matrix


def residual_view(state: Mapping[str, ArrayLike], *, head_width: int | None = None) -> ResidualView:
    """Read a BERT or Llama state.

    Args:
        state: name → tensor; HuggingFace names, with or without a prefix.
        head_width: width of an attention head; needed where several query heads share a key head.

    Raises:
        ValueError: no word embeddings among the names, or shared key heads without `head_width`.
    """
    arrays = {name: np.asarray(tensor) for name, tensor in state.items() if name.endswith(".weight")}
    reader = _Reader()
    words = next((array for name, array in arrays.items() if name.endswith(_WORDS)), None)
    if words is None:
        raise ValueError(f"expected word embeddings under a name that ends in {' or '.join(_WORDS)}")
    reader.table("word embeddings", words.astype(np.float64))
    for name, array in arrays.items():
        if name.endswith(_ORDERED):
            reader.ordered[name.rsplit(".", 2)[-2]] = array.astype(np.float64)
    for block, parts in sorted(_blocks(arrays).items()):
        _read_block(reader, f"block {block}", parts, head_width)
    return ResidualView(reader.conjugated, reader.tables, reader.ordered)


def _blocks(arrays: Mapping[str, NDArray[np.generic]]) -> dict[int, dict[str, Matrix]]:
    blocks: dict[int, dict[str, Matrix]] = {}
    for name, array in arrays.items():
        found = _BLOCK_NAME.search(name)
        if found and found[2] in _PARTS:
            blocks.setdefault(int(found[1]), {})[_PARTS[found[2]]] = array.astype(np.float64)
    return blocks


def _read_block(reader: _Reader, name: str, parts: Mapping[str, Matrix], head_width: int | None) -> None:
    # RMSNorm gains are folded into the layer that reads them before keying; in a keyed upload they are 1.
    gain, up_gain = parts.get("attention_gain", 1.0), parts.get("up_gain", 1.0)
    if {"query", "key"} <= parts.keys():
        query = parts["query"] * gain
        reader.product(f"{name}: query and key", query.T @ shared_heads(parts["key"] * gain, len(query), head_width))
    if {"value", "attention_out"} <= parts.keys():
        out = parts["attention_out"]
        reader.product(f"{name}: value and output", out @ shared_heads(parts["value"] * gain, out.shape[1], head_width))
    if "up" in parts:
        reader.table(f"{name}: up", parts["up"] * up_gain)
    if "down" in parts:
        reader.conjugated[f"{name}: down"] = parts["down"] @ parts["down"].T


def shared_heads(weight: Matrix, rows: int, head_width: int | None) -> Matrix:
    """Key or value weights with each shared head repeated for every query head that reads it, f64 [rows, d].

    Raises:
        ValueError: heads are shared, and `head_width` is missing or does not divide them.
    """
    if len(weight) == rows:
        return weight
    if head_width is None or len(weight) % head_width or rows % len(weight):
        raise ValueError(f"{rows} query rows share {len(weight)} key rows: expected the width of a head, got {head_width}")
    heads = weight.reshape(-1, head_width, weight.shape[1])
    return np.repeat(heads, rows // len(weight), axis=0).reshape(rows, weight.shape[1])
