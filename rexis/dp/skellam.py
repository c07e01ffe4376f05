"""Skellam noise: integers whose sums over any set of sites are Skellam again, so that each site adds its share before it masks.

The difference of two independent Poisson numbers of mean μ/2 has mean 0 and variance μ. Source: Agarwal, Kairouz and Liu, The Skellam
Mechanism for Differentially Private Federated Learning, NeurIPS 2021 (arXiv 2110.04995).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rexis.dp.randomness import words

# Largest standard deviation that is drawn: the table below has ten times as many entries.
MAX_DEVIATION = 1 << 14
_BLOCK = 1 << 16


def renyi_divergence(order: int, l1: float, l2: float, variance: float) -> float:
    """Bound on the Rényi divergence of Skellam noise from itself, shifted by an integer vector of norms l1 and l2.

        α l2² / 2μ + min( ((2α - 1) l2² + 6 l1) / 4μ², 3 l1 / 2μ )

    Agarwal et al. 2021, section 3: α l2²/2μ is what Gaussian noise of variance μ has, the rest is the price of integers. It holds for
    noise that is independent in each coordinate, with variance μ.

    Args:
        order: α, an integer above 1.
        l1, l2: norms of the shift, in integer steps.
        variance: μ of the noise in each coordinate, in squared steps.
    """
    if order < 2 or not (l1 >= 0 and l2 >= 0 and variance > 0):
        raise ValueError(f"expected an order of at least 2, norms and a positive variance, got {order}, {l1}, {l2} and {variance}")
    squared = l2 * l2
    surplus = min(((2 * order - 1) * squared + 6 * l1) / (4 * variance * variance), 3 * l1 / (2 * variance))
    return order * squared / (2 * variance) + surplus


class SkellamNoise:
    """Draws Skellam numbers by inversion of the distribution's tail, with 64 bits of the operating system's randomness for each.

    Poisson samplers for large means are rejection samplers in floating point, made for simulation, and their error is nowhere stated. Here
    each number within three standard deviations has its probability to a relative error below 1e-10, within six below 1e-6; beyond about
    nine, with 2^-64 of the mass, nothing is drawn.

    Attributes:
        variance: μ; at most `MAX_DEVIATION` squared.
        tail: 2^64 P(|X| ≥ k) for k from the largest to 1, u64.
    """

    def __init__(self, variance: float) -> None:
        if not 0 < variance <= MAX_DEVIATION**2:
            raise ValueError(f"expected a variance in (0, {MAX_DEVIATION**2}], got {variance}")
        self.variance = variance
        self.tail = _tail(variance)

    def draw(self, count: int) -> NDArray[np.int64]:
        """Independent numbers, i64 [count]; fresh at every call."""
        noise = np.empty(count, dtype=np.int64)
        for start in range(0, count, _BLOCK):
            part = noise[start : start + _BLOCK]
            # Ascending in the table is descending in size: as many thresholds lie above a word as the number's absolute value.
            part[:] = len(self.tail) - np.searchsorted(self.tail, words(len(part)), side="right")
            signs = words(math.ceil(len(part) / 64)).view(np.uint8)
            part[np.unpackbits(signs)[: len(part)] == 1] *= -1
        return noise


@lru_cache(maxsize=4)
def _tail(variance: float) -> NDArray[np.uint64]:
    """2^64 P(|X| ≥ k) for k from the largest to 1, u64.

    P(X = k) = exp(-μ) I_k(μ). The ratios r_k = I_(k+1)(μ) / I_k(μ) follow r_(k-1) = 1 / (2k/μ + r_k), which is stable downwards.
    """
    largest = math.ceil(10 * math.sqrt(variance)) + 40
    ratios = np.empty(largest)
    # Far above the table the ratio hardly matters; what is wrong with it is gone after some steps down.
    ratio = 0.0
    for k in range(2 * largest, 0, -1):
        ratio = 1.0 / (2.0 * k / variance + ratio)
        if k <= largest:
            ratios[k - 1] = ratio
    # Of |X|: both signs, which leaves 0 with half the weight. Relative to P(X = 0).
    weights = 2.0 * np.cumprod(ratios)
    tail = np.cumsum(weights[::-1])
    return np.asarray(tail / (1.0 + tail[-1]) * 2.0**64).astype(np.uint64)
