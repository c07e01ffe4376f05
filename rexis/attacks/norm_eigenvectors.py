"""Keyed LayerNorms against dense keys: M = Q diag(gamma) Qᵗ shows Q, without any plain weight.

The attacker knows: the upload. A dense key on an affine post-LN model must hand the provider M with it, because gamma lies on the
residual path and can not be folded away.
Method: the singular vectors of M are the columns of Q; Q 1 = 1, which LayerNorm demands, makes every column sum to 1 and so fixes its
sign.
With a key per block, M = Q_next diag(gamma) Q_prevᵗ, the left ones are of one key and the right ones of the other.
Cost: one decomposition, O(d³).
What is left is the order of the coordinates: the dense key is no more than a permutation. So the dense suite is refused for such models.
If it fails: gamma is constant (a LayerNorm without affine part, whose M is the identity and is not sent): then there is nothing to
decompose.
Measured in `specs/equivariant-encryption.md`, correction 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A column counts as recovered if it and the true one point the same way within 8 degrees.
AGREEMENT = 0.99


@dataclass(frozen=True, eq=False)
class RecoveredColumns:
    """What M shows, in the order of |gamma| from the largest to the smallest.

    Attributes:
        following: f64 [d, d]; its columns are those of the key after the LayerNorm.
        preceding: f64 [d, d]; those of the key before it; the same key unless every block has its own.
        gains: f64 [d], gamma with its signs.
    """

    following: NDArray[np.float64]
    preceding: NDArray[np.float64]
    gains: NDArray[np.float64]


def recover_columns(matrix: ArrayLike) -> RecoveredColumns:
    """Decompose one keyed LayerNorm.

    Args:
        matrix: M, floats [d, d].

    Raises:
        ValueError: not a square matrix.
    """
    keyed = np.asarray(matrix, dtype=np.float64)
    if keyed.ndim != 2 or keyed.shape[0] != keyed.shape[1]:
        raise ValueError(f"expected a matrix [d, d], got {keyed.shape}")
    left, gains, right = np.linalg.svd(keyed)
    signs_left, signs_right = _signs(left), _signs(right.T)
    return RecoveredColumns(left * signs_left, right.T * signs_right, gains * signs_left * signs_right)


def share_of_columns(recovered: ArrayLike, truth: ArrayLike) -> float:
    """Share of the true key's columns [d, d] that stand among the recovered ones, signs included."""
    cosines = np.asarray(truth, dtype=np.float64).T @ np.asarray(recovered, dtype=np.float64)
    return float(np.mean(cosines.max(axis=1) >= AGREEMENT))


def _signs(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(columns.sum(axis=0) < 0, -1.0, 1.0)
