"""Gaussian and Laplace noise from the operating system's randomness.

Floating-point noise has gaps that can betray the exact value in its low bits (Mironov, CCS 2012), so every result is rounded to a
multiple of a power of two near 2^-20 of the noise scale. That closes the known attack and is not a proof.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.dp.randomness import standard_normal, uniform

_GRID_BITS = 20


@dataclass(frozen=True)
class GaussianMechanism:
    """value + N(0, (noise_multiplier · sensitivity)²) in every entry.

    Attributes:
        sensitivity: largest L2 change of the value when one unit of privacy (a patient) is added or removed.
        noise_multiplier: sigma / sensitivity; what `accountant.GaussianEvent` takes.
    """

    sensitivity: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        _check_positive(sensitivity=self.sensitivity, noise_multiplier=self.noise_multiplier)

    @property
    def scale(self) -> float:
        """Standard deviation sigma of the noise."""
        return self.sensitivity * self.noise_multiplier

    def release(self, value: ArrayLike) -> NDArray[np.float64]:
        """A noisy copy of a number or array; fresh noise at every call."""
        exact = _finite(value)
        return _on_grid(exact + self.scale * standard_normal(exact.size).reshape(exact.shape), self.scale)


@dataclass(frozen=True)
class LaplaceMechanism:
    """value + Laplace noise of scale sensitivity / epsilon in every entry: ε-DP on its own.

    Attributes:
        sensitivity: largest L1 change of the value when one unit of privacy is added or removed.
        epsilon: of one release.
    """

    sensitivity: float
    epsilon: float

    def __post_init__(self) -> None:
        _check_positive(sensitivity=self.sensitivity, epsilon=self.epsilon)

    @property
    def scale(self) -> float:
        """Scale b of the noise; its standard deviation is b √2."""
        return self.sensitivity / self.epsilon

    def release(self, value: ArrayLike) -> NDArray[np.float64]:
        """A noisy copy of a number or array; fresh noise at every call."""
        exact = _finite(value)
        # The difference of two exponentials is Laplace.
        exponential = -np.log(uniform(2 * exact.size)).reshape(2, *exact.shape)
        return _on_grid(exact + self.scale * (exponential[0] - exponential[1]), self.scale)


def _on_grid(values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    step = 2.0 ** (math.ceil(math.log2(scale)) - _GRID_BITS)
    return np.rint(values / step) * step


def _finite(value: ArrayLike) -> NDArray[np.float64]:
    exact = np.asarray(value, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("expected finite values to add noise to, got NaN or infinity")
    return exact


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value}")
