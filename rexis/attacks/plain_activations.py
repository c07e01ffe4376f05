"""A provider that trains a plaintext model on keyed rows reads them from its own activations, if it knows the plain first layer.

The attacker knows: the first layer as it got it (W T^t, b) and the keyed rows, so that it computes z = W x + b; and the plain W and b
of that layer, because they are public, or because it supplied them. Needs no pair. z determines x where W has rank d, else its part in
the row space of W. Stated in `rexis/ee/plain_model.py`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def read_rows(weight: ArrayLike, bias: ArrayLike, activations: ArrayLike) -> NDArray[np.float64]:
    """The rows f64 [n, d] of least norm that explain the activations.

    Args:
        weight: plain first layer [hidden, d] as the attacker knows it; bias: [hidden].
        activations: [n, hidden], before the nonlinearity, as the provider computes them.

    Raises:
        ValueError: shapes that do not fit.
    """
    known, offset, seen = (np.asarray(values, dtype=np.float64) for values in (weight, bias, activations))
    if known.ndim != 2 or seen.ndim != 2 or offset.shape != known.shape[:1] or seen.shape[1] != len(known):
        raise ValueError(
            f"expected weight [hidden, d], bias [hidden], activations [n, hidden], got {known.shape}, {offset.shape}, {seen.shape}"
        )
    return np.asarray((seen - offset) @ np.linalg.pinv(known).T, dtype=np.float64)
