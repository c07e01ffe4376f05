"""Mean and standard deviation of each feature over all sites, from n, Σx and Σx² in fixed point."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.errors import MalformedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.statistics_plans import MOMENTS, MomentsPlan
from rexis.secagg.masks import RingVector
from rexis.secagg.quantization import FixedPoint
from rexis.secagg.statistics.result import VERSION, Result


@dataclass(frozen=True, eq=False)
class Moments(Result):
    """Count, mean and population standard deviation of each feature over all sites, f64 [d]; a constant feature has sd 1."""

    count: int
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    def document(self) -> dict[str, Any]:
        """`{"version": 1, "statistic": "moments", "count", "mean": [decimal], "sd": [decimal]}`, of nine significant digits."""
        return {
            "version": VERSION,
            "statistic": MOMENTS,
            "count": self.count,
            "mean": [_decimal_text(value) for value in self.mean],
            "sd": [_decimal_text(value) for value in self.sd],
        }

    @classmethod
    def parse(cls, value: Any) -> "Moments":
        """Read a result document; compare its digest with the chain's.

        Raises:
            MalformedMessageError: not one of ours.
        """
        try:
            if set(value) != {"version", "statistic", "count", "mean", "sd"} or (value["version"], value["statistic"]) != (
                VERSION,
                MOMENTS,
            ):
                raise ValueError("unknown fields, version or statistic")
            mean, sd = ([_number(text) for text in value[name]] for name in ("mean", "sd"))
            if type(value["count"]) is not int or value["count"] < 1 or len(mean) != len(sd) or min(sd, default=0.0) <= 0:
                raise ValueError("expected a count, and as many means as positive standard deviations")
        except (ValueError, TypeError, ArithmeticError) as error:
            raise MalformedMessageError(f"statistic: {error}") from error
        return cls(value["count"], np.array(mean), np.array(sd))

    def check(self, config: FederationConfig) -> None:
        """Check that these are of a config's features.

        Raises:
            MalformedMessageError: of another number of them.
        """
        if len(self.mean) != len(config.features.names):
            raise MalformedMessageError(f"expected moments of {len(config.features.names)} features, got {len(self.mean)}")

    def standardise(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(x - mean) / sd of inputs f64 [n, d]."""
        if inputs.shape[1:] != self.mean.shape:
            raise ValueError(f"expected inputs [n, {len(self.mean)}], got {inputs.shape}")
        return (inputs - self.mean) / self.sd


def encode_moments(config: FederationConfig, inputs: NDArray[np.float64]) -> RingVector:
    """The vector that a site masks for a statistic.

    Args:
        inputs: f64 [n, d], as the feature spec prepares them.

    Returns:
        u64 [1 + 2 d]: n, then Σx and Σx² in fixed point.

    Raises:
        ValueError: no rows, NaN, or sums too large for the ring.
    """
    plan, encoding = _plan(config), FixedPoint(len(config.members), 1.0, config.ring_bits)
    if inputs.ndim != 2 or 1 + 2 * inputs.shape[1] != config.length or len(inputs) < 1:
        raise ValueError(f"expected inputs [n, {len(config.features.names)}] of at least one row, got {inputs.shape}")
    sums = np.concatenate([inputs.sum(axis=0), np.square(inputs).sum(axis=0)]) * float(1 << plan.scale_bits)
    if not np.isfinite(sums).all() or np.abs(sums).max() >= encoding.bound:
        raise ValueError("the sums do not fit the ring: expected finite inputs; rescale them or lower scale_bits")
    return encoding.encode_integers(np.concatenate([[float(len(inputs))], sums]))


def decode_moments(config: FederationConfig, total: RingVector) -> Moments:
    """Count, mean and standard deviation behind the opened sum of a statistic.

    Raises:
        ValueError: another length or ring.
        MalformedMessageError: a sum that honest sites can not have made.
    """
    plan, encoding = _plan(config), FixedPoint(len(config.members), 1.0, config.ring_bits)
    if total.shape != (config.length,):
        raise ValueError(f"expected a sum of {config.length} entries, got {total.shape}")
    integers = encoding.decode_integers(total)
    count = int(integers[0])
    if count < 1:
        raise MalformedMessageError(f"the sum of the counts is {count}: a site sent a wrong vector")
    first, second = np.split(integers[1:] / float(1 << plan.scale_bits) / count, 2)
    variance = np.maximum(second - np.square(first), 0.0)
    # Fixed point leaves noise of this size on a constant feature.
    constant = variance <= 2.0 ** (3 - plan.scale_bits)
    sd = np.where(constant, 1.0, np.sqrt(variance))
    # Through the text that is hashed, so that everybody computes with the same numbers.
    return Moments.parse(Moments(count, first, sd).document())


def _plan(config: FederationConfig) -> MomentsPlan:
    if not isinstance(config.statistics, MomentsPlan):
        raise ValueError("expected a federation for moments, got another one")
    return config.statistics


def _decimal_text(value: float) -> str:
    return f"{value:.9g}"


def _number(text: Any) -> float:
    if not isinstance(text, str) or len(text) > 40:
        raise ValueError("expected decimal strings")
    number = float(Decimal(text))
    if not math.isfinite(number):
        raise ValueError("expected finite numbers")
    return number
