"""A site's update under DP-SGD: from the plan's numbers and this site's rows to the noisy difference of the weights."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rexis.models.features import Features
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.plan_parts import PrivacyPlan

if TYPE_CHECKING:
    from torch import nn


def private_update(
    plan: TrainingPlan,
    privacy: PrivacyPlan,
    module: "nn.Module",
    rows: Features,
    *,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> NDArray[np.float64]:
    """Train `module` in place on this site's rows, with noise.

    Args:
        privacy: of the plan, with the mechanism dp-sgd.
        module: holds the global weights.
        rows: of this site; where they name no patients, each row is one.
        on_step: told after each step how many are done, and of how many.

    Returns:
        f64 [parameters], local minus global weights.

    Raises:
        ValueError: another mechanism.
    """
    import torch

    from rexis.training.patient_level import train_patients
    from rexis.training.private_steps import PrivateSteps

    if privacy.clipping_norm is None or privacy.sampling_rate is None or plan.batch_size is None:
        raise ValueError("expected a plan for dp-sgd with clipping_norm, sampling_rate and batch_size")
    # What is beyond single precision becomes infinite, and its patient's gradient zero.
    with np.errstate(over="ignore"):
        inputs = rows.inputs.astype(np.float32)
    patients = np.arange(len(rows.labels)) if rows.patients is None else rows.patients
    delta = train_patients(
        module,
        torch.from_numpy(inputs),
        torch.from_numpy(rows.labels),
        torch.from_numpy(patients),
        PrivateSteps(plan.steps, float(privacy.clipping_norm), float(privacy.noise_multiplier), float(privacy.sampling_rate)),
        learning_rate=float(plan.learning_rate),
        divisor=plan.batch_size,
        proximal=float(plan.proximal),
        on_step=on_step,
    )
    found: NDArray[np.float64] = delta.double().numpy()
    return found
