"""Known pairs against Equivariant Encryption: d + 1 plain rows with their keyed forms give the input key away.

The attacker knows: m plain rows and the same rows keyed, nothing of weights or outputs. d + 1 affinely independent pairs determine
x' = T x + δ; fewer leave it undetermined in the directions they do not span. Measured in `specs/equivariant-encryption.md` 1d (a).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class RecoveredKey:
    """An affine map that explains the known pairs, of least norm where they leave a choice.

    Attributes:
        matrix: f64 [d, d], the attacker's T.
        shift: f64 [d], the attacker's δ.
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    def decrypt(self, keyed: ArrayLike) -> NDArray[np.float64]:
        """The attacker's reading of keyed rows [n, d]."""
        rows = np.asarray(keyed, dtype=np.float64) - self.shift
        return np.asarray(rows @ np.linalg.pinv(self.matrix).T, dtype=np.float64)


def recover_key(plain: ArrayLike, keyed: ArrayLike) -> RecoveredKey:
    """Least squares over known pairs.

    Args:
        plain, keyed: floats [m, d], row by row the same records; m of any size.

    Raises:
        ValueError: shapes that differ.
    """
    known, seen = np.asarray(plain, dtype=np.float64), np.asarray(keyed, dtype=np.float64)
    if known.ndim != 2 or known.shape != seen.shape:
        raise ValueError(f"expected pairs [m, d], got {known.shape} and {seen.shape}")
    homogeneous = np.hstack([known, np.ones((len(known), 1))])
    solution = np.asarray(np.linalg.lstsq(homogeneous, seen, rcond=None)[0], dtype=np.float64)
    return RecoveredKey(solution[:-1].T, solution[-1])


def explained_variance(plain: ArrayLike, read: ArrayLike) -> float:
    """R² of the attacker's reading of unseen rows: 1 is a total break, 0 no better than the column means."""
    truth, guess = np.asarray(plain, dtype=np.float64), np.asarray(read, dtype=np.float64)
    return float(1.0 - np.square(truth - guess).sum() / np.square(truth - truth.mean(axis=0)).sum())
