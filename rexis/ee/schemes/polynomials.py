"""Polynomials in the place of activations, since CKKS adds and multiplies and does nothing else."""

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

# Pre-activations of standardised rows under torch's default initialisation lie well within.
FIT_BOUND = 4.0
MAX_DEGREE = 7

_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "relu": torch.relu,
        "leaky_relu": nn.functional.leaky_relu,
        "gelu": nn.functional.gelu,
        "silu": nn.functional.silu,
        "tanh": torch.tanh,
    }
)


class Polynomial(nn.Module):
    """c_0 + c_1 x + c_2 x² + …, elementwise.

    Attributes:
        coefficients: from the constant up.
    """

    def __init__(self, coefficients: Sequence[float]) -> None:
        super().__init__()
        self.coefficients = tuple(coefficients)

    def forward(self, x: Tensor) -> Tensor:
        value = torch.zeros_like(x)
        for coefficient in reversed(self.coefficients):
            value = value * x + coefficient
        return value


def check_polynomial(coefficients: Sequence[float]) -> tuple[float, ...]:
    """The coefficients, if they are those of a polynomial of degree 2 to `MAX_DEGREE`.

    Raises:
        ValueError: another degree, or a coefficient that is not finite.
    """
    found = tuple(float(value) for value in coefficients)
    if not 3 <= len(found) <= MAX_DEGREE + 1 or not np.isfinite(found).all() or found[-1] == 0:
        raise ValueError(f"polynomial: expected 3 to {MAX_DEGREE + 1} finite coefficients, constant first, the last not 0, got {found}")
    return found


def fit(activation: str) -> tuple[float, ...]:
    """The polynomial of an activation on [-4, 4], least squares at Chebyshev nodes: of degree 2, or 3 for tanh, which has no even part.

    It is another function: ReLU is missed by up to a fifth of a unit there, and anything beyond grows away.
    """
    nodes = FIT_BOUND * np.cos(np.pi * (np.arange(512) + 0.5) / 512)
    values = _FUNCTIONS[activation](torch.from_numpy(nodes)).numpy()
    coefficients = np.polynomial.polynomial.polyfit(nodes, values, 3 if activation == "tanh" else 2)
    return tuple(float(value) for value in coefficients)


def with_polynomial(model: nn.Module, coefficients: Sequence[float]) -> nn.Sequential:
    """A plain f64 copy of a perceptron with the polynomial in the place of every activation: what CKKS computes, but for its error."""
    layers = (layer if isinstance(layer, nn.Linear) else Polynomial(coefficients) for layer in model.children())
    return copy.deepcopy(nn.Sequential(*layers)).double()
