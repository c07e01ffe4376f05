"""The breast cancer set of scikit-learn, in two halves, the victim's and the attacker's: the world of spec 1d, 1e."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer

from tests.attacks.keyed_weights import Array, orthogonal


@dataclass(frozen=True, eq=False)
class Halves:
    """284 records of the victim with their diagnoses, and 285 others of the attacker; each side standardised by itself."""

    rows: Array
    labels: NDArray[np.int64]
    reference: Array


def standardised(rows: Array) -> Array:
    return (rows - rows.mean(axis=0)) / rows.std(axis=0)


def halves(generator: Generator) -> Halves:
    rows, labels = load_breast_cancer(return_X_y=True)
    order = generator.permutation(len(rows))
    own, others = order[:284], order[284:]
    return Halves(standardised(rows[own]), labels[own].astype(np.int64), standardised(rows[others]))


def keyed(rows: Array, generator: Generator, *, noise: float = 0.0) -> Array:
    """Noise, then x' = T x + δ with a Haar key."""
    width = rows.shape[1]
    noisy = rows + noise * generator.standard_normal(rows.shape)
    return noisy @ orthogonal(generator, width).T + generator.standard_normal(width)
