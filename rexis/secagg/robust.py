"""One update out of the means of random groups, of which some were spoiled: median or trimmed mean, coordinate by coordinate.

Every group counts the same, whatever weights its members claim: within a group a site counts by its examples, and what it claims moves no
more than its own group's mean. With G groups, the coordinate-wise median lies within the range of the honest groups' means as long as less
than half of the groups are spoiled, the mean trimmed by b at both ends as long as at most b are. Source: Yin et al., ICML 2018
(arXiv 1803.01498), applied to sums of groups (see `groups`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.errors import BelowThresholdError, MalformedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.plan_parts import GroupPlan
from rexis.secagg.masks import RingVector
from rexis.secagg.payloads import MeanUpdate, decode_update


def group_means(config: FederationConfig, totals: Sequence[RingVector | None]) -> tuple[MeanUpdate | None, ...]:
    """The mean behind each group's sum; None where a member made it a sum that honest sites can not have made, or kept it closed.

    Args:
        totals: opened sums [length], one for each group; None for one that was not opened.

    Raises:
        ValueError: another length or ring.
    """
    means: list[MeanUpdate | None] = []
    for total in totals:
        try:
            means.append(None if total is None else decode_update(config, total))
        except MalformedMessageError:
            # Whoever writes nonsense into its slots costs its group, and not the round.
            means.append(None)
    return tuple(means)


def combined(plan: GroupPlan, means: Sequence[MeanUpdate | None]) -> MeanUpdate:
    """The round's update: the plan's rule over the groups' updates, and over their losses; the weight is the sum of theirs.

    Args:
        means: what `group_means` gave; None is left out.

    Raises:
        BelowThresholdError: fewer groups than the rule takes.
    """
    found = [mean for mean in means if mean is not None]
    if len(found) < plan.least:
        raise BelowThresholdError(f"groups with a sum that honest sites can have made, for the {plan.rule}", plan.least, len(found))
    losses = [mean.loss for mean in found if mean.loss is not None]
    held = [(mean.holdout_loss, mean.holdout_weight) for mean in found if mean.holdout_loss is not None and mean.holdout_weight is not None]
    return MeanUpdate(
        delta=robust_mean(plan, [mean.delta for mean in found]),
        loss=float(robust_mean(plan, losses)) if losses else None,
        weight=sum(mean.weight for mean in found),
        holdout_loss=float(robust_mean(plan, [loss for loss, _ in held])) if held else None,
        holdout_weight=sum(weight for _, weight in held) if held else None,
        groups=len(found),
    )


def robust_mean(plan: GroupPlan, values: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Median, or mean without the `trim` least and greatest, of arrays of one shape, entry by entry."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=0)
    # A median is the mean of what is left when nearly half is cut off at both ends.
    cut = plan.trim if plan.rule == "trimmed-mean" else (len(ordered) - 1) // 2
    kept: NDArray[np.float64] = ordered[cut : len(ordered) - cut].mean(axis=0)
    return kept
