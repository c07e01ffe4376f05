"""DP-SGD at a site with the patient as unit: Opacus has each record's gradient, and all records of one patient are clipped as one.

What of it is taken from Opacus are the gradients of single records and the clipping. Its noise is not: that comes from torch's generator,
whose 32 bits of seed could be tried on the released model; here it comes from the operating system, and so does who is in a batch.

A batch's patients are taken in groups, and a patient's records in parts, so that the gradients of single records and patients that are held
at once are bounded whatever the batch and the model; each patient is still clipped once, over the sum of all of its records.
"""

from collections.abc import Callable
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from rexis.training.local import classification_loss
from rexis.training.private_steps import PrivateSteps, gaussian_noise, poisson_batch, records_at_once


def train_patients(
    model: nn.Module,
    features: Tensor,
    labels: Tensor,
    patients: Tensor,
    steps: PrivateSteps,
    *,
    learning_rate: float,
    divisor: int,
    proximal: float = 0.0,
    at_once: int | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> Tensor:
    """Train a model in place from the global weights it holds, by SGD on noisy sums of clipped gradients.

    A patient whose gradient overflows counts as a zero gradient: stopping would tell that there is such a patient.

    Args:
        model: its layers must treat records apart (Opacus refuses batch normalisation) and draw nothing.
        features: floats [n, inputs].
        labels: integers [n].
        patients: integers [n] from 0: whose record it is.
        steps: what they cost is on the ledger before this is called; the noise is drawn here.
        divisor: of the noisy sum in each step; a public number, since the number of this site's patients is none.
        proximal: weight μ of the FedProx term μ/2 ‖w - w_global‖², which has no data in it and is added after the noise.
        at_once: records of a part, and patients of a group; None for `records_at_once`.
        on_step: told after each step how many are done, and of how many.

    Returns:
        [parameters], local minus global weights.

    Raises:
        ValueError: no records, lengths that differ, or no positive divisor.
    """
    if not len(features) == len(labels) == len(patients) > 0 or divisor < 1:
        raise ValueError(
            f"expected features, labels and patients of the same records and a positive divisor, got {len(features)}, {len(labels)}, "
            f"{len(patients)} and {divisor}"
        )
    # Opacus gives them members that torch does not know.
    parameters: list[Any] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in parameters]
    before = parameters_to_vector(model.parameters()).detach().clone()
    model.train()
    recorded = GradSampleModule(model, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(parameters, lr=learning_rate),
        noise_multiplier=0.0,
        max_grad_norm=steps.clipping_norm,
        expected_batch_size=None,
        loss_reduction="sum",
    )

    def add_noise(_: DPOptimizer) -> None:
        """Between clipping and step, where Opacus lets its user in."""
        noise = gaussian_noise(model, steps.noise_multiplier * steps.clipping_norm)
        named = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        for name, parameter, origin in zip(named, parameters, start, strict=True):
            parameter.grad = (parameter.grad + noise[name]) / divisor + proximal * (parameter.detach() - origin)

    optimizer.attach_step_hook(add_noise)
    everybody, size = int(patients.max()) + 1, at_once or records_at_once(model)
    for done in range(1, steps.count + 1):
        groups = torch.split(poisson_batch(everybody, steps.sampling_probability), size)
        optimizer.zero_grad()
        for number, group in enumerate(groups, start=1):
            sums = [parameter.new_zeros((len(group), *parameter.shape)) for parameter in parameters]
            for rows in torch.split(torch.isin(patients, group).nonzero().flatten(), size):
                if len(rows) > 0:
                    # Opacus' hook on the first layer needs an input with a gradient.
                    loss = classification_loss(recorded(features[rows].requires_grad_()), labels[rows]) * len(rows)
                    torch.autograd.backward(loss)
                    _add(parameters, sums, torch.searchsorted(group, patients[rows]))
            _give(parameters, sums)
            # Opacus keeps the clipped sum of a group whose step it skips, and steps once, with noise, after the last.
            optimizer.signal_skip_step(do_skip=number < len(groups))
            optimizer.step()
            optimizer.zero_grad()
        on_step(done, steps.count)
    recorded.remove_hooks()
    return parameters_to_vector(model.parameters()).detach() - before


def _add(parameters: list[Any], sums: list[Tensor], places: Tensor) -> None:
    """Add the records' gradients to the sums of their patients, and drop them."""
    for parameter, total in zip(parameters, sums, strict=True):
        total.index_add_(0, places, parameter.grad_sample)
        parameter.grad_sample = parameter.grad = None


def _give(parameters: list[Any], sums: list[Tensor]) -> None:
    """Hand the patients' sums to Opacus as gradients of single records; one that is not finite becomes zero."""
    finite = torch.ones(len(sums[0]), dtype=torch.bool)
    for total in sums:
        finite &= torch.isfinite(total.flatten(1)).all(dim=1)
    for parameter, total in zip(parameters, sums, strict=True):
        total[~finite] = 0.0
        parameter.grad_sample = total
