"""Training on keyed batches with keyed weights: the owner's half and the provider's half (`specs/equivariant-encryption.md` 2d).

Label mode: the owner keys rows and labels, the provider computes the loss.

    owner      batch' = encrypt_batch(batch, key)
    provider   training_step(model', batch', optimizer, objective)

Split mode: the loss stays with the owner, who returns a gradient for each batch.

    provider   outputs' = model_outputs(model', batch'.inputs)
    owner      gradient' = output_gradient(outputs', batch.labels, key, objective)
    provider   returned_gradient_step(outputs', gradient', optimizer)

The provider's half takes no key. Both halves equal plaintext training up to float error for the optimisers of `rexis.ee.optimizers`, with
dropout at 0. Label mode shows the provider the classes up to their names, which the majority class and the prior undo; split mode shows the
class partition of each batch through the sign of the gradient (`tests/attacks`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rexis import ee
from rexis.ee.optimizers import OptimizerName, build, rules

Inputs = Tensor | Mapping[str, Tensor]

# Positions, segments and lengths are in the clear: keys act on what stands at a position.
UNKEYED_INPUTS = ("attention_mask", "position_ids", "token_type_ids")
KEYED_INPUTS = ("input_ids", "inputs_embeds", "pixel_values")


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows and what is to be predicted for them, plain or keyed.

    Attributes:
        inputs: floats [n, inputs], or what a transformer takes, by name: `input_ids` or `inputs_embeds`, `attention_mask`, ….
        labels: integers [n] (classification), integers [n, s] with -100 where nothing is predicted (causal), floats [n, outputs]
            (regression); None where the labels stay with the owner.
    """

    inputs: Inputs
    labels: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Objective:
    """What is minimised: a mean over the batch's labelled items.

    Attributes:
        kind: "classification" and "causal" are cross-entropy, "causal" of each token given those before it; "regression" is the squared
            error.
        class_weights: floats [classes]; keyed ones (`ee.encrypt_class_weights`) beside keyed labels.
        label_smoothing: in [0, 1), uniform over the classes: any other would name them.
    """

    kind: Literal["classification", "causal", "regression"] = "classification"
    class_weights: Tensor | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("classification", "causal", "regression") or not 0 <= self.label_smoothing < 1:
            raise ValueError(f"expected classification, causal or regression and a smoothing in [0, 1), got {self.kind!r:.40}")

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean loss.

        Args:
            outputs: [n, classes], [n, s, classes] (causal) or [n, outputs] (regression).
            labels: as in `Batch`.
        """
        if self.kind == "regression":
            return nn.functional.mse_loss(outputs, labels)
        if self.kind == "causal":
            outputs, labels = outputs[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        elif outputs.shape[-1] == 1:
            return nn.functional.binary_cross_entropy_with_logits(outputs.squeeze(-1), labels.to(outputs.dtype))
        weights = None if self.class_weights is None else self.class_weights.to(outputs)
        return nn.functional.cross_entropy(outputs, labels, weights, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Recipe:
    """What a provider is told to run, as data.

    Attributes:
        optimizer: a name of `rexis.ee.optimizers`.
        learning_rate: of every parameter.
        settings: further settings of the optimiser.
        clipping_norm: largest L2 norm of the gradient over all parameters; None leaves it.
        clipping_value: largest entry of the gradient; permutation keys only.
    """

    optimizer: OptimizerName
    learning_rate: float
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    clipping_norm: float | None = None
    clipping_value: float | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(OptimizerName) or self.learning_rate <= 0:
            raise ValueError(f"expected an optimiser among {', '.join(get_args(OptimizerName))} and a positive rate, got {self}")
        if any(bound is not None and bound <= 0 for bound in (self.clipping_norm, self.clipping_value)):
            raise ValueError(f"expected positive bounds to clip at, got {self.clipping_norm} and {self.clipping_value}")

    def admit(self, model: nn.Module, key: ee.Key) -> None:
        """Return if this recipe on the keyed model is the same recipe on the plain one: the owner's check before anything is sent.

        Raises:
            UnsupportedOptimizerError: it is not; the message gives the rule and its reason.
        """
        ee.optimizer(self.optimizer, _trainable(model), key=key, lr=self.learning_rate, **self.settings)
        if self.clipping_value is not None:
            rules.admit("gradient value clipping", key)

    def build(self, model: nn.Module) -> Optimizer:
        """The optimiser over a model's trainable parameters, by name; needs no key."""
        return build(self.optimizer, _trainable(model), lr=self.learning_rate, **self.settings)

    def clip(self, model: nn.Module) -> None:
        """Bound the gradients that the model holds, in place."""
        if self.clipping_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.clipping_norm)
        if self.clipping_value is not None:
            nn.utils.clip_grad_value_(model.parameters(), self.clipping_value)


def encrypt_batch(batch: Batch, key: ee.Key) -> Batch:
    """The owner keys a batch; in split mode its labels stay behind.

    Raises:
        ValueError: an input that no key is known for, or labels of another kind than the model's outputs.
    """
    labels = None if batch.labels is None or key.labels == "split" else ee.encrypt_labels(batch.labels, key)
    if isinstance(batch.inputs, Tensor):
        return Batch(ee.encrypt_inputs(batch.inputs, key), labels)
    unknown = sorted(set(batch.inputs) - {*KEYED_INPUTS, *UNKEYED_INPUTS})
    if unknown:
        raise ValueError(f"expected inputs among {', '.join((*KEYED_INPUTS, *UNKEYED_INPUTS))}, got {', '.join(unknown)}")
    return Batch({name: ee.encrypt_inputs(x, key) if name in KEYED_INPUTS else x for name, x in batch.inputs.items()}, labels)


def output_gradient(outputs: Tensor, labels: Tensor, key: ee.Key, objective: Objective) -> tuple[Tensor, float]:
    """The owner's half of a step in split mode.

    Args:
        outputs: keyed outputs from the provider; labels: plain.
        objective: with plain class weights; its mean over the batch is the owner's choice and inside the gradient.

    Returns:
        The gradient by the keyed outputs, of their shape, and the loss.
    """
    plain = ee.decrypt_outputs(outputs.detach(), key).requires_grad_()
    loss = objective.loss(plain, labels)
    (gradient,) = torch.autograd.grad(loss, plain)
    return ee.encrypt_gradient(gradient, key), loss.item()


def model_outputs(model: nn.Module, inputs: Inputs) -> Tensor:
    """Logits or regression outputs, with their graph: [n, outputs], or [n, s, vocabulary] of a language model."""
    found = model(inputs) if isinstance(inputs, Tensor) else model(**inputs)
    outputs: Tensor = found if isinstance(found, Tensor) else found.logits
    return outputs


def training_step(model: nn.Module, batch: Batch, recipe: Recipe, optimizer: Optimizer, objective: Objective) -> float:
    """One step of the provider in label mode, or of a plaintext run.

    Returns:
        The loss before the step; the keyed run's is the plain run's.

    Raises:
        ValueError: a batch without labels.
    """
    if batch.labels is None:
        raise ValueError("expected a batch with labels; without them the owner returns gradients (returned_gradient_step)")
    optimizer.zero_grad()
    loss = objective.loss(model_outputs(model, batch.inputs), batch.labels)
    torch.autograd.backward(loss)
    recipe.clip(model)
    optimizer.step()
    return loss.item()


def returned_gradient_step(model: nn.Module, outputs: Tensor, gradient: Tensor, recipe: Recipe, optimizer: Optimizer) -> None:
    """One step of the provider in split mode.

    Args:
        outputs: what `model_outputs` gave for this batch, with its graph.
        gradient: what the owner returned for it, of the same shape.

    Raises:
        ValueError: another shape, or NaN or infinity.
    """
    if gradient.shape != outputs.shape or not torch.isfinite(gradient).all():
        raise ValueError(f"expected a finite gradient of shape {list(outputs.shape)}, got shape {list(gradient.shape)}")
    optimizer.zero_grad()
    torch.autograd.backward(outputs, gradient.to(outputs))
    recipe.clip(model)
    optimizer.step()


def train_encrypted(model: nn.Module, batches: Iterable[Batch], recipe: Recipe, objective: Objective | None = None) -> list[float]:
    """The provider's whole run in label mode over keyed batches, in their order; without keys it is the plaintext run.

    Returns:
        The loss before each step.
    """
    optimizer, objective = recipe.build(model), objective or Objective()
    model.train()
    return [training_step(model, batch, recipe, optimizer, objective) for batch in batches]


def train_split(model: nn.Module, batches: Iterable[Batch], key: ee.Key, recipe: Recipe, objective: Objective | None = None) -> list[float]:
    """Both halves of a run in split mode in one process, from plain batches: for the owner's own tests of a job.

    Returns:
        The loss before each step.
    """
    optimizer, objective, losses = recipe.build(model), objective or Objective(), []
    model.train()
    for batch in batches:
        if batch.labels is None:
            raise ValueError("expected batches with labels: the owner computes the loss")
        outputs = model_outputs(model, encrypt_batch(batch, key).inputs)
        gradient, loss = output_gradient(outputs, batch.labels, key, objective)
        returned_gradient_step(model, outputs, gradient, recipe, optimizer)
        losses.append(loss)
    return losses


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
