"""Two uploads of the same weights under different keys: that they are the same, and the key from one to the other.

The attacker knows: two keyed models, say of two jobs or two epochs; no plain weight and no data.
Method for a layer: angles between rows in their tight frame (`frames`) survive every key, so each hidden unit is known again by its
angles to the others, whatever order and scale it got; over matched units Procrustes gives T₂ T₁⁻¹, up to the one factor that scales leave
open. For a transformer: the first upload takes the place of the public base in `public_base`.
Cost: O(n² log n + n d²) for n units of width d.
What it means: re-keying the same weights separates nothing. With the relative key every record of one job is moved into the other's
coordinates, and known pairs of either break both. Only other weights (an upload after training moved them) or one upload per model help.
If it fails: the residual is about 1, or the rows are so few that any rotation fits; then compare another layer.
Measured in `specs/equivariant-encryption.md` 1d, last row.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.attacks.frames import match_frames, tight_frame
from rexis.attacks.procrustes import rotation
from rexis.attacks.public_base import RecoveredBasis, recover_basis

# f32 uploads of the same weights agree to 1e-6; two models trained alike from different starts are a hundred times farther apart than this.
SAME_WEIGHTS = 1e-3


@dataclass(frozen=True, eq=False)
class LinkedLayers:
    """How the second layer follows from the first.

    Attributes:
        order: int64 [n]; unit i of the second is unit order[i] of the first.
        scales: f64 [n]; its weights are so many times larger, negative if the sign was changed.
        relative_key: f64 [d, d]; x'' = relative_key x' for one record under both keys, without shifts.
        residual: ‖second - scales first[order] relative_keyᵗ‖ / ‖second‖.
    """

    order: NDArray[np.int64]
    scales: NDArray[np.float64]
    relative_key: NDArray[np.float64]
    residual: float

    @property
    def same_weights(self) -> bool:
        """Whether the attacker concludes that both are keyed copies of one layer."""
        return self.residual < SAME_WEIGHTS


def link_layers(first: ArrayLike, second: ArrayLike, *, odd_activation: bool = False) -> LinkedLayers:
    """Link two keyed copies of a first layer.

    Args:
        first, second: weights [n, d]; rows permuted and scaled, columns keyed by an invertible matrix; by an
            orthogonal one if n ≤ d.
        odd_activation: whether keys may have changed signs of units. Weights then leave one sign open for the whole layer: the relative key
            is found up to it.

    Raises:
        ValueError: shapes that differ, or a row of zeros.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(f"expected two weights [n, d], got {one.shape} and {other.shape}")
    frame, frame_other = tight_frame(one), tight_frame(other)
    order = match_frames(frame, frame_other)
    rows = frame.rows[order]
    signs = np.ones(len(order))
    if odd_activation:
        agreement = (frame_other.rows @ frame_other.rows.T) * (rows @ rows.T)
        signs = np.where(np.linalg.eigh(agreement)[1][:, -1] < 0, -1.0, 1.0)
    turn = rotation(signs[:, None] * rows, frame_other.rows)
    # second = diag(1 / scales'') turned frame / matrix''; the frame is diag(scales') first matrix'.
    scales = signs * frame.scales[order] / frame_other.scales
    key = np.linalg.inv(frame_other.matrix).T @ turn @ frame.matrix.T
    residual = float(np.linalg.norm(other - scales[:, None] * (one[order] @ key.T)) / np.linalg.norm(other))
    return LinkedLayers(order, scales, key, residual)


def link_transformers(first: Mapping[str, ArrayLike], second: Mapping[str, ArrayLike], *, head_width: int | None = None) -> RecoveredBasis:
    """Link two keyed BERT or Llama uploads: `matrix` is Q₂ Q₁ᵗ, and `fit` below `SAME_WEIGHTS` says that they are the same weights.

    Raises:
        ValueError: as `recover_basis`.
    """
    return recover_basis(first, second, head_width=head_width)
