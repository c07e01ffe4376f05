"""Independent component analysis: columns that are independent and not Gaussian come out of their rotation by themselves.

The attacker knows: keyed rows of one key, nothing else.
Method: FastICA. It finds columns up to order, sign and scale; names and units have to come from elsewhere, so the owner judges after the
best matching.
Cost: O(n d²) a step, seconds at 4,000 rows of 30; where columns are Gaussian it runs to its limit of steps.
If it fails: the columns are correlated or near Gaussian, which says nothing against attacks that use the correlation
(`cohort_alignment`). `gain` is what counts: on correlated columns keyed columns resemble plain ones even before any attack, so that
R² alone misleads.
Measured in `specs/equivariant-encryption.md` 1d (d), with the trap of section 4. Source: Hyvärinen and Oja, Neural Networks 13 (2000).
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import kurtosis
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from rexis.attacks.readings import Rows, as_pairs, as_rows

MAX_STEPS = 200
# Excess kurtosis beyond which a column counts as not Gaussian; 0 for a Gaussian one, 3 for a Laplacian, -1.2 for a uniform.
_HEAVY = 0.5
# Of |correlation| to the most similar other column, below which a column counts as independent.
_INDEPENDENT = 0.2
_MAX_SEED = 2**32


@dataclass(frozen=True, eq=False)
class ComponentReading:
    """What FastICA found, and which plain column each component is.

    Attributes:
        components: f64 [n, d], in the order of the plain columns, each scaled and signed to fit its column best.
        figures: `r2` mean R² over the columns after that matching; `keyed_r2` the same for the keyed columns as they are; `gain` is
            r2 - keyed_r2, or 0; `best_column_r2`; `exposed_columns` share of the columns that are both far from Gaussian and nearly
            uncorrelated with all others: the warning that needs no attack.
    """

    components: Rows
    figures: Mapping[str, float]


def recover_components(keyed: ArrayLike, *, generator: np.random.Generator) -> Rows:
    """Independent components of keyed rows [n, d], in no order, of unit variance; fewer than d if the rows do not span the space.

    Raises:
        ValueError: not rows, or values that are not finite.
    """
    rows = as_rows(keyed)
    rank = int(np.linalg.matrix_rank(rows - rows.mean(axis=0)))
    analysis = FastICA(rank, whiten="unit-variance", max_iter=MAX_STEPS, random_state=int(generator.integers(_MAX_SEED)))
    with warnings.catch_warnings():
        # Columns without structure never converge; the figures say so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(analysis.fit_transform(rows), dtype=np.float64)


def component_reading(keyed: ArrayLike, *, truth: ArrayLike, generator: np.random.Generator) -> ComponentReading:
    """Attack keyed rows, and judge against the plain ones.

    Args:
        keyed: floats [n, d], what the provider sees.
        truth: floats [n, d], the same rows in plain; used to judge alone.
        generator: draws FastICA's start.

    Raises:
        ValueError: shapes that differ, or values that are not finite.
    """
    plain, seen = as_pairs(truth, keyed)
    sources = recover_components(seen, generator=generator)
    shares, matched = _matched(plain, sources)
    raw, _ = _matched(plain, seen)
    correlation = np.abs(_correlation(plain, plain)) - np.eye(plain.shape[1])
    exposed = (np.abs(kurtosis(plain, axis=0)) > _HEAVY) & (correlation.max(axis=1) < _INDEPENDENT)
    figures = {
        "r2": float(shares.mean()),
        "keyed_r2": float(raw.mean()),
        "gain": max(0.0, float(shares.mean() - raw.mean())),
        "best_column_r2": float(shares.max()),
        "exposed_columns": float(exposed.mean()),
    }
    return ComponentReading(matched, figures)


def _matched(plain: Rows, candidates: Rows) -> tuple[NDArray[np.float64], Rows]:
    """R² of each plain column with its own candidate, and those candidates on the columns' scale; 0 and the mean where there is none."""
    correlation = _correlation(plain, candidates)
    columns, chosen = linear_sum_assignment(-np.square(correlation))
    shares = np.zeros(plain.shape[1])
    read = np.tile(plain.mean(axis=0), (len(plain), 1))
    shares[columns] = np.square(correlation[columns, chosen])
    standard = (candidates - candidates.mean(axis=0)) / np.maximum(candidates.std(axis=0), np.finfo(np.float64).tiny)
    read[:, columns] += standard[:, chosen] * correlation[columns, chosen] * plain.std(axis=0)[columns]
    return shares, read


def _correlation(left: Rows, right: Rows) -> NDArray[np.float64]:
    """Correlations [d, k]; 0 with a constant column."""
    tiny = np.finfo(np.float64).tiny
    first, second = ((rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), tiny) for rows in (left, right))
    return np.asarray(first.T @ second / len(left), dtype=np.float64)
