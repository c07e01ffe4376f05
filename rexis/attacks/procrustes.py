"""Orthogonal Procrustes: the rotation that best explains keyed rows, if it is known which plain row each of them is.

Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31 (1966). With exact rows the rotation
is exact as soon as they span the space; wrong pairs add noise without direction, so that a few right ones among many wrong ones point the
way.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rotation(plain: ArrayLike, keyed: ArrayLike) -> NDArray[np.float64]:
    """The orthogonal T, f64 [d, d], with least ‖plain Tᵗ - keyed‖.

    Args:
        plain, keyed: floats [m, d], row by row the same.

    Raises:
        ValueError: shapes that differ.
    """
    known, seen = np.asarray(plain, dtype=np.float64), np.asarray(keyed, dtype=np.float64)
    if known.ndim != 2 or known.shape != seen.shape:
        raise ValueError(f"expected rows [m, d], got {known.shape} and {seen.shape}")
    return nearest_orthogonal(seen.T @ known)


def nearest_orthogonal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthogonal factor of a square matrix's polar decomposition."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right, dtype=np.float64)


def rotation_error(recovered: ArrayLike, truth: ArrayLike) -> float:
    """‖recovered - truth‖_F / ‖truth‖_F: 0 is the key itself, √2 what an unrelated rotation has."""
    key = np.asarray(truth, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(recovered, dtype=np.float64) - key) / np.linalg.norm(key))
