"""An invertible linear map as a value that acts along one axis of a tensor."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from torch import Tensor


class Transform(ABC):
    """An invertible linear map T of R^d.

    A linear layer from site i to site o becomes W' = T_o W T_i^-1. Along the rows of W acts T_o; along its columns acts T_i^-T, the
    `contragredient`, because (W T_i^-1)^T = T_i^-T W^T.
    """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """d."""

    @property
    def monomial(self) -> bool:
        """Whether T only permutes coordinates and flips their signs: what elementwise optimisers commute with."""
        return False

    @abstractmethod
    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        """T along one axis of length d; the result has the dtype, device and shape of `x`."""

    @abstractmethod
    def inverse(self) -> "Transform":
        """T^-1."""

    def contragredient(self) -> "Transform":
        """T^-T; T itself where T is orthogonal, as here."""
        return self


class Group(Transform):
    """A group of transforms from which a key is drawn.

    Attributes:
        orthogonal: whether its elements are: the largest kind that an optimiser's step commutes with, and the kindest to float errors.
    """

    orthogonal: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def draw(cls, seed: bytes, label: str, dimension: int, condition: float = 1.0) -> Self:
        """The element that belongs to seed and label.

        Args:
            condition: bound of the condition number; orthogonal groups have 1 and ignore it.
        """
