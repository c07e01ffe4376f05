"""A public embedding table against a permuted vocabulary: which token stands in which keyed row, and the key of the residual stream.

The attacker knows: the plain table E of a public base, and the keyed table E' = Π E Qᵗ of the upload; nothing else.
Method: an orthogonal Q keeps the norms of rows, so rows are paired by the rank of their norms; pairs that are right point one way in
Procrustes and wrong ones in none; under the rotation found so, rows are matched again, and so on until the matches stay.
Cost: a product of the two tables a round: seconds for 30,522 tokens of width 384.
If it fails: the table drifted too far for its norms; `public_base` starts from all weights instead.
Measured in `specs/equivariant-encryption.md` 1d (c).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.attacks.matching import match_rows
from rexis.attacks.procrustes import rotation

# Enough rows for the rotation; all of them are read once, at the end.
SAMPLE_ROWS = 4096


@dataclass(frozen=True, eq=False)
class VocabularyMatch:
    """What the tables alone gave away.

    Attributes:
        by_norm: int64 [v], the token of each keyed row by the rank of norms alone.
        tokens: int64 [rows], the token of each keyed row that was read.
        matrix: f64 [d, d], the attacker's Q.
        fit: ‖E'Q - E[tokens]‖ / ‖E'‖: 0 for the exact key, near 1 or above if nothing was found.
    """

    by_norm: NDArray[np.int64]
    tokens: NDArray[np.int64]
    matrix: NDArray[np.float64]
    fit: float


def match_vocabulary(base: ArrayLike, keyed: ArrayLike, *, rows: ArrayLike | None = None, rounds: int = 10) -> VocabularyMatch:
    """Match a keyed embedding table with a plain one.

    Args:
        base, keyed: floats [v, d].
        rows: which keyed rows to read at the end; None for all.
        rounds: at most that many of matching and Procrustes.

    Raises:
        ValueError: tables of different shapes.
    """
    table, seen = np.asarray(base, dtype=np.float64), np.asarray(keyed, dtype=np.float64)
    if table.ndim != 2 or table.shape != seen.shape:
        raise ValueError(f"expected tables [v, d], got {table.shape} and {seen.shape}")
    by_norm = np.empty(len(table), dtype=np.int64)
    by_norm[np.argsort(np.linalg.norm(seen, axis=1))] = np.argsort(np.linalg.norm(table, axis=1))
    matrix = rotation(table[by_norm], seen)
    sample = seen[:: -(-len(seen) // SAMPLE_ROWS)]
    before = None
    for _ in range(rounds):
        matches = match_rows(sample @ matrix, table)
        if before is not None and np.array_equal(matches, before):
            break
        before, matrix = matches, rotation(table[matches], sample)
    read = seen if rows is None else seen[np.asarray(rows)]
    tokens = match_rows(read @ matrix, table)
    return VocabularyMatch(by_norm, tokens, matrix, float(np.linalg.norm(read @ matrix - table[tokens]) / np.linalg.norm(read)))
