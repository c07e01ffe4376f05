"""Small transformers with weights shaped like trained ones, and their keyed copies by the formulas of the specification (2b, 2c).

Written from the formulas, not with `rexis.ee`, so that an attack is not tested against the code that it judges, and so that keys can be
tried that the product refuses.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = dict[str, Array]

WIDTH, HEADS, FFN, BLOCKS, VOCABULARY, POSITIONS = 64, 4, 192, 3, 1200, 48
HEAD = WIDTH // HEADS


@dataclass(frozen=True, eq=False)
class KeyedState:
    """An upload and the key that made it: Q [d, d], the token of each keyed row, and per block the order of heads and their keys."""

    state: State
    residual: Array
    tokens: NDArray[np.int64]
    head_orders: list[NDArray[np.int64]]
    head_keys: list[Array]


def orthogonal(generator: Generator, size: int) -> Array:
    return np.linalg.qr(generator.normal(size=(size, size)))[0]


def permutation_matrix(generator: Generator, size: int) -> Array:
    return np.eye(size)[generator.permutation(size)]


def mean_preserving(generator: Generator, size: int) -> Array:
    """Orthogonal with Q 1 = 1, which a LayerNorm demands."""
    axis = np.full(size, size**-0.5) - np.eye(size)[0]
    reflection = np.eye(size) - 2 * np.outer(axis, axis) / (axis @ axis)
    block = np.eye(size)
    block[1:, 1:] = orthogonal(generator, size - 1)
    return reflection @ block @ reflection


def bert(generator: Generator) -> State:
    """Trained matrices have decaying spectra, and trained gains differ."""
    state = {
        "embeddings.word_embeddings.weight": _trained(generator, VOCABULARY, WIDTH) * generator.lognormal(0, 0.2, (VOCABULARY, 1)),
        "embeddings.position_embeddings.weight": _trained(generator, POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": _trained(generator, 2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for block in range(BLOCKS):
        name = f"encoder.layer.{block}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            state[f"{name}{part}.weight"] = _trained(generator, WIDTH, WIDTH)
        state[f"{name}intermediate.dense.weight"] = _trained(generator, FFN, WIDTH)
        state[f"{name}output.dense.weight"] = _trained(generator, WIDTH, FFN)
        norms += [f"{name}attention.output.LayerNorm", f"{name}output.LayerNorm"]
    for norm in norms:
        state[f"{norm}.weight"] = generator.lognormal(0, 0.3, WIDTH)
        state[f"{norm}.bias"] = generator.normal(0, 0.1, WIDTH)
    return state


def drifted(state: State, drift: float, generator: Generator) -> State:
    """Weights after `drift` standard deviations of independent noise on each tensor."""
    return {name: tensor + drift * tensor.std() * generator.normal(size=tensor.shape) for name, tensor in state.items()}


def keyed_bert(state: State, residual: Array, generator: Generator) -> KeyedState:
    """Table permuted, residual stream keyed by `residual`, per-head orthogonal keys, heads and FFN units permuted."""
    tokens = generator.permutation(VOCABULARY)
    keyed = {
        "embeddings.word_embeddings.weight": state["embeddings.word_embeddings.weight"][tokens] @ residual.T,
        "embeddings.position_embeddings.weight": state["embeddings.position_embeddings.weight"] @ residual.T,
        "embeddings.token_type_embeddings.weight": state["embeddings.token_type_embeddings.weight"] @ residual.T,
    }
    orders, keys = [], []
    for block in range(BLOCKS):
        name = f"encoder.layer.{block}."
        order = generator.permutation(HEADS)
        reading = np.stack([orthogonal(generator, HEAD) for _ in range(HEADS)])
        values = np.stack([orthogonal(generator, HEAD) for _ in range(HEADS)])
        for part, blocks in (("query", np.linalg.inv(reading).transpose(0, 2, 1)), ("key", reading), ("value", values)):
            weight = state[f"{name}attention.self.{part}.weight"].reshape(HEADS, HEAD, WIDTH)
            keyed[f"{name}attention.self.{part}.weight"] = (blocks @ weight[order]).reshape(WIDTH, WIDTH) @ residual.T
        out = state[f"{name}attention.output.dense.weight"].reshape(WIDTH, HEADS, HEAD).transpose(1, 0, 2)
        out = (out[order] @ np.linalg.inv(values)).transpose(1, 0, 2).reshape(WIDTH, WIDTH)
        keyed[f"{name}attention.output.dense.weight"] = residual @ out
        units = generator.permutation(FFN)
        keyed[f"{name}intermediate.dense.weight"] = state[f"{name}intermediate.dense.weight"][units] @ residual.T
        keyed[f"{name}output.dense.weight"] = residual @ state[f"{name}output.dense.weight"][:, units]
        orders.append(order)
        keys.append(reading)
    for name in state:
        if "LayerNorm" in name:
            keyed[name] = residual @ state[name]
    return KeyedState(keyed, residual, tokens, orders, keys)


def _trained(generator: Generator, rows: int, columns: int) -> Array:
    left, _, right = np.linalg.svd(generator.normal(size=(rows, columns)), full_matrices=False)
    return (left * np.arange(1, min(rows, columns) + 1) ** -0.5) @ right
