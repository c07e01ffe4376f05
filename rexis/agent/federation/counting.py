"""The vector of a site in a statistic: moments of its features, or its rows counted by the cells that the plan fixed."""

import numpy as np
from numpy.typing import NDArray

from rexis.agent.execution.columns import number
from rexis.agent.federation.contribution import encoded, prepare_rows
from rexis.agent.profile import MISSING
from rexis.agent.table import Table
from rexis.errors import MalformedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.queries import Dimension
from rexis.protocol.statistics_plans import CountsPlan, MomentsPlan, StatisticsPlan, SurvivalPlan, TablePlan
from rexis.secagg.masks import RingVector
from rexis.secagg.statistics.counts import check_cells, encode_counts
from rexis.secagg.statistics.moments import encode_moments
from rexis.secagg.statistics.survival import rest_of_survival
from rexis.secagg.statistics.table import rest_of_table


def statistic_vector(config: FederationConfig, table: Table) -> RingVector:
    """What a site masks in the round of a statistic, u64 [length]; with noise, another one at every call.

    Raises:
        PolicyError: a cell is too small to be summed exactly.
        PrivacyError: sums that do not fit; nothing may be sent.
        MalformedMessageError: the table lacks a column, or has features that are no numbers.
    """
    plan = config.statistics
    if plan is None or isinstance(plan, MomentsPlan):
        inputs = prepare_rows(config, table, None).inputs
        return encoded(lambda: encode_moments(config, inputs))
    return encode_counts(config, count_rows(plan, table), rest_of(plan))


def check_table(plan: StatisticsPlan, table: Table) -> None:
    """Check before anything is sent that a site's table may be counted.

    Raises:
        PolicyError, MalformedMessageError: see `statistic_vector`.
    """
    if not isinstance(plan, MomentsPlan):
        check_cells(plan.rule, count_rows(plan, table), rest_of(plan))


def rest_of(plan: CountsPlan) -> NDArray[np.bool_]:
    """Which entries are of values that the plan does not name, bool [length]."""
    return rest_of_table(plan) if isinstance(plan, TablePlan) else rest_of_survival(plan)


def count_rows(plan: CountsPlan, table: Table) -> NDArray[np.int64]:
    """Rows in each cell of a plan, i64 [length]; each row is in exactly one.

    Raises:
        MalformedMessageError: the table lacks a column. The message names no cell, which is a patient's.
    """
    lacking = sorted(set(plan.columns) - set(table.columns))
    if lacking:
        raise MalformedMessageError(f"the table lacks the columns {', '.join(lacking)} that the statistic counts")
    if isinstance(plan, TablePlan):
        cells = [_cells(dimension, table.column(dimension.column)) for dimension in plan.dimensions]
        entries, size = np.ravel_multi_index(cells, plan.shape), int(np.prod(plan.shape))
    else:
        entries, size = _survival_entries(plan, table), len(rest_of(plan))
    return np.bincount(entries, minlength=size).astype(np.int64)


def _cells(dimension: Dimension, texts: list[str]) -> NDArray[np.int64]:
    """The cell of each row: those that are named, then other values, then none."""
    other = len(dimension.labels)
    if dimension.levels is not None:
        places = {level: place for place, level in enumerate(dimension.levels)}
        # A level that is named counts even if it reads like none.
        return np.array([places.get(text, other + _is_missing(text)) for text in texts], dtype=np.int64)
    numbers = np.array([number(text) for text in texts])
    if dimension.above is not None:
        found = (numbers > float(dimension.above)).astype(np.int64)
    else:
        found = np.searchsorted([float(edge) for edge in dimension.bands or ()], numbers, side="right").astype(np.int64)
    rest = np.array([other + _is_missing(text) for text in texts], dtype=np.int64)
    return np.where(np.isnan(numbers), rest, found)


def _survival_entries(plan: SurvivalPlan, table: Table) -> NDArray[np.int64]:
    """The entry of each row in `SurvivalCounts.of`."""
    edges = np.array([float(edge) for edge in plan.edges])
    times = np.array([number(text) for text in table.column(plan.time)])
    endings = table.column(plan.event.column)
    happened = np.array([text in plan.event.events for text in endings])
    known = happened | np.array([text in plan.event.censored for text in endings])
    group = np.zeros(len(times), dtype=np.int64) if plan.group is None else _cells(plan.group, table.column(plan.group.column))
    # The first edge that is not before a time; beyond the last one follow-up ends, whatever came then.
    interval = np.searchsorted(edges, times, side="left").astype(np.int64)
    within = np.where(interval == len(edges), 2 * len(edges), interval + np.where(happened, 0, len(edges)))
    counted = (times >= 0) & known & (group < len(plan.groups))
    width = 2 * len(edges) + 1
    return np.where(counted, group * width + within, len(plan.groups) * width)


def _is_missing(text: str) -> bool:
    return text.strip().lower() in MISSING
