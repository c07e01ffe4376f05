"""How well a classifier ranks and decides."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from rexis.training.local import classification_loss


@dataclass(frozen=True)
class Evaluation:
    """A model on one labelled set.

    Attributes:
        auc: area under the ROC curve; None if the set has one class only, or the model more than two.
        accuracy: share of right decisions, at probability 0.5 for two classes.
        loss: mean cross-entropy.
        examples: size of the set.
    """

    auc: float | None
    accuracy: float
    loss: float
    examples: int


def auc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a positive example outranks a negative one, ties counting half.

    Args:
        scores: floats [n], larger for the positive class.
        labels: 0 or 1 [n].

    Returns:
        In [0, 1], or None if one of the classes is missing.

    Raises:
        ValueError: NaN, other labels, or lengths that differ.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape or np.isnan(values).any() or not np.isin(truth, (0, 1)).all():
        raise ValueError(f"expected as many scores as labels 0 or 1, got shapes {values.shape} and {truth.shape}")
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if positives == 0 or negatives == 0:
        return None
    _, position, count = np.unique(values, return_inverse=True, return_counts=True)
    # Mann-Whitney U with mid-ranks: a group of equal scores shares the mean of its ranks.
    mid_rank = np.cumsum(count) - (count - 1) / 2
    rank_sum = mid_rank[position][truth == 1].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def evaluate(model: nn.Module, features: Tensor, labels: Tensor) -> Evaluation:
    """Evaluate a classifier; its training mode is left as it was.

    Args:
        features: floats [n, inputs], n ≥ 1.
        labels: integers [n].
    """
    if len(features) == 0 or len(features) != len(labels):
        raise ValueError(f"expected features and labels of the same examples, got {len(features)} and {len(labels)}")
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(features)
    model.train(training)
    if logits.shape[-1] > 2:
        decisions, score = logits.argmax(dim=-1), None
    else:
        margin = logits.squeeze(-1) if logits.shape[-1] == 1 else logits[:, 1] - logits[:, 0]
        decisions, score = (margin > 0).to(labels.dtype), auc(margin.cpu().numpy(), labels.cpu().numpy())
    accuracy = (decisions == labels).double().mean().item()
    return Evaluation(score, accuracy, classification_loss(logits, labels).item(), len(features))
