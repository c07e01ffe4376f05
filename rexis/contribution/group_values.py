"""What the mean update of a group of sites is worth, judged by the other groups of the same round.

The measure is that of the cosine gradient Shapley value (Xu et al., NeurIPS 2021, and its authors' code): a party's update along the
direction of the aggregate. Three things differ. Only means of groups are seen. The direction is that of the *other* groups, so that
nobody has a part in the yardstick that it is measured by, which is what Everybody-Else asks for (Jaramillo Velez et al.,
arXiv 2602.21721). And length counts, up to what is usual among the others: the cosine of a group does not change when one of its members
sends nothing, and without a bound whoever sends ten times its update would be worth more, and everybody else less.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import median

import numpy as np
from numpy.typing import NDArray

from rexis.contribution.formula import UNIT


def group_values(means: Sequence[NDArray[np.float64]]) -> tuple[int, ...]:
    """Value of each group of a round, in millionths, from -`UNIT` to `UNIT`; the same integers on every machine.

    Args:
        means: mean update of each group, f64 [d].

    Raises:
        ValueError: fewer than two groups, another shape, NaN or infinity.
    """
    if len(means) < 2 or any(mean.ndim != 1 or mean.shape != means[0].shape for mean in means):
        raise ValueError(f"expected the means of at least two groups, f64 [d], got shapes {[mean.shape for mean in means]}")
    if not all(np.isfinite(mean).all() for mean in means):
        raise ValueError("expected finite means, got NaN or infinity")
    products = [[0.0] * len(means) for _ in means]
    for i, mean in enumerate(means):
        for j in range(i + 1):
            products[i][j] = products[j][i] = _sum(mean * means[j])
    return tuple(_value(products, group) for group in range(len(means)))


def _value(products: Sequence[Sequence[float]], group: int) -> int:
    """The value of one group from all inner products [k, k]."""
    others = [other for other in range(len(products)) if other != group]
    lengths = [sqrt(products[i][i]) for i in range(len(products))]
    usual = median(lengths[other] for other in others)
    factors = [min(1.0, usual / length) if length else 1.0 for length in lengths]
    along = square = 0.0
    for other in others:
        along += factors[other] * products[group][other]
        for another in others:
            square += factors[other] * factors[another] * products[other][another]
    if square <= 0.0:
        return 0
    return round(min(1.0, max(-1.0, len(others) * factors[group] * along / square)) * UNIT)


def _sum(values: NDArray[np.float64]) -> float:
    """Sum in an order that no library or processor chooses: `numpy.sum` and BLAS add as their build finds fast."""
    size = 1 << max(0, len(values) - 1).bit_length()
    values = np.concatenate([values, np.zeros(size - len(values))])
    while len(values) > 1:
        half = len(values) // 2
        values = values[:half] + values[half:]
    return float(values[0])
