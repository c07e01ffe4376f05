"""What a sequence of noisy releases costs: privacy loss distributions by dp-accounting (PLD), the tightest accountant there is.

Skellam releases are counted by their Rényi divergence, since no library has their loss distribution. A ledger with both kinds splits δ in
two halves and adds the two ε, which is sound and not tight.

Unit: one record added or removed. If a patient has several records, they are clipped together and count as one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dp_accounting import dp_event
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant, compute_epsilon

from rexis.dp.skellam import renyi_divergence

MIN_NOISE_MULTIPLIER = 0.3
# The divergence bound of Skellam noise holds for integers.
_ORDERS = (*range(2, 129), *range(136, 513, 8), 640, 768, 1024, 2048, 4096)


@dataclass(frozen=True)
class GaussianEvent:
    """Gaussian mechanism, possibly on Poisson-sampled batches (DP-SGD), repeated.

    Attributes:
        noise_multiplier: sigma / sensitivity.
        sampling_probability: chance of a record to be in a batch; 1 without sampling. Only true of Poisson sampling.
        count: how often.
    """

    noise_multiplier: float
    sampling_probability: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        _check(self.noise_multiplier, self.count)
        if not 0 < self.sampling_probability <= 1:
            raise ValueError(f"expected a sampling probability in (0, 1], got {self.sampling_probability}")


@dataclass(frozen=True)
class LaplaceEvent:
    """Laplace mechanism, repeated.

    Attributes:
        noise_multiplier: scale / sensitivity, which is 1/ε of one release.
        count: how often.
    """

    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        _check(self.noise_multiplier, self.count)


@dataclass(frozen=True)
class SkellamEvent:
    """Skellam noise in every coordinate of an integer vector, repeated.

    Attributes:
        l1, l2: largest change of the vector in these norms, in integer steps.
        variance: of the noise in each coordinate, in squared steps.
        count: how often.
    """

    l1: float
    l2: float
    variance: float
    count: int = 1

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and value > 0 for value in (self.l1, self.l2, self.variance)):
            raise ValueError(f"expected positive sensitivities and a positive variance, got {self}")
        _check(1.0, self.count)


Event = GaussianEvent | LaplaceEvent | SkellamEvent


def epsilon(events: Iterable[Event], delta: float) -> float:
    """ε of all events together at δ; 0 for none. Never falls when events are added.

    Args:
        delta: in (0, 1); below one over the number of records.
    """
    if not 0 < delta < 1:
        raise ValueError(f"expected delta in (0, 1), got {delta}")
    # Equal releases together: composing them one by one takes time for each.
    counts: dict[Event, int] = {}
    for event in events:
        single = replace(event, count=1)
        counts[single] = counts.get(single, 0) + event.count
    merged = [replace(single, count=count) for single, count in counts.items()]
    skellam = [event for event in merged if isinstance(event, SkellamEvent)]
    others = [event for event in merged if not isinstance(event, SkellamEvent)]
    if skellam and others:
        # Basic composition (Dwork and Roth 2014, theorem 3.16).
        return epsilon(skellam, delta / 2) + epsilon(others, delta / 2)
    return _skellam_epsilon(skellam, delta) if skellam else _loss_epsilon(others, delta)


def divergence_epsilon(event: GaussianEvent, delta: float) -> float:
    """ε of one event at δ by its Rényi divergence (Mironov, CSF 2017): never below `epsilon`, and computed at once however large it is."""
    # Fractional orders of sampled noise do not always converge.
    accountant = RdpAccountant(orders=_ORDERS)
    accountant.compose(_dp_event(event))
    return float(accountant.get_epsilon(delta))


def _loss_epsilon(events: Iterable[GaussianEvent | LaplaceEvent], delta: float) -> float:
    accountant = PLDAccountant()
    for event in events:
        accountant.compose(_dp_event(event))
    return float(accountant.get_epsilon(delta))


def _skellam_epsilon(events: Iterable[SkellamEvent], delta: float) -> float:
    divergences = [0.0] * len(_ORDERS)
    for event in events:
        for place, order in enumerate(_ORDERS):
            divergences[place] += event.count * renyi_divergence(order, event.l1, event.l2, event.variance)
    return float(compute_epsilon(_ORDERS, divergences, delta)[0])


def noise_multiplier(target_epsilon: float, delta: float, *, sampling_probability: float = 1.0, count: int = 1) -> float:
    """The smallest noise multiplier, to one in a thousand, with which `count` Gaussian events stay within ε at δ.

    Never below `MIN_NOISE_MULTIPLIER`, whatever ε admits.
    """
    if not (target_epsilon > 0 and 0 < delta < 1):
        raise ValueError(f"expected epsilon > 0 and delta in (0, 1), got {target_epsilon} and {delta}")

    def fits(multiplier: float) -> bool:
        return epsilon([GaussianEvent(multiplier, sampling_probability, count)], delta) <= target_epsilon

    # The classical Gaussian mechanism is close enough to start from: losses at far too little noise take long to compute.
    guess = sampling_probability * math.sqrt(count) * math.sqrt(2 * math.log(1.25 / delta)) / target_epsilon
    upper = max(MIN_NOISE_MULTIPLIER, guess)
    while not fits(upper):
        upper *= 2
    lower = upper
    while fits(lower):
        if lower == MIN_NOISE_MULTIPLIER:
            return lower
        upper, lower = lower, max(MIN_NOISE_MULTIPLIER, lower / 2)
    while upper > 1.001 * lower:
        middle = (lower + upper) / 2
        lower, upper = (lower, middle) if fits(middle) else (middle, upper)
    return upper


def _dp_event(event: GaussianEvent | LaplaceEvent) -> dp_event.DpEvent:
    if isinstance(event, LaplaceEvent):
        return dp_event.SelfComposedDpEvent(dp_event.LaplaceDpEvent(event.noise_multiplier), event.count)
    single: dp_event.DpEvent = dp_event.GaussianDpEvent(event.noise_multiplier)
    if event.sampling_probability < 1:
        single = dp_event.PoissonSampledDpEvent(event.sampling_probability, single)
    return dp_event.SelfComposedDpEvent(single, event.count)


def _check(multiplier: float, count: int) -> None:
    if not (math.isfinite(multiplier) and multiplier > 0):
        raise ValueError(f"expected a positive noise multiplier, got {multiplier}")
    if count < 1:
        raise ValueError(f"expected a count of at least 1, got {count}")
