"""DP-SGD on plain or keyed batches: clip each record's gradient, add Gaussian noise to their sum (Abadi et al., CCS 2016).

Orthogonal keys keep norms and turn isotropic noise into isotropic noise, so DP-SGD on keyed batches is DP-SGD on plain ones under the noise
that the key maps there, with the same ε.

Against whom it protects: everyone who later receives the model. Not the provider who runs it: that party draws the noise, sees it, and sees
every record's keyed gradient before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.optim import Optimizer

from rexis.dp.accountant import GaussianEvent
from rexis.dp.budget import PrivacyBudget
from rexis.dp.randomness import standard_normal, uniform
from rexis.training.local import classification_loss

RecordLoss = Callable[[Tensor, Tensor], Tensor]
# Gradients of single records that are held at once; a record's own, however large, is.
GRADIENT_BYTES = 1 << 28


@dataclass(frozen=True)
class PrivateSteps:
    """What the accountant must know of a run.

    Attributes:
        count: steps.
        clipping_norm: C, largest L2 norm of one record's gradient over all trained parameters.
        noise_multiplier: σ; the noise in each entry of the summed gradient has standard deviation σ C.
        sampling_probability: chance of each record to be in a batch, independently (Poisson sampling).
    """

    count: int
    clipping_norm: float
    noise_multiplier: float
    sampling_probability: float

    def __post_init__(self) -> None:
        if self.count < 1 or not self.clipping_norm > 0:
            raise ValueError(f"expected at least one step and a positive clipping norm, got {self}")
        GaussianEvent(self.noise_multiplier, self.sampling_probability, self.count)

    @property
    def event(self) -> GaussianEvent:
        """What the whole run costs."""
        return GaussianEvent(self.noise_multiplier, self.sampling_probability, self.count)


def poisson_batch(records: int, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Indices of a batch: each of `records` with the same chance, independently; may be empty.

    Args:
        generator: None for the operating system's randomness, which is what hides who was in the batch.
    """
    if generator is None:
        return torch.from_numpy(uniform(records) < probability).nonzero().flatten()
    return torch.nonzero(torch.rand(records, generator=generator, device=generator.device, dtype=torch.float64) < probability).flatten()


def records_at_once(model: nn.Module) -> int:
    """How many records' gradients lie within `GRADIENT_BYTES`, at least 1."""
    sizes = (parameter.numel() * parameter.element_size() for parameter in model.parameters() if parameter.requires_grad)
    return max(1, GRADIENT_BYTES // max(1, sum(sizes)))


def clipped_gradient_sum(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    clipping_norm: float,
    loss: RecordLoss = classification_loss,
    *,
    at_once: int | None = None,
) -> dict[str, Tensor]:
    """Sum of the records' gradients, each scaled down to an L2 norm of at most `clipping_norm` over all trained parameters.

    The batch is taken in parts, so that memory is bounded whatever its size; their sum is that of the whole up to rounding.

    Args:
        model: its layers must treat records apart (no batch normalisation) and draw nothing (dropout 0).
        inputs: [n, …]; labels: [n, …].
        loss: mean over a batch; called with batches of one record.
        at_once: records of a part; None for `records_at_once`.

    Returns:
        By name of the parameter; zeros for an empty batch.
    """
    trained = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    total = {name: torch.zeros_like(value) for name, value in trained.items()}

    def record_loss(weights: Mapping[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        found = functional_call(model, dict(weights), (row[None],))
        return loss(found if isinstance(found, Tensor) else found.logits, label[None])

    gradients_of = vmap(grad(record_loss), in_dims=(None, 0, 0))
    size = at_once or records_at_once(model)
    for start in range(0, len(inputs), size):
        gradients: dict[str, Tensor] = gradients_of(trained, inputs[start : start + size], labels[start : start + size])
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(dim=0)
        factors = (clipping_norm / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)
        for name, gradient in gradients.items():
            total[name] += torch.einsum("n,n...->...", factors, gradient)
    return total


def gaussian_noise(model: nn.Module, scale: float, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Normal noise of standard deviation `scale` for every trained parameter, by name.

    Args:
        generator: None for the operating system's randomness; known noise is no noise, and torch's generator has 2^32 different streams.
    """
    return {
        name: scale * _normal(parameter, generator).to(parameter.device)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _normal(parameter: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.from_numpy(standard_normal(parameter.numel())).reshape(parameter.shape).to(parameter.dtype)
    return torch.randn(parameter.shape, generator=generator, device=generator.device, dtype=parameter.dtype)


def private_step(
    model: nn.Module, optimizer: Optimizer, gradient_sum: Mapping[str, Tensor], noise: Mapping[str, Tensor], expected_batch: float
) -> None:
    """One step along (sum + noise) / expected batch size; the size itself would tell who was sampled.

    Args:
        gradient_sum: from `clipped_gradient_sum`; noise: from `gaussian_noise`.
    """
    optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        if name in gradient_sum:
            parameter.grad = (gradient_sum[name] + noise[name]) / expected_batch
    optimizer.step()


def train_privately(
    model: nn.Module,
    optimizer: Optimizer,
    inputs: Tensor,
    labels: Tensor,
    steps: PrivateSteps,
    *,
    budget: PrivacyBudget,
    generator: torch.Generator | None = None,
    loss: RecordLoss = classification_loss,
) -> float:
    """Train a model in place, plain or keyed; the budget is debited before the first gradient.

    Args:
        optimizer: over the model's trained parameters; any, for what follows the noise is post-processing. On keyed weights it must
            commute with the key (`ee.optimizer`).
        inputs: [n, …], labels: [n, …], plain or keyed.
        generator: of the batches and the noise; None, the operating system's randomness, wherever the model leaves this machine.

    Returns:
        ε that the data set has spent, this run included.

    Raises:
        PrivacyBudgetExceededError: the run would exceed the budget; nothing was trained.
        ValueError: no records, or lengths that differ.
    """
    if len(inputs) == 0 or len(inputs) != len(labels):
        raise ValueError(f"expected inputs and labels of the same records, got {len(inputs)} and {len(labels)}")
    spent = budget.spend(steps.event)
    model.train()
    for _ in range(steps.count):
        batch = poisson_batch(len(inputs), steps.sampling_probability, generator).to(inputs.device)
        gradient_sum = clipped_gradient_sum(model, inputs[batch], labels[batch], steps.clipping_norm, loss)
        noise = gaussian_noise(model, steps.clipping_norm * steps.noise_multiplier, generator)
        private_step(model, optimizer, gradient_sum, noise, len(inputs) * steps.sampling_probability)
    return spent
