"""Known pairs against Equivariant Encryption: d + 1 plain rows with their keyed forms give the input key away.

The attacker knows: m plain rows and the same rows keyed (public, guessable or planted records), nothing of weights or outputs.
Method: least squares in both directions. x' = T x + δ is determined by d + 1 affinely independent pairs; fewer leave open the directions
that they do not span, and correlated records hardly vary there. Noise or a client-side layer before the key is met with ridge regression.
Cost: O(m d²), milliseconds at d = 768.
If it fails: these pairs do not span the records; more pairs, or other ones, may.
Measured in `specs/equivariant-encryption.md` 1d (a), 1e and corrections, item 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeCV

from rexis.attacks.readings import as_rows, explained_variance
from rexis.ee import effective_rank

# Of the effective rank of the owner's data: where a warning is due.
WARN_SHARE = 0.25
_RIDGE_STRENGTHS = np.logspace(-6, 4, 21)


@dataclass(frozen=True, eq=False)
class RecoveredKey:
    """An affine map that explains the known pairs, of least norm where they leave a choice, and the one that leads back.

    Attributes:
        matrix: f64 [k, d], the attacker's T; k = d but for a client-side layer before the key.
        shift: f64 [k], the attacker's δ.
        inverse: f64 [d, k], fitted from keyed to plain: with fewer than d + 1 pairs inverting `matrix` would blow up what they left open.
        centre: f64 [d], plain row that the keyed zero is read as.
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]
    inverse: NDArray[np.float64]
    centre: NDArray[np.float64]

    @classmethod
    def of(cls, matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Self:
        """The key of a T and a δ that were found otherwise."""
        inverse = np.asarray(np.linalg.pinv(matrix), dtype=np.float64)
        return cls(matrix, shift, inverse, -inverse @ shift)

    def decrypt(self, keyed: ArrayLike) -> NDArray[np.float64]:
        """The attacker's reading of keyed rows [n, k]."""
        return np.asarray(np.asarray(keyed, dtype=np.float64) @ self.inverse.T + self.centre, dtype=np.float64)


def recover_key(plain: ArrayLike, keyed: ArrayLike, *, noisy: bool = False) -> RecoveredKey:
    """Least squares over known pairs.

    Args:
        plain: floats [m, d]; m of any size.
        keyed: floats [m, k], row by row the same records; k = d for EE, while a client-side layer before the key may have another width.
        noisy: the attacker knows that the map is not exactly affine (noise or a client-side layer before the key), so that he reads by
            ridge regression, its strength chosen by generalised cross-validation; needs three pairs.

    Raises:
        ValueError: other shapes.
    """
    known, seen = np.asarray(plain, dtype=np.float64), np.asarray(keyed, dtype=np.float64)
    if known.ndim != 2 or seen.ndim != 2 or len(known) != len(seen):
        raise ValueError(f"expected pairs [m, d] and [m, k], got {known.shape} and {seen.shape}")
    matrix, shift = _affine(known, seen)
    if not noisy or len(known) < 3:
        return RecoveredKey(matrix, shift, *_affine(seen, known))
    ridge = RidgeCV(alphas=_RIDGE_STRENGTHS).fit(seen, known)
    return RecoveredKey(matrix, shift, np.asarray(ridge.coef_, dtype=np.float64), np.asarray(ridge.intercept_, dtype=np.float64))


def _affine(source: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix [k, d] and shift [k] of least norm with target [m, k] ≈ source [m, d] matrixᵗ + shift."""
    homogeneous = np.hstack([source, np.ones((len(source), 1))])
    solution = np.asarray(np.linalg.lstsq(homogeneous, target, rcond=None)[0], dtype=np.float64)
    return solution[:-1].T, solution[-1]


@dataclass(frozen=True, eq=False)
class KnownPairCurve:
    """What the attacker reads of the records that he does not know, by the number of pairs that he does.

    Attributes:
        curve: pairs → R² of the other records.
        figures: `r2_1_percent`, `r2_10_percent`, `r2_d_plus_1` (d of the keyed rows; left out where there are too few records),
            `effective_rank`, and `warn_pairs`, from how many known records on a warning is due.
    """

    curve: Mapping[int, float]
    figures: Mapping[str, float]


def known_pair_curve(
    keyed: ArrayLike, *, truth: ArrayLike, generator: np.random.Generator, pairs: tuple[int, ...] = (), noisy: bool = False
) -> KnownPairCurve:
    """Give the attacker more and more pairs, drawn at random.

    Args:
        keyed: floats [n, k], what the provider sees.
        truth: floats [n, d], the same rows in plain: the attacker's pairs, and the yardstick for all others.
        generator: draws which records are known.
        pairs: further numbers of pairs to try.
        noisy: as in `recover_key`.

    Raises:
        ValueError: other shapes, values that are not finite, or a number of pairs that leaves no record unknown.
    """
    plain, seen = as_rows(truth), as_rows(keyed)
    if len(plain) != len(seen):
        raise ValueError(f"expected pairs [n, d] and [n, k], got {plain.shape} and {seen.shape}")
    count, width = seen.shape
    points = {"r2_1_percent": max(1, count // 100), "r2_10_percent": max(1, count // 10), "r2_d_plus_1": width + 1}
    tried = {number for number in points.values() if number <= count - 2} | set(pairs)
    if not all(0 < number <= count - 2 for number in tried):
        raise ValueError(f"expected between 1 and {count - 2} known pairs of {count} records, got {sorted(pairs)}")
    order = generator.permutation(count)
    curve = {}
    for number in sorted(tried):
        known, others = order[:number], order[number:]
        recovered = recover_key(plain[known], seen[known], noisy=noisy)
        curve[number] = explained_variance(plain[others], recovered.decrypt(seen[others]))
    rank = effective_rank(plain)
    figures = {name: curve[number] for name, number in points.items() if number in curve}
    return KnownPairCurve(curve, {**figures, "effective_rank": rank, "warn_pairs": max(1.0, np.floor(WARN_SHARE * rank))})
