"""Alignment with a reference cohort: other records of the same kind are enough to turn keyed rows back.

The attacker knows: keyed rows of one orthogonal key; plain rows of other people from the same distribution, in the same units; if noise was
added before the key, its standard deviation.
Method: (1) the covariances of both sets have the same eigenvalues, which pairs their eigenvectors, and skewness tells their signs.
(2) Optimal transport couples the turned rows with the cohort, Procrustes turns them anew, and so on; once from the signs as they are, once
with leading signs flipped where that lowers the cost of transport, and the cheaper end counts. (3) Known noise is taken out by the cohort's
covariance (a Wiener filter), which correlated columns make strong.
Cost: up to 40 transports, each about cubic in the rows: a second at 300 rows, a minute at 1,500: sample.
If it fails: the cohort is too small or too different, or columns too symmetrical for their signs; a better cohort may do.
Measured in `specs/equivariant-encryption.md` 1d (d) and 1e, with another rule for the signs and without step (3); this attack goes further.
Sources: Grave, Joulin and Berthet, AISTATS 2019 (transport and Procrustes in turn); Schönemann, Psychometrika 31 (1966).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import ot
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from rexis.attacks.procrustes import nearest_orthogonal
from rexis.attacks.readings import Rows, as_pairs, as_rows, explained_variance, reidentification_rate

MAX_STEPS = 15
# A step that turns no entry by more is the last one.
_STILL = 1e-4
# Signs of the leading axes decide where rows lie; those of the last hardly move them.
_FLIPPED_AXES = 10


@dataclass(frozen=True, eq=False)
class CohortReading:
    """The attacker's reading of keyed rows by way of a cohort.

    Attributes:
        rows: f64 [n, d], what was read.
        figures: `covariance_r2` and `covariance_reidentified` after step (1); `r2` and `reidentified` in the end; `chance` what guessing
            re-identifies.
    """

    rows: Rows
    figures: Mapping[str, float]


def align_covariances(keyed: ArrayLike, reference: ArrayLike) -> Rows:
    """Step (1): orthogonal [d, d] that turns centred keyed rows to the cohort's axes, `keyed @ result`.

    Raises:
        ValueError: widths that differ, or values that are not finite.
    """
    cohort = as_rows(reference)
    (seen_axes, seen_skews), (axes, skews) = _principal(as_rows(keyed, columns=cohort.shape[1])), _principal(cohort)
    signs = np.where(seen_skews * skews < 0, -1.0, 1.0)
    return np.asarray((seen_axes * signs) @ axes.T, dtype=np.float64)


def flip_signs(keyed: ArrayLike, reference: ArrayLike, turn: Rows) -> Rows:
    """The turn of step (1) with the signs of leading axes flipped, one after the other, where that brings the sets closer.

    Raises:
        ValueError: widths that differ, or values that are not finite.
    """
    cohort = as_rows(reference)
    axes = _principal(cohort)[0]
    cost = transport_cost(keyed, cohort, turn)
    for axis in axes.T[:_FLIPPED_AXES]:
        flipped = turn - 2 * np.outer(turn @ axis, axis)
        trial = transport_cost(keyed, cohort, flipped)
        if trial < cost:
            turn, cost = flipped, trial
    return turn


def transport_cost(keyed: ArrayLike, reference: ArrayLike, turn: Rows) -> float:
    """Least mean squared distance of a coupling of turned rows with the cohort, both centred: how well a turn fits, without the truth."""
    cohort = as_rows(reference)
    seen = as_rows(keyed, columns=cohort.shape[1])
    distances = cdist((seen - seen.mean(axis=0)) @ turn, cohort - cohort.mean(axis=0), "sqeuclidean")
    return float(ot.emd2(*(np.full(count, 1 / count) for count in distances.shape), distances))


def refine(keyed: ArrayLike, reference: ArrayLike, turn: Rows, *, steps: int = MAX_STEPS) -> Rows:
    """Step (2): a better turn [d, d], from the one given.

    Raises:
        ValueError: widths that differ, or values that are not finite.
    """
    cohort = as_rows(reference)
    seen = as_rows(keyed, columns=cohort.shape[1])
    seen, cohort = seen - seen.mean(axis=0), cohort - cohort.mean(axis=0)
    masses = [np.full(len(rows), 1 / len(rows)) for rows in (seen, cohort)]
    for _ in range(steps):
        plan = ot.emd(*masses, cdist(seen @ turn, cohort, "sqeuclidean"))
        turned = nearest_orthogonal(seen.T @ plan @ cohort)
        still = np.abs(turned - turn).max() < _STILL
        turn = turned
        if still:
            break
    return turn


def cohort_reading(
    keyed: ArrayLike,
    reference: ArrayLike,
    *,
    truth: ArrayLike,
    noise: float = 0.0,
    generator: np.random.Generator | None = None,
) -> CohortReading:
    """Attack keyed rows, and judge against the plain ones.

    Args:
        keyed: floats [n, d], what the provider sees; δ is taken out with the mean.
        reference: floats [m, d], plain rows of others, the attacker's.
        truth: floats [n, d], the same rows as `keyed` in plain; used to judge alone.
        noise: standard deviation of the Gaussian noise that was added before the key, which the attacker knows.
        generator: draws the same noise onto the cohort, so that like is compared with like; needed with noise.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or noise without a generator.
    """
    plain, seen = as_pairs(truth, keyed)
    cohort = as_rows(reference, columns=plain.shape[1])
    if noise < 0 or (noise > 0 and generator is None):
        raise ValueError(f"expected noise of 0 or more, and a generator with it, got {noise}")
    likeness = cohort if generator is None else cohort + noise * generator.standard_normal(cohort.shape)
    first = align_covariances(seen, likeness)
    ends = [refine(seen, likeness, start) for start in (first, flip_signs(seen, likeness, first))]
    cheapest = min(ends, key=lambda end: transport_cost(seen, likeness, end))
    readings = [read(seen, cohort, turn, noise) for turn in (first, cheapest)]
    figures = {
        "covariance_r2": explained_variance(plain, readings[0]),
        "covariance_reidentified": reidentification_rate(plain, readings[0]),
        "r2": explained_variance(plain, readings[1]),
        "reidentified": reidentification_rate(plain, readings[1]),
        "chance": 1 / len(plain),
    }
    return CohortReading(readings[1], figures)


def read(keyed: Rows, reference: Rows, turn: Rows, noise: float) -> Rows:
    """Step (3): keyed rows turned, put at the cohort's mean, and freed of known noise as far as the cohort's covariance allows."""
    turned = (keyed - keyed.mean(axis=0)) @ turn
    if noise > 0:
        covariance = np.cov(reference.T).reshape(turn.shape)
        turned = turned @ np.linalg.solve(covariance + noise**2 * np.eye(len(turn)), covariance)
    return np.asarray(turned + reference.mean(axis=0), dtype=np.float64)


def _principal(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal axes [d, d] as columns, widest first, and the third moment along each."""
    centred = rows - rows.mean(axis=0)
    axes = np.linalg.svd(centred.T @ centred)[0]
    return axes, np.power(centred @ axes, 3).mean(axis=0)
