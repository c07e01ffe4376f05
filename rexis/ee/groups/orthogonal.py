"""Orthogonal matrices: Haar over all of them, over those that keep the mean, and a fast structured kind for large widths."""

import math
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
_RADIX = 64


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
    """A product of three rounds of signs, a permutation and normalised Hadamard transforms, in O(d log d) time and O(d) memory.

    A round is x → H P S x where d is a power of two. Else H transforms the first 2^k coordinates, 2^k the largest that fits, signs flip,
    and H transforms the last 2^k: without the signs between them, two transforms that overlap nearly undo each other.

    The key space is finite: at most (2^d d!)^3 elements, 2^142,000 at d = 4096, or (2^2d d!)^3 if d is no power of two, against the
    d(d-1)/2 dimensions of all orthogonal matrices. That is more than the seed has, but so few that by counting two known pairs determine
    the element, where a Haar matrix needs d - 1. No way to find it from two is known to us, and d + 1 give away either kind. The entries
    have the moments of a Haar matrix up to the fourth; higher ones are not claimed.

    Source: rounds of signs and Hadamard transforms, Yu et al., Orthogonal Random Features (NeurIPS 2016), section 5.

    Attributes:
        indices: int64 [rounds, d]; signs: f64 [rounds, blocks, d], blocks being 1 where d is a power of two and else 2.
        inverted: whether this is the inverse of the product.
    """

    indices: Tensor
    signs: Tensor
    inverted: bool = False

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        blocks = 1 if dimension.bit_count() == 1 else 2
        indices = np.stack([derivation.permutation(seed, f"{label}/{number}/indices", dimension) for number in range(_ROUNDS)])
        signs = np.stack([derivation.signs(seed, f"{label}/{number}/signs", blocks * dimension) for number in range(_ROUNDS)])
        return cls(torch.from_numpy(indices), torch.from_numpy(signs.reshape(_ROUNDS, blocks, dimension)))

    @property
    def dimension(self) -> int:
        return self.indices.shape[1]

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        y = x.movedim(axis, -1)
        size = 1 << (self.dimension.bit_length() - 1)
        for order, signs in list(zip(self.indices.to(x.device), self.signs.to(x), strict=True))[:: -1 if self.inverted else 1]:
            if self.inverted:
                for flips in signs[1:]:
                    y = _transformed(y, self.dimension - size, size) * flips
                y = _transformed(y, 0, size)[..., torch.argsort(order)] * signs[0]
            else:
                y = _transformed((y * signs[0])[..., order], 0, size)
                for flips in signs[1:]:
                    y = _transformed(y * flips, self.dimension - size, size)
        return y.movedim(-1, axis)

    def inverse(self) -> "FastOrthogonal":
        return FastOrthogonal(self.indices, self.signs, not self.inverted)


def _transformed(x: Tensor, start: int, size: int) -> Tensor:
    if size == x.shape[-1]:
        return _hadamard(x)
    return torch.cat([x[..., :start], _hadamard(x[..., start : start + size]), x[..., start + size :]], dim=-1)


def _hadamard(x: Tensor) -> Tensor:
    """The normalised Walsh-Hadamard transform along the last axis, its own inverse; in steps of six bits, each a product with 64 x 64."""
    size, shape = x.shape[-1], x.shape
    after = 1
    while after < size:
        width = min(_RADIX, size // after)
        step = torch.ones(1, 1, dtype=x.dtype, device=x.device)
        while len(step) < width:
            step = torch.cat([torch.cat([step, step], dim=1), torch.cat([step, -step], dim=1)])
        x = x.reshape(-1, width) @ step if after == 1 else step @ x.reshape(-1, width, after)
        after *= width
    return x.reshape(shape) / math.sqrt(size)
