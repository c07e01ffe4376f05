"""Quantiles of Student's distribution in decimal arithmetic, which gives the same digits on every machine."""

from decimal import Context, Decimal, localcontext

PRECISION = 60
# Beyond these the quantile falls by less than a thousandth.
MAX_FREEDOM = 1000
_LARGEST = 10**10


def context() -> Context:
    """The arithmetic of scores: 60 digits, half to even, independent of the caller's context."""
    return Context(prec=PRECISION)


def student_quantile(freedom: int, outside: Decimal) -> int:
    """Least q in millionths with P(|T| ≤ q) ≥ 1 - `outside` for Student's T.

    Args:
        freedom: degrees of freedom, from 2; an odd number counts as the even one below it, which makes q larger.
        outside: probability of both tails, in (0, 1).

    Raises:
        ValueError: out of bounds.
    """
    if freedom < 2 or not 0 < outside < 1:
        raise ValueError(f"expected at least 2 degrees of freedom and a probability in (0, 1), got {freedom} and {outside}")
    even = min(freedom - freedom % 2, MAX_FREEDOM)
    with localcontext(context()):
        inside, low, high = 1 - outside, 0, _LARGEST
        while low < high:
            middle = (low + high) // 2
            if _probability(even, Decimal(middle) / 1_000_000) >= inside:
                high = middle
            else:
                low = middle + 1
    return low


def _probability(freedom: int, t: Decimal) -> Decimal:
    """P(|T| ≤ t) for an even number of degrees of freedom (Abramowitz and Stegun 26.7.4)."""
    square = t * t
    cosine, sine = freedom / (freedom + square), (square / (freedom + square)).sqrt()
    term = total = Decimal(1)
    for number in range(1, freedom // 2):
        term = term * cosine * (2 * number - 1) / (2 * number)
        total += term
    return sine * total
