"""What stands in a masked vector of training: the update of a model, with its weight and loss inside. `statistics` has the other kind.

A count beside the vector would be one site's; inside it only the sum is ever seen (`specs/secure-aggregation.md` 3.3 and correction 6).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.commitments import tensor_digest
from rexis.errors import MalformedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.plan_parts import PrivacyPlan
from rexis.secagg.masks import RingVector
from rexis.secagg.privacy import private_encoding, site_variance
from rexis.secagg.quantization import FixedPoint
from rexis.secagg.slots import MAX_SLOT, decode_slots, encode_slots

# A mean loss beyond this says no more than that the training diverged; the slot has to be bounded.
LOSS_CAP = 100.0
LOSS_STEPS = 1000
# In a ring of 16 bits: so many steps to an entry of a clipped update, in the root mean square.
LEAST_STEPS = 4


@dataclass(frozen=True, eq=False)
class MeanUpdate:
    """What the sum of a training round says.

    Attributes:
        delta: weighted mean of the clipped updates, f64 [parameters].
        loss: weighted mean of the sites' losses before their first step; None under differential privacy, where no site reports it.
        weight: sum of the banded weights; under differential privacy the number of sites.
        variates: sum of the weighted changes of the sites' control variates, f64 [parameters]; None without SCAFFOLD.
        holdout_loss, holdout_weight: as `loss` and `weight`, of the rows that the sites hold back; None without early stopping.
        groups: how many groups' means it was made of by a robust rule (`robust`); None for the mean of one sum.
    """

    delta: NDArray[np.float64]
    loss: float | None
    weight: int
    variates: NDArray[np.float64] | None = None
    holdout_loss: float | None = None
    holdout_weight: int | None = None
    groups: int | None = None

    def metrics(self) -> dict[str, Any]:
        """What a round's metrics digest is taken over, with decimals as strings."""
        loss = {} if self.loss is None else {"loss": f"{self.loss:.6f}"}
        metrics = {"version": 1, **loss, "weight": self.weight}
        if self.holdout_loss is not None:
            metrics |= {"holdout_loss": f"{self.holdout_loss:.6f}", "holdout_weight": self.holdout_weight}
        if self.groups is not None:
            metrics["groups"] = self.groups
        return metrics


@dataclass(frozen=True)
class Holdout:
    """Rows that a site holds back: how many, and the mean loss of the round's base model on them."""

    examples: int
    loss: float


def vector_record(vector: RingVector) -> bytes:
    """What stands on chain for a vector before masking, or for a sum (32 bytes): the tensor digest of its entries read as signed."""
    return tensor_digest(vector.view(f"<i{vector.itemsize}"))


def sums_record(totals: Sequence[RingVector]) -> bytes:
    """What stands on chain for the opened sums of a round (32 bytes): `vector_record` of all of them, one after the other."""
    return tensor_digest(np.concatenate([total.view(f"<i{total.itemsize}") for total in totals]))


def update_encoding(config: FederationConfig) -> FixedPoint:
    """The fixed point of a federation's masked vectors.

    Raises:
        ValueError: the ring has no room for the clipping norm, or for a weight up to the cap times a loss up to `LOSS_CAP`; one of 16 bits
            leaves a clipped update fewer than `LEAST_STEPS`.
    """
    plan = config.training
    if plan is not None and plan.ring_bits == 16:
        _check_steps(config, plan)
    if plan is not None and plan.privacy is not None:
        return private_encoding(config)
    encoding = FixedPoint(config.most_summed, 1.0 if plan is None else float(plan.clipping_norm), config.ring_bits)
    # Here and not where a vector is made: whether a site can take part must not depend on its loss.
    room = (MAX_SLOT if encoding.ring_bits == 16 else encoding.bound) // round(LOSS_CAP * LOSS_STEPS)
    if plan is not None and plan.weight_cap > room:
        raise ValueError(f"expected a weight cap of at most {room} for {config.most_summed} members in a sum, got {plan.weight_cap}")
    if plan is not None and _has_variates(plan):
        variate_encoding(config)
    return encoding


def variate_encoding(config: FederationConfig) -> FixedPoint:
    """The fixed point of the changes of control variates (SCAFFOLD), whose scale follows from their own bound.

    Raises:
        ValueError: the ring has no room for it.
    """
    return FixedPoint(config.most_summed, _training(config).variate_norm, config.ring_bits)


def encode_update(
    config: FederationConfig,
    delta: ArrayLike,
    *,
    examples: int,
    loss: float,
    variate: ArrayLike | None = None,
    holdout: Holdout | None = None,
) -> RingVector:
    """The vector that a site masks in a training round; with Skellam noise or in a ring of 16 bits, another one at every call.

    Under differential privacy neither count nor loss is in it: every site weighs 1. An update that is not finite counts as none there, for
    a site that stays away because of its data tells something about them.

    Args:
        delta: local minus global weights, floats [parameters].
        examples: how many the site trained on.
        loss: their mean loss before the first step.
        variate: change of the site's control variate, floats [parameters]; with SCAFFOLD, and only then.
        holdout: with early stopping, and only then.

    Returns:
        u32 or u16 [length]: the update, the variate's change, the weight, the loss times the weight, and the same two of the rows held
        back.

    Raises:
        ValueError: NaN or infinity, another number of parameters, parts that the plan does not have, or a config without room
            (`update_encoding`).
    """
    plan, update = _training(config), np.asarray(delta, dtype=np.float64)
    if update.shape != (plan.parameters,):
        raise ValueError(f"expected an update of {plan.parameters} parameters, got shape {update.shape}")
    if (variate is not None, holdout is not None) != (_has_variates(plan), plan.stopping is not None):
        raise ValueError("expected a control variate's change with SCAFFOLD, and rows held back with early stopping, and only with them")
    if plan.privacy is not None:
        return _private_update(config, plan.privacy, update)
    encoding, weight = update_encoding(config), plan.weight(examples)
    share = weight / plan.weight_cap
    parts = [encoding.encode(update, weight=share)]
    if variate is not None:
        if np.shape(variate) != (plan.parameters,):
            raise ValueError(f"expected a control variate of {plan.parameters} parameters, got shape {np.shape(variate)}")
        parts.append(variate_encoding(config).encode(variate, weight=share))
    slots = [weight, _loss_steps(loss) * weight]
    if holdout is not None:
        held = plan.weight(holdout.examples)
        slots += [held, _loss_steps(holdout.loss) * held]
    return np.concatenate([*parts, encode_slots(encoding, slots)])


def sent_variate(config: FederationConfig, vector: RingVector, *, examples: int) -> NDArray[np.float64]:
    """The change of its control variate that a site's vector says, clipped and rounded, f64 [parameters].

    What the site adds to its own variate is this and not what it computed, so that Σ w c of all sites stays the server's sum.
    """
    plan = _training(config)
    change = variate_encoding(config).decode(vector[plan.parameters : 2 * plan.parameters])
    return change * (plan.weight_cap / plan.weight(examples))


def decode_update(config: FederationConfig, total: RingVector) -> MeanUpdate:
    """The mean behind the opened sum of a training round, or of one of its groups.

    Raises:
        ValueError: another length or ring.
        MalformedMessageError: a sum that honest sites can not have made: without any weight.
    """
    plan, encoding = _training(config), update_encoding(config)
    if total.shape != (config.length,):
        raise ValueError(f"expected a sum of {config.length} entries, got {total.shape}")
    update, rest = total[: plan.parameters], total[plan.parameters :]
    variates = None
    if _has_variates(plan):
        variates, rest = variate_encoding(config).decode(rest[: plan.parameters]) * float(plan.weight_cap), rest[plan.parameters :]
    slots = decode_slots(encoding, rest)
    cap = plan.weight_cap if plan.privacy is None else 1
    for weight, steps in zip(slots[::2], slots[1::2], strict=True):
        if not 0 < weight <= cap * config.most_summed or steps < 0:
            raise MalformedMessageError(f"the sum of the weights is {weight}: a site sent a wrong vector")
    (weight, loss), *held = [(weight, steps / LOSS_STEPS / weight) for weight, steps in zip(slots[::2], slots[1::2], strict=True)]
    holdout_weight, holdout_loss = held[0] if held else (None, None)
    reported = loss if plan.privacy is None else None
    return MeanUpdate(encoding.decode(update) * (cap / weight), reported, weight, variates, holdout_loss, holdout_weight)


def _private_update(config: FederationConfig, privacy: PrivacyPlan, update: NDArray[np.float64]) -> RingVector:
    encoding = update_encoding(config)
    with np.errstate(over="ignore"):
        known = update if math.isfinite(float(np.linalg.norm(update))) else np.zeros_like(update)
    parameters = encoding.encode(known)
    if privacy.mechanism == "skellam":
        from rexis.dp.skellam import SkellamNoise

        # Modulo the ring, as every sum here.
        parameters = parameters + SkellamNoise(site_variance(config)).draw(len(parameters)).astype(parameters.dtype)
    return np.concatenate([parameters, encode_slots(encoding, [1, 0])])


def _check_steps(config: FederationConfig, plan: TrainingPlan) -> None:
    most, parameters = ((1 << 15) - 1) // config.most_summed, plan.parameters
    if most < LEAST_STEPS * math.sqrt(parameters):
        raise ValueError(
            f"ring_bits 16: expected floor(32767 / n) of at least {LEAST_STEPS} sqrt(d), so that an update outweighs what rounding adds "
            f"to it; got {most} for sums of n = {config.most_summed} and d = {parameters}: take 32 bits, or smaller groups"
        )


def _has_variates(plan: TrainingPlan) -> bool:
    return plan.strategy.name == "scaffold"


def _loss_steps(loss: float) -> int:
    if not math.isfinite(loss) or loss < 0:
        raise ValueError(f"expected a finite loss from 0, got {loss}")
    return round(min(loss, LOSS_CAP) * LOSS_STEPS)


def _training(config: FederationConfig) -> TrainingPlan:
    if config.training is None:
        raise ValueError("expected a federation for training, got one for a statistic")
    return config.training
