"""Whether the two columns of a table go together: Pearson's test, and the odds ratio of four cells."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rexis.secagg.statistics.chi_squared import ChiSquaredTest

QUANTILE_95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def pearson(counts: NDArray[np.int64]) -> ChiSquaredTest | None:
    """Pearson's chi-squared test of independence, without a correction for continuity.

    Args:
        counts: i64 [a, b]. Rows and columns without anybody are left out.

    Returns:
        None if fewer than two rows or two columns are left.
    """
    cells = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0].astype(np.float64)
    if min(cells.shape) < 2:
        return None
    expected = np.outer(cells.sum(axis=1), cells.sum(axis=0)) / cells.sum()
    return ChiSquaredTest(float((np.square(cells - expected) / expected).sum()), (cells.shape[0] - 1) * (cells.shape[1] - 1))


def odds_ratio(counts: NDArray[np.int64]) -> Estimate | None:
    """a d / (b c) of a table [[a, b], [c, d]], with the interval of its logarithm (Woolf, Annals of Human Genetics 1955).

    Returns:
        None if a cell is empty, or there are not four.
    """
    if counts.shape != (2, 2) or counts.min() < 1:
        return None
    (a, b), (c, d) = counts.astype(np.float64).tolist()
    logarithm, error = math.log(a * d / (b * c)), math.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    return Estimate(math.exp(logarithm), *(math.exp(logarithm + sign * QUANTILE_95 * error) for sign in (-1, 1)))
