"""Permutations, and permutations with signs or scales: what elementwise functions commute with."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from rexis.ee import derivation
from rexis.ee.groups.transform import Group


@dataclass(frozen=True, eq=False)
class Permutation(Group):
    """(T x)_i = x_indices[i].

    Attributes:
        indices: int64 [d], each of 0..d-1 once.
    """

    indices: Tensor

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        return cls(torch.from_numpy(derivation.permutation(seed, label, dimension)))

    @property
    def dimension(self) -> int:
        return len(self.indices)

    @property
    def monomial(self) -> bool:
        return True

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        return x.index_select(axis, self.indices.to(x.device))

    def inverse(self) -> "Permutation":
        return Permutation(torch.argsort(self.indices))


@dataclass(frozen=True, eq=False)
class SignedPermutation(Group):
    """(T x)_i = signs[i] x_indices[i]: commutes with odd activations.

    Attributes:
        indices: int64 [d], each of 0..d-1 once.
        signs: f64 [d] of +1 and -1.
    """

    indices: Tensor
    signs: Tensor

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        indices = torch.from_numpy(derivation.permutation(seed, f"{label}/indices", dimension))
        return cls(indices, torch.from_numpy(derivation.signs(seed, f"{label}/signs", dimension)))

    @classmethod
    def following(cls, seed: bytes, label: str, leader: Permutation) -> Self:
        """Signs of its own on a permutation that another site already has."""
        return cls(leader.indices, torch.from_numpy(derivation.signs(seed, f"{label}/signs", leader.dimension)))

    @property
    def dimension(self) -> int:
        return len(self.indices)

    @property
    def monomial(self) -> bool:
        return True

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        signed = x.movedim(axis, -1)[..., self.indices.to(x.device)] * self.signs.to(x)
        return signed.movedim(-1, axis)

    def inverse(self) -> "SignedPermutation":
        order = torch.argsort(self.indices)
        return SignedPermutation(order, self.signs[order])


@dataclass(frozen=True, eq=False)
class ScaledPermutation(Group):
    """(T x)_i = scales[i] x_indices[i] with scales > 0: commutes with ReLU and LeakyReLU.

    Attributes:
        indices: int64 [d], each of 0..d-1 once.
        scales: f64 [d], of ratio at most the condition.
    """

    indices: Tensor
    scales: Tensor
    orthogonal: ClassVar[bool] = False

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        return cls.following(seed, label, Permutation.draw(seed, f"{label}/indices", dimension), condition)

    @classmethod
    def following(cls, seed: bytes, label: str, leader: Permutation, condition: float = 1.0) -> Self:
        """Scales of its own on a permutation that another site already has."""
        exponents = torch.from_numpy(derivation.uniform(seed, f"{label}/scales", leader.dimension)) - 0.5
        return cls(leader.indices, condition**exponents)

    @property
    def dimension(self) -> int:
        return len(self.indices)

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        scaled = x.movedim(axis, -1)[..., self.indices.to(x.device)] * self.scales.to(x)
        return scaled.movedim(-1, axis)

    def inverse(self) -> Self:
        order = torch.argsort(self.indices)
        return type(self)(order, 1 / self.scales[order])

    def contragredient(self) -> Self:
        return type(self)(self.indices, 1 / self.scales)


class MonomialScaling(ScaledPermutation):
    """(T x)_i = scales[i] x_indices[i] with scales ≠ 0 of either sign: what the linear half of a gated unit admits."""

    @classmethod
    def following(cls, seed: bytes, label: str, leader: Permutation, condition: float = 1.0) -> Self:
        """Scales and signs of its own on a permutation that another site already has."""
        signs = torch.from_numpy(derivation.signs(seed, f"{label}/signs", leader.dimension))
        return cls(leader.indices, signs * ScaledPermutation.following(seed, label, leader, condition).scales)
