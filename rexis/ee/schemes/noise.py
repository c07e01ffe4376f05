"""Scheme "noise": Gaussian noise on the owner's rows before they are keyed, the one defence here with a provable statement.

Two rows at distance r are told apart no better than N(0, 1) from N(r/σ, 1), by anybody, with the key or without it and whatever else they
know: metric (local) Gaussian differential privacy with μ = r/σ (Dong, Roth and Su, Gaussian Differential Privacy, JRSS B 84, 2022; for
distances: Chatzikokolakis et al., PETS 2013). `metric_privacy` turns it into figures. σ is in the unit of the rows: standardise the
columns first. The same record sent k times counts √k.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rexis.dp.mechanisms import GaussianMechanism
from rexis.ee.schemes.scheme import Inputs, Scheme, as_tensor


@dataclass(frozen=True)
class Noise(Scheme):
    """Rows get noise, then the key.

    Attributes:
        sigma: standard deviation in every coordinate. For standardised columns 1 leaves a cohort alignment less than a quarter of the
            identities (tests/attacks/test_noise_curve.py); `rexis ee check` says what it is on the owner's data.
    """

    sigma: float
    name: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        check_sigma(self.sigma)

    def prepare(self, x: Inputs, *, encoder: nn.Module | None, generator: torch.Generator | None) -> Tensor:
        if encoder is not None:
            raise ValueError("expected no encoder with a key of scheme 'noise'")
        return add_noise(as_tensor(x), self.sigma, generator)

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "sigma": repr(self.sigma)}


def add_noise(x: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """x + N(0, σ²) in every entry, fresh at each call; of the dtype and device of x.

    Args:
        x: finite floats of any shape.
        generator: None (the right choice outside of tests) draws from the operating system.

    Raises:
        ValueError: no finite floats: ids take no noise, embeddings do.
    """
    if not x.is_floating_point() or not x.isfinite().all():
        raise ValueError(f"expected finite floats to add noise to, got {x.dtype}; for token ids use scheme='client_encoder'")
    exact = x.detach().double().cpu()
    if generator is None:
        noisy = torch.from_numpy(GaussianMechanism(sensitivity=1.0, noise_multiplier=sigma).release(exact.numpy()))
    else:
        noisy = exact + sigma * torch.randn(exact.shape, generator=generator, dtype=torch.float64)
    return noisy.to(x)


def check_sigma(sigma: float) -> None:
    """Return if σ is a standard deviation of noise.

    Raises:
        ValueError: not positive and finite.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma: expected a positive number, got {sigma!r:.40}")
