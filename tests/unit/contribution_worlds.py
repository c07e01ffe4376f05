"""Federations of made-up sites whose groups are drawn anew in each round, for tests of contribution scores."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rexis.contribution.effects import ScoredRound
from rexis.contribution.group_values import group_values

Updates = NDArray[np.float64]
# (updates f64 [n, d] of a round, generator) → what the sites send instead.
Behaviour = Callable[[Updates, np.random.Generator], Updates]


def drawn(generator: np.random.Generator, members: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Disjoint groups of all members."""
    order = generator.permutation(members)
    return tuple(tuple(sorted(int(member) for member in group)) for group in np.array_split(order, count))


def rounds_of(
    seed: int,
    members: int = 12,
    count: int = 4,
    rounds: int = 20,
    *,
    difference: float = 1.0,
    decay: float = 0.97,
    draws: int = 0,
    behaviour: Behaviour = lambda updates, _: updates,
) -> list[ScoredRound]:
    """Rounds of sites that pull towards a common point and, `difference` times as far, each towards one of its own.

    `seed` says what the sites are, `draws` which groups and which noise they get.
    """
    sites, size = np.random.default_rng(seed), 40
    common, own = sites.normal(size=size), difference * sites.normal(size=(members, size))
    generator = np.random.default_rng([seed, draws])
    found = []
    for number in range(rounds):
        updates = decay**number * (common + own) + 0.2 * generator.normal(size=(members, size))
        groups = drawn(generator, members, count)
        sent = behaviour(updates, generator)
        found.append(ScoredRound(groups, group_values([sent[list(group)].mean(axis=0) for group in groups])))
    return found
