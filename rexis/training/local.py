"""One site's part of a federated round: some steps of SGD or Adam from the global model, and the update that results."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


@dataclass(frozen=True)
class LocalSteps:
    """Hyper-parameters of one round at one site.

    Attributes:
        count: optimiser steps.
        learning_rate: of the optimiser.
        batch_size: examples to a step; None takes all of them in every step.
        momentum: of SGD, reset every round.
        proximal: weight μ of the FedProx term μ/2 ‖w - w_global‖²; 0 is FedAvg.
        optimizer: sgd, or adam with torch's defaults but for the learning rate; its moments begin anew in every round.
    """

    count: int
    learning_rate: float
    batch_size: int | None = None
    momentum: float = 0.0
    proximal: float = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"

    def __post_init__(self) -> None:
        if self.count < 1 or self.learning_rate <= 0 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError(f"expected at least one step, a positive learning rate and batch size, got {self}")
        if not 0 <= self.momentum < 1 or self.proximal < 0:
            raise ValueError(f"expected momentum in [0, 1) and a proximal weight of at least 0, got {self}")
        if self.optimizer not in ("sgd", "adam") or (self.optimizer == "adam" and self.momentum):
            raise ValueError(f"expected the optimizer sgd, or adam without momentum, got {self}")

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of one round, without any state."""
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.learning_rate)
        return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=self.momentum)


@dataclass(frozen=True, eq=False)
class LocalUpdate:
    """What a round produced at one site; none of it leaves the site unmasked.

    Attributes:
        delta: [parameters], local minus global weights, in the order of the model's parameters.
        examples: how many were trained on.
        loss: mean loss over the site's examples before the first step.
    """

    delta: Tensor
    examples: int
    loss: float


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy.

    Args:
        logits: [n, 1] for two classes, else [n, classes].
        labels: integers [n].
    """
    if logits.shape[-1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(-1), labels.to(logits.dtype))
    return nn.functional.cross_entropy(logits, labels)


def train_local(
    model: nn.Module,
    features: Tensor,
    labels: Tensor,
    steps: LocalSteps,
    *,
    seed: int,
    correction: Tensor | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
    loss: Callable[[Tensor, Tensor], Tensor] = classification_loss,
) -> LocalUpdate:
    """Train a model in place from the global weights it holds.

    Args:
        features: floats [n, inputs].
        labels: integers [n], or what the loss takes for n examples; one class only is allowed.
        seed: of the order of mini-batches; without `batch_size` it changes nothing.
        correction: floats [parameters], added to every step's gradient: c - cᵢ of SCAFFOLD (Karimireddy et al., ICML 2020, algorithm 1).
        on_step: told after each step how many are done, and of how many.
        loss: mean over a batch, of outputs and labels.

    Raises:
        ValueError: no examples, or lengths that differ.
    """
    if len(features) == 0 or len(features) != len(labels):
        raise ValueError(f"expected features and labels of the same examples, got {len(features)} and {len(labels)}")
    parameters = list(model.parameters())
    start = parameters_to_vector(parameters).detach().clone()
    with torch.no_grad():
        loss_before = loss(model(features), labels).item()
    optimizer = steps.make_optimizer(parameters)
    order = torch.empty(0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    size = min(steps.batch_size or len(features), len(features))
    model.train()
    for done in range(1, steps.count + 1):
        if len(order) < size:
            order = torch.randperm(len(features), generator=generator) if size < len(features) else torch.arange(len(features))
        batch, order = order[:size].to(features.device), order[size:]
        optimizer.zero_grad()
        objective = loss(model(features[batch]), labels[batch])
        if steps.proximal:
            objective = objective + steps.proximal / 2 * (parameters_to_vector(parameters) - start).square().sum()
        if correction is not None:
            # Its gradient is the correction itself.
            objective = objective + parameters_to_vector(parameters) @ correction.to(start)
        torch.autograd.backward(objective)
        optimizer.step()
        on_step(done, steps.count)
    return LocalUpdate(parameters_to_vector(parameters).detach() - start, len(features), loss_before)


def clip_update(delta: Tensor, clipping_norm: float) -> Tensor:
    """Scale an update down to an L2 norm of at most `clipping_norm`; a shorter one is returned as it is.

    Raises:
        ValueError: NaN or infinity: the training diverged and nothing may be sent.
    """
    norm = delta.double().norm().item()
    if not torch.isfinite(delta).all():
        raise ValueError("the update has NaN or infinite entries: training diverged; lower the learning rate")
    return delta if norm <= clipping_norm else delta * (clipping_norm / norm)


def apply_update(model: nn.Module, delta: Tensor) -> None:
    """Add an update to a model's weights in place.

    Raises:
        ValueError: another number of parameters.
    """
    parameters = list(model.parameters())
    weights = parameters_to_vector(parameters).detach()
    if delta.shape != weights.shape:
        raise ValueError(f"expected an update of {len(weights)} parameters, got shape {list(delta.shape)}")
    with torch.no_grad():
        vector_to_parameters(weights + delta.to(weights), parameters)
