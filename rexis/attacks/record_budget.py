"""How many records of one key may be known in plain before the others are read.

The attacker knows: some records in plain and keyed. d + 1 of them give any affine key away; correlated data need fewer, because what the
known ones do not span hardly varies. Ten pairs of thirty correlated columns already explain most of the rest
(`specs/equivariant-encryption.md`, corrections, item 5), so the budget is counted in effective dimensions.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from rexis.attacks.exposure import Floats
from rexis.attacks.known_pairs import recover_key
from rexis.attacks.readings import explained_variance

# Of the effective rank: where a warning is due.
WARN_SHARE = 0.25
# The attacker's reading is judged on at most so many records that he does not know.
UNSEEN = 500


def effective_rank(rows: ArrayLike) -> float:
    """In how many directions the rows vary: e to the entropy of the shares of variance, 1 to d.

    Args:
        rows: floats [n, d].

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    values = np.asarray(rows, dtype=np.float64)
    shares = np.square(np.linalg.svd(values - values.mean(axis=0), compute_uv=False))
    if shares.sum() <= 0:
        return 1.0
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def figures(rows: Floats, records: int, known: int) -> Mapping[str, float]:
    """The budget of a key for these rows, and how much of it is used.

    Args:
        rows: f64 [n, d], a sample.
        records: how many go out under the key.
        known: how many of them may be known in plain.
    """
    rank = effective_rank(rows)
    return {
        "records": records,
        "records_over_d": records / rows.shape[1],
        "effective_rank": rank,
        "known_records": known,
        "known_over_rank": known / rank,
        "budget": max(1, int(WARN_SHARE * rank)),
    }


def known_pair_curve(rows: Floats, keyed_rows: Floats, known: int, generator: np.random.Generator) -> Mapping[int, float]:
    """R² of the attacker's reading of records that he does not know, by the number of pairs that he does.

    Args:
        rows, keyed_rows: f64 [n, d], the same records.
        known: one of the numbers tried; the others go up to twice d + 1, as far as there are records.
    """
    count, width = rows.shape
    most = count // 2
    tried = {1, width // 8, width // 4, width // 2, 3 * width // 4, width, width + 1, 2 * (width + 1), known, count // 10}
    order = generator.permutation(count)
    unseen = order[most:][:UNSEEN]
    curve: dict[int, float] = {}
    for pairs in sorted(number for number in tried if 0 < number <= most):
        recovered = recover_key(rows[order[:pairs]], keyed_rows[order[:pairs]])
        curve[pairs] = explained_variance(rows[unseen], recovered.decrypt(keyed_rows[unseen]))
    return curve


def judged(curve: Mapping[int, float], rows: Floats, known: int) -> Mapping[str, float]:
    """The points of the curve that the limits speak of; a point beyond the records that there are is left out."""
    count, width = rows.shape
    points = {"r2_known": known, "r2_tenth": count // 10, "r2_d_plus_1": width + 1}
    return {name: max(0.0, curve[pairs]) for name, pairs in points.items() if pairs in curve}
