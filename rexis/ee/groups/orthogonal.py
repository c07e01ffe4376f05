"""Orthogonal matrices: Haar over all of them, over those that keep the mean, and a fast structured kind for large widths."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from rexis.ee import derivation
from rexis.ee.groups.transform import Group

# Below, a Haar matrix takes seconds at most; above, its QR takes minutes and its memory hundreds of megabytes.
FAST_FROM = 2048
_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Orthogonal(Group):
    """T x = matrix x.

    Attributes:
        matrix: f64 [d, d], orthogonal.
    """

    matrix: Tensor

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        return cls(torch.from_numpy(derivation.orthogonal(seed, label, dimension)))

    @property
    def dimension(self) -> int:
        return len(self.matrix)

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        return (x.movedim(axis, -1) @ self.matrix.T.to(x)).movedim(-1, axis)

    def inverse(self) -> Self:
        return type(self)(self.matrix.T)


class MeanPreserving(Orthogonal):
    """An orthogonal matrix with T 1 = 1, so that LayerNorm without γ and β commutes with it: Haar on the complement of the ones.

    With H the Householder reflection that takes e_1 to 1/√d, T = H diag(1, Q) H and Q Haar of size d - 1.
    """

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        matrix = np.eye(dimension)
        if dimension > 1:
            matrix[1:, 1:] = derivation.orthogonal(seed, label, dimension - 1)
            axis = np.full(dimension, -1 / np.sqrt(dimension))
            axis[0] += 1.0
            reflection = np.eye(dimension) - 2 * np.outer(axis, axis) / (axis @ axis)
            matrix = reflection @ matrix @ reflection
        return cls(torch.from_numpy(matrix))


@dataclass(frozen=True, eq=False)
class FastOrthogonal(Group):
    """A product of rounds of signs, a permutation and normalised Hadamard transforms of blocks, in O(d log d).

    A round is x → B P S x: S flips signs, P permutes, B transforms blocks of the largest power of two that fits, at the start and at the
    end of the vector, so that every coordinate is mixed. The key space is finite, at most (2^d d!)^3 elements against a continuum, and
    its elements are far from Haar in their higher moments; what keeps a matrix secret here is the number of its products, no theorem.

    Attributes:
        indices: int64 [rounds, d]; signs: f64 [rounds, d].
        inverted: whether this is the inverse of the product.
    """

    indices: Tensor
    signs: Tensor
    inverted: bool = False

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        indices = np.stack([derivation.permutation(seed, f"{label}/{number}/indices", dimension) for number in range(_ROUNDS)])
        signs = np.stack([derivation.signs(seed, f"{label}/{number}/signs", dimension) for number in range(_ROUNDS)])
        return cls(torch.from_numpy(indices), torch.from_numpy(signs))

    @property
    def dimension(self) -> int:
        return self.indices.shape[1]

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        y = x.movedim(axis, -1)
        rounds = list(zip(self.indices.to(x.device), self.signs.to(x), strict=True))
        if self.inverted:
            for indices, signs in reversed(rounds):
                y = _blocks(y, inverted=True)[..., torch.argsort(indices)] * signs
        else:
            for indices, signs in rounds:
                y = _blocks((y * signs)[..., indices], inverted=False)
        return y.movedim(-1, axis)

    def inverse(self) -> "FastOrthogonal":
        return FastOrthogonal(self.indices, self.signs, not self.inverted)


def _blocks(x: Tensor, *, inverted: bool) -> Tensor:
    """Hadamard transforms of the first and then the last 2^k entries, k as large as fits; in the other order if inverted."""
    dimension = x.shape[-1]
    size = 1 << (dimension.bit_length() - 1)
    starts = [0] if size == dimension else [0, dimension - size]
    for start in reversed(starts) if inverted else starts:
        x = torch.cat([x[..., :start], _hadamard(x[..., start : start + size]), x[..., start + size :]], dim=-1)
    return x


def _hadamard(x: Tensor) -> Tensor:
    """The normalised Walsh-Hadamard transform along the last axis, its own inverse."""
    size, shape = x.shape[-1], x.shape
    width = 1
    while width < size:
        pairs = x.reshape(*shape[:-1], size // (2 * width), 2, width)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([first + second, first - second], dim=-2).reshape(shape)
        width *= 2
    return x / float(np.sqrt(size))
