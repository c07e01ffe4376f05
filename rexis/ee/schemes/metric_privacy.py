"""What Gaussian noise of a given σ is worth, and what it costs: privacy by distance, and the owner's own score beside it.

Two rows at distance r become N(0, 1) against N(μ, 1) with μ = r/σ, times √k after k releases of one record. From μ follow an attacker's
best advantage at telling the two apart, 2 Φ(μ/2) - 1, and (ε, δ) (Dong, Roth and Su, 2022, section 2). A key that is known changes nothing
of it. Records of d standardised columns lie about √(2d) apart: μ = 1 for one unit is weak for whole records.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rexis.dp.accountant import GaussianEvent, epsilon
from rexis.ee.schemes.noise import add_noise, check_sigma

# Records whose pairwise distances are measured: a sample is enough for quantiles.
_SAMPLE = 512


@dataclass(frozen=True)
class MetricPrivacy:
    """The guarantee of noise σ, released `releases` times.

    Attributes:
        sigma: in the unit of the rows.
        releases: how often each record goes out under fresh noise.
    """

    sigma: float
    releases: int = 1

    def __post_init__(self) -> None:
        check_sigma(self.sigma)
        if self.releases < 1:
            raise ValueError(f"expected at least one release, got {self.releases}")

    def mu(self, distance: float) -> float:
        """μ for two rows at a distance: r √k / σ."""
        return distance * math.sqrt(self.releases) / self.sigma

    def advantage(self, distance: float) -> float:
        """True minus false positive rate of the best test between the two rows: 0 says nothing, 1 everything."""
        return math.erf(self.mu(distance) / math.sqrt(8))

    def epsilon(self, distance: float, delta: float) -> float:
        """ε at δ between the two rows."""
        return epsilon([GaussianEvent(self.sigma / distance, count=self.releases)], delta) if distance > 0 else 0.0


@dataclass(frozen=True)
class NoiseFigures:
    """One σ on the owner's rows.

    Attributes:
        sigma: standard deviation of the noise.
        mu_per_unit: μ of two rows one unit apart.
        median_distance: between two of the owner's rows.
        mu_median: μ of two rows at that distance, the figure for whole records.
        advantage_median: best attacker's advantage there.
        score_plain, score_noisy: the owner's score without and with the noise.
    """

    sigma: float
    mu_per_unit: float
    median_distance: float
    mu_median: float
    advantage_median: float
    score_plain: float
    score_noisy: float

    def document(self) -> dict[str, Any]:
        """For a report in JSON."""
        return asdict(self)


def noise_figures(x: Tensor, sigma: float, score: Callable[[Tensor], float], generator: torch.Generator | None = None) -> NoiseFigures:
    """Privacy and utility of one σ.

    Args:
        x: floats [n, d], the rows to be sent, standardised; n of at least 2.
        score: trains on rows [n, d] and returns what counts (accuracy on held-out rows without noise, say).
        generator: of the noise; None draws from the operating system.

    Raises:
        ValueError: fewer than two rows, or a σ that is not positive.
    """
    privacy = MetricPrivacy(sigma)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"expected rows [n, d] with n of at least 2, got shape {list(x.shape)}")
    distance = torch.pdist(x[:_SAMPLE].double()).median().item()
    return NoiseFigures(
        sigma=sigma,
        mu_per_unit=privacy.mu(1.0),
        median_distance=distance,
        mu_median=privacy.mu(distance),
        advantage_median=privacy.advantage(distance),
        score_plain=score(x),
        score_noisy=score(add_noise(x, sigma, generator)),
    )
