"""Statistics of all sites together, one module each: what its sum says, as a document whose digest stands on chain."""

from typing import Any

from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.statistics_plans import SurvivalPlan, TablePlan
from rexis.secagg.masks import RingVector
from rexis.secagg.statistics.counts import decode_counts
from rexis.secagg.statistics.moments import Moments, decode_moments
from rexis.secagg.statistics.result import Result
from rexis.secagg.statistics.survival import SurvivalCounts
from rexis.secagg.statistics.table import ContingencyTable

__all__ = ["ContingencyTable", "Moments", "Result", "SurvivalCounts", "decode_statistic", "parse_statistic"]


def decode_statistic(config: FederationConfig, total: RingVector) -> Result:
    """The result behind the opened sum of a statistic, u64 [length].

    Raises:
        ValueError: another length or ring, or no statistic.
        MalformedMessageError: a sum that honest sites can not have made.
    """
    match config.statistics:
        case TablePlan() as plan:
            return ContingencyTable(plan, decode_counts(config, total).reshape(plan.shape))
        case SurvivalPlan() as plan:
            return SurvivalCounts.of(plan, decode_counts(config, total))
        case _:
            return decode_moments(config, total)


def parse_statistic(config: FederationConfig, document: Any) -> Result:
    """Read the result document of a federation's statistic; compare its digest with the chain's.

    Raises:
        MalformedMessageError: no result of this plan.
    """
    match config.statistics:
        case TablePlan() as plan:
            return ContingencyTable.parse(plan, document)
        case SurvivalPlan() as plan:
            return SurvivalCounts.parse(plan, document)
        case _:
            found = Moments.parse(document)
            found.check(config)
            return found
