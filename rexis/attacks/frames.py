"""The tight frame of a weight matrix: what is left of n rows of width d when any key of their width and any scale of a row is taken off.

For n > d rows in general position there is one invertible T and one scale per row under which all rows have length 1 and together favour
no direction (Σ x xᵗ = n/d): the radial isotropic position, unique up to a rotation (Barthe, Inventiones Mathematicae 134, 1998). Angles
in it are the same for a weight and for every keyed copy of it, also under keys that are not orthogonal; so such keys hide no more than
orthogonal ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.attacks.matching import match_rows

STEPS = 500
TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class TightFrame:
    """rows = diag(scales) weight matrix.

    Attributes:
        rows: f64 [n, d], each of length 1.
        scales: f64 [n], positive.
        matrix: f64 [d, d].
    """

    rows: NDArray[np.float64]
    scales: NDArray[np.float64]
    matrix: NDArray[np.float64]


def tight_frame(weight: ArrayLike) -> TightFrame:
    """Bring a weight [n, d] into its tight frame; of n ≤ d rows, which have none, only the lengths are taken.

    Raises:
        ValueError: a row of zeros, or no matrix.
    """
    plain = np.asarray(weight, dtype=np.float64)
    if plain.ndim != 2 or not np.square(plain).sum(axis=1).all():
        raise ValueError(f"expected a weight [n, d] without rows of zeros, got shape {plain.shape}")
    count, width = plain.shape
    matrix = np.eye(width)
    rows, scales = plain, np.ones(count)
    for _ in range(STEPS):
        lengths = np.linalg.norm(rows, axis=1)
        rows, scales = rows / lengths[:, None], scales / lengths
        if count <= width:
            break
        values, vectors = np.linalg.eigh(rows.T @ rows * (width / count))
        if abs(values - 1).max() < TOLERANCE:
            break
        whitening = (vectors / np.sqrt(np.maximum(values, np.finfo(float).tiny))) @ vectors.T
        rows, matrix = rows @ whitening, matrix @ whitening
    return TightFrame(rows, scales, matrix)


def match_frames(first: TightFrame, second: TightFrame) -> NDArray[np.int64]:
    """Row i of the second is row result[i] of the first: known again by its angles to all others, signs left out; int64 [n]."""
    return match_rows(_angles(second), _angles(first))


def _angles(frame: TightFrame) -> NDArray[np.float64]:
    return np.sort(np.abs(frame.rows @ frame.rows.T), axis=1)
