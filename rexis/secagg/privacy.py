"""The differential privacy that a federation's plan claims: what a round costs, the noise of a site, and what stands on chain.

dp-sgd    Each site clips and noises in every local step; the unit is the patient (one row, where the features name no patient column).
          Sites' data are disjoint, so a round costs a patient the steps of its own site, whatever the others do.
skellam   Each site adds integer noise to its clipped update before masking. Of min_survivors sites t_c may subtract theirs again; the
          others' noise is what counts. The unit is the institution: all of its rows may change, so the sensitivity is twice the longest
          rounded update, and a patient is covered as well. It holds against whoever sees no more than the sums.
counts    A table or survival statistic with Skellam noise: each row is in one cell, so a patient whose data were replaced changes two
          counts by one. The unit is the patient.

In both, what else is in the vector tells nothing: each site weighs 1 and reports no loss (`payloads.encode_update`). In dp-sgd the noisy
gradients are divided by a number of the plan, never by one of the site, so that a site with more patients still moves the mean more.
"""

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.plan_parts import MAX_EPSILON, PrivacyPlan
from rexis.secagg.quantization import FixedPoint

if TYPE_CHECKING:
    from rexis.dp.accountant import Event

# Room in the ring for the noise of the sum, in its standard deviations (`specs/secure-aggregation.md` 5).
ROOM_DEVIATIONS = 10
# The loss on chain is rounded up to this, so that parties whose numeric libraries differ in the last bits sign the same number.
GRAIN_MICRO = 1000
LARGEST_EPSILON = 2.0 * MAX_EPSILON
MOST_COMPOSED = 1_000_000
# One patient's row moves from one cell to another.
COUNT_L1, COUNT_L2 = 2.0, math.sqrt(2)


def private_encoding(config: FederationConfig) -> FixedPoint:
    """Fixed point of a private federation's vectors; with Skellam noise it leaves the noise its room, and the sampler its table.

    Raises:
        ValueError: no scale is left for this clipping norm, or no plan for privacy.
    """
    plan, privacy = _private(config)
    members, clipping_norm = config.most_summed, float(plan.clipping_norm)
    if privacy.mechanism != "skellam":
        return FixedPoint(members, clipping_norm, config.ring_bits)
    from rexis.dp.skellam import MAX_DEVIATION

    multiplier, honest = float(privacy.noise_multiplier), _honest(config)
    room = members + ROOM_DEVIATIONS * multiplier * math.sqrt(members / honest)
    ring = math.floor(((1 << (config.ring_bits - 1)) - 1) / room)
    # Below the table's end by more than rounding.
    table = math.floor((MAX_DEVIATION - 1) * math.sqrt(honest) / multiplier)
    return FixedPoint(members, clipping_norm, config.ring_bits, min(ring, table))


def site_variance(config: FederationConfig) -> float:
    """Variance of the Skellam noise that one site adds in each coordinate, in squared steps: (σ C s)² / (min_survivors - t_c)."""
    plan, privacy = _private(config)
    deviation = float(privacy.noise_multiplier) * float(plan.clipping_norm) * private_encoding(config).scale
    return deviation * deviation / _honest(config)


def count_variance(config: FederationConfig) -> float:
    """Variance of the Skellam noise that one site adds to each count of a statistic: (z √2)² / (min_survivors - t_c).

    Raises:
        ValueError: its counts have no noise.
    """
    if config.privacy is None or config.statistics is None:
        raise ValueError("expected a statistic whose counts have noise")
    return (float(config.privacy.noise_multiplier) * COUNT_L2) ** 2 / _honest(config)


def noise_deviation(config: FederationConfig) -> float:
    """Standard deviation of the noise in each count of a statistic's result, where nobody dropped out; with fewer sites it is less."""
    return math.sqrt(len(config.members) * count_variance(config))


def round_event(config: FederationConfig) -> "Event | None":
    """What one round costs a patient, in any site's ledger; None where the plan claims no differential privacy.

    Raises:
        ValueError: noise that no accountant takes.
    """
    if config.privacy is None:
        return None
    # Takes a second to load, and most federations claim nothing.
    from rexis.dp.accountant import GaussianEvent, SkellamEvent

    if config.statistics is not None:
        return SkellamEvent(COUNT_L1, COUNT_L2, count_variance(config) * _honest(config))
    plan, privacy = _private(config)
    if privacy.mechanism == "dp-sgd":
        return GaussianEvent(float(privacy.noise_multiplier), float(privacy.sampling_rate or 1), plan.steps)
    # Rounding moves each coordinate by at most a half.
    longest = float(plan.clipping_norm) * private_encoding(config).scale + math.sqrt(plan.parameters) / 2
    l2 = 2 * longest
    # Of integers: |x| ≤ x².
    return SkellamEvent(min(math.sqrt(plan.parameters) * l2, l2 * l2), l2, site_variance(config) * _honest(config))


def declared_epsilon(config: FederationConfig, rounds: int, delta: float | None = None) -> float | None:
    """ε of the first `rounds` rounds at δ, or at the plan's own; None where nothing is claimed: there is no bound.

    Beyond `LARGEST_EPSILON`, or `MOST_COMPOSED` local steps, it is an upper bound that is less tight.
    """
    event = round_event(config)
    if event is None or config.privacy is None:
        return None
    return _epsilon(replace(event, count=event.count * rounds), float(config.privacy.delta) if delta is None else delta)


def declared_micro(config: FederationConfig, rounds: int) -> int:
    """`epsilonMicro` of the result of round `rounds`: millionths of ε, rounded up to a thousand of them; 0 where nothing is claimed."""
    found = declared_epsilon(config, rounds)
    return 0 if found is None else GRAIN_MICRO * math.ceil(found * 1_000_000 / GRAIN_MICRO)


def check_claim(config: FederationConfig) -> None:
    """Check that all rounds together cost no more than the plan's own ε.

    Raises:
        UnexpectedMessageError: they cost more.
        ValueError: noise or an encoding that can not be.
    """
    whole, privacy = declared_epsilon(config, config.rounds), config.privacy
    if whole is None or privacy is None:
        return
    if whole > float(privacy.epsilon):
        raise UnexpectedMessageError(
            f"privacy: {config.rounds} rounds cost epsilon {whole:.4g} at delta {privacy.delta}, the plan allows {privacy.epsilon}: "
            "expected more noise, or fewer rounds or steps"
        )


@lru_cache(maxsize=256)
def _epsilon(event: "Event", delta: float) -> float:
    from rexis.dp.accountant import GaussianEvent, divergence_epsilon, epsilon

    # Loss distributions of absurd plans fill the memory, or take hours.
    if isinstance(event, GaussianEvent):
        bound = divergence_epsilon(event, delta)
        if bound > LARGEST_EPSILON or event.count > MOST_COMPOSED:
            return bound
    return epsilon([event], delta)


def _honest(config: FederationConfig) -> int:
    return config.min_survivors - config.collusion_bound


def _private(config: FederationConfig) -> tuple[TrainingPlan, PrivacyPlan]:
    if config.training is None or config.training.privacy is None:
        raise ValueError("expected a federation whose plan claims differential privacy")
    return config.training, config.training.privacy
