"""Counts of patients in a secure sum: what a site puts into it, and what is taken for an honest total.

The aggregator opens the sum, and members and founder are shown it, so the sum itself has to be safe; nobody could hide cells afterwards.
A plan has one of two rules (`specs/secure-aggregation.md`, correction 6), and this is what each adversary is left with:

minimum_cell k   A site whose own table has a named cell of 1 to k - 1 rows sends nothing (`PolicyError`). So every cell of the sum is
                 empty or has at least k patients *of each site that has any*: also members that collude, and subtract their own, find no
                 smaller cell. Rows of `other` and `missing` are left out where a site has fewer than k of them: such a cell of the result
                 is a lower bound. The sum is exact, so two tables that cut a column at 50 and at 51 would differ by whoever is 50: a site
                 answers one exact statistic about a column of a data set version, and no other ever (the agent's rule, not this module's).
                 Not covered: who knows all but one of a cell's patients learns about the last one; an empty cell says "nobody"; two
                 columns that say nearly the same can be subtracted from each other; who knows the number of all rows, which moments tell,
                 learns how many were left out; and that a site stays away says that it has a small cell, which is why a site is asked
                 about a column a few times only.
privacy          Each site adds Skellam noise to every count, empty ones and those of `other` and `missing` included, and no site stays
                 away because of its counts. ε holds for each patient against whoever sees the sum and knows everything but this patient's
                 row and the noise of min_survivors - t_c sites. Differences of two tables are covered, each costs its ε: the ledger of the
                 data set version adds them up. Not covered: that a site took part, and the number of its rows.

A dishonest site can put any numbers into a sum; it does so blindly, and learns nothing of the others that the sum would not show anyway.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.errors import MalformedMessageError, PolicyError
from rexis.protocol.document_members import integer
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.statistics_plans import CountRule, CountsPlan, MomentsPlan
from rexis.secagg.masks import RingVector
from rexis.secagg.privacy import count_variance

# Exact in a JSON number.
MAX_COUNT = 1 << 53


def check_cells(rule: CountRule, counts: NDArray[np.int64], rest: NDArray[np.bool_]) -> None:
    """Check what a site would put into a sum; with noise, any counts may go in.

    Args:
        counts: of this site, i64 [length].
        rest: cells of rows with values that the plan does not name, bool [length].

    Raises:
        PolicyError: a named cell is too small. The message says neither which nor how small: it is logged.
    """
    if rule.minimum_cell is None:
        return
    if ((counts > 0) & (counts < rule.minimum_cell) & ~rest).any():
        raise PolicyError(
            f"rule on cells: expected each cell of this site's own counts to be empty or to have at least {rule.minimum_cell} rows, a "
            "smaller one is among them; nothing was sent: ask for fewer levels, wider bands or intervals, or for counts with noise"
        )


def encode_counts(config: FederationConfig, counts: NDArray[np.int64], rest: NDArray[np.bool_]) -> RingVector:
    """The vector that a site masks; with noise, another one at every call.

    Args:
        counts, rest: as in `check_cells`.

    Returns:
        u64 [length].

    Raises:
        PolicyError: see `check_cells`.
        ValueError: another length, or negative counts.
    """
    rule = counts_plan(config).rule
    if counts.shape != (config.length,) or rest.shape != counts.shape or counts.min(initial=0) < 0:
        raise ValueError(f"expected {config.length} counts from 0, got shape {counts.shape}")
    check_cells(rule, counts, rest)
    if rule.minimum_cell is not None:
        return np.where(counts < rule.minimum_cell, 0, counts).astype(np.int64).view(np.uint64)
    from rexis.dp.skellam import SkellamNoise

    return (counts + SkellamNoise(count_variance(config)).draw(len(counts))).astype(np.int64).view(np.uint64)


def decode_counts(config: FederationConfig, total: RingVector) -> NDArray[np.int64]:
    """The counts behind the opened sum, i64 [length]; with noise some may be negative.

    Raises:
        ValueError: another length or ring.
        MalformedMessageError: a sum that honest sites can not have made; nobody is shown it then.
    """
    if total.shape != (config.length,) or total.dtype != np.uint64:
        raise ValueError(f"expected a sum of {config.length} entries of 64 bits, got {total.dtype} {total.shape}")
    counts = total.view(np.int64)
    check_totals(counts_plan(config).rule, counts)
    return counts


def check_totals(rule: CountRule, counts: NDArray[np.int64]) -> None:
    """Check counts of all sites together against the rule.

    Raises:
        MalformedMessageError: honest sites can not have made them.
    """
    if rule.minimum_cell is not None and ((counts != 0) & (counts < rule.minimum_cell)).any():
        raise MalformedMessageError(
            f"statistic: expected cells that are empty or have at least {rule.minimum_cell} patients: a site sent a wrong vector"
        )
    if ((counts >= MAX_COUNT) | (counts <= -MAX_COUNT)).any():
        raise MalformedMessageError("statistic: expected counts below 2^53: a site sent a wrong vector")


def read_counts(name: str, values: Any, size: int, rule: CountRule) -> NDArray[np.int64]:
    """A list of counts in a result document, i64 [size].

    Raises:
        MalformedMessageError: another length, no whole numbers, or counts that the rule does not allow.
    """
    if not isinstance(values, list) or len(values) != size:
        raise MalformedMessageError(f"statistic: {name}: expected {size} counts")
    least = 0 if rule.privacy is None else 1 - MAX_COUNT
    counts = np.array([integer(name, value, least, MAX_COUNT - 1) for value in values], dtype=np.int64)
    check_totals(rule, counts)
    return counts


def counts_plan(config: FederationConfig) -> CountsPlan:
    """The plan of a table or of survival counts.

    Raises:
        ValueError: another federation.
    """
    if config.statistics is None or isinstance(config.statistics, MomentsPlan):
        raise ValueError("expected a federation for counts, got another one")
    return config.statistics
