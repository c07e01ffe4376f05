"""Elements of the key groups as values: permutations, signed permutations, orthogonal matrices.

Each group contains the one before. All of them are orthogonal, T^-1 = T^t, which `transforms` relies on: multiplying rows by T^-1 from the
right is applying T along the row.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rexis.ee import derivation


class Transform(ABC):
    """An orthogonal map T of R^d, applied to one axis of a tensor."""

    @classmethod
    @abstractmethod
    def draw(cls, seed: bytes, label: str, dimension: int) -> Self:
        """The element that belongs to seed and label, uniform (Haar) over the group."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """d."""

    @abstractmethod
    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        """T along one axis of length d; the result has the dtype, device and shape of `x`."""

    @abstractmethod
    def inverse(self) -> Self:
        """T^-1, of the same group."""


@dataclass(frozen=True, eq=False)
class Permutation(Transform):
    """(T x)_i = x_indices[i].

    Attributes:
        indices: int64 [d], each of 0..d-1 once.
    """

    indices: Tensor

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int) -> Self:
        return cls(torch.from_numpy(derivation.permutation(seed, label, dimension)))

    @property
    def dimension(self) -> int:
        return len(self.indices)

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        return x.index_select(axis, self.indices.to(x.device))

    def inverse(self) -> Self:
        return type(self)(torch.argsort(self.indices))


@dataclass(frozen=True, eq=False)
class SignedPermutation(Transform):
    """(T x)_i = signs[i] x_indices[i]: commutes with odd activations.

    Attributes:
        indices: int64 [d], each of 0..d-1 once.
        signs: f64 [d] of +1 and -1.
    """

    indices: Tensor
    signs: Tensor

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int) -> Self:
        indices = torch.from_numpy(derivation.permutation(seed, f"{label}/indices", dimension))
        return cls(indices, torch.from_numpy(derivation.signs(seed, f"{label}/signs", dimension)))

    @property
    def dimension(self) -> int:
        return len(self.indices)

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        signed = x.movedim(axis, -1)[..., self.indices.to(x.device)] * self.signs.to(x)
        return signed.movedim(-1, axis)

    def inverse(self) -> Self:
        order = torch.argsort(self.indices)
        return type(self)(order, self.signs[order])


@dataclass(frozen=True, eq=False)
class Orthogonal(Transform):
    """T x = matrix x.

    Attributes:
        matrix: f64 [d, d], orthogonal.
    """

    matrix: Tensor

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int) -> Self:
        return cls(torch.from_numpy(derivation.orthogonal(seed, label, dimension)))

    @property
    def dimension(self) -> int:
        return len(self.matrix)

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        return (x.movedim(axis, -1) @ self.matrix.T.to(x)).movedim(-1, axis)

    def inverse(self) -> Self:
        return type(self)(self.matrix.T)


# From the smallest to the largest.
GROUPS: tuple[type[Transform], ...] = (Permutation, SignedPermutation, Orthogonal)
