"""The values of a round's groups, in its metrics and out of them.

The metrics hold the values, and the chain the digest of the metrics, the survivors, and the block that drew the groups. So nobody takes
an aggregator's word for what scores are computed from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rexis.contribution.formula import UNIT
from rexis.contribution.group_values import group_values
from rexis.errors import MalformedMessageError
from rexis.protocol.contributions import RoundValues
from rexis.protocol.document_members import integer
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.groups import draw_groups
from rexis.secagg.payloads import MeanUpdate

METRIC = "group_values"


def values_of(means: Sequence[MeanUpdate | None]) -> list[int | None]:
    """The metric: value of each group that has survivors, in their order; None for one whose sum was not opened, or can not be honest."""
    values = iter(group_values([mean.delta for mean in means if mean is not None]))
    return [None if mean is None else next(values) for mean in means]


def scored_round(config: FederationConfig, number: int, seed: bytes, survivors: Sequence[str], metrics: Mapping[str, Any]) -> RoundValues:
    """A round of the bundle.

    Args:
        number: of the round.
        seed: 32 bytes that drew its groups.
        survivors: checksum addresses of those whose updates are in its sums, in any order.
        metrics: of the round, as their digest stands on chain.

    Raises:
        MalformedMessageError: metrics without a value for each group that has survivors.
        ValueError: a federation without groups.
    """
    if config.groups is None:
        raise ValueError("expected a federation with groups")
    present, roster = set(survivors), config.roster
    drawn = draw_groups(seed, len(roster), config.groups.count)
    named = [tuple(roster[position - 1] for position in group if roster[position - 1] in present) for group in drawn]
    opened, values = [group for group in named if group], metrics.get(METRIC)
    if not isinstance(values, list) or len(values) != len(opened):
        raise MalformedMessageError(f"metrics of round {number}: expected {METRIC} with a value for each of {len(opened)} groups")
    found = [(group, integer(METRIC, value, -UNIT, UNIT)) for group, value in zip(opened, values, strict=True) if value is not None]
    return RoundValues(number, tuple(group for group, _ in found), tuple(value for _, value in found))
