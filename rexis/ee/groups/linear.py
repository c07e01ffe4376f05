"""Invertible matrices with a bounded condition number: inference only, since an optimiser's step does not commute with them."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from rexis.ee import derivation
from rexis.ee.groups.transform import Group


@dataclass(frozen=True, eq=False)
class Linear(Group):
    """T x = matrix x, with its inverse beside it.

    Attributes:
        matrix, inverse_matrix: f64 [d, d].
    """

    matrix: Tensor
    inverse_matrix: Tensor
    orthogonal: ClassVar[bool] = False

    @classmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        """U diag(k^(t - 1/2)) V^T with U, V Haar and t uniform, so that the condition number is at most k."""
        left = torch.from_numpy(derivation.orthogonal(seed, f"{label}/left", dimension))
        right = torch.from_numpy(derivation.orthogonal(seed, f"{label}/right", dimension))
        scales = condition ** (torch.from_numpy(derivation.uniform(seed, f"{label}/scales", dimension)) - 0.5)
        return cls((left * scales) @ right.T, (right / scales) @ left.T)

    @property
    def dimension(self) -> int:
        return len(self.matrix)

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        return (x.movedim(axis, -1) @ self.matrix.T.to(x)).movedim(-1, axis)

    def inverse(self) -> "Linear":
        return Linear(self.inverse_matrix, self.matrix)

    def contragredient(self) -> "Linear":
        return Linear(self.inverse_matrix.T, self.matrix.T)
