"""Attacks on training and its result, and the check that the keyed model gives the plain one's numbers."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rexis import ee
from rexis.attacks import exactness
from rexis.attacks.exposure import Exposure, Floats, Integers
from rexis.attacks.label_partition import partition_gradients, purity
from rexis.attacks.membership import membership_reading
from rexis.attacks.suite.attack import Attack, Knows, Outcome, Reads
from rexis.attacks.suite.rows import above_chance


def _exactness(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    return Outcome(exactness.figures(exposure.model, exposure.keyed, exposure.key, exposure.sample()))


def _no_partition(exposure: Exposure) -> str:
    if exposure.key.mode != "train":
        return "the key is for inference: no label goes out"
    return "" if exposure.labels is not None else "no labels were given"


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
    answers = exactness.outputs(exposure.model, exposure.sample().to(exactness.dtype_of(exposure.model)))
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
    return ""


def _membership(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    if exposure.labels is None or exposure.unseen is None or exposure.rows is None:
        raise ValueError("expected rows with labels of both sides")
    members = _losses(exposure, exposure.rows, exposure.labels)
    others = _losses(exposure, *exposure.unseen)
    return Outcome(membership_reading(members, others).figures)


def _losses(exposure: Exposure, rows: Floats, labels: Integers) -> Floats:
    model = exposure.model
    answers = exactness.outputs(model, torch.from_numpy(rows).to(exactness.dtype_of(model)))
    return np.asarray(losses(answers, labels).numpy(), dtype=np.float64)


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "exactness",
        1,
        "The keyed model answers what the plain one does",
        Knows.UPLOAD,
        Reads.NOTHING,
        missing=lambda _exposure: "",
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
        seconds=lambda _exposure: 1.0,
        run=_label_partition,
    ),
    Attack(
        "membership",
        1,
        "Whether a record was trained on shows in the model",
        Knows.RESULT,
        Reads.STRUCTURE,
        missing=_no_membership,
        seconds=lambda _exposure: 1.0,
        run=_membership,
    ),
)
