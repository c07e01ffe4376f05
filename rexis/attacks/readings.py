"""How good an attacker's reading is, judged by the owner, who has the truth: explained variance and re-identification.

R² tells how much of the values was read, re-identification whether a person can be told: a reading of the common part of correlated columns
has a high R² and points at nobody, and a poor reading may still be nearest to the right person.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

Rows = NDArray[np.float64]


def explained_variance(plain: ArrayLike, read: ArrayLike) -> float:
    """R² of the attacker's reading of unseen rows: 1 is a total break, 0 or less no better than the column means."""
    truth, guess = np.asarray(plain, dtype=np.float64), np.asarray(read, dtype=np.float64)
    return float(1.0 - np.square(truth - guess).sum() / np.square(truth - truth.mean(axis=0)).sum())


def reidentification_rate(plain: ArrayLike, read: ArrayLike) -> float:
    """Share of read rows whose nearest true row is the right one; by chance one in n.

    Args:
        plain, read: floats [n, d], row by row the same records.
    """
    return float((cdist(as_rows(read), as_rows(plain), "sqeuclidean").argmin(axis=1) == np.arange(len(as_rows(plain)))).mean())


def as_rows(values: ArrayLike, *, columns: int | None = None) -> Rows:
    """Finite f64 [n, d] with n ≥ 2.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != (columns or rows.shape[1]) or not np.isfinite(rows).all():
        raise ValueError(f"expected finite rows [n, {columns or 'd'}] with n ≥ 2, got shape {rows.shape}")
    return rows


def as_pairs(plain: ArrayLike, keyed: ArrayLike) -> tuple[Rows, Rows]:
    """Plain rows and their keyed forms, both f64 [n, d].

    Raises:
        ValueError: shapes that differ, or values that are not finite.
    """
    truth, seen = as_rows(plain), as_rows(keyed)
    if truth.shape != seen.shape:
        raise ValueError(f"expected pairs [n, d], got {truth.shape} and {seen.shape}")
    return truth, seen
