"""Which loss a family of models is trained with."""

from collections.abc import Callable

from torch import Tensor

from rexis.models.spec import ModelSpec
from rexis.training.local import classification_loss
from rexis.training.survival import cox_loss

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(spec: ModelSpec) -> Loss:
    """The loss of outputs [n, …] and labels [n, …] over a batch: the partial likelihood for `cox`, else the mean cross-entropy."""
    return cox_loss if spec.family == "cox" else classification_loss
