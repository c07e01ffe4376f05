"""Attacks on training and its result, and the check that the keyed model gives the plain one's numbers."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rexis import ee
from rexis.attacks import exactness
from rexis.attacks.exposure import Exposure, Floats, Integers
from rexis.attacks.label_partition import partition_gradients, purity
from rexis.attacks.membership import membership_reading
from rexis.attacks.suite.attack import Attack, Knows, Outcome, Reads
from rexis.attacks.suite.rows import above_chance
from rexis.models.bert import BertConfig
from rexis.models.llama import LlamaConfig


def _no_answers(exposure: Exposure) -> str:
    """Embeddings are attacked one by one, whatever text they stand in."""
    transformer = isinstance(exposure.key.spec.config, BertConfig | LlamaConfig)
    return "embeddings go out, and the model answers whole texts" if transformer and exposure.rows is not None else ""


def _exactness(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    return Outcome(exactness.figures(exposure.model, exposure.keyed, exposure.key, exposure.sample()))


def _no_partition(exposure: Exposure) -> str:
    if exposure.key.mode != "train":
        return "the key is for inference: no label goes out"
    return _no_answers(exposure) or ("" if exposure.labels is not None else "no labels were given")


def _label_partition(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    labels = exposure.labels
    if labels is None:
        raise ValueError("expected labels")
    if exposure.key.labels == "permuted":
        # The classes themselves go out, under other names.
        found = ee.encrypt_labels(torch.from_numpy(labels), exposure.key).numpy()
    else:
        classes = max(2, int(labels.max()) + 1)
        found = partition_gradients(ee.encrypt_gradient(_gradient(exposure, labels), exposure.key).numpy(), classes)
    majority = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    pure = purity(found, labels)
    return Outcome({"purity_gain": above_chance(pure, majority), "purity": pure, "majority": majority})


def _gradient(exposure: Exposure, labels: Integers) -> Tensor:
    answers = _outputs(exposure.model, exposure.sample())
    answers.requires_grad_(True)
    return torch.autograd.grad(losses(answers, labels).sum(), answers)[0]


def losses(answers: Tensor, labels: Integers) -> Tensor:
    """Cross-entropy of each record; one logit is that of class 1.

    Raises:
        ValueError: classes that the answers do not have.
    """
    classes = torch.from_numpy(labels)
    known = 2 if answers.shape[-1] == 1 else answers.shape[-1]
    if answers.ndim != 2 or int(classes.max()) >= known or int(classes.min()) < 0:
        raise ValueError(f"expected classes of 0 to {known - 1}, which the model tells apart")
    if answers.shape[-1] == 1:
        return functional.binary_cross_entropy_with_logits(answers[:, 0], classes.to(answers), reduction="none")
    return functional.cross_entropy(answers, classes, reduction="none")


def _no_membership(exposure: Exposure) -> str:
    if exposure.labels is None or exposure.unseen is None:
        return "no labels, or no records that the model was not trained on, were given"
    return _no_answers(exposure)


def _membership(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    if exposure.labels is None or exposure.unseen is None:
        raise ValueError("expected records with labels of both sides")
    members = _losses(exposure, exposure.sample(), exposure.labels)
    others = _losses(exposure, torch.from_numpy(exposure.unseen[0]), exposure.unseen[1])
    return Outcome(membership_reading(members, others).figures)


def _losses(exposure: Exposure, records: Tensor, labels: Integers) -> Floats:
    return np.asarray(losses(_outputs(exposure.model, records), labels).numpy(), dtype=np.float64)


def _outputs(model: nn.Module, records: Tensor) -> Tensor:
    return exactness.outputs(model, records.to(exactness.dtype_of(model)) if records.is_floating_point() else records)


def _partition_seconds(exposure: Exposure) -> float:
    return 1.0 if exposure.key.labels == "permuted" else _forward_seconds(exposure)


def _forward_seconds(exposure: Exposure) -> float:
    """Of the plain model over all records that it is asked about: two operations for a weight and a token."""
    if exposure.ids is None:
        return 1.0
    unseen = 0 if exposure.unseen is None else exposure.unseen[0].size
    return 1.0 + 2e-10 * sum(weight.numel() for weight in exposure.model.parameters()) * (exposure.ids.size + unseen)


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "exactness",
        1,
        "The keyed model answers what the plain one does",
        Knows.UPLOAD,
        Reads.NOTHING,
        missing=_no_answers,
        seconds=lambda _exposure: 0.0,
        run=_exactness,
    ),
    Attack(
        "label_partition",
        1,
        "The provider sees which records share a class",
        Knows.UPLOAD,
        Reads.STRUCTURE,
        missing=_no_partition,
        seconds=_partition_seconds,
        run=_label_partition,
    ),
    Attack(
        "membership",
        1,
        "Whether a record was trained on shows in the model",
        Knows.RESULT,
        Reads.STRUCTURE,
        missing=_no_membership,
        seconds=_forward_seconds,
        run=_membership,
    ),
)
