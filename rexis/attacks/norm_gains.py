"""LayerNorm gains against permutation keys: the residual stream's permutation from 2L + 1 short vectors.

The attacker knows: the gains (and shifts) of the LayerNorms of a public base, and those of the keyed upload, gamma' = Q gamma; nothing
else.
Method: coordinate i of the stream has one value in every LayerNorm; this short profile tells it from the others.
Cost: one assignment problem of size d, well under a second at d = 768.
If it fails: the gains drifted by more than the profiles differ; `public_base` follows the large matrices instead, and is not stopped by
that.
Measured in `specs/equivariant-encryption.md` 1d (b2).
"""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.attacks.matching import match_rows

_NORM = re.compile(r"LayerNorm\.(weight|bias)$")


def norm_profiles(state: Mapping[str, ArrayLike], *, shifts: bool = False) -> NDArray[np.float64]:
    """The values of each coordinate in all LayerNorms of a BERT state, f64 [d, norms], in the order of the names.

    Args:
        state: name → tensor.
        shifts: take β along with gamma: [d, 2 norms].

    Raises:
        ValueError: no LayerNorm among the names.
    """
    kinds = ("weight", "bias") if shifts else ("weight",)
    names = sorted(name for name in state if (found := _NORM.search(name)) and found[1] in kinds)
    if not names:
        raise ValueError("expected tensors whose names end in LayerNorm.weight")
    return np.stack([np.asarray(state[name], dtype=np.float64) for name in names], axis=1)


def match_gains(base: ArrayLike, keyed: ArrayLike) -> NDArray[np.int64]:
    """The permutation of the residual stream: keyed coordinate i is plain coordinate result[i]; int64 [d].

    Args:
        base, keyed: profiles [d, norms], as `norm_profiles` gives them.

    Raises:
        ValueError: profiles of different shapes.
    """
    plain, seen = np.asarray(base, dtype=np.float64), np.asarray(keyed, dtype=np.float64)
    if plain.ndim != 2 or plain.shape != seen.shape:
        raise ValueError(f"expected profiles [d, norms], got {plain.shape} and {seen.shape}")
    # Every norm counts alike, whatever its spread.
    spread = plain.std(axis=0)
    spread[spread == 0] = 1.0
    return match_rows(seen / spread, plain / spread)
