"""Which row is which: rows of one table found again among the rows of another."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

# Above this many rows the exact assignment (cubic) gives way to the nearest row of each.
EXACT_ROWS = 1024
CHUNK_ROWS = 2048


def match_rows(rows: ArrayLike, candidates: ArrayLike) -> NDArray[np.int64]:
    """For each row the candidate it is, int64 [m]: one to one for up to `EXACT_ROWS` candidates, else the nearest by Euclidean distance.

    Args:
        rows: floats [m, k].
        candidates: floats [n, k], n ≥ m.

    Raises:
        ValueError: widths that differ, or more rows than candidates.
    """
    sought, given = np.asarray(rows, dtype=np.float64), np.asarray(candidates, dtype=np.float64)
    if sought.ndim != 2 or given.ndim != 2 or sought.shape[1] != given.shape[1] or len(sought) > len(given):
        raise ValueError(f"expected rows [m, k] and candidates [n, k], n ≥ m, got {sought.shape} and {given.shape}")
    half_norms = np.square(given).sum(axis=1) / 2
    if len(given) <= EXACT_ROWS:
        return np.asarray(linear_sum_assignment(half_norms - sought @ given.T)[1], dtype=np.int64)
    # Single precision halves the time of the product, and near-ties are wrong in either.
    given, half_norms = given.astype(np.float32), half_norms.astype(np.float32)
    parts = [
        np.argmax(sought[start : start + CHUNK_ROWS].astype(np.float32) @ given.T - half_norms, axis=1)
        for start in range(0, len(sought), CHUNK_ROWS)
    ]
    return np.concatenate(parts).astype(np.int64)


def share_matched(guess: ArrayLike, truth: ArrayLike) -> float:
    """Share of the rows that were told right."""
    return float(np.mean(np.asarray(guess) == np.asarray(truth)))
