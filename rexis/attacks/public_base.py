"""Public base weights against a keyed upload: the key of the residual stream from the weights alone, without any data.

The attacker knows: the plain weights that the upload was keyed from, or weights that it drifted from (a fine-tune of a public base); the
keyed weights; nothing of keys, inputs or outputs. A member of a federation knows the same, with drift 0.
Method: (1) spectral: a sum of Gram matrices has the eigenvectors of the plain one, turned by Q; their signs are read from the single
matrices, up to one for all, which rows tell. (2) Fixed-point iteration Q ← polar(Σ N' Q N), which follows all matrices at once and needs
no single eigenvector to survive the drift. (3) Rows of tables are matched under Q, and Procrustes over matched rows repeats until the
matches stay.
Cost: O(n d³) for n matrices a step, and one product of two tables a round of (3): seconds to a minute at d = 384.
If it fails: not by this attack, with this base. The fit says so to the attacker too.
Measured in `specs/equivariant-encryption.md` 1d (b), there without step (2). Step 1: Umeyama, IEEE TPAMI 10 (1988); step 2: Journée et
al., JMLR 11 (2010), 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.attacks.matching import match_rows
from rexis.attacks.procrustes import nearest_orthogonal, rotation
from rexis.attacks.weights import Matrix, ResidualView, residual_view

# A step that moves Q by less than this, relative to ‖Q‖, is the last one.
TOLERANCE = 1e-7
MAX_TABLE_ROWS = 2048


@dataclass(frozen=True, eq=False)
class RecoveredBasis:
    """The attacker's key of the residual stream.

    Attributes:
        matrix: f64 [d, d], the attacker's Q.
        spectral: f64 [d, d], what step (1) alone gave.
        fit: relative distance between the keyed table rows and the plain rows that they were matched to, under `matrix`: 0 for the exact
            key, about the drift for drifted weights, near 1 or above if nothing was found.
    """

    matrix: Matrix
    spectral: Matrix
    fit: float

    def decrypt(self, keyed: ArrayLike) -> Matrix:
        """The attacker's reading of keyed vectors [n, d]."""
        return np.asarray(np.asarray(keyed, dtype=np.float64) @ self.matrix, dtype=np.float64)


def recover_basis(
    base: Mapping[str, ArrayLike], keyed: Mapping[str, ArrayLike], *, head_width: int | None = None, iterations: int = 40, rounds: int = 6
) -> RecoveredBasis:
    """Recover the key of the residual stream of a keyed BERT or Llama.

    Args:
        base: the plain state that the attacker holds, name → tensor.
        keyed: the uploaded state; the same names.
        head_width: as in `residual_view`.
        iterations: at most that many of step (2); 0 leaves it out.
        rounds: at most that many of step (3); 0 leaves it out.

    Raises:
        ValueError: states that have no tensor in common, or different shapes.
    """
    plain_view, keyed_view = residual_view(base, head_width=head_width), residual_view(keyed, head_width=head_width)
    return recover_from_views(plain_view, keyed_view, iterations=iterations, rounds=rounds)


def recover_from_views(plain: ResidualView, keyed: ResidualView, *, iterations: int = 40, rounds: int = 6) -> RecoveredBasis:
    """`recover_basis` on views, which may also be of tensors under other names.

    Raises:
        ValueError: views that have nothing in common, or different shapes.
    """
    names = [name for name in plain.conjugated if name in keyed.conjugated]
    if not names or any(plain.conjugated[name].shape != keyed.conjugated[name].shape for name in names):
        raise ValueError("expected plain and keyed weights of one architecture")
    pairs = [(_unit(plain.conjugated[name]), _unit(keyed.conjugated[name])) for name in names]
    spectral = _spectral(pairs)
    matrix = _iterate(spectral, pairs, iterations)
    matrix, fit = _match_tables(matrix, plain, keyed, rounds)
    return RecoveredBasis(matrix, spectral, fit)


def read_tokens(basis: RecoveredBasis, vectors: ArrayLike, table: ArrayLike) -> NDArray[np.int64]:
    """The token of each keyed word vector, int64 [n].

    Args:
        vectors: keyed word vectors [n, d]: rows of the keyed embedding table, or what a client sends.
        table: the attacker's word embeddings [v, d].
    """
    return match_rows(basis.decrypt(vectors), table)


def _unit(matrix: Matrix) -> Matrix:
    return matrix / np.linalg.norm(matrix)


def _spectral(pairs: list[tuple[Matrix, Matrix]]) -> Matrix:
    plain = np.linalg.eigh(sum((pair[0] for pair in pairs), np.zeros_like(pairs[0][0])))[1]
    keyed = np.linalg.eigh(sum((pair[1] for pair in pairs), np.zeros_like(pairs[0][1])))[1]
    # In the eigenbases each keyed matrix is the plain one with signs s sᵗ: the products of their entries are s sᵗ times squares.
    agreement = np.zeros_like(plain)
    for plain_matrix, keyed_matrix in pairs:
        agreement += (plain.T @ plain_matrix @ plain) * (keyed.T @ keyed_matrix @ keyed)
    signs = np.where(np.linalg.eigh(agreement)[1][:, -1] < 0, -1.0, 1.0)
    return np.asarray((keyed * signs) @ plain.T, dtype=np.float64)


def _iterate(matrix: Matrix, pairs: list[tuple[Matrix, Matrix]], iterations: int) -> Matrix:
    for _ in range(iterations):
        before = matrix
        matrix = nearest_orthogonal(sum((keyed @ matrix @ plain for plain, keyed in pairs), np.zeros_like(matrix)))
        if np.linalg.norm(matrix - before) <= TOLERANCE * np.sqrt(len(matrix)):
            break
    return matrix


def _match_tables(matrix: Matrix, plain: ResidualView, keyed: ResidualView, rounds: int) -> tuple[Matrix, float]:
    tables = [(plain.tables[name], _sample(keyed.tables[name])) for name in plain.tables if name in keyed.tables]
    ordered = [(plain.ordered[name], keyed.ordered[name]) for name in plain.ordered if name in keyed.ordered]
    targets = np.concatenate([rows for _, rows in [*tables, *ordered]])
    places = [np.arange(len(rows)) for _, rows in ordered]

    def matched(guess: Matrix) -> tuple[list[NDArray[np.int64]], Matrix, float]:
        matches = [*(match_rows(rows @ guess, table) for table, rows in tables), *places]
        sources = np.concatenate([table[match] for (table, _), match in zip([*tables, *ordered], matches, strict=True)])
        return matches, sources, float(np.linalg.norm(targets - sources @ guess.T) / np.linalg.norm(targets))

    # Conjugation is the same under Q and -Q; rows are not.
    matrix = min((matrix, -matrix), key=lambda guess: matched(guess)[2])
    matches, sources, fit = matched(matrix)
    for _ in range(rounds):
        before, matrix = matches, rotation(sources, targets)
        matches, sources, fit = matched(matrix)
        if all(np.array_equal(now, then) for now, then in zip(matches, before, strict=True)):
            break
    return matrix, fit


def _sample(rows: Matrix) -> Matrix:
    # Every k-th row: the order of a keyed table is random, so that any choice is.
    return rows[:: -(-len(rows) // MAX_TABLE_ROWS)]
