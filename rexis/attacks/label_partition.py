"""Gradients of split mode: the records of a batch fall into their classes.

The attacker knows: g' = T⁻ᵗ ∂L/∂y for every record, which the provider needs for its backward pass; the number of classes; no label, no
key.
Method: the gradient of cross-entropy is p - e_c, so that records of one class point into one direction, keyed or not. The directions are
clustered: whitened in the C - 1 dimensions that they span, which takes any invertible T away, then k-means on the unit sphere.
Cost: one singular value decomposition of [n, C].
What it means: the classes are known up to their names, and their sizes give the names away where the prior is known. Permuted classes
(label mode) show the same directly. Noise on the gradients is the only defence here, at its cost in accuracy.
If it fails: few records a class, or noise above the gradients.
Measured in `specs/equivariant-encryption.md` 1d (returned gradients); sign along the top direction: Li et al., ICLR 2022 (label leakage).
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

STEPS: Final = 50
# Singular values below this share of the largest are rounding: p - e_c has no component along 1.
RANK_TOLERANCE: Final = 1e-5


def partition_gradients(gradients: ArrayLike, classes: int) -> NDArray[np.int64]:
    """A cluster of 0..classes - 1 for each record, int64 [n].

    Args:
        gradients: floats [n, C], the returned g' row by row; C ≥ 2 outputs.
        classes: how many clusters to find; 2 where C is 1 or 2.

    Raises:
        ValueError: fewer records than classes, or fewer than two classes.
    """
    rows = np.asarray(gradients, dtype=np.float64)
    if rows.ndim != 2 or not 2 <= classes <= len(rows):
        raise ValueError(f"expected gradients [n, C] and 2 to n classes, got {rows.shape} and {classes}")
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    rank = min(classes - 1, int((singular > RANK_TOLERANCE * singular[0]).sum()))
    if rank <= 1:
        return (left[:, 0] < 0).astype(np.int64)
    points = left[:, :rank]
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(float).tiny)
    return _cluster(points, classes)


def purity(clusters: ArrayLike, labels: ArrayLike) -> float:
    """Share of the records whose label is the most frequent of their cluster; guessing gives the share of the majority class."""
    found, truth = np.asarray(clusters), np.asarray(labels)
    return float(sum(np.unique(truth[found == cluster], return_counts=True)[1].max() for cluster in np.unique(found)) / len(truth))


def _cluster(points: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    # Each start as far as possible from the others: the directions of the classes lie far apart.
    centres = points[:1]
    while len(centres) < count:
        centres = np.vstack([centres, points[np.argmin((points @ centres.T).max(axis=1))]])
    clusters = np.argmax(points @ centres.T, axis=1)
    for _ in range(STEPS):
        sums = np.stack([points[clusters == cluster].sum(axis=0) for cluster in range(count)])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, np.finfo(float).tiny), centres)
        before, clusters = clusters, np.argmax(points @ centres.T, axis=1)
        if np.array_equal(before, clusters):
            break
    return np.asarray(clusters, dtype=np.int64)
