"""One complex number per rotary plane: what commutes with rotary positions (Su et al., RoFormer, 2021).

HuggingFace rotates the planes (j, j + d/2) of a head. A number z = a + bi acts there as [[a, -b], [b, a]]; planes have different
frequencies, so none may take another's place.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from rexis.ee import derivation
from rexis.ee.groups.transform import Group


@dataclass(frozen=True, eq=False)
class Planes(Group):
    """Multiplication of plane j by real[j] + imaginary[j] i.

    Attributes:
        real, imaginary: f64 [d/2].
    """

    real: Tensor
    imaginary: Tensor

    @property
    def dimension(self) -> int:
        return 2 * len(self.real)

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        y = x.movedim(axis, -1)
        real, imaginary = self.real.to(x), self.imaginary.to(x)
        first, second = y[..., : len(real)], y[..., len(real) :]
        return torch.cat([real * first - imaginary * second, imaginary * first + real * second], dim=-1).movedim(-1, axis)

    def inverse(self) -> Self:
        squared = self.real.square() + self.imaginary.square()
        return type(self)(self.real / squared, -self.imaginary / squared)

    def contragredient(self) -> Self:
        squared = self.real.square() + self.imaginary.square()
        return type(self)(self.real / squared, self.imaginary / squared)

    @classmethod
    def _angles(cls, seed: bytes, label: str, dimension: int) -> Tensor:
        if dimension % 2:
            raise ValueError(f"expected an even width for rotary planes, got {dimension}")
        return 2 * torch.pi * torch.from_numpy(derivation.uniform(seed, f"{label}/angles", dimension // 2))


class QuarterTurns(Planes):
    """z among 1, i, -1, -i: a signed permutation."""

    @property
    def monomial(self) -> bool:
        return True

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        turns = torch.floor(cls._angles(seed, label, dimension) / (torch.pi / 2)).long() % 4
        values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)[turns]
        return cls(values[:, 0], values[:, 1])


class PlaneRotations(Planes):
    """|z| = 1: orthogonal."""

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        angles = cls._angles(seed, label, dimension)
        return cls(angles.cos(), angles.sin())


class PlaneScalings(Planes):
    """Any z with |z| in [1/√k, √k] for a condition number k."""

    orthogonal: ClassVar[bool] = False

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        angles = cls._angles(seed, label, dimension)
        sizes = condition ** (torch.from_numpy(derivation.uniform(seed, f"{label}/sizes", dimension // 2)) - 0.5)
        return cls(sizes * angles.cos(), sizes * angles.sin())
