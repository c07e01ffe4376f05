"""The chi-squared distribution's tail at whole degrees of freedom, in closed form."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ChiSquaredTest:
    """A test's statistic and degrees of freedom."""

    statistic: float
    degrees: int

    @property
    def p(self) -> float:
        """Chance of a statistic at least as large where there is nothing to be found."""
        return tail(self.statistic, self.degrees)


def tail(x: float, degrees: int) -> float:
    """P(X ≥ x), by Q(a + 1, y) = Q(a, y) + y^a e^-y / Γ(a + 1) from Q(1/2, y) = erfc(√y) or Q(1, y) = e^-y, with y = x/2, a = degrees/2
    (Abramowitz and Stegun, 26.4.4 and 26.4.5).

    Raises:
        ValueError: a negative number, or no degree of freedom.
    """
    if not x >= 0 or degrees < 1:
        raise ValueError(f"expected a statistic from 0 and at least one degree of freedom, got {x} and {degrees}")
    y = x / 2
    a, q = (0.5, math.erfc(math.sqrt(y))) if degrees % 2 else (1.0, math.exp(-y))
    while a < degrees / 2 and y > 0:
        q += math.exp(a * math.log(y) - y - math.lgamma(a + 1))
        a += 1
    return min(q, 1.0)
