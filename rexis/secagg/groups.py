"""Random groups of a round: each is summed by itself, so that a robust rule can leave out the sums that somebody spoiled.

The groups are components of the neighbour graph, complete inside: masks and shares stay within a group, whose thresholds are those of its
own size against all t_c colluders, who may all have been drawn into it. They are drawn by the hash of a block, as a sparse graph is ordered
(see `graph`), over the roster on chain, so that whoever's keys are left out moves nobody into another group.

The block is the one that opened the federation's first attempt, and the groups are kept: two sums over different groups, subtracted, can
show a single update. With noise at the sites they may be redrawn, by the block of each attempt; an aggregator that works with members who
send bad updates could then give attempts up until a draw spreads them. Source: bucketing, Karimireddy et al., ICLR 2022 (arXiv
2006.09365); SHARE, Velicheti et al. (arXiv 2110.02940).
"""

from collections.abc import Mapping, Set

from rexis.encoding import domain_tag, sha256
from rexis.errors import BelowThresholdError
from rexis.protocol.plan_parts import MIN_GROUP, GroupPlan
from rexis.secagg.thresholds import Thresholds, thresholds

SEED_SIZE = 32


def draw_groups(seed: bytes, members: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Positions 1..members in `count` disjoint groups whose sizes differ by one at most; ascending within each.

    In the order of SHA-256 over tag, seed and position, the first goes to the first group, the second to the second, and so on around.

    Args:
        seed: 32 bytes, public, unknown when the roster was fixed: the hash of a block.

    Raises:
        ValueError: a seed of another size, or groups of fewer than three.
    """
    if len(seed) != SEED_SIZE or count < 1 or members < count * MIN_GROUP:
        raise ValueError(
            f"expected a seed of {SEED_SIZE} bytes and at least {MIN_GROUP} members to each group, got {len(seed)} bytes and {members} "
            f"members for {count} groups"
        )
    tag = domain_tag("secagg/groups", 1) + b"\0" + seed
    order = sorted(range(1, members + 1), key=lambda position: sha256(tag + position.to_bytes(8)))
    return tuple(tuple(sorted(order[first::count])) for first in range(count))


def group_thresholds(members: int, count: int, collusion_bound: int) -> dict[int, Thresholds]:
    """Size of a group → its thresholds, for the one or two sizes that `draw_groups` makes.

    Raises:
        BelowThresholdError: groups so small that their sums could expose one update: expected max(3, t_c + 2) in each.
    """
    sizes = {members // count, -(-members // count)}
    return {size: thresholds(size, collusion_bound) for size in sorted(sizes)}


def whole_groups(groups: tuple[frozenset[int], ...], needed: Mapping[int, Thresholds], present: Set[int]) -> frozenset[int]:
    """Those present whose group has its min_survivors; a group below is left out as a whole.

    Args:
        groups: as drawn.
        needed: size of a group → its thresholds.
        present: positions who sent.
    """
    return frozenset().union(*(group & present for group in groups if len(group & present) >= needed[len(group)].min_survivors))


def check_groups(plan: GroupPlan, groups: tuple[frozenset[int], ...], needed: Mapping[int, Thresholds], present: Set[int]) -> None:
    """Refuse a set that holds less of a group than may be opened, or fewer groups than the robust rule takes.

    Raises:
        BelowThresholdError: which of both, and the number.
    """
    held = [(len(group & present), needed[len(group)].min_survivors) for group in groups if group & present]
    for number, least in held:
        if number < least:
            raise BelowThresholdError("members of a group whose sum is opened", least, number)
    if len(held) < plan.least:
        raise BelowThresholdError(f"groups for the {plan.rule} of their means", plan.least, len(held))
