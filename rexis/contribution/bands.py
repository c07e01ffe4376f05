"""Bands of sites that can not be told apart, and what each is paid: whole numbers that anybody computes again."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

from rexis.contribution.effects import Effects, Score


def bands_of(effects: Effects, *, most: int, floor: Decimal) -> tuple[int, ...]:
    """Band of each member, from 0, which is paid nothing; members whose intervals overlap never stand in two bands.

    Args:
        most: bands from 1 on.
        floor: share of the average score below which a band is 0, if all of each interval lies there.
    """
    found: list[list[int]] = []
    for member in sorted((i for i, score in enumerate(effects.scores) if score is not None), key=lambda i: (_of(effects, i).lower, i)):
        if found and _of(effects, member).lower <= _top(effects, found[-1]):
            found[-1].append(member)
        else:
            found.append([member])
    above, below = floor.as_integer_ratio()
    paid = [band for band in found if effects.level <= 0 or _top(effects, band) * below >= above * effects.level]
    while len(paid) > most:
        gaps = [_of(effects, high[0]).lower - _top(effects, low) for low, high in pairwise(paid)]
        lowest = gaps.index(min(gaps))
        paid[lowest : lowest + 2] = [paid[lowest] + paid[lowest + 1]]
    numbers = {member: number for number, band in enumerate(paid, start=1) for member in band}
    return tuple(numbers.get(member, 0) for member in range(len(effects.scores)))


def payouts(bands: Sequence[int], amount: int, cap: Decimal) -> tuple[int, ...]:
    """What each member gets of an amount in a token's smallest unit: band k has k parts, and nobody more than `cap` of the amount.

    Rounded down, so that one band is paid alike; what is left, by rounding or the cap, is not paid out.

    Raises:
        ValueError: a negative band or amount, or a cap outside of (0, 1].
    """
    if amount < 0 or any(band < 0 for band in bands) or not 0 < cap <= 1:
        raise ValueError(f"expected bands and an amount from 0 and a cap in (0, 1], got {list(bands)}, {amount} and {cap}")
    parts = sum(bands)
    above, below = cap.as_integer_ratio()
    return tuple(min(amount * band // parts, amount * above // below) if band else 0 for band in bands)


def _of(effects: Effects, member: int) -> Score:
    score = effects.scores[member]
    if score is None:
        raise ValueError(f"expected a member with a score, got {member}")
    return score


def _top(effects: Effects, band: Sequence[int]) -> int:
    return max(_of(effects, member).upper for member in band)
