"""Differencing against an output gate: two populations that differ in one person, and the difference of their counts.

The attacker knows: quasi-identifiers that single one person out, so that a query can hold a group with or without that person; whatever
the gate answers. Measured in `specs/disclosure-and-compliance.md` G.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from rexis.errors import DisclosureError

Population = NDArray[np.bool_]


def pair_attack(count_cases: Callable[[Population], int], groups: Iterable[Population], target: int) -> bool:
    """Guess whether the target has the counted attribute.

    Args:
        count_cases: the gate: population (bool [n]) → released count of its members with the attribute. May raise DisclosureError.
        groups: populations to ask about; each is asked with and without the target. Refused pairs are skipped.
        target: index of the person.

    Returns:
        True if any pair of answers grew by the target: rounding can hide one step, it can not invent one.
    """
    for group in groups:
        with_target, without_target = group.copy(), group.copy()
        with_target[target], without_target[target] = True, False
        try:
            if count_cases(with_target) > count_cases(without_target):
                return True
        except DisclosureError:
            continue
    return False
