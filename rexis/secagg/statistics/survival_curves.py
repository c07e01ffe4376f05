"""Curves from events and numbers at risk: Kaplan-Meier, Nelson-Aalen, and the log-rank test between groups."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rexis.secagg.statistics.association import QUANTILE_95
from rexis.secagg.statistics.chi_squared import ChiSquaredTest
from rexis.secagg.statistics.survival import SurvivalCounts


@dataclass(frozen=True, eq=False)
class SurvivalCurve:
    """One group's curves at K edges; NaN from where nobody is at risk.

    Attributes:
        name: of the group.
        times: the edges, f64 [K].
        at_risk, events: i64 [K]; negative counts, which noise makes, as 0.
        survival: Kaplan-Meier estimate just after each edge, f64 [K].
        low, high: its 95 % interval, f64 [K]; NaN where there is none: nobody had the event yet, or everybody, or the counts have noise.
        hazard: Nelson-Aalen estimate of the cumulative hazard, f64 [K].
    """

    name: str
    times: NDArray[np.float64]
    at_risk: NDArray[np.int64]
    events: NDArray[np.int64]
    survival: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    hazard: NDArray[np.float64]

    @property
    def median(self) -> float | None:
        """First edge at which no more than half are left; None if it never comes to that."""
        reached = np.flatnonzero(self.survival <= 0.5)
        return float(self.times[reached[0]]) if len(reached) else None


def curves(counts: SurvivalCounts) -> tuple[SurvivalCurve, ...]:
    """The curve of each group.

    Variance: Greenwood's, Σ d / (n (n - d)), of the logarithm of the survival; the interval is that of log(-log S), which stays within
    0 and 1 (Kalbfleisch and Prentice, The Statistical Analysis of Failure Time Data, 2002, section 1.4). Noise is not in that variance,
    so that noisy counts get no interval.
    """
    # A number of patients that is below 0 says that there are few.
    events, censored, after = (np.maximum(part, 0) for part in (counts.events, counts.censored, counts.after))
    seen = SurvivalCounts(counts.plan, events, censored, after, counts.left_out)
    times = np.array([float(edge) for edge in counts.plan.edges])
    return tuple(
        _curve(name, times, events, at_risk, is_exact=counts.plan.rule.privacy is None)
        for name, events, at_risk in zip(counts.plan.groups, seen.events, seen.at_risk, strict=True)
    )


def log_rank(counts: SurvivalCounts) -> ChiSquaredTest | None:
    """Mantel's log-rank test that all groups have one hazard (Cancer Chemotherapy Reports 1966), edges with one patient left out.

    Returns:
        None with fewer than two groups that were ever at risk, without an event, or with noise in the counts, which the test's
        distribution does not know.
    """
    if counts.plan.rule.privacy is not None:
        return None
    present = counts.at_risk[:, 0] > 0
    n, d = counts.at_risk[present].astype(np.float64), counts.events[present].astype(np.float64)
    if len(n) < 2 or not d.any():
        return None
    total, died = n.sum(axis=0), d.sum(axis=0)
    several = total > 1
    n, d, total, died = n[:, several], d[:, several], total[several], died[several]
    share = n / total
    difference = (d - died * share).sum(axis=1)
    spread = died * (total - died) / (total - 1)
    covariance = np.diag((spread * share).sum(axis=1)) - np.einsum("k,ak,bk->ab", spread, share, share)
    # The differences of all groups sum to zero: one of them is not free.
    free = covariance[:-1, :-1]
    if np.linalg.matrix_rank(free) < len(free):
        return None
    return ChiSquaredTest(max(float(difference[:-1] @ np.linalg.solve(free, difference[:-1])), 0.0), len(free))


def _curve(
    name: str, times: NDArray[np.float64], events: NDArray[np.int64], at_risk: NDArray[np.int64], *, is_exact: bool
) -> SurvivalCurve:
    n, d = at_risk.astype(np.float64), events.astype(np.float64)
    n[n <= 0] = math.nan
    survival, hazard = np.cumprod(1 - d / n).astype(np.float64), np.cumsum(d / n).astype(np.float64)
    low, high = (np.full(len(times), math.nan) for _ in range(2))
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(d / (n * (n - d)))
    for place, (value, spread) in enumerate(zip(survival, variance, strict=True)):
        if is_exact and 0 < value < 1:
            width = QUANTILE_95 * math.sqrt(spread) / abs(math.log(value))
            low[place], high[place] = value ** math.exp(width), value ** math.exp(-width)
    return SurvivalCurve(name, times, at_risk, events, survival, low, high, hazard)
