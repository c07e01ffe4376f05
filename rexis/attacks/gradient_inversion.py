"""Gradient inversion: the gradient of a layer that first sees the records holds the records, and one division reads them.

The attacker knows: the gradient ∂L/∂W = Σ g xᵗ and ∂L/∂b = Σ g of a first linear layer with a bias, as a plaintext federation sends it, or
as secure aggregation hands the sum to the aggregator. No data, no labels, no loss.
Method: a unit that one record alone moves has ∂L/∂W_r / ∂L/∂b_r = x, exactly. Of one record every unit does; of a batch those units do that
a ReLU switched off for all others. An aggregator that chooses the weights makes sure that there are such units: rows alike with staggered
biases sort the records, and the difference of two neighbouring units holds the record between them (`imprint`). A sum over sites is one
large batch to it, so secure aggregation alone does not stop it.
Cost: O(h d); milliseconds.
If it fails: no unit was moved by one record alone. Iterative inversion (Geiping et al., NeurIPS 2020) may still read small batches; it is
not tried. An update of many local steps is no gradient of one batch.
What holds: clipping and noise on the sum. Under an EE key the same division gives T x + δ: keyed rows, which whoever knows the key, or
d + 1 pairs, reads.
Sources: Phong et al., IEEE TIFS 13 (2018), 3; Boenisch et al., EuroS&P 2023; Fowl et al., "Robbing the Fed", ICLR 2022.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.stats import norm

from rexis.attacks.readings import Rows, as_rows

# Of the largest: gradients below are rounding.
_NOTHING = 1e-6
# Of a record's distance from the mean one: an R² of 0.99.
TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class GradientReading:
    """What a gradient held.

    Attributes:
        candidates: f64 [c, d], what the attacker read, right or wrong.
        figures: `recovered` share of the records that a candidate meets within the tolerance; `right_candidates` share of the candidates
            that meet a record; `candidates` their number.
    """

    candidates: Rows
    figures: Mapping[str, float]


def invert_gradient(weight_gradient: ArrayLike, bias_gradient: ArrayLike, *, imprinted: bool = False) -> Rows:
    """Candidates [c, d] for the records behind a gradient: at most one for each unit, and one by all units together.

    The last is the record itself if there was one, and the one that noise spares most.

    Args:
        weight_gradient: floats [h, d], ∂L/∂W of the layer that sees the records.
        bias_gradient: floats [h], ∂L/∂b of it.
        imprinted: the attacker chose the weights by `imprint`, so that he reads differences of neighbouring units too.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    weights = np.asarray(weight_gradient, dtype=np.float64)
    biases = np.asarray(bias_gradient, dtype=np.float64)
    if weights.ndim != 2 or biases.shape != weights.shape[:1] or not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise ValueError(f"expected finite gradients [h, d] and [h], got {weights.shape} and {biases.shape}")
    if imprinted:
        weights, biases = np.vstack([weights, np.diff(weights, axis=0)]), np.concatenate([biases, np.diff(biases)])
    together = np.divide(biases @ weights, biases @ biases, out=np.zeros(weights.shape[1]), where=biases.any())
    told = np.abs(biases) > _NOTHING * np.abs(biases).max(initial=0.0)
    return np.vstack([weights[told] / biases[told, None], together[None][: int(told.any())]])


def read_ids(embedding_gradient: ArrayLike) -> NDArray[np.int64]:
    """Ids of the tokens in a batch, int64 in order: an embedding table's gradient [v, d] is zero in all other rows.

    A tied head moves every row, and nothing is told. Under a permuted vocabulary these are keyed ids (see `token_frequencies`).

    Raises:
        ValueError: no matrix, or values that are not finite.
    """
    gradient = np.asarray(embedding_gradient, dtype=np.float64)
    if gradient.ndim != 2 or not np.isfinite(gradient).all():
        raise ValueError(f"expected a finite gradient [v, d], got shape {gradient.shape}")
    return np.flatnonzero(np.abs(gradient).max(axis=1, initial=0.0) > 0)


def imprint(direction: ArrayLike, units: int, *, mean: float, deviation: float) -> tuple[Rows, NDArray[np.float64]]:
    """Weights [units, d] and biases [units] of a ReLU layer that sorts records by what `direction` measures.

    Args:
        direction: floats [d]; `direction @ x` should differ from record to record, such as a mean of features.
        units: more than there are records in the sum, to part them.
        mean, deviation: of `direction @ x`, taken as Gaussian; what the attacker guesses of the data.

    Raises:
        ValueError: a direction that is no vector, or a deviation that is not positive.
    """
    measured = np.asarray(direction, dtype=np.float64)
    if measured.ndim != 1 or deviation <= 0:
        raise ValueError(f"expected a direction [d] and a positive deviation, got {measured.shape} and {deviation}")
    thresholds = mean + deviation * norm.ppf((np.arange(units) + 0.5) / units)
    return np.tile(measured, (units, 1)), -np.asarray(thresholds, dtype=np.float64)


def gradient_reading(
    weight_gradient: ArrayLike, bias_gradient: ArrayLike, *, truth: ArrayLike, imprinted: bool = False, tolerance: float = TOLERANCE
) -> GradientReading:
    """Attack a gradient, and judge against the records behind it.

    Args:
        weight_gradient, bias_gradient, imprinted: as in `invert_gradient`.
        truth: floats [n, d], the records of the batch, or of all batches in the sum; used to judge alone.
        tolerance: largest distance from candidate to record that counts as met, relative to the record's distance from the mean record, or
            to its length if it is the only one.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    candidates = invert_gradient(weight_gradient, bias_gradient, imprinted=imprinted)
    records = np.asarray(truth, dtype=np.float64)
    if records.ndim != 2 or len(records) == 0 or records.shape[1] != candidates.shape[1]:
        raise ValueError(f"expected records [n, {candidates.shape[1]}], got {records.shape}")
    centre = as_rows(records).mean(axis=0) if len(records) > 1 else np.zeros(records.shape[1])
    sizes = np.linalg.norm(records - centre, axis=1)
    if len(candidates) == 0:
        return GradientReading(candidates, {"recovered": 0.0, "right_candidates": 0.0, "candidates": 0.0})
    met = cdist(records, candidates) <= tolerance * sizes[:, None]
    figures = {
        "recovered": float(met.any(axis=1).mean()),
        "right_candidates": float(met.any(axis=0).mean()),
        "candidates": float(len(candidates)),
    }
    return GradientReading(candidates, figures)
