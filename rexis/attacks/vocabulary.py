"""A public embedding table against a permuted vocabulary: which token stands in which keyed row, and the key of the residual stream.

The attacker knows: the plain table E of a public base, and the keyed table E' = Π E Qᵗ of the upload; nothing else.
Method: an orthogonal Q keeps the length of rows, so both tables are cut into the same slices by rank of length; the Gram matrix and the
mean of a slice hardly change if drift moves a few rows into the next slice, and the steps of `public_base` find Q from them; under Q rows
are matched.
Cost: n d² for n rows, then products of the two tables: a minute for 30,522 tokens of width 384.
If it fails: the table drifted too far for its lengths; `public_base` starts from all weights instead.
Measured in `specs/equivariant-encryption.md` 1d (c), there from lengths of single rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.attacks.matching import match_rows
from rexis.attacks.public_base import recover_from_views
from rexis.attacks.weights import Matrix, ResidualView

SLICES = 16


@dataclass(frozen=True, eq=False)
class VocabularyMatch:
    """What the tables alone gave away.

    Attributes:
        by_norm: int64 [v], the token of each keyed row by the rank of lengths alone.
        tokens: int64 [rows], the token of each keyed row that was read.
        matrix: f64 [d, d], the attacker's Q.
        fit: ‖E'Q - E[tokens]‖ / ‖E'‖: 0 for the exact key, near 1 or above if nothing was found.
    """

    by_norm: NDArray[np.int64]
    tokens: NDArray[np.int64]
    matrix: Matrix
    fit: float


def match_vocabulary(base: ArrayLike, keyed: ArrayLike, *, rows: ArrayLike | None = None) -> VocabularyMatch:
    """Match a keyed embedding table with a plain one.

    Args:
        base, keyed: floats [v, d].
        rows: which keyed rows to read at the end; None for all.

    Raises:
        ValueError: tables of different shapes.
    """
    table, seen = np.asarray(base, dtype=np.float64), np.asarray(keyed, dtype=np.float64)
    if table.ndim != 2 or table.shape != seen.shape:
        raise ValueError(f"expected tables [v, d], got {table.shape} and {seen.shape}")
    order, order_seen = (np.argsort(np.linalg.norm(each, axis=1)) for each in (table, seen))
    by_norm = np.empty(len(table), dtype=np.int64)
    by_norm[order_seen] = order
    matrix = recover_from_views(_slices(table, order), _slices(seen, order_seen)).matrix
    read = seen if rows is None else seen[np.asarray(rows)]
    tokens = match_rows(read @ matrix, table)
    return VocabularyMatch(by_norm, tokens, matrix, float(np.linalg.norm(read @ matrix - table[tokens]) / np.linalg.norm(read)))


def _slices(table: Matrix, order: NDArray[np.int64]) -> ResidualView:
    conjugated: dict[str, Matrix] = {}
    for number, places in enumerate(np.array_split(order, SLICES)):
        mean = table[places].mean(axis=0)
        conjugated[f"slice {number}"] = table[places].T @ table[places]
        conjugated[f"mean of slice {number}"] = np.outer(mean, mean)
    return ResidualView(conjugated, {"words": table}, {})
