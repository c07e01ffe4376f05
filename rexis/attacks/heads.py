"""Attention heads of a keyed block: their order and the key of each, once the residual stream's key is known.

The attacker knows: the plain weights of one block (a public base, or a member's copy), the keyed ones, and Q, which `public_base` found.
Method: the product of a head's query and key weights is free of the head's own key, K' = S K Qᵗ and Q' = S⁻ᵗ Q Qᵗ give Q (QᵗK) Qᵗ; so
keyed heads are matched to plain ones by these products, and least squares on a matched head gives S, for any invertible S.
Cost: heads² products of d by d entries, then one least squares a head.
What it means: keys and values that a provider caches are read in plain coordinates. A key per head adds nothing once the residual key
fell.
If it fails: Q was wrong; the residual says so.
Formulas: `specs/equivariant-encryption.md` 2a (Q, K and V, O per head).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.attacks.matching import match_rows


@dataclass(frozen=True, eq=False)
class RecoveredHeads:
    """Heads of one block.

    Attributes:
        order: int64 [heads]; keyed head i is plain head order[i].
        keys: f64 [heads, w, w]; the S of each keyed head, on the side of the keys or the values.
        residual: ‖reader' - S reader Qᵗ‖ / ‖reader'‖ over all heads: 0 if Q is right.
    """

    order: NDArray[np.int64]
    keys: NDArray[np.float64]
    residual: float


def recover_heads(
    base: tuple[ArrayLike, ArrayLike], keyed: tuple[ArrayLike, ArrayLike], residual_key: ArrayLike, *, head_width: int
) -> RecoveredHeads:
    """Recover order and keys of the heads of a block without shared heads.

    Args:
        base: plain (reader, partner), floats [heads · w, d] each: (key, query), or (value, attention output transposed).
        keyed: the same of the upload.
        residual_key: Q, floats [d, d].
        head_width: w.

    Raises:
        ValueError: shapes that differ, or that w does not divide.
    """
    arrays = [np.asarray(matrix, dtype=np.float64) for matrix in (*base, *keyed)]
    rows = arrays[0].shape[0]
    if any(array.shape != arrays[0].shape for array in arrays) or rows % head_width:
        raise ValueError(f"expected four weights [heads · {head_width}, d], got {[array.shape for array in arrays]}")
    rotation = np.asarray(residual_key, dtype=np.float64)
    plain, plain_partner, seen, seen_partner = (array.reshape(-1, head_width, array.shape[1]) for array in arrays)
    plain, plain_partner = plain @ rotation.T, plain_partner @ rotation.T
    order = match_rows(_products(seen, seen_partner), _products(plain, plain_partner))
    keys = np.stack([np.linalg.lstsq(plain[head].T, found.T, rcond=None)[0].T for head, found in zip(order, seen, strict=True)])
    residual = float(np.linalg.norm(seen - keys @ plain[order]) / np.linalg.norm(seen))
    return RecoveredHeads(order, keys, residual)


def _products(reader: NDArray[np.float64], partner: NDArray[np.float64]) -> NDArray[np.float64]:
    products = np.swapaxes(partner, 1, 2) @ reader
    return products.reshape(len(products), -1)
