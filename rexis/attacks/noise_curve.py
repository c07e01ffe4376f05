"""Noise before the key, as the attacks see it: what each standard deviation leaves of them, what it costs, and what is proved.

The attacker knows: keyed noisy rows, the noise's standard deviation, and by turns a cohort of the same distribution (`cohort_alignment`) or
some known pairs (`known_pairs`). Both filter the noise out as far as correlated columns allow.
Method: the owner draws noise and a key for each sigma and attacks himself.
Cost: for each sigma that of the two attacks.
If it fails: at that sigma, by these attacks. The one figure that holds against all is μ: two records at distance r are r μ-Gaussian-DP
apart (local, metric), μ = 1/sigma; records are often many units apart.
Measured in `specs/equivariant-encryption.md` 1e, with attacks that filter nothing; these read more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import ortho_group

from rexis.attacks.cohort_alignment import cohort_reading
from rexis.attacks.known_pairs import recover_key
from rexis.attacks.readings import Rows, as_rows, explained_variance

SIGMAS = (0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0)
PAIRS = 60


@dataclass(frozen=True)
class NoiseLevel:
    """One sigma.

    Attributes:
        sigma: standard deviation of the noise, in units of the rows.
        mu: Gaussian-DP μ per unit of distance between records; infinite without noise.
        cohort_r2, reidentified: of the alignment with a cohort.
        pairs_r2: R² of the other records after the known pairs.
        utility: what the owner's measure gave on the noisy rows; NaN without one.
    """

    sigma: float
    mu: float
    cohort_r2: float
    reidentified: float
    pairs_r2: float
    utility: float


@dataclass(frozen=True, eq=False)
class NoiseCurve:
    """The attacks over sigma.

    Attributes:
        levels: one for each sigma, in the order given.
        figures: `cohort_r2`, `reidentified`, `pairs_r2` and `utility` (with a measure), each once for every sigma, as `cohort_r2_at_0.5`.
    """

    levels: tuple[NoiseLevel, ...]
    figures: Mapping[str, float]


def noise_curve(
    rows: ArrayLike,
    reference: ArrayLike,
    *,
    generator: np.random.Generator,
    sigmas: Sequence[float] = SIGMAS,
    pairs: int = PAIRS,
    utility: Callable[[Rows], float] | None = None,
) -> NoiseCurve:
    """Attack one's own rows at each sigma, under a fresh dense key.

    Args:
        rows: floats [n, d], the owner's records in plain.
        reference: floats [m, d], plain rows of others, the attacker's.
        generator: draws noise, keys, and which records are known.
        sigmas: standard deviations to try.
        pairs: known pairs; no more than half of the rows are used.
        utility: the owner's measure of noisy rows [n, d] in plain, such as the accuracy of a model trained on them.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or a negative sigma.
    """
    plain, cohort = as_rows(rows), as_rows(reference)
    if min(sigmas, default=0.0) < 0:
        raise ValueError(f"expected standard deviations of 0 or more, got {list(sigmas)}")
    known = generator.permutation(len(plain))[: min(pairs, len(plain) // 2)]
    unseen = np.setdiff1d(np.arange(len(plain)), known)
    levels = []
    for sigma in sigmas:
        noisy = plain + sigma * generator.standard_normal(plain.shape)
        keyed = noisy @ _rotation(plain.shape[1], generator).T
        aligned = cohort_reading(keyed, cohort, truth=plain, noise=sigma, generator=generator)
        recovered = recover_key(plain[known], keyed[known], noisy=sigma > 0)
        levels.append(
            NoiseLevel(
                sigma=sigma,
                mu=1 / sigma if sigma > 0 else np.inf,
                cohort_r2=aligned.figures["r2"],
                reidentified=aligned.figures["reidentified"],
                pairs_r2=explained_variance(plain[unseen], recovered.decrypt(keyed[unseen])),
                utility=np.nan if utility is None else utility(noisy),
            )
        )
    names = ("cohort_r2", "reidentified", "pairs_r2", *(() if utility is None else ("utility",)))
    figures = {f"{name}_at_{level.sigma:g}": float(getattr(level, name)) for name in names for level in levels}
    return NoiseCurve(tuple(levels), figures)


def _rotation(dimension: int, generator: np.random.Generator) -> Rows:
    """A Haar orthogonal matrix [d, d]."""
    return np.asarray(ortho_group.rvs(dimension, random_state=generator) if dimension > 1 else np.ones((1, 1)), dtype=np.float64)
